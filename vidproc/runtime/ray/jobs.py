"""Jobs on a cluster: the same job file, handed to a running Ray cluster through its job API.

A submitted job is `python -m vidproc index --job FILE --address auto` on the head node. It runs once: Ray never
repeats it, and running it again does only what is still due. So that asking twice is one job, each request has
an identity, and a request which is already known is watched instead of repeated:

- with a request token (a date, a CI run) the token is the identity, for ever;
- without one, the job itself is: while it runs, the same request finds it; once it has ended, a new run begins.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vidproc.errors import ConfigError, TransientError, VidprocError
from vidproc.secrets import refuse_credentials_within
from vidproc.settings import load_job

Status = Literal["pending", "running", "stopped", "succeeded", "failed"]

INTERRUPTED = 130
STOP_WAIT_S = 20
"""Between SIGINT and SIGKILL: a run promises to end within 15 s of the first."""
REQUEST_TIMEOUT_S = (10.0, 120.0)
"""Limits to connect, and to answer: uploading a working directory is the slowest request."""
STARTING_S = 60.0
"""A head that has just begun answers before it can take jobs."""
QUIET_S = 15.0
"""After this time without a line, ask whether the job still runs: a dead connection looks like a quiet job."""
LOST_AFTER = 20
"""Connections in a row that bring nothing new, before watching is given up."""

_NOT_FOR_JOBS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "RAY_AUTH_TOKEN")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A job as the cluster knows it."""

    id: str
    name: str
    """The pipeline's name; empty where the job was not submitted by vidproc."""
    status: Status
    exit_code: int | None
    """As `vidproc index` promises (0, 1, 2, 130); None while it runs."""
    submitted_at: datetime | None
    ended_at: datetime | None
    entrypoint: str
    request: str
    """What was asked for, as a hash; empty where the job was not submitted by vidproc."""

    @property
    def ended(self) -> bool:
        return self.status not in ("pending", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The answer to a request."""

    job: ClusterJob
    new: bool
    """False: an earlier request had started this job."""
    exit_code: int
    """The job's own once it has ended; 0 where it was not followed; 130 where watching was interrupted."""
    message: str


def submit(
    job_path: str | os.PathLike[str],
    address: str,
    *,
    follow: bool = True,
    request_token: str | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    pip: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = ("python", "-m", "vidproc", "index"),
    write: Callable[[str], None] = print,
) -> Submitted:
    """Runs a job file on the cluster whose dashboard is at `address` (http://head:8265).

    The file is checked here first. `${NAME}` in it is filled on the cluster with this machine's value. With
    `working_dir` that folder travels to every worker (for models of one's own) and must hold the job file;
    without it the job file travels alone. `pip` are packages to be installed for this job; `env` are further
    variables, which everybody who reaches the dashboard can read: credentials are refused. `write` gets the
    log, line by line.

    Raises ConfigError for a wrong job file, address or token; TransientError when the cluster is lost.
    """
    path = Path(job_path)
    job = load_job(path)
    refuse_credentials_within({"--address": address, "--pip": list(pip)}, "")
    variables = _variables(path, env or {})
    refuse_credentials_within(variables, "the job's environment")
    request = _digest(
        {"job": job.model_dump(mode="json"), "command": list(command), "pip": sorted(pip), "env": dict(env or {})}
    )
    client = _connect(address)
    with _talking_to(address):
        known = _find(client, job.name, request, request_token)
        if known is not None and request_token is not None and known.request != request:
            raise ConfigError(
                f"the request token {request_token!r} was used for another job ({known.id}): "
                "choose another token, or submit the job file as it was"
            )
        job_id = known.id if known else _new_id(client, job.name, request, request_token)
        new = False
        if known is None:
            with _folder(path, working_dir) as (folder, relative):
                new = _start(
                    client,
                    job_id,
                    entrypoint="exec " + shlex.join([*command, "--job", relative, "--address", "auto"]),
                    runtime_env={"working_dir": str(folder), "env_vars": variables}
                    | ({"pip": list(pip)} if pip else {}),
                    metadata={"vidproc": job.name, "vidproc_request": request},
                )
    interrupted = follow and not _wrote_log(client, address, job_id, write)
    with _talking_to(address):
        seen = _view(client, job_id)
    if interrupted:
        message = (
            f"{job_id} goes on without being watched: `vidproc jobs logs {job_id} --follow` watches it, "
            f"`vidproc jobs stop {job_id}` ends it"
        )
        return Submitted(job=seen, new=new, exit_code=INTERRUPTED, message=message)
    return _outcome(seen, new, request_token)


def _wrote_log(client: Any, address: str, job_id: str, write: Callable[[str], None]) -> bool:
    """Write the job's log, line by line, until the job ends; False: somebody interrupted that."""
    try:
        for line in _lines(client, address, job_id):
            write(line)
    except KeyboardInterrupt:
        return False
    return True


def list_jobs(address: str) -> list[ClusterJob]:
    """Every submitted job that the cluster remembers, the latest first."""
    client = _connect(address)
    with _talking_to(address):
        jobs = _jobs(client)
    return sorted(jobs, key=lambda job: (job.submitted_at is not None, job.submitted_at), reverse=True)


def job_logs(address: str, job_id: str, *, follow: bool = False) -> Iterator[str]:
    """The lines of a job's log; with `follow` until the job ends, over as many connections as that takes."""
    client = _connect(address)
    with _talking_to(address, job_id):
        _view(client, job_id)
        text = "" if follow else client.get_job_logs(job_id)
    yield from _lines(client, address, job_id) if follow else text.splitlines()


def stop_job(address: str, job_id: str, *, wait_s: float = STOP_WAIT_S + 10.0) -> ClusterJob:
    """Interrupts a job as Ctrl-C would, waits for its end, and returns it; one that has ended is left alone."""
    client = _connect(address)
    with _talking_to(address, job_id):
        client.stop_job(job_id)
        deadline = time.monotonic() + wait_s
        while not (job := _view(client, job_id)).ended and time.monotonic() < deadline:
            time.sleep(0.5)
    return job


def exit_code(status: Status, driver_exit_code: int | None) -> int | None:
    """What a job's end means as the exit code of a command; None while it has none.

    A driver killed by signal N is 128 + N, as in a shell; a job that vanished with its node is 1.
    """
    match status:
        case "pending" | "running":
            return None
        case "succeeded":
            return 0
        case "stopped":
            return INTERRUPTED
        case "failed":
            if driver_exit_code is None:
                return 1
            return driver_exit_code if driver_exit_code >= 0 else 128 - driver_exit_code


def _outcome(job: ClusterJob, new: bool, token: str | None) -> Submitted:
    if not job.ended:
        state = "was started" if new else "is running already"
        message = f"{job.id} {state}: `vidproc jobs logs {job.id} --follow` watches it"
    elif new or token is None:
        message = f"{job.id} has {job.status} with exit code {job.exit_code}"
    else:
        message = (
            f"{job.id} has {job.status} with exit code {job.exit_code}; it was not run again, "
            f"since the request token {token!r} is known: another token starts another run"
        )
    return Submitted(job=job, new=new, exit_code=job.exit_code or 0, message=message)


# --- identity


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _find(client: Any, name: str, request: str, token: str | None) -> ClusterJob | None:
    """The job that this request started earlier: the token's, or one that has not ended."""
    if token is not None:
        identity = _new_id(client, name, request, token)
        return next((job for job in _jobs(client) if job.id == identity), None)
    return next((job for job in _jobs(client) if job.request == request and not job.ended), None)


def _new_id(client: Any, name: str, request: str, token: str | None) -> str:
    """Two who ask at the same moment get the same id, and the cluster starts only one of them."""
    if token is not None:
        return f"vidproc-{name}-{_digest(token)}"
    stem = f"vidproc-{name}-{request}-"
    runs = [job.id.removeprefix(stem) for job in _jobs(client) if job.id.startswith(stem)]
    return f"{stem}{1 + max((int(run) for run in runs if run.isdigit()), default=0)}"


# --- what travels


def _variables(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The job's environment: what the file refers to, what was asked for, and how Ray is to stop it."""
    named = {m[1] for m in _VARIABLE.finditer(path.read_text("utf-8"))}
    variables = {name: os.environ[name] for name in sorted(named) if name in os.environ} | dict(env)
    for name in _NOT_FOR_JOBS:
        if name in variables:
            raise ConfigError(
                f"{name} cannot be sent with a job, whose environment everybody at the dashboard can read: "
                "give the cluster's nodes a role or a secret (cluster/README.md)"
            )
    return {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)} | variables


@contextmanager
def _folder(path: Path, working_dir: str | os.PathLike[str] | None) -> Iterator[tuple[Path, str]]:
    """The folder to send, and the job file's place in it."""
    if working_dir is not None:
        folder = Path(working_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"there is no working directory {working_dir}")
        if not path.resolve().is_relative_to(folder):
            raise ConfigError(f"the job file {path} must lie in the working directory {working_dir}: copy it there")
        yield folder, path.resolve().relative_to(folder).as_posix()
        return
    with tempfile.TemporaryDirectory(prefix="vidproc-job-") as temporary:
        shutil.copy(path, temporary)
        yield Path(temporary), path.name


def _start(client: Any, job_id: str, **request: Any) -> bool:
    """True where this request started the job, False where another was faster.

    A request whose answer was lost is made again: its id is the same, so it is not done twice.
    """
    import requests

    deadline = time.monotonic() + STARTING_S
    while True:
        try:
            client.submit_job(submission_id=job_id, **request)
            return True
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(2.0)


# --- the log


def _lines(client: Any, address: str, job_id: str) -> Iterator[str]:
    """Lines until the job has ended. Each connection begins at the log's first byte: what is known is skipped."""
    seen, rest, fruitless = 0, "", 0
    while True:
        position = 0
        try:
            with closing(_chunks(client, job_id)) as chunks:
                for chunk in chunks:
                    fresh = chunk[max(0, seen - position) :]
                    position += len(chunk)
                    if fresh:
                        seen, fruitless = position, 0
                        *lines, rest = (rest + fresh).split("\n")
                        yield from lines
            if _view(client, job_id).ended:
                break
        except _lost_connection() as error:
            if fruitless >= LOST_AFTER:
                raise TransientError(
                    f"{address} answers no more, so {job_id} is no longer watched; it may well be running: "
                    f"`vidproc jobs logs {job_id} --follow` watches it again"
                ) from error
        fruitless += 1
        time.sleep(min(0.5 * fruitless, 15.0))
    if rest:
        yield rest


def _chunks(client: Any, job_id: str) -> Generator[str, None, None]:
    """Pieces of the log from one connection, until it closes or has outlived the job in silence."""
    with asyncio.Runner() as runner:
        stream = client.tail_job_logs(job_id)
        ended = False
        waiting: asyncio.Task[str] | None = None
        try:
            while True:
                waiting = waiting or runner.get_loop().create_task(_next(stream))
                done, _ = runner.run(_wait(waiting))
                if done:
                    try:
                        chunk = waiting.result()
                    except StopAsyncIteration:
                        return
                    finally:
                        waiting = None
                    yield chunk
                elif ended:
                    return
                else:
                    ended = _view(client, job_id).ended
        finally:
            if waiting is not None:
                waiting.cancel()
                runner.run(_wait(waiting))
            runner.run(stream.aclose())


async def _next(stream: AsyncIterator[str]) -> str:
    return await anext(stream)


async def _wait(task: asyncio.Task[str]) -> tuple[set[asyncio.Task[str]], set[asyncio.Task[str]]]:
    return await asyncio.wait({task}, timeout=QUIET_S)


# --- Ray's client, its errors translated


def _connect(address: str) -> Any:
    """Ray's own client, with time limits, the given address and no other, and the token of RAY_AUTH_TOKEN."""
    if not re.fullmatch(r"https?://[^/\s]+(/.*)?", address):
        raise ConfigError(
            f"{address!r} is not the address of a Ray dashboard: write http://HOST:8265 (port 8265 of the head node)"
        )
    from ray.job_submission import JobSubmissionClient

    for chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            kwargs.setdefault("timeout", REQUEST_TIMEOUT_S)
            return super()._do_request(method, endpoint, **kwargs)

    certificates = os.environ.get("REQUESTS_CA_BUNDLE") or True
    with (
        _talking_to(address, connected=False),
        _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"),
    ):  # they would win over `address`
        client = Client(address, headers=_auth_headers(), verify=certificates)
    if client._ssl_context is None:  # Ray 2.60 means "the usual certificates", and aiohttp wants True for that
        client._ssl_context = True
    return client


def _auth_headers() -> dict[str, str]:
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not token and file:
        try:
            token = Path(file).read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"RAY_AUTH_TOKEN_PATH names {file}, which cannot be read: {error.strerror}") from error
    return {"Authorization": f"Bearer {token.strip()}"} if token else {}


@contextmanager
def _without(*names: str) -> Iterator[None]:
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def _lost_connection() -> tuple[type[Exception], ...]:
    import aiohttp
    import requests

    return (aiohttp.ClientError, requests.RequestException, TransientError, ConnectionError, RuntimeError)


@contextmanager
def _talking_to(address: str, job_id: str | None = None, *, connected: bool = True) -> Iterator[None]:
    """Ray's errors, and those of the HTTP library below it, as ours."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except VidprocError:
        raise
    except AuthenticationError as error:
        state = "does not accept the token of" if _auth_headers() else "wants a token:"
        raise ConfigError(f"the cluster at {address} {state} RAY_AUTH_TOKEN; set it to the cluster's own") from error
    except requests.exceptions.JSONDecodeError as error:
        raise ConfigError(f"{address} answers, but not as a Ray dashboard: is it port 8265 of the head?") from error
    except requests.exceptions.SSLError as error:
        raise ConfigError(f"{address} has a certificate that is not trusted: set REQUESTS_CA_BUNDLE") from error
    except (requests.exceptions.RequestException, ConnectionError) as error:
        if connected:
            raise TransientError(f"the cluster at {address} answers no more; what it runs may well go on") from error
        raise ConfigError(
            f"no Ray dashboard answers at {address}: check host and port (8265 by default), and that the head "
            "was started with --dashboard-host=0.0.0.0, or forward its port"
        ) from error
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if job_id is not None and "status code 404" in text:
            raise ConfigError(
                f"the cluster at {address} knows no job {job_id}: `vidproc jobs list` names those it has"
            ) from error
        if "Version check returned 404" in text:
            raise ConfigError(f"{address} answers, but not as a Ray dashboard: is it port 8265 of the head?") from error
        raise TransientError(f"the cluster at {address} did not do it: {text[:500]}") from error


def _jobs(client: Any) -> list[ClusterJob]:
    return [_cluster_job(job) for job in client.list_jobs() if job.submission_id]


def _view(client: Any, job_id: str) -> ClusterJob:
    return _cluster_job(client.get_job_info(job_id))


def _cluster_job(details: Any) -> ClusterJob:
    def moment(ms: int | None) -> datetime | None:
        return datetime.fromtimestamp(ms / 1000, UTC) if ms else None

    status: Status = details.status.value.lower()
    metadata = details.metadata or {}
    return ClusterJob(
        id=details.submission_id,
        name=metadata.get("vidproc", ""),
        status=status,
        exit_code=exit_code(status, details.driver_exit_code),
        submitted_at=moment(details.start_time),
        ended_at=moment(details.end_time),
        entrypoint=details.entrypoint,
        request=metadata.get("vidproc_request", ""),
    )
