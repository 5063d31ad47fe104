"""Mutated media files by the hundred through the whole job: each ends with a status and a reason, and the
good files among them do not notice."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.media import make_video
from tests.whole.test_end_to_end import job, statuses, tables
from vidproc.ask import connect
from vidproc.run.driver import index

KEPT = ("good-0.mp4", "good-1.mkv", "good-2.ts")
"""Not mutated."""


def make_seeds(folder: Path) -> list[Path]:
    """Small files of every container and codec that is common."""
    folder.mkdir()
    made = [
        make_video(folder / "a.mp4", seconds=1, gop=5),
        make_video(folder / "b.mp4", seconds=1, gop=12, audio=True, container_options={"movflags": "faststart"}),
        make_video(folder / "c.mp4", seconds=1, container_options={"movflags": "frag_keyframe+empty_moov"}),
        make_video(folder / "d.mkv", seconds=1, gop=6),
        make_video(folder / "e.webm", seconds=0.5, codec="libvpx-vp9", bframes=0),
        make_video(folder / "f.ts", seconds=1, gop=6, format="mpegts"),
        make_video(folder / "g.avi", seconds=1, codec="mpeg4", bframes=0),
        make_video(folder / "h.mov", seconds=0.5, codec="libx265", gop=6),
        make_video(folder / "i.mpg", seconds=1, codec="mpeg2video", format="mpeg"),
        make_video(folder / "j.avi", seconds=0.5, codec="mjpeg", pix_fmt="yuvj420p"),
    ]
    return [m.path for m in made]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One to three of: bytes changed, a number replaced by an extreme one, a stretch lost, doubled, moved, of
    noise or of zeros, the end cut off, or bytes of the front alone changed, where containers keep their claims."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        n = len(out)
        if n < 16:
            break
        # Half of the places are near the front or the end: headers and indexes lie there.
        edge = min(n, 2048)
        at = dice.choice((dice.randrange(n), dice.randrange(edge), n - 1 - dice.randrange(edge)))
        length = min(int(2 ** dice.uniform(0, 12)), n - at)
        match dice.randrange(8):
            case 0:
                for _ in range(dice.randint(1, 20)):
                    out[dice.randrange(n)] ^= 1 << dice.randrange(8)
            case 1:
                width = dice.choice((1, 2, 4))
                extreme = dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, dice.getrandbits(32)))
                value = extreme & ((1 << 8 * width) - 1)
                out[at : at + width] = value.to_bytes(width, dice.choice(("big", "little")))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at : at + length] = dice.randbytes(length)
            case 5:
                out[at : at + length] = bytes(length)
            case 6:
                other = dice.randrange(n)
                out[other:other] = out[at : at + length]
            case 7:
                del out[max(16, at) :]
    return bytes(out)


def run_over(seeds: Sequence[Path], good: Path, folder: Path, count: int, seed: int) -> None:
    """`count` mutants of the seeds, and the good files among them, through one run."""
    print(f"seed = {seed}")
    dice = random.Random(seed)
    archive, lake = folder / "in", str(folder / "lake")
    archive.mkdir()
    for n in range(count):
        source = dice.choice(seeds)
        (archive / f"{n:04}{source.suffix}").write_bytes(mutate(source.read_bytes(), dice))
    for path in good.iterdir():
        (archive / path.name).hardlink_to(path)
    workers = {"executor": "ray", "device": "cpu", "publish_videos": 100}
    limits = {"time_limit_s": 60.0, "memory_bytes": 1 << 30, "max_failures": "100%"}
    settings = {"cut": {"clip_seconds": 1000.0}, "limits": limits}
    summary = index(job(str(archive), lake, execution=workers, **settings))
    assert summary.exit_code == 0, summary.reason
    assert summary.listed == count + len(KEPT)
    found = statuses(lake, str(archive))
    assert len(found) == count + len(KEPT)
    assert all(error_class for status, error_class in found.values() if status != "indexed")
    # Our own mistakes would be of class `internal`; a decoder may crash or hang, in a process of its own.
    allowed = {"crash", "timeout", "memory", "decode", "truncated", "limit"}
    wrong = {name: end for name, end in found.items() if end[0] in ("failed", "partial") and end[1] not in allowed}
    assert not wrong, wrong
    with connect(lake) as database:
        silent = database.sql(
            "SELECT uri FROM videos v WHERE status <> 'indexed' AND (error IS NULL OR NOT EXISTS "
            "(SELECT 1 FROM failures f WHERE f.video_id = v.video_id))"
        ).read_all()
        assert silent.to_pylist() == []
        internal = database.sql("SELECT uri, stage, error FROM failures WHERE error_class = 'internal'").read_all()
        assert internal.to_pylist() == []
    calm = str(folder / "calm")
    index(job(str(archive), calm, filters={"include": list(KEPT)}, execution={"executor": "inline"}, **settings))
    ids = {r["video_id"] for r in tables(calm)["videos"]}
    assert len(ids) == len(KEPT)
    assert {n: [r for r in rows if r["video_id"] in ids] for n, rows in tables(lake).items()} == tables(calm)
    again = index(job(str(archive), lake, execution=workers, **settings))
    assert again.due == 0
    print(f"{dict(summary.statuses)} {dict(summary.errors)} in {summary.elapsed_s:.0f} s")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for name in KEPT:
        make_video(folder / name, seconds=1, gop=6)
    return folder


def chosen_seed() -> int:
    return int(os.environ.get("VIDPROC_TEST_SEED") or random.randrange(1 << 32))


LONG = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.timeout(900)), pytest.param(1000, marks=LONG)])
def test_mutated_files_cost_nobody_else_anything(count: int, good: Path, tmp_path: Path) -> None:
    run_over(make_seeds(tmp_path / "seeds"), good, tmp_path, count, chosen_seed())


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("count", "with_generated"),
    [pytest.param(150, False, marks=pytest.mark.timeout(900)), pytest.param(1000, True, marks=LONG)],
)
def test_mutants_of_real_files(count: int, with_generated: bool, good: Path, tmp_path: Path) -> None:
    videos = Path(os.environ["VIDPROC_ACCEPTANCE_DATA"], "videos")
    seeds = [p for p in sorted(videos.rglob("*")) if p.is_file() and p.stat().st_size < 1 << 20]
    assert seeds
    seeds += make_seeds(tmp_path / "seeds") if with_generated else []
    run_over(seeds, good, tmp_path, count, chosen_seed())
