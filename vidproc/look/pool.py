"""Several readers at a time, each a process of its own. One that crashes or hangs costs its own video only."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import vidproc
from vidproc.look.reader import Answer, Request
from vidproc.machine import cpu_count

GRACE_S = 10.0
"""Given to a reader beyond a request's own limit, before it is ended."""


def read_all(requests: Sequence[Request], *, workers: int | None = None) -> Generator[tuple[int, Answer], None, None]:
    """Yield answers as they come, each with the place of its request. Every moment of every request is answered.

    `workers`: readers at a time; by default one a CPU that this process may use. At most one answer a reader waits
    to be taken, so memory does not grow with the number of requests. Closing the iterator ends the readers.
    """
    if not requests:
        return
    count = max(1, min(workers or cpu_count(), len(requests)))
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(requests)):
        waiting.put(place)
    found: queue.Queue[tuple[int, Answer] | BaseException | None] = queue.Queue(maxsize=count)
    over = threading.Event()
    readers = [_Reader() for _ in range(count)]

    def give(item: tuple[int, Answer] | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                found.put(item, timeout=0.2)
                return

    def work(reader: _Reader) -> None:
        try:
            while not over.is_set():
                try:
                    place = waiting.get_nowait()
                except queue.Empty:
                    break
                for answer in reader.answers(requests[place]):
                    give((place, answer))
        except BaseException as error:  # the thread's bug is the caller's to see
            give(error)
        finally:
            reader.close()
            give(None)

    threads = [threading.Thread(target=work, args=(reader,), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        ended = 0
        while ended < count:
            item = found.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                ended += 1
            else:
                yield item
    finally:
        over.set()
        for reader in readers:
            reader.close()
        for thread in threads:
            thread.join()


_spare: list[subprocess.Popen[bytes]] = []
"""Readers that were started before anybody had something to read."""


@contextmanager
def prepared(workers: int) -> Iterator[None]:
    """Start readers now, so that they are ready when the rows are known. Those that are not used are ended."""
    _spare.extend(_started() for _ in range(max(0, min(workers, cpu_count()))))
    try:
        yield
    finally:
        while _spare:
            _end(_spare.pop())


def _started() -> subprocess.Popen[bytes]:
    # The same package, whatever made it importable here; and never what lies in the working directory.
    home = str(Path(vidproc.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from vidproc.look.reader import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )


class _Reader:
    """One process, started when it is first needed and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def answers(self, request: Request) -> Iterator[Answer]:
        left = set(range(len(request.times_s)))
        process = self._running()
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(request.limit_s + GRACE_S, end)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump(request, process.stdin, protocol=5)
            process.stdin.flush()
            while (answer := pickle.load(process.stdout)) is not None:
                left -= set(answer.places)
                yield answer
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._drop(process)
            if not self._closed:
                why = f"took longer than {request.limit_s:g} s" if late.is_set() else "crashed its reader"
                yield Answer(
                    places=tuple(sorted(left)), state="crashed", reason=f"{request.video.uri}: to read it {why}"
                )
        finally:
            timer.cancel()

    def _running(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._closed:
                return None
            if self._process is None:
                try:
                    self._process = _spare.pop()
                except IndexError:
                    self._process = _started()
            return self._process

    def _drop(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._process = None
        _end(process)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
