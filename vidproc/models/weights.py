"""Weights on this machine: fetched once, verified always, never unpickled.

What is loaded is what was verified: `read_weights` reads a file once, and the bytes that were hashed are the
bytes that are parsed. Damaged weights end as a ConfigError, whatever is wrong with them.

Order of search for a remote file: the cache (VIDPROC_MODEL_CACHE, default ~/.cache/vidproc/models),
the mirror (VIDPROC_MODEL_MIRROR: a folder, https:// or s3://bucket/prefix that holds the files by
name), the URI itself. A local path is used where it lies.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import re
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vidproc.errors import ConfigError, VidprocError
from vidproc.models.files import foreign_format, foreign_zip, is_pickle, is_zip, read_file, refuse_foreign
from vidproc.secrets import refuse_credentials_in
from vidproc.storage.credentials import StorageOptions

if TYPE_CHECKING:
    import torch

CONNECT_SECONDS = 6.0
"""To resolve the name, connect and see the headers: offline must be told within seconds."""
READ_SECONDS = 30.0
_BLOCK = 1 << 20
_BUFFERS = 1 << 20
"""Numbers that a network may have beyond twice those of its weights, before it is called another's."""
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z0-9]+$")


_reached_by: ContextVar[StorageOptions | None] = ContextVar("reached_by", default=None)


@contextmanager
def reaching(options: StorageOptions | None) -> Iterator[None]:
    """Within it, weights on S3 are fetched with these options; None: as the AWS environment says."""
    before = _reached_by.set(options)
    try:
        yield
    finally:
        _reached_by.reset(before)


def cache_folder() -> Path:
    if given := os.environ.get("VIDPROC_MODEL_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidproc" / "models"


def is_remote(uri: str) -> bool:
    return "://" in uri


def expected_sha256(uri: str, sha256: str) -> str:
    """What is known of a file's sha256: all of it, or the first digits which torchvision and
    PyTorch put into the names of remote files."""
    if sha256 or not is_remote(uri):
        return sha256
    found = _HASH_IN_NAME.search(urlsplit(uri).path)
    return found[1] if found else ""


def cached_path(uri: str, sha256: str) -> Path:
    """Where a remote file lies, or would lie, in the cache; its name carries its hash."""
    name = Path(urlsplit(uri).path).name
    if not _HASH_IN_NAME.search(name):
        name = f"{sha256[:16]}-{name}"
    return cache_folder() / name


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A weights file in memory."""

    path: Path
    data: bytes
    """All of the file."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Other files that belong to it (an ONNX file's external data), by the names under which it asks for them."""

    @property
    def sha256(self) -> str:
        """Of the file; where others belong to it, of all of them: `sha256sum FILE OTHERS | cut -c 1-64 | sha256sum`,
        the others in the order of their names."""
        digests = [
            hashlib.sha256(data).hexdigest() for data in (self.data, *(v for _, v in sorted(self.beside.items())))
        ]
        return (
            digests[0] if len(digests) == 1 else hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
        )


Beside = Callable[[Path, bytes], Mapping[str, bytes]]
"""The path and the content of a weights file -> the other files that belong to it."""


def read_weights(uri: str, sha256: str, *, model: str, beside: Beside | None = None) -> Weights:
    """The weights of `model` in memory, fetched if need be, with the promised sha256. Raises ConfigError."""
    path = fetch(uri, sha256, model=model) if is_remote(uri) else Path(uri)
    if not path.is_file():
        raise ConfigError(f"{model}: there is no weights file {uri}.")
    data = _read(path)
    weights = Weights(path, data, beside(path, data) if beside is not None else {})
    expected = expected_sha256(uri, sha256)
    if expected and not weights.sha256.startswith(expected):
        of = f" (with {', '.join(sorted(weights.beside))})" if weights.beside else ""
        raise ConfigError(
            f"The weights {path}{of} are not the promised ones: their sha256 is {weights.sha256}, "
            f"expected was {expected}."
        )
    return weights


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as e:
        raise ConfigError(f"The weights {path} cannot be read: {_reason(e)}.") from e


def locate(uri: str, sha256: str) -> Path | None:
    """The verified file if it is on this machine already. Asks nobody, and never raises for a
    missing file; a local file with another sha256 than promised is a ConfigError."""
    expected = expected_sha256(uri, sha256)
    if not is_remote(uri):
        path = Path(uri)
        if not path.is_file():
            return None
        if not (found := file_sha256(path)).startswith(expected):
            raise ConfigError(
                f"The weights {path} are not the promised ones: their sha256 is {found}, expected was {expected}."
            )
        return path
    path = cached_path(uri, expected)
    return path if path.is_file() and file_sha256(path).startswith(expected) else None


def fetch(uri: str, sha256: str, *, model: str) -> Path:
    """The verified weights file of `model` on this machine, fetched if need be.

    Raises ConfigError that says what to fetch and where to put it.
    """
    expected = expected_sha256(uri, sha256)
    if is_remote(uri) and not expected:
        raise ConfigError(
            f"{model}: {shown(uri)} comes from elsewhere, so its sha256 must be given with it (sha256: ...)."
        )
    if found := locate(uri, sha256):
        return found
    if not is_remote(uri):
        raise ConfigError(f"{model}: there is no weights file {uri}.")
    target = cached_path(uri, expected)
    sources = [uri]
    if mirror := os.environ.get("VIDPROC_MODEL_MIRROR"):
        refuse_credentials_in(mirror, "VIDPROC_MODEL_MIRROR")
        sources.insert(0, f"{mirror.rstrip('/')}/{Path(urlsplit(uri).path).name}")
    reasons = []
    if target.is_file():
        reasons.append(f"the file there has the wrong sha256 ({file_sha256(target)[:12]}...)")
    for source in sources:
        try:
            _copy(source, target, expected)
            return target
        except (OSError, VidprocError) as e:
            reasons.append(f"{shown(source)}: {_reason(e)}")
    raise ConfigError(
        f"The weights of {model} are not on this machine and could not be fetched ({'; '.join(reasons)}). "
        f"Fetch {shown(uri)} where there is a network, and put it here as {target}, "
        f"or set VIDPROC_MODEL_MIRROR to a folder, https:// or s3:// prefix that holds it by that name."
    )


def _copy(source: str, target: Path, expected: str) -> None:
    """Atomic: the file appears under its name when whole and verified, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for block in _blocks(source):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if not digest.hexdigest().startswith(expected):
            raise ConfigError(f"what came has the sha256 {digest.hexdigest()}, expected was {expected}")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _blocks(source: str) -> Iterator[bytes]:
    scheme = urlsplit(source).scheme if is_remote(source) else "file"
    if scheme == "s3":
        from vidproc.storage import open_storage

        prefix, _, key = source.rpartition("/")
        yield open_storage(prefix, options=_reached_by.get()).get(key)
    elif scheme in ("http", "https"):
        with _open_url(source) as response:
            yield from _read_all(response)
    elif scheme == "file":
        path = urlsplit(source).path if is_remote(source) else source
        with open(path, "rb") as f:
            yield from iter(lambda: f.read(_BLOCK), b"")
    else:
        raise ConfigError(f"weights come from a file, https:// or s3://, not {scheme}://")


def _open_url(url: str) -> Any:
    """urlopen with one deadline for name, connection and headers together: a socket's time limit
    does not cover the name server, which can hang for half a minute without a network."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    given_up = threading.Event()

    def ask() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=READ_SECONDS)
            if given_up.is_set():
                response.close()
            else:
                answer.put(response)
        except Exception as e:
            if isinstance(e, urllib.error.HTTPError):
                e.close()  # it is an open response too
            answer.put(e)

    threading.Thread(target=ask, daemon=True).start()
    try:
        got = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s") from None
    if isinstance(got, Exception):
        raise got
    return got


def _read_all(response: Any) -> Iterator[bytes]:
    promised = response.headers.get("Content-Length")
    count = 0
    for block in iter(lambda: response.read(_BLOCK), b""):
        count += len(block)
        yield block
    if promised is not None and count != int(promised):
        raise OSError(f"cut short after {count} of {promised} bytes")


def file_sha256(path: str | Path) -> str:
    """Of a local file."""
    return Weights(Path(path), _read(Path(path))).sha256


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or PyTorch file, on the CPU. Pickled objects are refused."""
    return state_dict_of(Weights(path, _read(path)))


def state_dict_of(weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors or PyTorch file, on the CPU: dense, and finite where they are not whole numbers.
    Raises ConfigError for all else. Pickled objects are refused unopened."""
    path, data = weights.path, weights.data
    refuse_foreign(path, foreign_format(data))
    if data[8:9] == b"{" or (path.suffix == ".safetensors" and not is_zip(data) and not is_pickle(data)):
        state = _read_safetensors(path, data)
    else:
        state = _read_torch(path, data)
    for wrapper in ("model", "state_dict", "model_state"):  # what common training scripts put around it
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    import torch

    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ConfigError(f"The weights {path} are not a state dict (names to tensors).")
    for name, tensor in state.items():
        if why := _unusable(tensor):
            raise ConfigError(f"The weights {path} are damaged, or of another kind: {_short(name, 80)} {why}.")
    return dict(state)


def _read_safetensors(path: Path, data: bytes) -> Any:
    from safetensors.torch import load

    try:
        return load(data)
    except Exception as e:  # the library's own error, and a KeyError for a type that it does not know
        raise ConfigError(f"The weights {path} are not a safetensors file: {_reason(e)}") from e


def _read_torch(path: Path, data: bytes) -> Any:
    import pickle

    import torch

    try:
        if is_zip(data):
            refuse_foreign(path, foreign_zip(data))
            _refuse_what_grows(path, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old kinds of files, on which nobody here can act
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except pickle.UnpicklingError as e:
        raise ConfigError(
            f"The weights {path} hold more than tensors, or are damaged; such files are never opened, since they may "
            "run code. Save the model's state_dict() alone, best as safetensors."
        ) from e
    except Exception as e:  # on damaged files torch raises nearly everything that Python has
        raise ConfigError(f"The weights {path} are not a PyTorch file: {_reason(e)}") from e


def _refuse_what_grows(path: Path, data: bytes) -> None:
    """torch.save stores without compression, so what lies in a file cannot be larger than the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        inside = sum(info.file_size for info in z.infolist())
    if inside > len(data):
        raise ConfigError(
            f"The weights {path} would grow from {len(data):,} to {inside:,} bytes when unpacked, which files of "
            "torch.save never do: save them again."
        )


def _unusable(tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be weights; None: it can."""
    import torch

    try:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            return "is sparse, quantised or without values"
        if tensor.dtype not in (torch.bool, *_integers(), torch.float32, torch.float64, torch.float16, torch.bfloat16):
            return f"is of the type {tensor.dtype}"
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return f"claims the shape {tuple(tensor.shape)} of fewer values"
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return "holds values that are not numbers"
    except Exception as e:  # a kind of tensor that cannot be asked
        return f"cannot be read ({type(e).__name__})"
    return None


def _integers() -> tuple[torch.dtype, ...]:
    import torch

    return torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64


def network_with(
    weights: Weights,
    build: Callable[[], Any],
    *,
    model: str,
    arch: str,
    put: Callable[[Any, Mapping[str, torch.Tensor]], None] | None = None,
) -> Any:
    """The network that `build` makes, with these weights in it. `put`: how they get in, for families that know other
    names for the same tensors. Raises ConfigError where the two do not fit."""
    import torch

    state = state_dict_of(weights)
    try:
        with torch.device("meta"):  # its shapes alone: a description may ask for a network of any size
            shapes = build()
    except VidprocError:
        raise
    except Exception as e:  # whatever torch says of arguments out of a model.yaml
        raise ConfigError(f"{model}: {arch or model} cannot be built: {_reason(e)}") from e
    size = sum(tensor.numel() for tensor in shapes.state_dict().values())
    there = sum(tensor.numel() for tensor in state.values())
    if size > 2 * there + _BUFFERS:
        if put is None:  # names the first tensor that does not fit
            with warnings.catch_warnings(action="ignore"):
                fill(shapes, state, model=model, arch=arch, path=weights.path)
        raise ConfigError(
            f"The weights {weights.path} do not fit {arch or model}: they hold {there:,} numbers, and the network has "
            f"{size:,}."
        )
    try:
        network = build()
    except VidprocError:
        raise
    except Exception as e:  # whatever torch says of arguments out of a model.yaml
        raise ConfigError(f"{model}: {arch or model} cannot be built: {_reason(e)}") from e
    if put is not None:
        with fitting(model, arch, weights.path):
            put(network, state)
    else:
        fill(network, state, model=model, arch=arch, path=weights.path)
    return network


def fill(network: Any, state: Mapping[str, torch.Tensor], *, model: str, arch: str, path: Path) -> None:
    """Puts tensors into a network. Raises ConfigError where names, shapes or types do not fit."""
    own = network.state_dict()
    for name, tensor in state.items():
        if name in own and tensor.is_floating_point() != own[name].is_floating_point():
            raise ConfigError(
                f"The weights {path} do not fit {arch or model}: {_short(name, 80)} is {tensor.dtype}, and should be "
                f"{own[name].dtype}."
            )
    with fitting(model, arch, path):
        network.load_state_dict(state)


@contextmanager
def fitting(model: str, arch: str, path: Path) -> Iterator[None]:
    """Around load_state_dict of a module: what does not fit is said in one sentence."""
    try:
        yield
    except VidprocError:
        raise
    except Exception as e:
        details = [line.strip() for line in str(e).splitlines()[1:] if line.strip()]
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise ConfigError(
            f"The weights {path} do not fit {arch or model}: {_short(details[0] if details else str(e))}{more}"
        ) from e


def shown(uri: str) -> str:
    """A URI without what may be secret in it: credentials and query."""
    if not is_remote(uri):
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return _short(str(error.reason))
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return _short(str(error) or type(error).__name__)


def _short(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
