"""Index an archive, and forecast what that would take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, cast

from vidproc.extras import named_extras

if TYPE_CHECKING:
    from vidproc.progress import Reporter
    from vidproc.run.forecast import Forecast
    from vidproc.run.summary import RunSummary
    from vidproc.settings import Job

F = TypeVar("F", bound=Callable[..., Any])
Place = str | os.PathLike[str]


class PlanOptions(TypedDict, total=False):
    """Keywords of `plan` and `index`. They bear the names of the command's options and of the sections of a job file;
    None means: not given."""

    name: str | None
    detector: str | Mapping[str, Any] | None
    actions: str | Mapping[str, Any] | None
    embedding: str | Mapping[str, Any] | None
    fps: float | None
    sampling: Literal["grid", "keyframes"] | None
    clip_seconds: float | None
    recorded_at: str | None
    max_duration: float | None
    max_frame_duration: float | None
    include: Sequence[str] | None
    exclude: Sequence[str] | None
    min_bytes: int | None
    max_bytes: int | None
    modified_since: datetime | str | None
    modified_before: datetime | str | None
    follow_links: bool | None
    limit: int | None
    workers: int | None
    device: str | None
    executor: Literal["ray", "inline"] | None
    endpoint_url: str | None
    profile: str | None
    region: str | None
    anonymous: bool | None
    filters: Mapping[str, Any] | None
    cut: Mapping[str, Any] | None
    decode: Mapping[str, Any] | None
    link: Mapping[str, Any] | None
    limits: Mapping[str, Any] | None
    execution: Mapping[str, Any] | None
    storage: Mapping[str, Any] | None


class IndexOptions(PlanOptions, total=False):
    """Keywords of `index` alone."""

    actors: int | None
    address: str | None
    max_failures: str | int | None
    verify: str | float | None
    plan: Place | None
    follow: float | None
    deleted: Literal["keep", "remove"] | None
    report: Place | None
    notify: str | None
    hollow_pictures: bool | None
    partial_index: bool | None


SECTIONS = {
    "fps": "detector",
    "clip_seconds": "cut",
    "max_duration": "limits",
    "max_frame_duration": "limits",
    "max_failures": "limits",
    "include": "filters",
    "exclude": "filters",
    "min_bytes": "filters",
    "max_bytes": "filters",
    "modified_since": "filters",
    "modified_before": "filters",
    "workers": "execution",
    "actors": "execution",
    "device": "execution",
    "executor": "execution",
    "address": "execution",
    "hollow_pictures": "decode",
    "partial_index": "decode",
    "endpoint_url": "storage",
    "profile": "storage",
    "region": "storage",
    "anonymous": "storage",
}
"""The section of a job in which a keyword stands; the others stand in the job itself, under their own name."""


def _spelled_out(options: type) -> Callable[[F], F]:
    """Let help and completion see the keywords of `options` one by one, and refuse any other with the nearest name."""

    def decorate(function: F) -> F:
        known = options.__annotations__ if options is PlanOptions else {**PlanOptions.__annotations__,
                                                                        **options.__annotations__}  # fmt: skip
        declared = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        own = {p.name for p in declared}
        added = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=known[n].__forward_arg__) for n in known]

        @wraps(function)
        def checked(*given: Any, **named: Any) -> Any:
            for name in named:
                if name not in known and name not in own:
                    close = get_close_matches(name, [*known, *own], 1)
                    hint = f". Did you mean {close[0]!r}?" if close else ""
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}")
            return function(*given, **named)

        returns = signature(function).return_annotation
        checked.__signature__ = Signature([*declared, *added], return_annotation=returns)  # type: ignore[attr-defined]
        return cast(F, checked)

    return decorate


@_spelled_out(IndexOptions)
def index(
    archive: Place | None = None,
    lake: Place | None = None,
    *,
    job: Place | Mapping[str, Any] | Job | None = None,
    progress: bool | Reporter | None = None,
    **options: Unpack[IndexOptions],
) -> RunSummary:
    """Index what is new or changed in an archive into the tables of a lake, as `vidproc index` does.

    archive, lake: a folder or `s3://bucket/prefix`. What the lake has already is not done again.
    job: a job file (YAML), or a mapping as such a file holds. Keywords win over it.
    progress: None shows a bar on a terminal and in a notebook; True also writes lines to standard error elsewhere;
        False shows nothing.

    What is looked for
        detector, actions, embedding: a model's name, `auto`, `none`, a file or folder, `package.module:Class`, or a
            mapping as the section of a job file. name: the pipeline's name.
        fps: samples a second for the detector. sampling: `grid` (evenly spaced) or `keyframes`.
        clip_seconds: length of a clip. recorded_at: strptime pattern over the file name.
        max_duration, max_frame_duration: seconds.
    Which objects
        include, exclude: globs on the path below the archive. min_bytes, max_bytes. modified_since, modified_before:
            a datetime or ISO 8601 text, UTC. follow_links. limit: index at most this number of due videos.
        deleted: `keep` or `remove` rows of videos that the archive no longer lists. plan: where `plan` saved one.
        follow: list the archive again after this number of seconds, until interrupted.
    What follows
        report: a page about the lake is written here, `x.html` or `s3://bucket/x.html`. notify: a URL that is told how
            the run ended. Neither can fail the run.
    Where it runs
        executor: `ray` or `inline`. address: a running Ray cluster. workers: decoders at a time. actors: most model
            actors. device: `auto`, `cpu` or `cuda:N`. max_failures: share ("5%") or number above which the run fails.
        verify: share of tasks that are also decoded plainly. hollow_pictures, partial_index: False switches off one
            of the two ways to decode less.
    How S3 is reached
        endpoint_url, profile, region, anonymous.
    filters, cut, decode, link, limits, execution, storage: sections of a job file, for what has no keyword of its own.

    Returns how the run ended; `exit_code` is 0 where all is well and 1 where more failed than max_failures allows.
    Raises ConfigError before work starts where the job cannot run as given, and RunAborted where it was given up.
    """
    from vidproc.progress import displayed

    wanted = make_job(archive, lake, job, options)
    with named_extras(), displayed(progress) as reporter:
        from vidproc.look.night import after_refusal, after_run
        from vidproc.run.driver import index as run_index

        try:
            summary = run_index(wanted, reporter=reporter)
        except Exception as error:
            after_refusal(wanted, error, reporter)
            raise
        after_run(wanted, summary, reporter)
        return summary


@_spelled_out(PlanOptions)
def plan(
    archive: Place | None = None,
    lake: Place | None = None,
    *,
    job: Place | Mapping[str, Any] | Job | None = None,
    calibrate: float = 30.0,
    save: Place | None = None,
    progress: bool | Reporter | None = None,
    **options: Unpack[PlanOptions],
) -> Forecast:
    """Look at an archive and predict what indexing it would take, as `vidproc plan` does. Writes nothing else than the
    plan, and that only where `save` is given.

    archive, lake, job, progress and all further keywords: as of `index`. Without a lake everything counts as new.
    calibrate: seconds of trial on the archive's own files; 0 for none.
    save: a folder or `s3://bucket/prefix` for the plan; `index(plan=...)` then neither lists nor probes again.

    Returns the forecast; its `text()` is what the command prints. Raises ConfigError.
    """
    from vidproc.progress import displayed

    wanted = make_job(archive, lake, job, options, lake_optional=True)
    with named_extras(), displayed(progress, doing="planning") as reporter:
        from vidproc.run.forecast import forecast

        return forecast(wanted, save=address(save), calibrate_s=calibrate, reporter=reporter)


def make_job(
    archive: Place | None,
    lake: Place | None,
    job: Place | Mapping[str, Any] | Job | None,
    options: Mapping[str, Any],
    *,
    lake_optional: bool = False,
) -> Job:
    """Return the checked job that these keywords mean, over the job file's. Raises ConfigError."""
    from vidproc.settings import Job, load_job

    overrides: dict[str, Any] = {"archive": address(archive), "lake": address(lake)}
    for name, value in options.items():
        if value is None:
            continue
        if name in ("plan", "report"):
            value = address(value)
        elif name in ("detector", "actions", "embedding") and not isinstance(value, Mapping):
            value = {"model": value}
        elif name in ("include", "exclude") and isinstance(value, str):
            value = (value,)
        elif name == "max_failures":
            value = str(value)
        section = SECTIONS.get(name)
        into = overrides.setdefault(section, {}) if section else overrides
        if isinstance(value, Mapping):  # a keyword of its own wins over the same in a section
            into[name] = {**value, **into.get(name, {})}
        else:
            into[name] = value
    if isinstance(job, Job):
        if not any(value is not None for value in overrides.values()):
            return job
        job = job.model_dump(exclude_unset=True) | ({"notify": job.notify} if job.notify else {})  # never dumped
    if isinstance(job, Mapping):
        return load_job(None, _over(job, overrides), lake_optional=lake_optional)
    return load_job(job, overrides, lake_optional=lake_optional)


def _over(job: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(job)
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            below = found.get(key) or {}
            found[key] = _over({"model": below} if isinstance(below, str) else below, value)
        elif value is not None:
            found[key] = value
    return found


def address(place: Place | None) -> str | None:
    """Return a local path as an absolute one, seen from the working directory; an S3 address as it is."""
    from vidproc.storage import absolute_address

    return None if place is None else absolute_address(os.fspath(place))
