"""The Ray that work runs on: one of our own on this machine, or a cluster that we were asked to join.

One of our own is private. All its processes listen on the loopback interface only and ask for a token that this process
made; its files lie in a folder that nobody else may enter; and it takes nothing from the environment that would send
the working directory anywhere: workers import from where this process imports. It ends with this process.

A cluster is joined only when somebody asks: by an address, or by RAY_ADDRESS in the environment. The file in which Ray
leaves the address of a cluster on this machine is read only for the address "auto", and only if it is this user's own
or root's: any user of the machine could have written it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import glob
import json
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from typing import Any, ClassVar

import ray
import ray.exceptions as rx

from vidproc.errors import ConfigError, RunAborted
from vidproc.machine import memory_bytes

log = logging.getLogger(__name__)

JOIN_LIMIT_S = 45.0
"""A cluster that has not answered by then is not joined; Ray by itself would wait for ever."""
FEWEST_OPEN_FILES = 256
"""A Ray of our own does not come up with fewer: its node opens some 150 files and sockets for two workers."""
LOOPBACK = "127.0.0.1"


def find(address: str | None) -> str | None:
    """Return host and port of the cluster to join; None: start a Ray of our own.

    Without an address RAY_ADDRESS decides, and without that it is one of our own, as for "local". "auto" asks for
    a cluster, that of RAY_ADDRESS or the one on this machine. Raises ConfigError where the one that is asked for does
    not answer: its port is asked first, for Ray itself waits minutes for a cluster that is not there."""
    known = os.environ.get("RAY_ADDRESS") if address in (None, "", "auto") else address
    if known == "local" or (not known and not address):
        return None
    if known in (None, "", "auto"):
        known = _left_on_this_machine()
        if known is None:
            raise ConfigError(
                "no Ray cluster is known here: give the host and port of its head (--address head:6379) or set "
                "RAY_ADDRESS; without an address the work runs on a Ray of its own on this machine"
            )
    if error := _answers(known):
        raise _no_cluster(known, error)
    return known


def _left_on_this_machine() -> str | None:
    """Return the address that `ray start` of this user, or of root, left on this machine."""
    path = ray._common.utils.get_ray_address_file(None)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            if os.fstat(file.fileno()).st_uid in (os.getuid(), 0):
                return file.read(300).strip() or None
    except OSError:
        return None
    log.warning("%s is not taken: it is another user's", path)
    return None


def _answers(address: str) -> Exception | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        return error
    return None


def _no_cluster(address: str, error: object) -> ConfigError:
    return ConfigError(
        f"no Ray cluster answers at {address!r} ({error}): give the host and port of its head, as in "
        "head:6379, set RAY_AUTH_TOKEN where it asks for one, or use the address 'local'"
    )


# ---- A cluster that we were asked to join --------------------------------------------------------

ASK = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=float(sys.argv[2]))
"""


def join(address: str) -> str:
    """Join the cluster at this address, as `find` gave it. Return what travels to it, in words. Raises ConfigError."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:  # in another process: nothing ends this call where something listens there that never answers
        ask = [sys.executable, "-c", ASK, address, str(JOIN_LIMIT_S)]
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=JOIN_LIMIT_S, errors="replace")
    except subprocess.TimeoutExpired:
        raise _no_cluster(address, f"nothing for {JOIN_LIMIT_S:g} s") from None
    if asked.returncode:
        raise _no_cluster(address, (asked.stderr.strip().splitlines() or ["it does not say why"])[-1][:500])
    try:
        travels = _what_travels()
        with _quietly():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, rx.RayError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, in_short(error)) from error
    return travels


class Head:
    """The head of a cluster that we joined, asked now and then whether it is still there."""

    EVERY_S = 5.0
    SILENT_S = 30.0
    """Ray ends this process itself, without a word to us, when its head is gone for a minute."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._asked = self._heard = time.monotonic()

    def silent(self) -> str | None:
        """Say so when it has not answered for a while."""
        now = time.monotonic()
        if now - self._asked >= self.EVERY_S:
            self._asked = now
            if _answers(self._address) is None:
                self._heard = time.monotonic()
        if now - self._heard > self.SILENT_S:
            return f"its head {self._address} has not answered for {now - self._heard:.0f} s"
        return None


def _what_travels() -> str:
    """Say what Ray is about to send to the nodes of a cluster: what the environment of this process asks for."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    asked = ray._private.worker._maybe_modify_runtime_env(dict(job.get("runtime_env") or {}), False) or {}
    parts = []
    for name, value in sorted(asked.items()):
        if name == "env_vars":
            parts.append(f"the variables {', '.join(sorted(value))}")
        elif name in ("working_dir", "py_modules"):
            parts.append(f"{name} {value} (with all files in it)" if "://" not in str(value) else f"{name} {value}")
        elif not name.startswith("_"):
            parts.append(f"{name} {value}")
    return "; ".join(parts) or "nothing: its workers use what is installed on its nodes"


# ---- A Ray of our own ------------------------------------------------------------------------------


class OwnRay:
    """A Ray that this process started on this machine. It is closed at the end of the process, if not before."""

    running: ClassVar[OwnRay | None] = None
    """The one of this process."""

    def __init__(self, **sizes: Any) -> None:
        """`sizes`: for `ray.init`. Takes 5 to 8 s. Raises ConfigError and RunAborted."""
        _check_open_files()
        # Sockets lie below it, and the path of a socket has 107 characters at most.
        base = tempfile.gettempdir()
        self.folder, self._lock = own_folder(base if len(base) <= 24 else "/tmp")
        atexit.register(self.close)
        try:
            with _quietly(), _own_environment():
                self._start(sizes)
        except BaseException:
            self.close()
            raise
        self._shut()
        OwnRay.running = self

    def _start(self, sizes: dict[str, Any]) -> None:
        for last_try in (False, True):
            try:
                ray.init(
                    "local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address=LOOPBACK,
                    _temp_dir=self.folder,
                    _skip_env_hook=True,
                    **sizes,
                )
                return
            except Exception as error:  # Ray gives its processes 30 s, too little on a very busy machine
                # What has died will not come up the next time either.
                why = self.died()
                ray.shutdown()
                _kill_children(self.folder)
                if last_try or why:
                    raise RunAborted(f"Ray could not be started on this machine: {why or in_short(error)}") from error

    def _shut(self) -> None:
        """Ray makes its folders writable by all. They lie in one that nobody else may enter; but shut is shut."""
        for path, _, _ in os.walk(self.folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)

    def died(self) -> str | None:
        """Say why, if one of the processes is gone without which nothing runs."""
        node = ray._private.worker._global_node
        dead: list[tuple[str, Any]] = node.dead_processes() if node else []
        for name, process in dead:
            code = process.returncode
            if name in ("raylet", "gcs_server"):
                ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                words = _last_error(f"{self.folder}/session_latest/logs", name)
                return f"its process {name} has ended ({ending})" + (f": {words}" if words else "")
        return None

    def kill_stopped(self, spared: Container[int]) -> None:
        """Kill the workers that somebody has stopped: what was handed to them would wait for ever. `spared`: process
        numbers of those whose calls have begun, which have a time limit."""
        import psutil  # type: ignore[import-untyped]  # comes with ray

        for worker in _descendants(self._processes()):
            with contextlib.suppress(psutil.Error):
                if worker.pid not in spared and worker.status() == psutil.STATUS_STOPPED:
                    worker.kill()

    def _processes(self) -> list[Any]:
        node = ray._private.worker._global_node
        return [p.process for group in node.all_processes.values() for p in group] if node else []

    def close(self) -> None:
        atexit.unregister(self.close)
        OwnRay.running = None
        processes = self._processes()
        others = _descendants(processes)
        with _at_most(20.0):  # it may wait for a node that no longer answers
            ray.shutdown()
        for process in processes:  # Ray kills its own, but does not wait for them
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        for worker in others:  # one that was stopped does not notice that its node is gone
            with contextlib.suppress(Exception):
                worker.kill()
        _kill_children(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def join_or_start(address: str | None = None, *, say: Callable[[str], object] | None = None, **sizes: Any) -> None:
    """Ray for work that is not a pipeline, found as RayExecutor finds it; `sizes` are for one that is started.
    It lasts as long as this process. `say` hears what travels to a cluster."""
    if ray.is_initialized():
        return
    if found := find(address):
        travels = join(found)
        (say or log.warning)(f"joined the Ray cluster at {found}; what travels there: {travels}")
    else:
        OwnRay(**{"num_cpus": None, **sizes})


def store_bytes(max_bytes: int) -> int:
    """Return the size of the object store for a window of `max_bytes`: twice as much, since the store frees in the
    background; within what shared memory holds, and within a third of the memory that we may use, which counts it."""
    try:
        shared = shutil.disk_usage("/dev/shm").free
    except OSError:
        shared = 2 << 30
    return max(128 << 20, min(2 * max_bytes + (256 << 20), int(0.5 * shared), memory_bytes() // 3))


def _check_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, hard) if resource.RLIM_INFINITY not in (soft, hard) else FEWEST_OPEN_FILES
    if most < FEWEST_OPEN_FILES:
        raise ConfigError(
            f"this process may open {most} files, and Ray needs {FEWEST_OPEN_FILES} or more: raise the limit "
            "(ulimit -n 8192), or run with --executor inline"
        )


def own_folder(base: str) -> tuple[str, int | None]:
    """Return a new folder, and the lock on it, which dies with this process. So one that a killed driver left
    is known by its lock being free, and removed here."""
    for path in glob.glob(f"{base}/vidproc-ray-*"):
        with contextlib.suppress(OSError):  # it is another's, or in use, or just gone
            about = os.lstat(path)
            if about.st_uid == os.getuid() and about.st_mtime < time.time() - 60:  # younger: not locked yet, perhaps
                os.close(_locked(path))
                shutil.rmtree(path, ignore_errors=True)
    path = tempfile.mkdtemp(prefix="vidproc-ray-", dir=base)
    with contextlib.suppress(OSError):  # a file system without locks: nobody will take the folder for a dead one's
        return path, _locked(path)
    return path, None


def _locked(folder: str) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _descendants(processes: list[Any]) -> list[Any]:
    import psutil  # comes with ray

    found: list[Any] = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(process.pid).children(recursive=True)
    return found


def _kill_children(folder: str) -> None:
    """Ends what a start or an end left running; our folder is on the command line of each."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if folder in " ".join(child.cmdline()):
                child.kill()
                child.wait(5)


def _last_error(folder: str, process: str) -> str:
    """Return the last line with an error in what a process of Ray left in its logs."""
    for name in (f"{process}.err", f"{process}.out"):
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
            bad = [line for line in lines if " C " in line or " E " in line or "rror" in line or "Check failed" in line]
            if bad:
                return bad[-1].strip()[:500]
    return ""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Leave the body after so long, if it can be left: by a signal, on the main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def leave(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with contextlib.suppress(TimeoutError):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- Both -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """`ray.init` without its messages on standard output, and with our SIGTERM handler kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # we look at every error ourselves
    # Ray prints each dead worker to standard output, which belongs to `--json`.
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: log.debug("ray: %s", data.get("lines"))
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)


FREE_PERIOD = "RAY_free_objects_period_milliseconds"
_LOCAL_TOKEN = secrets.token_hex(32)
PACKS_WITH_UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
ON_EVERY_INTERFACE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch for clusters of several machines, in spite of its name: without it all of Ray keeps to loopback."""


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """What the processes of a Ray of our own inherit: our import path; a token of this process, without which Ray
    would write one into the home folder; loopback alone; and how soon frames that nobody needs any more leave the
    object store, which by Ray's own choice is a second: as much again as the window holds, where tasks take a fraction
    of one. What is meant for the workers of a cluster (`uv run` and other hooks, a job's configuration), does not
    reach it: they would pack the working directory, archive and all, and run the workers in a copy of it."""
    ours: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
        "RAY_AUTH_MODE": None,
        "RAY_AUTH_TOKEN": _LOCAL_TOKEN,
        "RAY_AUTH_TOKEN_PATH": None,
        "RAY_ADDRESS": None,
        "RAY_JOB_CONFIG_JSON_ENV_VAR": None,
        "RAY_RUNTIME_ENV_HOOK": None,
        PACKS_WITH_UV: "0",
        ON_EVERY_INTERFACE: "0",
        FREE_PERIOD: os.environ.get(FREE_PERIOD, "50"),
    }
    before = {name: os.environ.get(name) for name in ours}
    constants = ray._private.ray_constants  # read from the environment when Ray was imported
    flags = {"ENABLE_RAY_CLUSTER": False, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": False}
    flags_before = {name: getattr(constants, name) for name in flags}
    _set(ours)
    vars(constants).update(flags)
    try:
        yield
    finally:
        vars(constants).update(flags_before)
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def in_short(error: BaseException) -> str:
    """Return the first line of an error, and the last line of what caused it: Ray puts a whole traceback between."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    ends = [line.strip() for line in str(root).strip().splitlines() if line.strip()] or [type(root).__name__]
    last = ends[-1] if ends[-1] not in first else lines[-1] if lines else ""
    return first[:300] if not last or last in first else f"{first[:300]}: {last[:500]}"
