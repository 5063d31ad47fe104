"""The benchmarks that stand on the driver's inside still run. What they measure here is too short to be a figure."""

import sys
from pathlib import Path

from tests.benchmarks.measure import Settings
from tests.benchmarks.scale import scale


def test_a_million_clips_in_small() -> None:
    nothing = Path()
    quick = Settings(quick=True, repetitions=1, minutes=0, model=nothing, rivals_python=Path(sys.executable))
    rows = {row.name: row for row in scale(quick)}
    assert set(rows) == {"scale-run", "scale-resume", "scale-second", "scale-rss"}
    assert all(row.met is None and row.rows == 2_000 for row in rows.values())
    assert ", 0 done twice" in rows["scale-resume"].notes[0]
