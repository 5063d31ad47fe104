"""Decoding: the right frames, the same however a video is cut, and an honest report."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Root
from tests.support.media import Made, cut_off, damage, decode_whole, draw, make_video, read_number, video_of
from vidproc.errors import SourceChanged
from vidproc.media import Clip, DecodeReport, FrameBatch, FrameSize, Grid, Task, Video, VideoInfo
from vidproc.video import sparse
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage, decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe

LIMITS = MediaLimits()
SOURCE = Source()
TWO_FPS = Grid(fps=Fraction(2), size=FrameSize())
FIVE_FPS = Grid(fps=Fraction(5), size=FrameSize())


def info_of(video: Video, source: Source = SOURCE) -> VideoInfo:
    return probe(video, source, LIMITS)


def whole(info: VideoInfo) -> Task:
    return Task(info, (Clip(None, None),), 0, 1, "p", 0)


def pieces(info: VideoInfo, bounds: Sequence[int]) -> list[Task]:
    edges = [None, *bounds, None]
    return [Task(info, (Clip(a, b),), i, len(edges) - 1, "p", 0) for i, (a, b) in enumerate(pairwise(edges))]


def run(task: Task, *grids: Grid, source: Source = SOURCE) -> tuple[tuple[FrameBatch, ...], DecodeReport]:
    return decode(task, grids, source, LIMITS)


def owned(batches: Sequence[FrameBatch]) -> tuple[list[int], list[int], np.ndarray]:
    """What several tasks of one video own together, for one grid."""
    return (
        [int(k) for b in batches for k in b.sample[: b.owned]],
        [int(p) for b in batches for p in b.pts[: b.owned]],
        np.concatenate([b.pixels[: b.owned] for b in batches]),
    )


def windows(batches: Sequence[FrameBatch], grid: Grid) -> dict[int, bytes]:
    """First sample -> pixels of each whole window, from the batch that owns its start."""
    found: dict[int, bytes] = {}
    for b in batches:
        for i in range(b.owned):
            k = int(b.sample[i])
            if k % grid.stride == 0:
                cut_ = b.pixels[i : i + grid.window]
                assert len(cut_) == grid.window or b.is_last, "only the video's end may leave a window short"
                assert k not in found
                found[k] = cut_.tobytes()
    return found


def check_against_whole_decode(made: Made, info: VideoInfo, batch: FrameBatch, fps: Fraction) -> None:
    """Samples, times and pixels are those of the plainest decode loop."""
    frames = {f.pts: f for f in decode_whole(made.path)}
    shown = sorted(frames)
    for k, time_s, pts, pixels in zip(batch.sample, batch.time_s, batch.pts, batch.pixels, strict=True):
        moment = info.origin_pts + Fraction(int(k)) / fps / info.time_base
        expected = max(p for p in shown if p <= moment)
        assert time_s == float(int(k) / fps)
        assert pts == expected
        assert np.array_equal(pixels, frames[expected].to_ndarray(format="rgb24"))
        assert read_number(pixels) == shown.index(expected)


CODECS: list[tuple[str, str, dict[str, Any]]] = [
    ("libx264", "mp4", {}),
    ("libx264", "mp4", {"bframes": 0}),
    ("libx264", "mkv", {"bframes": 3, "options": {"x264-params": "b-pyramid=normal:b-adapt=0"}}),
    ("libx264", "mov", {"bframes": 3, "options": {"x264-params": "open-gop=1:b-pyramid=normal:b-adapt=0"}}),
    ("libx264", "ts", {"bframes": 3, "options": {"x264-params": "open-gop=1:b-adapt=0"}}),
    ("libx264", "flv", {}),
    ("libx265", "mp4", {}),
    ("libx265", "mkv", {"bframes": 4, "options": {"x265-params": "log-level=none:open-gop=1:pools=1:b-adapt=0"}}),
    ("mpeg4", "mp4", {}),
    ("mpeg2video", "ts", {}),
    ("mpeg2video", "mpg", {}),
    ("libvpx", "webm", {}),
    ("libvpx-vp9", "webm", {}),
    ("libsvtav1", "mp4", {"size": (128, 96)}),
    ("mjpeg", "avi", {"pix_fmt": "yuvj420p"}),
    ("wmv2", "asf", {}),
    ("ffv1", "mkv", {}),
    ("prores_ks", "mov", {"pix_fmt": "yuv422p10le"}),
]


@pytest.mark.parametrize("codec,extension,options", CODECS, ids=lambda v: v if isinstance(v, str) else None)
def test_every_codec_gives_the_frames_of_a_whole_decode_however_cut(
    codec: str, extension: str, options: dict[str, Any], tmp_path: Path
) -> None:
    made = make_video(tmp_path / f"v.{extension}", codec=codec, seconds=3, **options)
    info = info_of(made.video)
    (batch,), report = run(whole(info), FIVE_FPS)
    assert len(batch.sample) == 15 and batch.owned == 15 and batch.is_last
    check_against_whole_decode(made, info, batch, Fraction(5))
    assert report.error is None and report.reached_end and coverage(info, [report]) > 0.999
    cuts = [run(t, FIVE_FPS) for t in cut(info, CutSettings(clip_seconds=0.5, clips_per_task=1), [FIVE_FPS], "p")]
    assert len(cuts) > 3 or extension == "mpg"  # program streams hold too few times to be entered
    samples, pts, pixels = owned([b for (b,), _ in cuts])
    assert (samples, pts) == (batch.sample.tolist(), batch.pts.tolist())
    assert np.array_equal(pixels, batch.pixels)
    assert coverage(info, [r for _, r in cuts]) > 0.999


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cutting_changes_nothing(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Promise 1: over GOP sizes, variable rates, B-frames, first timestamps, containers, and any cut,
    at keyframes or not."""
    draw_ = data.draw
    open_gop = draw_(st.booleans())
    made = make_video(
        tmp_path_factory.mktemp("v") / f"v.{draw_(st.sampled_from(['mp4', 'mkv', 'ts', 'mov']))}",
        seconds=draw_(st.sampled_from([0.04, 1.0, 2.4])),
        gop=draw_(st.sampled_from([1, 5, 12, 250])),
        bframes=draw_(st.integers(0, 4)),
        first_s=draw_(st.sampled_from([0, Fraction(1, 25), Fraction(37, 10)])),
        gaps=draw_(st.sampled_from([None, (1, 2, 1, 3), (1, 1, 1, 40), (5,)])),
        size=(64, 48),
        options={"x264-params": f"open-gop={int(open_gop)}:b-adapt=0:b-pyramid=normal"},
    )
    grids = [
        Grid(
            fps=draw_(st.sampled_from([Fraction(2), Fraction(10), Fraction(30000, 1001), Fraction(60)])),
            size=FrameSize(),
        ),
        Grid(
            fps=Fraction(draw_(st.sampled_from([3, 8]))),
            size=FrameSize(mode="stretch", height=24, width=32),
            window=draw_(st.integers(1, 9)),
            stride=draw_(st.integers(1, 6)),
        ),
        Grid(fps=Fraction(1), size=FrameSize(), keyframes_only=True),
    ]
    info = info_of(made.video)
    assert info.exact_timestamps
    reference, report = run(whole(info), *grids)
    assert report.error is None
    check_against_whole_decode(made, info, reference[0], grids[0].fps)
    end = max(b.time_s[-1] for b in reference)
    last = info.origin_pts + int(Fraction(end) / info.time_base)
    anywhere = sorted(draw_(st.sets(st.integers(info.origin_pts + 1, max(last, info.origin_pts + 1)), max_size=4)))
    planned = cut(info, CutSettings(clip_seconds=draw_(st.sampled_from([0.2, 0.7])), clips_per_task=1), grids, "p")
    for tasks in (pieces(info, anywhere), planned):
        done = [run(t, *grids) for t in tasks]
        assert not [r.error for _, r in done if r.error]
        for g, grid in enumerate(grids):
            parts = [batches[g] for batches, _ in done]
            samples, pts, pixels = owned(parts)
            assert (samples, pts) == (reference[g].sample.tolist(), reference[g].pts.tolist())
            assert np.array_equal(pixels, reference[g].pixels)
            if not grid.keyframes_only:
                assert windows(parts, grid) == windows([reference[g]], grid)
        assert coverage(info, [r for _, r in done]) == pytest.approx(coverage(info, [report]), abs=1e-6)


def test_unneeded_frames_are_not_decoded(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=10, gop=25, bframes=2)
    info = info_of(made.video)
    _, dense = run(whole(info), TWO_FPS)
    assert dense.frames_decoded < 0.6 * made.frames  # B-frames, and the tail of each group
    _, sparse = run(whole(info), Grid(fps=Fraction(1, 4), size=FrameSize()))
    assert sparse.frames_decoded <= 3  # samples at 0, 4 and 8 s are keyframes; other groups are dropped
    assert sparse.reached_end and coverage(info, [sparse]) == 1


@pytest.mark.parametrize("leap_bytes", [0, 8_000])
@pytest.mark.parametrize(
    "extension,options",
    [
        ("mp4", {}),
        ("mov", {"bframes": 0, "first_s": Fraction(37, 10), "audio": True}),
        ("mp4", {"options": {"x264-params": "open-gop=1:b-adapt=0:b-pyramid=normal"}, "gaps": (1, 2, 1, 3)}),
        ("mp4", {"codec": "mpeg4", "options": {"sc_threshold": "1000000000"}}),
        ("mkv", {}),
    ],
)
def test_keyframes_alone_are_leapt_to_and_are_the_same(
    extension: str, options: dict[str, Any], leap_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(3)
    noise = [chance.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(200)]
    made = make_video(tmp_path / f"v.{extension}", seconds=8, gop=25, size=(128, 96), frames=noise, **options)
    info, keys = info_of(made.video), Grid(fps=Fraction(1), size=FrameSize(), keyframes_only=True)
    (read,), report = run(whole(info), keys)
    assert report.bytes_read > 0.9 * made.video.size_bytes - 100_000 * ("audio" in options)
    monkeypatch.setattr(sparse, "LEAP_BYTES", leap_bytes)
    (leapt,), sparing = run(whole(info), keys)
    assert sparing.error is None and sparing.reached_end and coverage(info, [sparing]) == coverage(info, [report])
    assert sparing.bytes_read < 0.6 * report.bytes_read or extension == "mkv"  # the last group is read to its end
    parts = [run(t, keys) for t in cut(info, CutSettings(clip_seconds=2, clips_per_task=1), [keys], "p")]
    assert len(parts) > 2 and coverage(info, [r for _, r in parts]) == pytest.approx(coverage(info, [report]))
    samples, pts, pixels = owned([b for (b,), _ in parts])
    for k, p, x in ((samples, pts, pixels), (leapt.sample.tolist(), leapt.pts.tolist(), leapt.pixels)):
        assert (k, p) == (read.sample.tolist(), read.pts.tolist()) and np.array_equal(x, read.pixels)


def scene(count: int, width: int, height: int, seed: int) -> list[np.ndarray]:
    """A texture under a camera that pans, shakes and stands still, with noise: what an encoder predicts from many
    pictures. And a cut."""
    chance = np.random.default_rng(seed)
    rough = chance.integers(0, 255, (2, (height + 64) // 4, (width + 64) // 4, 3))
    grounds = [np.kron(g, np.ones((4, 4, 1), int)) for g in rough]
    x, y, made = 32, 32, []
    for n in range(count):
        if n % 23 < 15:
            x, y = (x + int(chance.integers(0, 4))) % 64, (y + int(chance.integers(0, 3))) % 64
        ground = grounds[n > count * 2 // 3][y : y + height, x : x + width]
        made.append(np.clip(ground + chance.integers(-9, 10, ground.shape), 0, 255).astype(np.uint8))
    return made


@dataclass(frozen=True)
class Coded:
    """How x264 is to code a scene."""

    params: str
    bframes: int
    gop: int
    extension: str
    seed: int

    def make(self, folder: Path) -> Made:
        return make_video(
            folder / f"v.{self.extension}", seconds=4, size=(80, 64), gop=self.gop, bframes=self.bframes,
            frames=scene(100, 80, 64, self.seed), options={"x264-params": self.params, "preset": "medium"},
        )  # fmt: skip


def codings(**fixed: Any) -> st.SearchStrategy[Coded]:
    def of(bframes: int, gop: int, extension: str, seed: int, **choices: Any) -> Coded:
        params = ":".join(f"{name.replace('_', '-')}={value}" for name, value in choices.items())
        return Coded(params, bframes, gop, extension, seed)

    choices: dict[str, st.SearchStrategy[Any]] = {
        "ref": st.integers(1, 4),
        "b_pyramid": st.sampled_from(["none", "strict", "normal"]),
        "b_adapt": st.integers(0, 2),
        "cabac": st.integers(0, 1),
        "weightp": st.integers(0, 2),
        "weightb": st.integers(0, 1),
        "direct": st.sampled_from(["none", "spatial", "temporal", "auto"]),
        "slices": st.sampled_from([1, 4]),
        "8x8dct": st.integers(0, 1),
        "open_gop": st.sampled_from([0, 0, 1]),
        "intra_refresh": st.sampled_from([0, 0, 0, 1]),
        "interlaced": st.sampled_from([0, 0, 0, 1]),
        "scenecut": st.sampled_from([0, 40]),
        "aud": st.integers(0, 1),
    } | {name: st.just(value) for name, value in fixed.items()}
    return st.builds(
        of,
        bframes=st.integers(0, 4),
        gop=st.sampled_from([12, 60, 250]),
        extension=st.sampled_from(["mp4", "mkv", "ts"]),
        seed=st.integers(0, 99),
        **choices,
    )


@given(coded=codings(), fps=st.sampled_from([Fraction(1), Fraction(2), Fraction(5), Fraction(25, 2)]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hollow_pictures_change_no_pixel(coded: Coded, fps: Fraction, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = coded.make(tmp_path_factory.mktemp("v"))
    info = info_of(made.video)
    grid = Grid(fps=fps, size=FrameSize())
    (batch,), report = run(whole(info), grid)
    assert report.error is None and not report.warnings
    frames = {f.pts: f for f in decode_whole(made.path)}
    assert len(batch.pts) == 4 * fps
    for k, pts, pixels in zip(batch.sample, batch.pts, batch.pixels, strict=True):
        assert pts == max(p for p in frames if p <= info.origin_pts + Fraction(int(k)) / fps / info.time_base)
        assert np.array_equal(pixels, frames[pts].to_ndarray(format="rgb24"))
    parts = [run(t, grid) for t in cut(info, CutSettings(clip_seconds=0.5, clips_per_task=1), [grid], "p")]
    samples, _, pixels = owned([b for (b,), _ in parts])
    assert samples == batch.sample.tolist() and np.array_equal(pixels, batch.pixels)


@pytest.mark.parametrize("cabac", [0, 1])
@pytest.mark.parametrize("extension", ["mp4", "ts"])
def test_references_of_unwanted_frames_alone_are_not_decoded(cabac: int, extension: str, tmp_path: Path) -> None:
    """With a pyramid every other B-frame is a reference, of its neighbours only."""
    made = Coded(f"ref=1:b-pyramid=normal:b-adapt=0:scenecut=0:cabac={cabac}", 3, 50, extension, 0).make(tmp_path)
    info = info_of(made.video)
    _, report = run(whole(info), TWO_FPS)
    with av.open(str(made.path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        referred_to = sum(1 for _ in container.decode(video=0))
    assert referred_to > 50 and report.frames_decoded < 0.75 * referred_to


@pytest.mark.parametrize("damaged", [(0.3, 0.3005), (0.5, 0.52)], ids=["a few bytes", "some pictures"])
def test_hollow_pictures_make_damage_no_worse(
    damaged: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Coded("ref=1:b-pyramid=normal:b-adapt=0:scenecut=0", 3, 25, "mkv", 0).make(tmp_path)
    info = info_of(damage(made, tmp_path / "bad.mkv", *damaged))
    (batch,), report = run(whole(info), TWO_FPS)
    monkeypatch.setattr(sparse.Sparse, "references_of", staticmethod(lambda stream: None))
    (plain,), plain_report = run(whole(info), TWO_FPS)
    assert report.frames_decoded <= plain_report.frames_decoded  # what is damaged is decoded whole either way
    assert (report.error, report.missing_s, report.warnings) == (
        plain_report.error,
        plain_report.missing_s,
        plain_report.warnings,
    )
    assert batch.pts.tolist() == plain.pts.tolist()
    truth = {f.pts: f.to_ndarray(format="rgb24") for f in decode_whole(made.path)}

    def right(b: FrameBatch) -> list[bool]:
        return [np.array_equal(p, truth[t]) for t, p in zip(b.pts.tolist(), b.pixels, strict=True)]

    assert right(batch) == right(plain) and any(right(batch))


def test_keyframes_only(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=4, gop=20)
    info = info_of(made.video)
    (batch,), report = run(whole(info), Grid(fps=Fraction(2), size=FrameSize(), keyframes_only=True))
    assert [read_number(p) for p in batch.pixels] == [0, 20, 40, 60, 80]
    assert batch.time_s.tolist() == [0.0, 0.8, 1.6, 2.4, 3.2]
    assert report.frames_decoded == 5 and report.reached_end and coverage(info, [report]) == 1


def test_one_frame_a_second_shown_at_many_samples(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=3, fps=1, gop=2)
    (batch,), report = run(whole(info_of(made.video)), FIVE_FPS)
    assert [read_number(p) for p in batch.pixels] == [0] * 5 + [1] * 5 + [2] * 5
    assert report.frames_sampled == 3


# Stranger streams


def test_intra_refresh_where_no_picture_is_whole_at_its_keyframe(tmp_path: Path) -> None:
    made = make_video(
        tmp_path / "v.mkv", seconds=4, gop=25, bframes=0, options={"x264-params": "intra-refresh=1"}, size=(192, 96)
    )
    info = info_of(made.video)
    (reference,), _ = run(whole(info), FIVE_FPS)
    check_against_whole_decode(made, info, reference, Fraction(5))
    (late,), report = run(pieces(info, [info.origin_pts + int(2 / info.time_base)])[1], FIVE_FPS)
    assert late.pts.tolist() == reference.pts[10:].tolist()
    assert [read_number(p) for p in late.pixels] == [50, 55, 60, 65, 70, 75, 80, 85, 90, 95]
    assert report.error is None


@pytest.mark.parametrize(
    "codec,extension,options",
    [
        ("mpeg2video", "ts", {"flags": "+ildct+ilme"}),
        ("libx264", "mp4", {"x264-params": "tff=1"}),
        ("libx264", "ts", {"x264-params": "bff=1"}),
    ],
    ids=["mpeg2", "h264-mp4", "h264-ts"],
)
def test_interlaced(codec: str, extension: str, options: dict[str, str], tmp_path: Path) -> None:
    made = make_video(tmp_path / f"v.{extension}", codec=codec, seconds=2, size=(96, 64), options=options)
    assert decode_whole(made.path)[0].interlaced_frame
    info = info_of(made.video)
    (batch,), _ = run(whole(info), FIVE_FPS)
    check_against_whole_decode(made, info, batch, Fraction(5))


def test_timestamps_that_a_container_cannot_hold(tmp_path: Path) -> None:
    """AVI stores no presentation times: with B-frames they are wrong, and the clock is repaired."""
    made = make_video(tmp_path / "v.avi", codec="mpeg4", seconds=3, bframes=2)
    info = info_of(made.video)
    assert not info.exact_timestamps and info.warnings and len(info.keyframe_pts) == 1
    assert len(cut(info, CutSettings(clip_seconds=0.5), [FIVE_FPS], "p")) == 1
    (batch,), report = run(whole(info), FIVE_FPS)
    assert [read_number(p) for p in batch.pixels] == [*range(0, 75, 5)]
    assert coverage(info, [report]) > 0.98
    parts = [run(t, FIVE_FPS)[0][0] for t in pieces(info, [20, 40])]  # where memory asks for it
    samples, pts, pixels = owned(parts)
    assert (samples, pts) == (batch.sample.tolist(), batch.pts.tolist()) and np.array_equal(pixels, batch.pixels)


def test_timestamps_that_leap_hours_ahead_do_not_fill_the_memory(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mkv", seconds=2, gaps=[*[1] * 48, 500_000, 1])
    info = info_of(made.video)
    assert info.duration_s > 20_000
    (batch,), report = decode(
        whole(info), [FIVE_FPS], SOURCE, MediaLimits(max_task_bytes=50 << 20, max_frame_duration=60)
    )
    numbers = [read_number(p) for p in batch.pictures]
    assert numbers == sorted(set(numbers)) and len(numbers) <= 12  # each picture is kept once
    assert 300 <= len(batch.sample) < 330  # the last before the leap stands for a minute, not for hours
    assert any("60 s at most" in w for w in report.warnings)
    assert coverage(info, [report]) < 0.01


def test_timestamps_that_go_back(tmp_path: Path) -> None:
    """Two recordings joined bluntly: the second clock begins again."""
    a = make_video(tmp_path / "a.ts", seconds=2, bframes=0, options={"mpegts_flags": ""})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(a.path.read_bytes() * 2)
    info = info_of(video_of(joined))
    assert not info.exact_timestamps
    assert info.duration_s == pytest.approx(4, abs=0.1)
    (batch,), _ = run(whole(info), FIVE_FPS)
    numbers = [read_number(p) for p in batch.pixels]
    assert numbers[:10] == [*range(0, 50, 5)] and numbers[-9:] == sorted(numbers[-9:]) and len(numbers) in (20, 21)


def test_a_stream_that_changes_its_size(tmp_path: Path) -> None:
    a = make_video(tmp_path / "a.ts", seconds=2, bframes=0, size=(96, 64))
    b = make_video(tmp_path / "b.ts", seconds=2, bframes=0, size=(192, 128), first_s=2)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(a.path.read_bytes() + b.path.read_bytes())
    (batch,), report = run(whole(info_of(video_of(joined))), FIVE_FPS)
    assert batch.pixels.shape[1:] == (64, 96, 3)
    assert [read_number(p) for p in batch.pixels] == [*range(0, 50, 5)] * 2
    assert report.error is None


@pytest.mark.parametrize(
    "codec,extension,pix_fmt",
    [
        ("libx264", "mp4", "yuv420p10le"),
        ("libx264", "mp4", "yuv422p"),
        ("libx264", "mp4", "yuv444p"),
        ("libx265", "mp4", "yuv420p10le"),
        ("libvpx-vp9", "webm", "yuva420p"),
        ("ffv1", "mkv", "bgr0"),
        ("libx264", "mp4", "gray"),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (97, 65)], ids=["even", "odd"])
def test_pixel_formats(codec: str, extension: str, pix_fmt: str, size: tuple[int, int], tmp_path: Path) -> None:
    if size[0] % 2 and pix_fmt in ("yuv420p10le", "yuv422p", "yuva420p"):
        pytest.skip("the encoder takes even sizes only")
    made = make_video(tmp_path / f"v.{extension}", codec=codec, pix_fmt=pix_fmt, seconds=1, size=size)
    info = info_of(made.video)
    (batch,), _ = run(whole(info), FIVE_FPS)
    assert batch.pixels.shape == (5, size[1], size[0], 3)
    check_against_whole_decode(made, info, batch, Fraction(5))


BARS = np.array([[180, 40, 40], [40, 180, 40], [40, 40, 180], [200, 200, 60], [30, 30, 30], [220, 220, 220]], np.uint8)


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["bt709", "bt601", "bt2020"])
@pytest.mark.parametrize("range_", [1, 2], ids=["limited", "full"])
def test_colours_come_back(matrix: int, range_: int, tmp_path: Path) -> None:
    bars = np.repeat(np.repeat(BARS[None], 64, axis=0), 16, axis=1)
    made = make_video(
        tmp_path / "v.mp4", seconds=0.4, size=(96, 64), pix_fmt="yuv444p", colour=(matrix, range_), bframes=0,
        frames=[bars] * 10, options={"crf": "1"},
    )  # fmt: skip
    (batch,), _ = run(whole(info_of(made.video)), FIVE_FPS)
    got = batch.pixels[0][32, 8::16].astype(int)
    assert np.abs(got - BARS).max() <= 4


# Sizes and orientation


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_are_upright(rotation: int, mirrored: bool, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=0.4, size=(96, 64), rotation=rotation, mirrored=mirrored)
    info = info_of(made.video)
    (batch,), _ = run(whole(info), FIVE_FPS)
    assert (info.width, info.height) == ((64, 96) if rotation in (90, 270) else (96, 64))
    frame = decode_whole(made.path)[0]
    matrix = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5] if matrix is not None else (1, 0, 0, 0, 1)
    raw = frame.to_ndarray(format="rgb24")
    expected = np.zeros_like(batch.pixels[0])
    for y in range(0, 64):  # where the matrix itself sends each pixel, centred
        x = np.arange(96)
        px, py = 2 * x - 95, 2 * y - 63
        to_x, to_y = np.sign(a) * px + np.sign(c) * py, np.sign(b) * px + np.sign(d) * py
        expected[(to_y + info.height - 1) // 2, (to_x + info.width - 1) // 2] = raw[y, x]
    assert np.array_equal(batch.pixels[0], expected)


def test_sample_aspect_is_applied(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=0.4, size=(96, 64), aspect=Fraction(4, 3))
    info = info_of(made.video)
    (batch,), _ = run(whole(info), FIVE_FPS)
    assert (info.width, info.height) == (128, 64) and batch.pixels.shape[1:3] == (64, 128)
    assert read_number(batch.pixels[0]) == 0


SIZES = [
    (FrameSize(), (90, 160)),
    (FrameSize(mode="stretch", height=48, width=48), (48, 48)),
    (FrameSize(mode="letterbox", height=64, width=64), (64, 64)),
    (FrameSize(mode="letterbox", height=200, width=400, fill=0), (200, 400)),
    (FrameSize(mode="crop", short_side=64, height=56, width=56), (56, 56)),
    (FrameSize(mode="crop", short_side=40, height=56, width=56), (56, 56)),
    (FrameSize(mode="fit", height=45, width=1000), (45, 80)),
    (FrameSize(mode="fit", height=800, width=320), (180, 320)),
]


@pytest.mark.parametrize("size,shape", SIZES, ids=lambda v: v.mode if isinstance(v, FrameSize) else None)
@pytest.mark.parametrize("rotation", [0, 90])
def test_boxes_map_back_to_the_upright_frame(
    size: FrameSize, shape: tuple[int, int], rotation: int, tmp_path: Path
) -> None:
    """A bright square is found where it was drawn, through every way of resizing."""
    scene = np.full((90, 160, 3), 40, np.uint8)
    scene[30:60, 60:100] = 230
    if rotation:
        scene = np.rot90(scene, 1)  # stored lying; the player turns it clockwise
    made = make_video(
        tmp_path / "v.mp4", seconds=0.2, size=scene.shape[1::-1], rotation=rotation, bframes=0,
        frames=[np.ascontiguousarray(scene)] * 5, options={"crf": "5"},
    )  # fmt: skip
    (batch,), _ = run(whole(info_of(made.video)), Grid(fps=Fraction(5), size=size))
    assert batch.pixels.shape == (1, *shape, 3) and batch.pixels.flags.c_contiguous
    rows, columns = np.nonzero(batch.pixels[0, :, :, 0] > 135)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    tolerance = 1 / min(batch.geometry.scale_x, batch.geometry.scale_y) + 1
    assert np.abs(batch.geometry.to_upright(box)[0] - [60, 30, 100, 60]).max() <= tolerance


def test_padding_is_filled(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=0.4, size=(96, 64))
    (batch,), _ = run(
        whole(info_of(made.video)), Grid(fps=Fraction(5), size=FrameSize(mode="letterbox", height=96, width=96))
    )
    assert (batch.pixels[:, 64:] == 114).all() and batch.pixels[:, :64].std() > 10
    assert batch.geometry.scale_x == 1 and batch.geometry.offset_y == 0


# Honest reports


def test_a_truncated_file_with_its_index_in_front_is_not_whole(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=8, gop=25, container_options={"movflags": "faststart"})
    video = cut_off(made, tmp_path / "cut.mp4", 0.6)
    seen = 0
    with av.open(video.uri) as container, suppress(av.error.InvalidDataError):  # at the cut, without a word before
        container.streams.video[0].thread_count = 1
        for _ in container.decode(video=0):
            seen += 1
    assert 80 < seen < 140
    info = info_of(video)
    assert info.frames_promised == 200 and info.duration_s == pytest.approx(8) and info.warnings
    done = [run(t, FIVE_FPS) for t in cut(info, CutSettings(clip_seconds=2, clips_per_task=1), [FIVE_FPS], "p")]
    share = coverage(info, [r for _, r in done])
    assert 0.5 < share < 0.75
    assert any(r.error for _, r in done)
    samples, _, pixels = owned([b for (b,), _ in done])
    assert samples == [*range(len(samples))] and [read_number(p) for p in pixels] == [5 * k for k in samples]
    (alone,), report = run(whole(info), FIVE_FPS)
    assert alone.sample.tolist() == samples
    assert coverage(info, [report]) == pytest.approx(share, abs=0.01) and not report.reached_end


def test_a_truncated_file_without_an_index_is_not_whole(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mkv", seconds=8, gop=25)
    info = info_of(cut_off(made, tmp_path / "cut.mkv", 0.6))
    assert info.scanned and info.duration_s == pytest.approx(8, abs=0.1)
    (batch,), report = run(whole(info), FIVE_FPS)
    assert 0.4 < coverage(info, [report]) < 0.75 and report.error
    assert [read_number(p) for p in batch.pixels] == [5 * k for k in range(len(batch.sample))]


def test_damage_in_the_middle_costs_only_its_stretch(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.webm", codec="libvpx-vp9", seconds=8, gop=25)
    info = info_of(damage(made, tmp_path / "bad.webm", 0.45, 0.5))
    (batch,), report = run(whole(info), FIVE_FPS)
    assert report.error is not None
    right = [k for k, p in zip(batch.sample, batch.pixels, strict=True) if read_number(p) == 5 * k]
    assert 0 in right and 39 in right and len(right) > 25
    assert coverage(info, [report]) < 0.99


def test_a_task_behind_the_end_of_a_truncated_file(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=8, gop=25, container_options={"movflags": "faststart"})
    info = info_of(cut_off(made, tmp_path / "cut.mp4", 0.5))
    (batch,), report = run(pieces(info, [info.origin_pts + int(7 / info.time_base)])[1], FIVE_FPS)
    assert len(batch.sample) == 0 and report.first_s is None and report.error and not report.reached_end
    assert coverage(info, [report]) == 0


def test_a_file_replaced_after_it_was_listed(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=1)
    info = info_of(made.video)
    make_video(tmp_path / "v.mp4", seconds=2)
    with pytest.raises(SourceChanged, match=r"v\.mp4"):
        run(whole(info), TWO_FPS)
    (tmp_path / "v.mp4").unlink()
    with pytest.raises(SourceChanged, match="deleted"):
        run(whole(info), TWO_FPS)


# S3


@pytest.mark.parametrize("access", ["url", "blocks"])
@pytest.mark.parametrize("movflags", ["faststart", ""], ids=["index-first", "index-last"])
def test_s3_gives_the_same_frames(access: Any, movflags: str, s3_root: Root, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=4, container_options={"movflags": movflags} if movflags else {})
    (local,), _ = run(whole(info_of(made.video)), FIVE_FPS)
    data = made.path.read_bytes()
    key = "a folder/-ünï #1%20?.mp4"
    etag = s3_root.storage.put(key, data)
    video = Video(f"{s3_root.uri}/{key}", len(data), f"{etag}:{len(data)}")
    source = pickle.loads(pickle.dumps(Source(s3_root.options, access=access)))
    info = info_of(video, source)
    done = [run(t, FIVE_FPS, source=source) for t in pieces(info, [k for k in info.keyframe_pts[2::4]])]
    samples, _, pixels = owned([b for (b,), _ in done])
    assert samples == local.sample.tolist() and np.array_equal(pixels, local.pixels)
    s3_root.storage.put(key, data + b"more")
    with pytest.raises(SourceChanged):
        run(whole(info), FIVE_FPS, source=source)


def test_drawn_numbers_read_back() -> None:
    for number in (0, 1, 7, 100, 4095):
        assert read_number(np.repeat(draw(number, 96, 64)[:, :, None], 3, axis=2)) == number
    assert av.__version__.startswith("18.")
