"""The table of what vidproc promises to reach, measured on this machine.

    make bench                                  all rows but `scale`
    make bench-scale                            what grows with the archive: driver, memory, second-run, scale
    python -m tests.benchmarks rivals --quick   one row, small: to see that it runs, not a measurement

Ratios compare runs that took turns on the same machine; each figure is a median, and the machine's load stands
beside it. Results are printed row by row and kept in .benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import cutting, driver, lakes, network, pictures, pipeline, scale
from tests.benchmarks.measure import REPOSITORY, Row, Settings, run, size

DATA = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", REPOSITORY.parent / "shared" / "data"))


def query(settings: Settings) -> list[Row]:
    """Questions by video, and by label and time, to a large lake."""
    rows = 1_000_000 if settings.quick else 100_000_000
    cost = run([sys.executable, "-m", "tests.benchmarks.query", "--rows", str(rows), "--json"], env={"TMPDIR": tmp()})
    questions = cost.answer["questions"]
    worst = max(questions, key=lambda q: q["p50_ms"])
    row = Row(name="query", what=f"p50 by video, or label and time, over {rows / 1e6:,.0f} M rows", target="<= 100 ms")
    row.value = f"{worst['p50_ms']:.0f} ms"
    row.met = None if settings.quick else worst["p50_ms"] <= 100
    row.rows, row.bytes, row.peak_bytes = rows, cost.answer["bytes"], cost.peak_bytes
    row.notes += [
        f"{q['question']}: p50 {q['p50_ms']:.0f} ms, p95 {q['p95_ms']:.0f} ms, files read {q['files']}"
        for q in questions
    ]
    row.notes.append(f"{cost.answer['rows_compared_with_pyarrow']:,} rows of answers equal pyarrow's own filter")
    row.figures = cost.answer
    return [row]


def tmp() -> str:
    from tests.benchmarks.videos import cache

    return str(cache())


BENCHMARKS: dict[str, Callable[[Settings], list[Row]]] = {
    "end-to-end": pipeline.end_to_end,
    "rivals": pipeline.rivals,
    "both-models": pipeline.both_models,
    "verify": pipeline.verify,
    "long-video": pipeline.long_video,
    "stretch": lakes.stretch,
    "memory": lakes.memory,
    "second-run": lakes.second_run,
    "driver": driver.driver,
    "query": query,
    "export": cutting.export,
    "show": pictures.show,
    "scale": scale.scale,
}
LONG = {"scale"}
"""Run where they are named."""


def model_of(name: str) -> Path:
    """The description of the detector: one that this repository builds, or the real YOLOX-nano."""
    if name == "built":
        return network.detector()
    graph = DATA / "models" / "yolox_nano" / "yolox_nano_dynbatch.onnx"
    if not graph.exists():
        raise SystemExit(f"--model yolox-nano needs {graph}: set VIDPROC_ACCEPTANCE_DATA, or use --model built")
    described = network.cache() / "yolox-nano.yaml"
    described.write_text(network.description(graph.resolve()))
    return described


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(BENCHMARKS)}; default: all but scale")
    parser.add_argument("--quick", action="store_true", help="seconds of video, one repetition: no measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20, help="of video in the rows about speed")
    parser.add_argument("--model", choices=["built", "yolox-nano"], default="built")
    parser.add_argument("--rivals-python", type=Path, default=REPOSITORY / ".venv-rivals" / "bin" / "python")
    o = parser.parse_args()
    if unknown := set(o.rows) - set(BENCHMARKS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    settings = Settings(
        quick=o.quick,
        repetitions=1 if o.quick else o.repetitions,
        minutes=o.minutes,
        model=model_of(o.model),
        rivals_python=o.rivals_python,
    )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, detector {o.model}"
    print(f"{machine}{', QUICK: not a measurement' if o.quick else ''}", flush=True)
    results = REPOSITORY / ".benchmarks" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    results.parent.mkdir(exist_ok=True)
    found: list[Row] = []
    failed = 0
    for name in o.rows or [n for n in BENCHMARKS if n not in LONG]:
        settings.say(f"{name} ...")
        try:
            rows = BENCHMARKS[name](settings)
        except Exception as error:  # one row that cannot be measured leaves the others
            failed += 1
            rows = [Row(name=name, what="could not be measured", target="", notes=[f"{type(error).__name__}: {error}"])]
        found += rows
        for row in rows:
            print(text(row), flush=True)
        results.write_text(json.dumps({"machine": machine, "rows": [asdict(r) for r in found]}, indent=1, default=str))
    print("\n" + table(found))
    print(f"kept in {results}")
    return 1 if failed else 0


def text(row: Row) -> str:
    """A row with its notes."""
    head = f"\n{row.name}: {row.what}: {row.value} (target {row.target}) {verdict(row)}; load {row.load:.1f}"
    return "\n".join(
        [head, *(textwrap.indent(textwrap.fill(n, 116, subsequent_indent="  "), "  - ") for n in row.notes)]
    )


def verdict(row: Row) -> str:
    return {True: "reached", False: "MISSED", None: "not measured"}[row.met]


def table(rows: list[Row]) -> str:
    head = ("row", "measured", "target", "", "frames", "bytes", "rows", "peak memory", "load")
    lines = [head] + [
        (
            r.name,
            r.value,
            r.target,
            verdict(r),
            "-" if r.frames is None else f"{r.frames:,}",
            "-" if r.bytes is None else size(r.bytes),
            "-" if r.rows is None else f"{r.rows:,}",
            "-" if r.peak_bytes is None else size(r.peak_bytes),
            f"{r.load:.1f}",
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
