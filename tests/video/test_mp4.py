"""An excerpt of an MP4's index shows the same frames, and gives way wherever that is not certain."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import Root
from tests.support.media import Made, cut_off, damage, make_video, video_of
from vidproc.errors import SourceChanged
from vidproc.media import Clip, DecodeReport, FrameBatch, FrameSize, Grid, Task, Video, VideoInfo
from vidproc.storage import S3Storage, ranges
from vidproc.video import decode as decode_module
from vidproc.video import mp4
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe

GRIDS = (
    Grid(fps=Fraction(5), size=FrameSize()),
    Grid(fps=Fraction(3), size=FrameSize(mode="stretch", height=24, width=32), window=4, stride=2),
)
KEYS = (Grid(fps=Fraction(1), size=FrameSize(), keyframes_only=True),)
WHOLE = {"movflags": "+faststart"}
MIDDLE = mp4.Stretch(0, 5.0, 6.0)


@pytest.fixture(autouse=True)
def small_files_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "WORTH_BYTES", 0)
    monkeypatch.setattr(mp4, "HEAD_FRAMES", 20)
    monkeypatch.setattr(mp4, "MARGIN_S", 1.2)
    monkeypatch.setattr(mp4, "MARGIN_FRAMES", 20)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each task was answered from an excerpt."""
    found: list[bool] = []
    run = decode_module._run_excerpt

    def noted(*arguments: Any) -> bool:
        found.append(run(*arguments))
        return found[-1]

    monkeypatch.setattr(decode_module, "_run_excerpt", noted)
    return found


def excerpt_of(path: Path | str, stretch: mp4.Stretch) -> mp4.Excerpt | None:
    file = mp4.LocalBytes(str(path))
    found = mp4.excerpt(file, stretch)
    if found is None:
        file.close()
    return found


def info_of(video: Video) -> VideoInfo:
    return probe(video, Source(), MediaLimits())


def run(task: Task, grids: tuple[Grid, ...]) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    return decode(task, grids, Source(), MediaLimits())


def same(task: Task, grids: tuple[Grid, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """With an excerpt and without."""
    mine, report = run(task, grids)
    with monkeypatch.context() as patch:
        patch.setattr(mp4, "WORTH_BYTES", 1 << 40)
        theirs, expected = run(task, grids)
    for a, b in zip(mine, theirs, strict=True):
        assert (a.sample.tolist(), a.pts.tolist(), a.time_s.tolist()) == (
            b.sample.tolist(), b.pts.tolist(), b.time_s.tolist(),
        )  # fmt: skip
        assert np.array_equal(a.pixels, b.pixels)
        assert (a.owned, a.is_last, a.geometry) == (b.owned, b.is_last, b.geometry)
    told = ("frames_decoded", "frames_sampled", "first_s", "end_s", "bytes_read", "reached_end", "error", "warnings")
    assert {n: getattr(report, n) for n in told} == {n: getattr(expected, n) for n in told}


def tasks_of(info: VideoInfo, grids: tuple[Grid, ...]) -> list[Task]:
    planned = cut(info, CutSettings(clip_seconds=1.5, clips_per_task=1), grids, "p")
    edges = [
        None,
        *(info.origin_pts + round(s / info.time_base) for s in (0.31, 2.77, 6.1, 6.3, 11.0) if s < info.duration_s),
        None,
    ]
    anywhere = [Task(info, (Clip(a, b),), i, 6, "p", 0) for i, (a, b) in enumerate(pairwise(edges))]
    return [*planned, *anywhere, Task(info, (Clip(None, None),), 0, 1, "p", 0)]


VIDEOS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("mp4", {}),
    "no b-frames": ("mp4", {"bframes": 0}),
    "index in front": ("mp4", {"container_options": WHOLE}),
    "sound": ("mp4", {"audio": True}),
    "sound, quicktime": ("mov", {"audio": True, "bframes": 3}),
    "late": ("mp4", {"first_s": Fraction(37, 10)}),
    "late, sound": ("mp4", {"first_s": Fraction(37, 10), "audio": True}),
    "variable rate": ("mp4", {"gaps": (1, 2, 1, 3)}),
    "turned": ("mp4", {"rotation": 90}),
    "delays below zero": ("mp4", {"container_options": {"movflags": "+negative_cts_offsets"}}),
    "no edits": ("mp4", {"container_options": {"use_editlist": "0"}}),
    "open groups": ("mov", {"options": {"x264-params": "open-gop=1:b-pyramid=normal:b-adapt=0"}, "bframes": 3}),
    "keyframes alone": ("mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "one size": ("mov", {"codec": "dvvideo", "size": (720, 576), "seconds": 4}),
    "hevc": ("mp4", {"codec": "libx265"}),
    "mpeg4": ("mp4", {"codec": "mpeg4"}),
    "one long group": ("mp4", {"gop": 400}),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frames_are_those_of_the_whole_index(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[bool]
) -> None:
    extension, options = VIDEOS[name]
    made = make_video(tmp_path / f"v.{extension}", **{"seconds": 14, "gop": 15, "size": (64, 48)} | options)
    info = info_of(made.video)
    for grids in (GRIDS, KEYS):
        for task in tasks_of(info, grids):
            same(task, grids, monkeypatch)
    mine = outcomes[::2]
    assert not any(outcomes[1::2]), "the reference must not be an excerpt"
    assert sum(mine) >= 0.9 * len(mine), f"{len(mine) - mine.count(True)} of {len(mine)} tasks were not worth it"


def test_most_of_the_index_is_left_out(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=120, gop=25, size=(32, 32))
    found = excerpt_of(made.path, mp4.Stretch(0, 60.0, 62.0))
    assert found is not None and not found.to_the_end
    with found, av.open(found) as container:
        stream = container.streams.video[0]
        assert len(stream.index_entries) < 0.1 * made.frames
        first = found.first_time(stream)
        assert first is not None and 57 < first * stream.time_base <= 60
        container.seek(round(61 / stream.time_base), stream=stream)
        packet = next(container.demux(stream))
        assert packet.is_keyframe and 60 <= packet.pts * stream.time_base <= 61


def test_hours_between_two_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[bool]) -> None:
    """A frame lasts no more ticks than 32 bits hold with a sign, so a long leap is made in several."""
    made = make_video(
        tmp_path / "v.mp4", seconds=8, gop=5, bframes=2, size=(64, 48),
        gaps=(20_000,), container_options={"video_track_timescale": "90000"},
    )  # fmt: skip
    info = info_of(made.video)
    assert info.time_base == Fraction(1, 90_000) and info.duration_s > 40 * 3600
    grids = (Grid(fps=Fraction(1, 400), size=FrameSize()),)
    edges = [info.keyframe_pts[k] + round(1000 / info.time_base) for k in (20, 25, 32)]
    for a, b in ((edges[0], edges[1]), (edges[1], edges[2]), (edges[2], None)):
        same(Task(info, (Clip(a, b),), 0, 1, "p", 0), grids, monkeypatch)
    assert all(outcomes[::2])


def test_a_truncated_file_has_no_excerpt(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=10, size=(64, 48), container_options=WHOLE)
    for share in (0.3, 0.6, 0.999):
        assert excerpt_of(cut_off(made, tmp_path / "cut.mp4", share).uri, MIDDLE) is None


def test_damaged_pictures_are_told_of_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=10, gop=15, size=(64, 48), container_options=WHOLE)
    info = info_of(damage(made, tmp_path / "bad.mp4", 0.5, 0.55))
    for task in tasks_of(info, GRIDS):
        same(task, GRIDS, monkeypatch)


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + size
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            yield from boxes(data, start + 8, start + size)
        start += size


def place_of(data: bytes, kind: bytes) -> tuple[int, int]:
    return next((a, b) for k, a, b in boxes(data, 0, len(data)) if k == kind)


def edited(made: Made, kind: bytes, at: int, new: bytes) -> Video:
    """The file with some bytes of the body of a box replaced."""
    data = bytearray(made.path.read_bytes())
    start = place_of(bytes(data), kind)[0] + 8 + at
    data[start : start + len(new)] = new
    made.path.write_bytes(bytes(data))
    return video_of(made.path)


@pytest.mark.parametrize(
    "options",
    [
        {"container_options": {"movflags": "+frag_keyframe+empty_moov"}},
        {"container_options": {"movflags": "+dash"}},
        {"seconds": 0.6},
    ],
    ids=["fragments", "segments", "short"],
)
def test_what_is_not_plain_has_no_excerpt(options: dict[str, Any], tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", **{"seconds": 10, "size": (64, 48)} | options)
    assert excerpt_of(made.path, MIDDLE) is None


@pytest.mark.parametrize("extension", ["mkv", "ts", "avi"])
def test_other_containers_have_no_excerpt(extension: str, tmp_path: Path) -> None:
    made = make_video(tmp_path / f"v.{extension}", codec="mpeg4", seconds=2)
    assert excerpt_of(made.path, MIDDLE) is None


@pytest.mark.parametrize(
    "kind,at,new",
    [
        (b"elst", 4, struct.pack(">I", 3)),
        (b"elst", 16, struct.pack(">hh", 2, 0)),
        (b"stsd", 4, struct.pack(">I", 2)),
        (b"stsz", 8, struct.pack(">I", 1 << 31)),
        (b"stsz", 4, struct.pack(">II", 9, 1 << 31)),
        (b"stco", 4, struct.pack(">I", 1 << 30)),
        (b"stsc", 8, struct.pack(">III", 2, 1, 1)),
        (b"stsc", 8, struct.pack(">III", 1, 1, 2)),
        (b"stts", 8, struct.pack(">II", 250, 1 << 31)),
        (b"stts", 8, struct.pack(">II", 3, 512)),
        (b"stss", 8, struct.pack(">I", 1 << 30)),
        (b"mvhd", 12, bytes(4)),
        (b"mdhd", 12, bytes(4)),
        (b"hdlr", 8, b"soun"),
        (b"stbl", -4, b"stb!"),
        (b"ctts", -4, b"stps"),
    ],
)
def test_a_damaged_index_has_no_excerpt(kind: bytes, at: int, new: bytes, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=10, gop=15, size=(64, 48))
    assert excerpt_of(made.path, MIDDLE) is not None
    assert excerpt_of(edited(made, kind, at, new).uri, MIDDLE) is None


def test_random_damage_to_the_index_is_survived(tmp_path: Path, outcomes: list[bool]) -> None:
    """Never an error of our own, and a file that no demuxer opens is declined as before."""
    made = make_video(tmp_path / "v.mp4", seconds=10, gop=15, size=(64, 48))
    original = made.path.read_bytes()
    info = info_of(made.video)
    start, end = place_of(original, b"moov")
    chance = np.random.default_rng(5)
    opened = 0
    for _ in range(300):
        data = bytearray(original)
        for at in chance.integers(start, end, chance.integers(1, 4)):
            data[at] = chance.integers(0, 256)
        made.path.write_bytes(bytes(data))
        found = excerpt_of(made.path, MIDDLE)
        if found is not None:
            with found, pytest.MonkeyPatch.context() as patch:
                patch.setattr(Source, "check_unchanged", lambda self, video: None)
                opened += 1
                with suppress(decode_module.Declined):
                    run(Task(info, (Clip(64_000, 76_800),), 0, 1, "p", 0), GRIDS)
    assert opened > 100 and any(outcomes)


@pytest.mark.parametrize("options", [WHOLE, {}], ids=["index-first", "index-last"])
def test_on_s3_it_is_the_same_and_sparing(
    options: dict[str, str], s3_root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[bool]
) -> None:
    chance = np.random.default_rng(3)
    noise = [chance.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(750)]
    made = make_video(
        tmp_path / "v.mp4", seconds=30, gop=15, size=(64, 48), frames=noise, audio=True, container_options=options
    )
    data = made.path.read_bytes()
    etag = s3_root.storage.put("a folder/-ünï #1%20?.mp4", data)
    video = Video(f"{s3_root.uri}/a folder/-ünï #1%20?.mp4", len(data), f"{etag}:{len(data)}")
    source = Source(s3_root.options)
    info = probe(video, source, MediaLimits())
    read: list[int] = []
    get_range = S3Storage.get_range

    def counted(self: S3Storage, key: str, start: int, length: int, if_match: str | None = None) -> bytes:
        assert if_match == etag
        read.append(length)
        return get_range(self, key, start, length, if_match)

    monkeypatch.setattr(S3Storage, "get_range", counted)
    monkeypatch.setattr(ranges, "READ_AHEAD_BYTES", 64 << 10)
    for task in tasks_of(info, GRIDS)[:-1]:
        read.clear()
        local = replace(info, video=made.video)
        (mine, report), (theirs, expected) = (
            decode(t, GRIDS, s, MediaLimits())
            for t, s in ((task, source), (replace(task, info=local), Source()))
        )  # fmt: skip
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(mine, theirs, strict=True))
        assert replace(report, seconds=0) == replace(expected, seconds=0)
        assert sum(read) < report.bytes_read + (1 << 20)
    assert all(outcomes)
    s3_root.storage.put("a folder/-ünï #1%20?.mp4", data + b"more")
    with pytest.raises(SourceChanged):
        decode(tasks_of(info, GRIDS)[1], GRIDS, source, MediaLimits())


def test_a_file_of_two_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[bool]) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as out:
        streams: list[Any] = [out.add_stream("libx264", rate=25, options={"preset": "ultrafast"}) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.codec_context.gop_size = 64, 48, 10
        for n in range(250):
            for which, stream in enumerate(streams):
                picture = np.full((48, 64, 3), (n + 100 * which) % 256, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    info = info_of(video_of(path))
    for task in tasks_of(info, GRIDS):
        same(task, GRIDS, monkeypatch)
    assert all(outcomes[::2])
