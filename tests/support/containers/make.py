"""Write cases for looking at by hand.

python -m tests.support.containers.make FOLDER [--seed 0] [--count 100] [--kind mp4-edit-order ...] [--check]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.containers import plain
from tests.support.containers.draws import Seeded
from tests.support.containers.kinds import KINDS
from tests.support.containers.truth import Case


def cases(seed: int, count: int, kinds: Sequence[str]) -> Iterator[tuple[str, Case]]:
    """Yield name and case, the kinds in turn. The same seed gives the same files."""
    for i in range(count):
        kind, number = kinds[i % len(kinds)], i // len(kinds)
        yield f"{kind}--{seed}-{number}", make(kind, seed, number)


def make(kind: str, seed: int, number: int) -> Case:
    return KINDS[kind](Seeded(f"{kind} {seed} {number}"))


def expected(case: Case) -> dict[str, Any]:
    truth = case.truth
    return {
        "fps": str(case.fps),
        "want": [[k, n] for k, n in truth.samples(case.fps).items() if not truth.free(k / case.fps)],
        "end_s": float(truth.end),
        "say": truth.say,
        "may_be_missing_s": [[float(s.start), float(s.end)] for s in truth.damaged],
        "not_looked_at_s": [[float(s.start), float(s.end)] for s in truth.unsettled],
        "keyframes_s": None if case.keyframes is None else [float(at) for at in case.keyframes],
        "why": case.why,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.support.containers.make")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--count", type=int, default=len(KINDS))
    arguments.add_argument("--kind", nargs="*", default=[], choices=list(KINDS))
    arguments.add_argument("--check", action="store_true", help="compare each file with a plain decode by FFmpeg")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for name, case in cases(given.seed, given.count, given.kind or list(KINDS)):
        path = given.folder / f"{name}.{case.extension}"
        path.write_bytes(case.data)
        index[path.name] = expected(case)
        if given.check:
            print(f"{path.name}: {check(case, path)}")
    (given.folder / "expected.json").write_text(json.dumps(index, indent=1))


def check(case: Case, path: Path) -> str:
    """Say how the truth differs from what FFmpeg makes of the file, which may be either's fault."""
    try:
        found = plain.decode(path).pictures
    except Exception as e:
        return f"does not open: {e!r}"
    numbers = [p.number for p in found]
    wanted = [s.number for s in case.truth.shown if s.number is not None]
    if numbers != wanted:
        at = next(
            (i for i, (a, b) in enumerate(zip(numbers, wanted, strict=False)) if a != b), min(len(numbers), len(wanted))
        )
        shown = f"{numbers[at : at + 5]} for {wanted[at : at + 5]}"
        return f"{len(numbers)} pictures, {len(wanted)} meant; from {at} on {shown} ({case.why})"
    times = [p.at for p in found]
    if None in times:
        return f"pictures agree; times are missing ({case.why})"
    moved = [t - times[0] for t in times]  # type: ignore[operator]
    meant = [s.at for s in case.truth.shown if s.number is not None]
    off = [i for i, (a, b) in enumerate(zip(moved, meant, strict=True)) if abs(a - b) > 0.002]
    if off:
        return f"times differ from {off[0]} on: {float(moved[off[0]]):.3f} for {float(meant[off[0]]):.3f} ({case.why})"
    return "agrees"


if __name__ == "__main__":
    main()
