"""Export clips: units for the same executor that indexes, one a clip; finished clips are not made again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vidproc.cut import manifest, reel
from vidproc.cut.plan import PlannedClip
from vidproc.cut.work import ClipRecord, ClipSettings, ClipWork, CutClip, place_of
from vidproc.errors import ConfigError, RunAborted, VidprocError
from vidproc.progress import Progress, Reporter, hms, spell
from vidproc.quantities import parse_failure_budget
from vidproc.run.executing import interruptible, make_executor
from vidproc.runtime.events import Listener
from vidproc.runtime.executor import Executor, Limits
from vidproc.runtime.step import Resources
from vidproc.runtime.units import Unit, UnitEnd
from vidproc.secrets import redact
from vidproc.settings import Execution
from vidproc.storage import Storage, StorageOptions

MEMORY_BYTES, MEMORY_LIMIT_BYTES = 1 << 30, 4 << 30
"""Expected of a worker that decodes and encodes, and what ends it."""
LEAST_TIME_LIMIT_S, SECONDS_A_SECOND = 600.0, 60.0
"""Longest attempt at a clip, and the same for each second of the longest clip."""
NAMED = 5
"""Files of others that a refusal names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an export would make."""

    clips: int
    seconds: float
    """Of the stretches asked for; copies show more."""
    bytes: int
    """By the sizes and lengths of the sources: what is encoded may differ."""
    videos: int
    finished: int
    """Clips that are there already, and are not made again."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """How an export ended."""

    out: str
    outcome: str
    """`ok`, `failed` (above the failure budget, or stopped early) or `interrupted`."""
    reason: str
    exit_code: int
    clips: int
    made: int
    kept: int
    """Finished by an earlier run."""
    failed: int
    seconds: float
    """Of the clips that are there."""
    bytes: int
    elapsed_s: float
    modes: Mapping[str, int]
    errors: Mapping[str, int]
    examples: Mapping[str, str]
    licenses: tuple[str, ...]
    """Of the encoders used."""
    reel: str | None = None


@dataclass(frozen=True, slots=True)
class ExportProgress(Progress):
    """A moment of an export."""

    def line(self) -> str:
        left = f"{hms(self.left_s)} left" if self.left_s is not None else "time left unknown"
        parts = [f"{self.done}/{self.due} clips", f"{spell(self.video_s_done)} of video", f"{self.failed} failed", left]
        return " · ".join(parts)


@dataclass(kw_only=True)
class Export:
    """Clips that are to lie in one place. Made by `prepare`, which refuses what cannot be."""

    out: str
    how: ClipSettings
    options: StorageOptions
    place: Storage
    works: list[ClipWork]
    """In order of names."""
    due: list[ClipWork]
    records: dict[str, ClipRecord] = field(default_factory=dict)
    """Finished clips of this place by name, also of earlier questions."""
    failed: dict[str, ClipRecord] = field(default_factory=dict)

    def forecast(self) -> Forecast:
        clips = [work.clip for work in self.works]
        return Forecast(
            clips=len(clips),
            seconds=round(sum(clip.seconds for clip in clips), 3),
            bytes=sum(_bytes(clip) for clip in clips),
            videos=len({clip.video.video_id for clip in clips}),
            finished=len(self.works) - len(self.due),
            names=tuple(clip.name for clip in clips),
        )


def _bytes(clip: PlannedClip) -> int:
    whole = clip.duration_s or clip.seconds
    return round(clip.video.size_bytes * min(1.0, clip.seconds / whole)) if whole else 0


def prepare(
    works: Sequence[ClipWork], out: str, how: ClipSettings, options: StorageOptions, *,
    force: bool = False, with_reel: bool = False, beside: Sequence[str] = (),
) -> Export:  # fmt: skip
    """Look at the place of the clips. Raises ConfigError where files lie that this command did not make and that it
    would replace, unless `force` lets it."""
    place = place_of(out, options)
    files, records = manifest.existing(place)
    if not force:
        manifest.check_ours(place, files)
    by_stem = {name.rpartition(".")[0]: name for name in files if name.endswith((".mp4", ".mkv"))}
    found = Export(out=out, how=how, options=options, place=place, works=list(works), due=[])
    found.records = {
        name: record
        for name, record in records.items()
        if record.status == "made" and files.get(record.file) == record.size_bytes
    }
    foreign = [] if "reel.mp4" not in files or not with_reel or manifest.REEL in records else ["reel.mp4"]
    for work in works:
        name = work.clip.name
        if name not in records:
            foreign += [file for suffix in beside if (file := f"{name}.{suffix}") in files]
        known, there = records.get(name), by_stem.get(name)
        finished = found.records.get(name)
        if finished is not None and finished.clip_id == work.clip_id:
            continue
        ours = known is not None and known.file == there and (known.status == "writing" or finished is not None)
        if there is not None and not ours:
            foreign.append(there)
        found.due.append(replace(work, replaces=there))
    if foreign and not force:
        raise ConfigError(
            f"{len(foreign)} file(s) in {out} were not made by this command, or changed since: "
            f"{', '.join(sorted(foreign)[:NAMED])}{', ...' if len(foreign) > NAMED else ''}. Give another folder, or "
            "--force to replace them"
        )
    return found


class _Feed:
    """The clips that are due, in order."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._left = deque(units)

    @property
    def exhausted(self) -> bool:
        return not self._left

    def take(self, routes: frozenset[str]) -> Unit | None:
        return self._left.popleft() if self._left else None


def run(
    export: Export, execution: Execution, *, max_failures: str = "5%", reporter: Reporter | None = None,
    listeners: Sequence[Listener] = (), with_reel: bool = False,
) -> ExportSummary:  # fmt: skip
    """Make the clips that are due, and write the manifest, also where the run is stopped early.

    Raises ConfigError before work starts where the job cannot run as given, or the place cannot be written.
    """
    reporter = reporter or Reporter()
    manifest.sign(export.place)
    began = time.monotonic()
    made: Counter[str] = Counter()
    outcome, reason = "ok", ""
    joined: ClipRecord | None = None
    executor = make_executor(execution)
    units = [Unit(work.clip_id, work, "clip") for work in export.due]
    refused: Exception | None = None
    try:
        with interruptible(executor, reporter):
            feed = _Feed(units)
            if units:
                for end in executor.run(feed, {"clip": (_step(export),)}, _limits(execution), listeners):
                    made[_ended(export, end).status] += 1
                    reporter.update(_progress(export, made, time.monotonic() - began))
            if sum(made.values()) < len(units):
                outcome, reason = "interrupted", "stopped before the end: run the same command again to go on"
            elif with_reel and any(_is_made(export, work) for work in export.works):
                reporter.say("joining the clips into one file")
                joined = _join(export, executor, export.how.codec)
    except VidprocError as error:
        outcome, reason = "failed", redact(str(error))
        refused = error if isinstance(error, ConfigError) and not made else None
    finally:
        executor.close()
    if refused is not None:
        raise refused
    try:
        manifest.write_manifest(export.place, [*export.records.values(), *export.failed.values()])
    except VidprocError as error:
        reason = "; ".join(filter(None, (reason, f"the manifest could not be written: {redact(str(error))}")))
        outcome = "failed"
    return _summary(export, made, outcome, reason, max_failures, time.monotonic() - began, joined)


def _join(export: Export, executor: Executor, codec: str) -> ClipRecord:
    """Join all clips of this export that are there; a reel of the same clips is not made again."""
    clips = reel.in_order([export.records[w.clip.name] for w in export.works if _is_made(export, w)])
    work = reel.ReelWork(clips=clips, codec=codec)
    known = export.records.get(manifest.REEL)
    if known is not None and known.clip_id == work.reel_id:
        return known
    seconds = sum((c.end_s or 0.0) - (c.start_s or 0.0) for c in clips)
    step = reel.JoinClips(out=export.out, options=export.options, needs=_needs(seconds))
    [end] = executor.run(_Feed([Unit(work.reel_id, work, "reel")]), {"reel": (step,)})
    if end.failure is not None:
        raise RunAborted(f"the reel could not be made: {end.failure.error}")
    record: ClipRecord = end.result
    if record.status != "made":
        raise RunAborted(f"the reel could not be made: {record.reason}")
    export.records[record.name] = record
    return record


def _step(export: Export) -> CutClip:
    needs = _needs(max(work.clip.seconds for work in export.due))
    return CutClip(out=export.out, options=export.options, needs=needs)


def _needs(seconds: float) -> Resources:
    limit_s = max(LEAST_TIME_LIMIT_S, SECONDS_A_SECOND * seconds)
    return Resources(memory_bytes=MEMORY_BYTES, memory_limit_bytes=MEMORY_LIMIT_BYTES, time_limit_s=limit_s)


def _limits(execution: Execution) -> Limits:
    return Limits(at_once={"clip": execution.workers} if execution.workers else {})


def _ended(export: Export, end: UnitEnd) -> ClipRecord:
    work: ClipWork = end.unit.item
    record: ClipRecord | None = end.result
    if record is None:
        assert end.failure is not None
        why = {"error_class": end.failure.error_class, "reason": redact(end.failure.error)}
        record = ClipRecord.of(work, "failed", **why)
    if record.status == "made":
        export.records[record.name] = record
    else:
        # What an earlier run made of this name is of another content or range, and stays what it is.
        export.failed[record.name] = record
    return record


def _progress(export: Export, made: Counter[str], elapsed_s: float) -> Progress:
    done = [w for w in export.due if w.clip.name in export.failed or _is_made(export, w)]
    whole_s, done_s = (sum(w.clip.seconds for w in works) for works in (export.due, done))
    return ExportProgress(
        elapsed_s=elapsed_s, listing_done=True, due=len(export.due), done=len(done), failed=made["failed"],
        video_s_known=whole_s, video_s_done=done_s, video_s_open=whole_s - done_s, moved_s=elapsed_s,
        probed=len(export.due), in_work=len(export.due) - len(done),
    )  # fmt: skip


def _is_made(export: Export, work: ClipWork) -> bool:
    record = export.records.get(work.clip.name)
    return record is not None and record.clip_id == work.clip_id


def _summary(
    export: Export, made: Counter[str], outcome: str, reason: str, max_failures: str, elapsed_s: float,
    joined: ClipRecord | None,
) -> ExportSummary:  # fmt: skip
    there = [export.records[w.clip.name] for w in export.works if _is_made(export, w)]
    failed = list(export.failed.values())
    if outcome == "ok":
        share, number = parse_failure_budget(max_failures)
        budget = number if number is not None else (share or 0.0) * len(export.works)
        within = len(failed) <= budget
        outcome = "ok" if within else "failed"
        reason = (
            f"{len(failed)} of {len(export.works)} clips could not be made, "
            f"{'within' if within else 'above the budget of'} {max_failures}"
        )
    examples: dict[str, str] = {}
    for record in failed:
        examples.setdefault(record.error_class, record.reason)
    return ExportSummary(
        out=export.out,
        outcome=outcome,
        reason=reason,
        exit_code={"ok": 0, "interrupted": 130, "failed": 1}[outcome],
        clips=len(export.works),
        made=made["made"],
        kept=len(export.works) - len(export.due),
        failed=len(failed),
        seconds=round(sum((r.end_s or 0.0) - (r.start_s or 0.0) for r in there), 3),
        bytes=sum(r.size_bytes for r in there),
        elapsed_s=elapsed_s,
        modes=dict(Counter(r.mode for r in there)),
        errors=dict(Counter(r.error_class for r in failed)),
        examples=examples,
        licenses=tuple(sorted({f"{e} ({r.license})" for r in there for e in r.encoders})),
        reel=None if joined is None else joined.file,
    )
