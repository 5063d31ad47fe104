"""Rows become the frames that they are about: the pixels that the model saw, or a reason and never another picture."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vidproc
from tests.conftest import Root
from tests.look.conftest import Numbered, job, make_archive
from tests.support.media import make_video, read_number, video_of
from tests.support.proxy import Rule, proxy
from tests.support.s3 import SeaweedFS
from vidproc.ask import SearchQuery, connect, search
from vidproc.ask.scenes import DECODED_PLAINLY
from vidproc.errors import ConfigError
from vidproc.look.frames import Frame, frames
from vidproc.look.pool import _Reader
from vidproc.look.reader import Request
from vidproc.media import Clip, FrameSize, Grid, Task
from vidproc.run.driver import index
from vidproc.run.work import PLAIN
from vidproc.storage import StorageOptions
from vidproc.video.decode import MediaLimits, Source, decode
from vidproc.video.probe import probe


def number_in(box: Any, width: int = 96, height: int = 64) -> int:
    """The number that the fake detector read, by the place of its box."""
    return round(box["x_min"] * 96 / width) + 64 * round(box["y_min"] * 64 / height)


def test_detections_show_the_pixels_that_the_model_saw(numbered: Numbered) -> None:
    with numbered.opened() as lake:
        rows = lake.sql("SELECT * FROM detections ORDER BY video_id, time_s").read_all()
        found = frames(lake, rows, workers=2)
    assert len(found) == rows.num_rows == 24 * len(numbered.made)
    for row, frame in zip(rows.to_pylist(), found, strict=True):
        assert frame.state == "shown" and frame.pixels is not None
        assert read_number(frame.pixels) == number_in(row)
        assert frame.pts == row["pts"] and frame.scene.score == pytest.approx(0.9)
        assert (frame.width, frame.height) == (96, 64)
    for uri in numbered.made:
        info = probe(video_of(uri), Source(), MediaLimits())
        task = Task(info, (Clip(None, None),), 0, 1, "", 0)
        (batch,), _ = decode(task, (Grid(fps=Fraction(4), size=FrameSize()),), Source(), MediaLimits())
        mine = [f for f in found if f.scene.listed_uri == uri]
        assert np.array_equal(batch.pixels, np.stack([f.pixels for f in mine if f.pixels is not None]))


def test_tracks_and_stretches_show_a_moment_with_their_boxes(numbered: Numbered) -> None:
    with numbered.opened() as lake:
        seen = {
            (r["video_id"], r["time_s"]): number_in(r)
            for r in lake.sql("SELECT * FROM detections").read_all().to_pylist()
        }
        for table in ("tracks", "segments WHERE kind = 'presence'"):
            rows = lake.sql(f"SELECT * FROM {table}").read_all()
            found = frames(lake, rows)
            assert found and len(found) == rows.num_rows
            for row, frame in zip(rows.to_pylist(), found, strict=True):
                assert row["start_s"] <= frame.scene.time_s <= row["end_s"]
                assert frame.pixels is not None and frame.scene.boxes
                number = seen[row["video_id"], frame.scene.time_s]
                assert read_number(frame.pixels) == number
                assert {(b.x_min, b.y_min) for b in frame.scene.boxes} == {(number % 64, number // 64)}
        actions = lake.sql("SELECT * FROM actions WHERE rank = 1").read_all()
        for row, frame in zip(actions.to_pylist(), frames(lake, actions), strict=True):
            middle = Fraction((row["start_s"] + row["end_s"]) / 2)
            made = numbered.made[frame.scene.listed_uri]
            assert frame.pixels is not None
            assert read_number(frame.pixels) == made.number_shown_at(middle + Fraction(1, 10**6))
            assert not frame.scene.boxes and frame.scene.label == row["label"]


def test_hits_of_a_search_and_mappings_do_too(numbered: Numbered) -> None:
    with numbered.opened() as lake:
        hits = search(lake, SearchQuery(label="person", limit=3))
        assert [f.scene.listed_uri for f in frames(lake, hits)] == [h.uri for h in hits]
        uri = next(iter(numbered.made))
        [frame] = frames(lake, [{"uri": uri, "time_s": 2.0}], max_width=48)
        assert frame.pixels is not None and frame.pixels.shape == (32, 48, 3) and frame.width == 96
        assert read_number(frame.pixels) == 50
        assert (
            frame.scene.recorded_at is not None and frame.scene.recorded_at.isoformat() == "2026-03-01T22:00:02+00:00"
        )
        for wrong in ({"time_s": 1.0}, {"uri": uri}, {"uri": "/no/such", "time_s": 1.0}, 5):
            with pytest.raises(ConfigError):
                frames(lake, [wrong])
        assert frames(lake, pa.table({"video_id": pa.array([], pa.string())})) == []


def test_from_python(numbered: Numbered, tmp_path: Path) -> None:
    with vidproc.open(numbered.lake) as lake:
        for rows in (
            lake.sql("SELECT video_id, time_s, pts FROM detections WHERE time_s = 2.0"),
            lake.search(label="person", limit=2),
        ):
            found = lake.frames(rows, max_width=48)
            assert len(found) == len(rows.arrow()) > 0
            assert all(f.pixels is not None and f.pixels.shape == (32, 48, 3) for f in found)
        assert lake.report(tmp_path / "r.html").bytes == (tmp_path / "r.html").stat().st_size


def shown(lake: Path, **how: Any) -> dict[str, list[Frame]]:
    found: dict[str, list[Frame]] = {}
    with connect(str(lake)) as database:
        rows = database.sql("SELECT * FROM detections WHERE time_s IN (0.5, 2.0)").read_all()
        for frame in frames(database, rows, **how):
            found.setdefault(frame.scene.listed_uri.rpartition("/")[2], []).append(frame)
    return found


def test_a_video_that_is_gone_or_another_one_gives_no_picture(own: Numbered) -> None:
    a, b = own.archive / "a.mp4", own.archive / "b.mp4"
    times = os.stat(a)
    a.unlink()
    make_video(b, seconds=3, first_s=0, gop=5)
    found = shown(own.lake)
    assert [f.state for f in found["a.mp4"]] == ["gone", "gone"]
    assert [f.state for f in found["b.mp4"]] == ["changed", "changed"]
    assert all(f.pixels is None and f.reason for many in found.values() for f in many)
    # Another video under the old name, with the old date.
    make_video(a, seconds=3, gop=7)
    os.utime(a, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [f.state for f in shown(own.lake)["a.mp4"]] == ["changed", "changed"]
    # A pipe, on which a reader would wait for ever.
    a.unlink()
    os.mkfifo(a)
    assert [f.state for f in shown(own.lake)["a.mp4"]] == ["gone", "gone"]


def test_an_archive_that_was_moved_is_found_where_it_is_now(own: Numbered, tmp_path: Path) -> None:
    shutil.move(own.archive, tmp_path / "elsewhere")
    assert {f.state for many in shown(own.lake).values() for f in many} == {"gone"}
    found = shown(own.lake, archive=str(tmp_path / "elsewhere"))
    assert [read_number(f.pixels) for f in found["a.mp4"] if f.pixels is not None] == [12, 50]
    assert found["b.mp4"][0].scene.listed_uri == str(own.archive / "b.mp4")


def test_a_file_that_may_not_be_read_or_does_not_decode_says_so(tmp_path: Path) -> None:
    made = make_archive(tmp_path / "archive", {"a.mp4": {"seconds": 3}})
    index(job(tmp_path / "archive", tmp_path / "lake"))
    path, before = Path(next(iter(made))), os.stat(next(iter(made)))
    data = bytearray(path.read_bytes())
    data[200:] = bytes(len(data) - 200)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # damaged where it lies, with its date and size
    found = shown(tmp_path / "lake")["a.mp4"]
    assert all(f.state in ("unreadable", "damaged") and f.pixels is None and f.reason for f in found)


def test_a_reader_that_dies_costs_its_own_video(numbered: Numbered) -> None:
    uri = str(numbered.archive / "gate" / "gate_20260301_220000.mp4")
    request = Request(
        video=video_of(uri), times_s=(1.0, 2.0), pts=(None, None), plain=False, max_width=None,
        options=StorageOptions(), limit_s=60,
    )  # fmt: skip
    reader = _Reader()
    try:
        assert [a.state for a in reader.answers(request)] == ["shown", "shown"]
        assert reader._process is not None
        os.kill(reader._process.pid, signal.SIGKILL)
        reader._process.wait()
        [answer] = reader.answers(request)
        assert answer.state == "crashed" and answer.places == (0, 1) and uri in answer.reason
        assert [a.state for a in reader.answers(request)] == ["shown", "shown"]
    finally:
        reader.close()


def test_the_mark_of_plain_decoding_is_the_one_that_runs_leave() -> None:
    assert PLAIN.startswith(DECODED_PLAINLY)


def test_on_s3_too(s3_root: Root, s3_server: SeaweedFS, tmp_path: Path) -> None:
    made = make_archive(tmp_path, {"a.mp4": {"seconds": 3}, "b.mp4": {"seconds": 3}})
    archive, lake = s3_root.below("archive"), s3_root.below("lake")
    for uri in made:
        archive.storage.put(uri.rpartition("/")[2], Path(uri).read_bytes())
    index(job(archive.uri, lake.uri, storage={"endpoint_url": s3_root.options.endpoint_url, "region": "us-east-1"}))
    with connect(lake.uri, s3_root.options) as database:
        rows = database.sql("SELECT * FROM detections WHERE time_s IN (0.5, 2.0) ORDER BY video_id, time_s").read_all()
        found = frames(database, rows, options=s3_root.options)
        assert [read_number(f.pixels) for f in found if f.pixels is not None] == [12, 50] * 2
        rules = [
            Rule("denied", methods="GET|HEAD", path=r".*/archive/a.mp4"),
            Rule("archived", methods="GET", path=r".*/archive/b.mp4"),
        ]
        with proxy(s3_server.endpoint, *rules) as refusing:
            behind = replace(s3_root.options, endpoint_url=refusing.endpoint)
            refused = frames(database, rows, options=behind)
        assert {f.scene.title.rpartition("/")[2]: f.state for f in refused} == {"a.mp4": "denied", "b.mp4": "archived"}
        assert all(f.pixels is None and f.reason for f in refused)
        archive.storage.put("a.mp4", Path(next(iter(made))).read_bytes() + b"more")
        archive.storage.delete(["b.mp4"])
        states = {f.scene.title.rpartition("/")[2]: f.state for f in frames(database, rows, options=s3_root.options)}
        assert states == {"a.mp4": "changed", "b.mp4": "gone"}
