"""Files that lie, read every way we can read them, against what their construction says.

Each file is probed, planned and decoded at clips of 1, 2, 5 and 1,000 s. Rows must be the same for every cut, the right
picture at every time, pixel for pixel what a plain decode of the same packets gives; what is missing must be said.

python -m tests.video.test_differential [--count 2000] [--seed N] [--kind mp4-edit-order ...] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.containers import plain
from tests.support.containers.draws import Hypothetical
from tests.support.containers.kinds import KINDS
from tests.support.containers.make import cases, expected, make
from tests.support.containers.numbers import read
from tests.support.containers.streams import pictures
from tests.support.containers.truth import Case
from tests.support.media import video_of
from vidproc.errors import FastPathWrong, VidprocError
from vidproc.media import DecodeReport, FrameBatch, FrameSize, Grid, VideoInfo
from vidproc.video import mp4
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage, decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe

CLIP_SECONDS = (1.0, 2.0, 5.0, 1000.0)

WHOLE = 0.999
"""Coverage from which a video is `indexed`."""

LARGEST_PIXEL_DIFFERENCE = 2
"""Rounding of the conversion to RGB, in grey levels. A wrong reference picture shows far more."""

MAX_TASK_BYTES = 64 << 20
"""Of the frames of one task. These films need a hundredth; times that leap would ask for all memory."""

KNOWN: dict[str, str] = {
    "mp4-noise": "damage that the decoder does not tell",
    "mkv-noise": "damage that the decoder does not tell",
    "ps-telecine": "pictures between two times are taken for equally long",
    "ps-steps-back": "a clock that is right again after one picture delays the next, whose decoding time is guessed",
}
"""Kind -> why it differs today. Strict: a kind that no longer differs must leave the table."""

TRIES = 20
"""Files in which a known fault must show."""

FILES_A_KIND = 2
"""In an ordinary run; with the kinds there are this makes a hundred files."""

SLOW_FILES = 2000


@dataclass(frozen=True)
class Seen:
    """What one way of cutting gave."""

    numbers: dict[int, int | None]
    """Sample -> number, None where the picture shows none."""
    doubled: tuple[int, ...]
    pixels: dict[int, np.ndarray]
    times: tuple[float, ...]
    """Seconds, of each row."""
    status: str
    coverage: float
    said: tuple[str, ...]
    """Errors and warnings of the probe and of all tasks."""


def look(path: Path, fps: Fraction, clip_seconds: float, *, keyframes_only: bool = False) -> Seen:
    """Probe, plan and decode a file, as a run with one detector does."""
    source, limits = Source(), MediaLimits(max_task_bytes=MAX_TASK_BYTES)
    grid = Grid(fps=fps, size=FrameSize(), keyframes_only=keyframes_only)
    try:
        info = probe(video_of(path), source, limits)
        try:
            done = _decoded(info, clip_seconds, grid, source, limits)
        except FastPathWrong:
            done = _decoded(replace(info, plain=True), clip_seconds, grid, source, limits)
    except VidprocError as e:
        return Seen({}, (), {}, (), "failed", 0.0, (str(e),))
    batches, reports = [b for (b,), _ in done], [r for _, r in done]
    rows = Counter(int(k) for b in batches for k in b.sample[: b.owned])
    numbers: dict[int, int | None] = {}
    pixels: dict[int, np.ndarray] = {}
    times: list[float] = []
    for batch in batches:
        owned = batch.pixels[: batch.owned]
        numbers |= dict(zip((int(k) for k in batch.sample), read(owned), strict=False))
        pixels |= dict(zip((int(k) for k in batch.sample), owned, strict=False))
        times += [float(t) for t in batch.time_s[: batch.owned]]
    share = coverage(info, reports)
    errors = [r.error for r in reports if r.error]
    said = (*info.warnings, *errors, *(w for r in reports for w in r.warnings))
    status = "partial" if errors or share < WHOLE else "indexed"
    doubled = tuple(k for k, n in rows.items() if n > 1)
    return Seen(numbers, doubled, pixels, tuple(times), status, share, said)


def _decoded(
    info: VideoInfo, clip_seconds: float, grid: Grid, source: Source, limits: MediaLimits
) -> list[tuple[tuple[FrameBatch, ...], DecodeReport]]:
    tasks = cut(info, CutSettings(clip_seconds=clip_seconds, clips_per_task=1), [grid], "p")
    return [decode(task, [grid], source, limits) for task in tasks]


def differences(case: Case, path: Path) -> list[str]:
    """Return what is wrong, in words; the first word of each says what kind of fault it is."""
    out: list[str] = []
    looks = {f"{s:g} s clips": look(path, case.fps, s) for s in CLIP_SECONDS}
    whole = looks[f"{CLIP_SECONDS[-1]:g} s clips"]
    if case.extension == "mp4":
        with patch.multiple(mp4, WORTH_BYTES=0, HEAD_FRAMES=20, MARGIN_S=1.2, MARGIN_FRAMES=20):
            looks["1 s clips by excerpts of the index"] = look(path, case.fps, CLIP_SECONDS[0])
    sign = plain.decode(path).first_sign if case.truth.damaged else None
    for way, seen in looks.items():
        at = f"at {way}"
        out += [f"{fault} {at}" for fault in _against_truth(case, seen, sign)]
        moved = sorted(
            k for k in {*seen.numbers, *whole.numbers} if seen.numbers.get(k, "-") != whole.numbers.get(k, "-")
        )
        if moved:
            shown = [(k, whole.numbers.get(k, "-"), seen.numbers.get(k, "-")) for k in moved[:3]]
            out.append(f"cut: {len(moved)} rows are not those of one clip {at}: (sample, one clip, here) {shown}")
        if (seen.status, round(seen.coverage, 3)) != (whole.status, round(whole.coverage, 3)):
            out.append(f"cut: {seen.status} {seen.coverage:.3f} {at}, {whole.status} {whole.coverage:.3f} as one clip")
    if case.keyframes is not None:
        out += _keyframes(case, path)
    return out


def _against_truth(case: Case, seen: Seen, sign: Fraction | None) -> list[str]:
    """`sign`: when a plain decode first tells of damage. What no decoder notices, nobody can."""
    truth, fps = case.truth, case.fps
    wanted = _wanted(case, seen)
    out: list[str] = []
    if truth.excused and (seen.status != "indexed" or seen.said):
        return out
    if seen.doubled:
        out.append(f"doubled: samples {seen.doubled[:5]}")
    looked_at = {k for k in {*wanted, *seen.numbers} if not truth.free(k / fps)}
    wrong = sorted(k for k in looked_at & {*wanted} & {*seen.numbers} if seen.numbers[k] != wanted[k])
    wrong = [k for k in wrong if not (truth.may_be_missing(k / fps) and (sign is None or k / fps <= sign))]
    missing = sorted(looked_at & {*wanted} - {*seen.numbers})
    extra = sorted(looked_at - {*wanted})
    lost = [k for k in missing if truth.may_be_missing(k / fps)]
    if wrong:
        shown = [(k, wanted[k], seen.numbers[k]) for k in wrong[:3]]
        out.append(f"wrong: {len(wrong)} of {len(wanted)} rows, (sample, right, here) {shown}")
    if len(lost) < len(missing):
        out.append(
            f"missing: {len(missing) - len(lost)} of {len(wanted)} rows, {[k for k in missing if k not in lost][:3]}"
        )
    if extra:
        out.append(f"extra: {len(extra)} rows beside {len(wanted)}, {[(k, seen.numbers[k]) for k in extra[:3]]}")
    spoken = seen.status != "indexed" or bool(seen.said)
    if lost and seen.status == "indexed":
        out.append(f"silent: {len(lost)} rows of damage are missing, and the status is {seen.status}, {seen.said}")
    if (truth.say == "warning" or (truth.say == "damage" and sign is not None)) and not spoken:
        out.append(f"silent: nothing is said, where {truth.say} is due")
    if truth.say is None and not lost and seen.status != "indexed":
        out.append(f"status: {seen.status} {seen.coverage:.3f} for a whole video: {seen.said[:2]}")
    absent = len({*wanted} - {*seen.numbers})
    if lost and len(lost) == len(missing) and abs(seen.coverage - (1 - absent / len(wanted))) > 0.1 + 1 / len(wanted):
        out.append(f"coverage: {seen.coverage:.3f}, and {absent} of {len(wanted)} rows are missing")
    if truth.exact:
        out += _pixels(case, seen, [k for k in looked_at if k in wanted and seen.numbers.get(k) == wanted[k]])
    return out


def _wanted(case: Case, seen: Seen) -> dict[int, int]:
    """What is right; where two ways are as good, that of the two which is nearer to what was seen."""
    truth, fps = case.truth, case.fps
    wanted = truth.samples(fps)
    if truth.slack is None:
        return wanted
    early = dict(wanted)
    for k in wanted:
        if truth.slack.holds(k / fps) and (number := truth.at(k / fps + truth.late)) is not None:
            early[k] = number
    fits = [sum(seen.numbers.get(k) == n for k, n in way.items()) for way in (wanted, early)]
    return wanted if fits[0] >= fits[1] else early


def _pixels(case: Case, seen: Seen, samples: Sequence[int]) -> list[str]:
    """Each picture must be that of a plain decode, not merely one that shows the right number."""
    right: dict[int, np.ndarray] = {}
    for made in case.recipes:
        right |= pictures(made)
    off = []
    for k in samples:
        if case.truth.may_be_missing(k / case.fps):
            continue
        here, there = seen.pixels[k], right[seen.numbers[k] or 0]
        if here.shape != there.shape or np.abs(here.astype(int) - there).max() > LARGEST_PIXEL_DIFFERENCE:
            off.append(k)
    return [f"pixels: {len(off)} rows show the right number in other pixels, {sorted(off)[:3]}"] if off else []


def _keyframes(case: Case, path: Path) -> list[str]:
    """Sampling keyframes gives exactly the pictures that are such, whatever the flags say and however it is cut."""
    out = []
    wanted = [(round(float(at), 4), case.truth.at(at)) for at in case.keyframes or () if not case.truth.free(at)]
    for seconds in CLIP_SECONDS:
        seen = look(path, case.fps, seconds, keyframes_only=True)
        found = sorted(zip((round(t, 4) for t in seen.times), seen.numbers.values(), strict=True))
        found = [row for row in found if not case.truth.free(Fraction(row[0]))]
        if found != wanted:
            first = next(
                (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted))
            )
            out.append(
                f"keyframes: {len(found)} rows for {len(wanted)} keyframes, {found[first : first + 2]} "
                f"for {wanted[first : first + 2]} at {seconds:g} s clips"
            )
    return out


def _examine(case: Case, folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.{case.extension}"
    path.write_bytes(case.data)
    try:
        return differences(case, path)
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in KNOWN])
def test_files_are_right(kind: str, tmp_path: Path) -> None:
    @settings(
        max_examples=FILES_A_KIND,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def files(data: st.DataObject) -> None:
        case = KINDS[kind](Hypothetical(data))
        wrong = _examine(case, tmp_path, kind)
        assert not wrong, "\n".join([case.why, *wrong])

    files()


@pytest.mark.parametrize("kind", KNOWN)
def test_known_faults_are_still_there(kind: str, tmp_path: Path) -> None:
    for number in range(TRIES):
        if wrong := _examine(make(kind, 0, number), tmp_path, kind):
            pytest.xfail(f"{KNOWN[kind]}: {wrong[0]}")
    pytest.fail(f"{kind} is right now: take it out of KNOWN")


# The long form


@dataclass
class Tally:
    files: int = 0
    different: int = 0
    first: str = ""


def tally(count: int, seed: int, kinds: Sequence[str] = (), keep: Path | None = None) -> dict[str, Tally]:
    """Examine `count` files, the kinds in turn. `keep`: where files that differ are left, with what they should
    give."""
    table: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="vidproc-differential-") as temporary:
        for name, case in cases(seed, count, tuple(kinds) or tuple(KINDS)):
            row = table.setdefault(case.kind, Tally())
            row.files += 1
            try:
                wrong = _examine(case, Path(temporary), name)
            except Exception:
                wrong = [f"crash: {traceback.format_exc(limit=-2)}"]
            if not wrong:
                continue
            row.different += 1
            row.first = row.first or f"{name}.{case.extension} ({case.why}): {wrong[0]}"
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}.{case.extension}").write_bytes(case.data)
                index = keep / "expected.json"
                known = json.loads(index.read_text()) if index.exists() else {}
                known[f"{name}.{case.extension}"] = expected(case) | {"differences": wrong}
                index.write_text(json.dumps(known, indent=1))
    return table


def table_of(rows: dict[str, Tally]) -> str:
    lines = [f"{'kind':<24} {'files':>6} {'differ':>6}  first difference"]
    lines += [f"{kind:<24} {row.files:>6} {row.different:>6}  {row.first[:300]}" for kind, row in rows.items()]
    return "\n".join(
        [*lines, f"{'all':<24} {sum(r.files for r in rows.values()):>6} {sum(r.different for r in rows.values()):>6}"]
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_thousand_files(capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1 << 32)
    rows = tally(SLOW_FILES, seed)
    with capsys.disabled():
        print(f"\nseed {seed}\n{table_of(rows)}")
    assert not [kind for kind, row in rows.items() if row.different and kind not in KNOWN]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.video.test_differential")
    arguments.add_argument("--count", type=int, default=SLOW_FILES)
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments.add_argument("--kind", nargs="*", default=[], choices=list(KINDS))
    arguments.add_argument("--keep", type=Path, help="leave files that differ here, with expected.json")
    chosen = arguments.parse_args()
    began = time.monotonic()
    rows = tally(chosen.count, chosen.seed, chosen.kind, chosen.keep)
    print(table_of(rows))
    print(f"seed {chosen.seed}, {time.monotonic() - began:.0f} s")
    raise SystemExit(any(row.different and kind not in KNOWN for kind, row in rows.items()))


if __name__ == "__main__":
    main()
