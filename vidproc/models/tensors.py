"""From the bytes of a weights file to tensors, and from tensors to a network. Pickled objects are refused."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidproc.errors import ConfigError, VidprocError
from vidproc.models.fetching import reason_of, shortened
from vidproc.models.foreign import foreign_format, foreign_zip, is_pickle, is_zip, refuse_foreign
from vidproc.models.weights import Weights

if TYPE_CHECKING:
    import torch

_BUFFERS = 1 << 20
"""Numbers that a network may have beyond twice those of its weights, before it is called another's."""


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
            raise ConfigError(f"The weights {path} are damaged, or of another kind: {shortened(name, 80)} {why}.")
    return dict(state)


def _read_safetensors(path: Path, data: bytes) -> Any:
    from safetensors.torch import load

    try:
        return load(data)
    except Exception as e:  # the library's own error, and a KeyError for a type that it does not know
        raise ConfigError(f"The weights {path} are not a safetensors file: {reason_of(e)}") from e


def _read_torch(path: Path, data: bytes) -> Any:
    import pickle

    import torch

    try:
        if is_zip(data):
            refuse_foreign(path, foreign_zip(data))
            _refuse_what_grows(path, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old kinds of files, on which no user can act
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except pickle.UnpicklingError as e:
        raise ConfigError(
            f"The weights {path} hold more than tensors, or are damaged; such files are never opened, since they may "
            "run code. Save the model's state_dict() alone, best as safetensors."
        ) from e
    except Exception as e:  # on damaged files torch raises nearly everything that Python has
        raise ConfigError(f"The weights {path} are not a PyTorch file: {reason_of(e)}") from e


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
        raise ConfigError(f"{model}: {arch or model} cannot be built: {reason_of(e)}") from e
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
        raise ConfigError(f"{model}: {arch or model} cannot be built: {reason_of(e)}") from e
    if put is not None:
        with fitting(model, arch, weights.path):
            put(network, state)
    else:
        fill(network, state, model=model, arch=arch, path=weights.path)
    return network


def fill(network: Any, state: Mapping[str, torch.Tensor], *, model: str, arch: str, path: Path) -> None:
    """Put tensors into a network. Raises ConfigError where names, shapes or types do not fit."""
    own = network.state_dict()
    for name, tensor in state.items():
        if name in own and tensor.is_floating_point() != own[name].is_floating_point():
            raise ConfigError(
                f"The weights {path} do not fit {arch or model}: {shortened(name, 80)} is {tensor.dtype}, and should "
                f"be {own[name].dtype}."
            )
    with fitting(model, arch, path):
        network.load_state_dict(state)


@contextmanager
def fitting(model: str, arch: str, path: Path) -> Iterator[None]:
    """Turn the errors of load_state_dict into a ConfigError of one sentence."""
    try:
        yield
    except VidprocError:
        raise
    except Exception as e:
        details = [line.strip() for line in str(e).splitlines()[1:] if line.strip()]
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise ConfigError(
            f"The weights {path} do not fit {arch or model}: {shortened(details[0] if details else str(e))}{more}"
        ) from e
