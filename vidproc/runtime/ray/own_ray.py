"""A Ray of our own on this machine, which ends with this process.

It is private. All its processes listen on the loopback interface only and ask for a token that this process made; its
files lie in a folder that nobody else may enter; and it takes nothing from the environment that would send the working
directory anywhere: workers import from where this process imports.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import glob
import logging
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator
from typing import Any, ClassVar

import ray

from vidproc.errors import ConfigError, RunAborted
from vidproc.machine import memory_bytes
from vidproc.runtime.processes import Process, descendants_of
from vidproc.runtime.ray.cluster import find, join
from vidproc.runtime.ray.messages import in_short, quietly

log = logging.getLogger(__name__)

FEWEST_OPEN_FILES = 256
"""A Ray of our own does not come up with fewer: its node opens some 150 files and sockets for two workers."""
LOOPBACK = "127.0.0.1"
START_LIMIT_S = 60.0
"""Both tries of a start together. A try of Ray's own takes 30 s, and may wait for ever for a process that is stuck."""


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
            with quietly(), _own_environment():
                self._start(sizes)
        except BaseException:
            self.close()
            raise
        self._shut()
        OwnRay.running = self

    def _start(self, sizes: dict[str, Any]) -> None:
        until = time.monotonic() + START_LIMIT_S
        for last_try in (False, True):
            try:
                with _ending_children(self.folder, until):
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
                why = self.died() or _missing(self.folder)
                ray.shutdown()
                _kill_children(self.folder)
                if last_try or why or time.monotonic() > until:
                    raise RunAborted(
                        f"Ray could not be started on this machine: {why or in_short(error)}. Mend the cause, or run "
                        "with --executor inline."
                    ) from error

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
        for worker in descendants_of(p.pid for p in self._processes()):
            if worker.pid not in spared and worker.is_stopped:
                worker.kill()

    def _processes(self) -> list[Any]:
        node = ray._private.worker._global_node
        return [p.process for group in node.all_processes.values() for p in group] if node else []

    def close(self) -> None:
        atexit.unregister(self.close)
        OwnRay.running = None
        processes = self._processes()
        others = descendants_of(p.pid for p in processes)
        with _at_most(20.0):  # it may wait for a node that no longer answers
            ray.shutdown()
        for process in processes:  # Ray kills its own, but does not wait for them
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        for worker in others:  # one that was stopped does not notice that its node is gone
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


def _kill_children(folder: str) -> None:
    """End what a start or an end left running; our folder is on the command line of each."""
    for child in descendants_of([os.getpid()]):
        if folder in child.command_line:
            child.kill()
            _wait_for(child, seconds=5.0)


def _wait_for(child: Process, *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while child.is_running and time.monotonic() < until:
        time.sleep(0.02)


def _missing(folder: str) -> str | None:
    """Say which process of a Ray that does not come up is not there, and what it said at last."""
    logs = f"{folder}/session_latest/logs"
    if not (os.path.isdir(logs) and os.path.isdir("/proc")):
        return None
    lines = [child.command_line for child in descendants_of([os.getpid()])]
    # Its own name stands first, or second behind an interpreter's.
    there = {os.path.basename(word) for line in lines if folder in line for word in line.split()[:2]}
    for name in ("gcs_server", "raylet"):
        if name not in there:
            words = _last_error(logs, name)
            return f"its process {name} has ended" + (f": {words}" if words else "")
    return None


@contextlib.contextmanager
def _ending_children(folder: str, until: float) -> Iterator[None]:
    """End the processes of a start that takes longer: whoever waits for them within it gets an error."""
    timer = threading.Timer(max(0.0, until - time.monotonic()), _kill_children, (folder,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _last_error(folder: str, process: str) -> str:
    """Return the last line with an error in what a process of Ray left in its logs."""
    for name in (f"{process}.err", f"{process}.out"):
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
            bad = [line for line in lines if " C " in line or " E " in line or "rror" in line or "Check failed" in line]
            if name.endswith(".err"):  # nothing but troubles stand there
                bad = bad or [line for line in lines if line.strip()]
            if bad:
                return bad[-1].strip()[:500]
    return ""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Leave the body after that time, if it can be left: by a signal, on the main thread."""
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
