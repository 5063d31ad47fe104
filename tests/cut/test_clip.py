"""Clips: the frames that were asked for, at the same times, the middle bit for bit, the sound in step."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.media import Made, decode_whole, make_video, read_number, video_of
from vidproc.cut.clip import write_clip
from vidproc.cut.report import ClipReport, Mode
from vidproc.errors import Undecodable
from vidproc.video.container import MediaLimits, Source
from vidproc.video.probe import probe

SOURCES: dict[str, dict[str, Any]] = {
    "mp4": {"name": "a.mp4"},
    "mp4-offset": {"name": "a.mp4", "first_s": Fraction(3, 2)},
    "mp4-variable": {"name": "a.mp4", "gaps": (1, 3, 1, 2, 7)},
    "mp4-turned": {"name": "a.mp4", "rotation": 90},
    "ts": {"name": "a.ts"},
    "mkv": {"name": "a.mkv"},
    "baseline": {"name": "a.mp4", "bframes": 0, "options": {"profile": "baseline"}},
    "ten-bit": {"name": "a.mkv", "pix_fmt": "yuv420p10le"},
    "hevc": {"name": "a.mp4", "codec": "libx265"},
    "hevc-mkv": {"name": "a.mkv", "codec": "libx265"},
    "vp9": {"name": "a.webm", "codec": "libvpx-vp9"},
    "mpeg2-ts": {"name": "a.ts", "codec": "mpeg2video"},
}
"""Sources whose middle can be copied."""


def cut(made: Made, out: Path, start: float, end: float, mode: Mode = "exact") -> ClipReport:
    source, limits = Source(), MediaLimits()
    return write_clip(probe(made.video, source, limits), source, limits, start, end, out, mode=mode)


def planes(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="yuv444p16le" if "10" in frame.format.name else "yuv420p").astype(np.int64)


def psnr(a: av.VideoFrame, b: av.VideoFrame) -> float:
    x, y = planes(a), planes(b)
    error = float(((x - y) ** 2).mean())
    peak = 65535.0 if "10" in a.format.name else 255.0
    return float("inf") if error == 0 else 10 * np.log10(peak**2 / error)


def expected(made: Made, start: float, end: float) -> list[int]:
    """Numbers of the frames that are on screen in [start, end)."""
    ends = [*made.times[1:], made.times[-1] + Fraction(1, 25)]
    return [n for n, (at, until) in enumerate(zip(made.times, ends, strict=True)) if until > start and at < end]


@pytest.mark.parametrize("kind", SOURCES)
def test_an_exact_cut_shows_the_same_frames_at_the_same_times(kind: str, tmp_path: Path) -> None:
    how = dict(SOURCES[kind])
    made = make_video(tmp_path / how.pop("name"), seconds=4, gop=20, size=(128, 96), **how)
    start, end = 0.5 + float(made.times[3]), float(made.times[-1]) - 0.3
    report = cut(made, out := tmp_path / ("clip.mkv" if kind == "ten-bit" else "clip.mp4"), start, end)
    assert report.mode == "exact" and not report.why and report.copied >= 20 and report.encoded

    whole, clip = decode_whole(made.path), decode_whole(out)
    wanted = expected(made, start, end)
    assert [read_number(f.to_ndarray(format="rgb24")) for f in clip] == wanted
    quality = [psnr(whole[n], frame) for n, frame in zip(wanted, clip, strict=True)]
    assert sum(q == float("inf") for q in quality) >= report.copied and min(quality) >= 40
    zero = clip[0].pts * clip[0].time_base
    for n, frame in zip(wanted, clip, strict=True):
        assert abs(frame.pts * frame.time_base - zero - (made.times[n] - made.times[wanted[0]])) <= Fraction(1, 1000)
    assert report.start_s == pytest.approx(float(made.times[wanted[0]]), abs=1e-3)
    turned = probe(video_of(out), Source(), MediaLimits()).rotation
    assert turned == how.get("rotation", 0), "the container says how to turn it, as the source's did"


@pytest.mark.parametrize("kind", ["mp4", "hevc", "ts"])
def test_a_copy_begins_at_a_keyframe_and_says_so(kind: str, tmp_path: Path) -> None:
    how = dict(SOURCES[kind])
    made = make_video(tmp_path / how.pop("name"), seconds=4, gop=20, size=(128, 96), **how)
    report = cut(made, out := tmp_path / "clip.mp4", 1.3, 2.5, "copy")
    whole, clip = decode_whole(made.path), decode_whole(out)
    first = round(report.start_s * 25)
    assert report.mode == "copy" and not report.encoded and report.start_s <= 1.3 and report.end_s >= 2.5 - 0.04
    assert report.start_s > 1.3 - 21 / 25
    for n, frame in enumerate(clip):
        assert np.array_equal(planes(frame), planes(whole[first + n])), n
    assert len(clip) >= len(expected(made, report.start_s, 2.5))


@pytest.mark.parametrize(
    "how",
    [{"name": "a.avi", "codec": "mpeg4"}, {"name": "a.mp4", "options": {"x264-params": "open-gop=1"}, "bframes": 3}],
    ids=["avi", "open"],
)  # fmt: skip
def test_what_cannot_be_copied_is_encoded_and_says_why(how: dict[str, Any], tmp_path: Path) -> None:
    made = make_video(tmp_path / how.pop("name"), seconds=3, gop=20, size=(128, 96), **how)
    report = cut(made, out := tmp_path / "clip.mp4", 0.5, 2.1)
    assert report.mode == "encode" and report.why and report.copied == 0
    assert [read_number(f.to_ndarray(format="rgb24")) for f in decode_whole(out)] == expected(made, 0.5, 2.1)


@pytest.mark.parametrize(
    "how",
    [
        {"name": "a.avi", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
        {"name": "a.webm", "codec": "libvpx-vp9"},
        {"name": "a.mkv", "codec": "ffv1", "pix_fmt": "yuv444p"},
    ],
    ids=["mjpeg", "vp9", "ffv1"],
)
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mpeg4"])
def test_odd_sides_are_encoded_too(how: dict[str, Any], codec: str, tmp_path: Path) -> None:
    how = dict(how)
    made = make_video(tmp_path / how.pop("name"), seconds=1, size=(97, 65), **how)
    source, limits = Source(), MediaLimits()
    info = probe(made.video, source, limits)
    write_clip(info, source, limits, 0.2, 0.8, out := tmp_path / "clip.mkv", mode="encode", codec=codec)
    assert [read_number(f.to_ndarray(format="rgb24")) for f in decode_whole(out)] == expected(made, 0.2, 0.8)


def test_each_frame_a_keyframe_is_copied_whole_and_others_are_not_taken_for_it(tmp_path: Path) -> None:
    every = make_video(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", seconds=1)
    report = cut(every, tmp_path / "every.mkv", 0.2, 0.8)
    assert (report.mode, report.encoded) == ("exact", 0) and report.copied == len(expected(every, 0.2, 0.8))
    some = make_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv444p", seconds=1)
    report = cut(some, out := tmp_path / "some.mkv", 0.2, 0.8)
    assert report.mode == "encode" and "ffv1" in report.why
    assert [read_number(f.to_ndarray(format="rgb24")) for f in decode_whole(out)] == expected(some, 0.2, 0.8)


def test_sound_stays_in_step(tmp_path: Path) -> None:
    made = make_video(tmp_path / "a.mp4", seconds=6, gop=20, size=(128, 96), audio=True)
    cut(made, out := tmp_path / "clip.mp4", 1.3, 4.9)

    def sounds(path: Path) -> list[tuple[Fraction, bytes]]:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            return [
                (p.pts * stream.time_base, bytes(p)) for p in container.demux(stream) if p.size and p.pts is not None
            ]

    source, clip = sounds(made.path), sounds(out)
    video = decode_whole(out)
    video_zero = video[0].pts * video[0].time_base
    wanted = [at for at, _ in source if at + Fraction(1024, 8000) > Fraction(32, 25) and at < Fraction(49, 10)]
    assert len(clip) == len(wanted)
    for (at, _), was in zip(clip, wanted, strict=True):
        assert abs((at - video_zero) - (was - Fraction(32, 25))) <= Fraction(1, 8000)


def test_nothing_is_shown_behind_the_end(tmp_path: Path) -> None:
    made = make_video(tmp_path / "a.mp4", seconds=2)
    for mode in ("copy", "exact", "encode"):
        with pytest.raises(Undecodable, match=r"nothing is shown from 5 s on: it ends at 2 s"):
            cut(made, tmp_path / "clip.mp4", 5, 6, mode)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_video(tmp_path_factory.mktemp("cut") / "a.mp4", seconds=5, gop=16, bframes=3)


@given(first=st.integers(0, 110), length=st.integers(1, 60), inside=st.sampled_from([0.0, 0.01, 0.039]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_gives_its_frames(long: Made, first: int, length: int, inside: float) -> None:
    out = long.path.with_name("clip.mp4")
    start, end = first / 25 + inside, min(5.0, (first + length) / 25 + inside)
    cut(long, out, start, end)
    assert [read_number(f.to_ndarray(format="rgb24")) for f in decode_whole(out)] == expected(long, start, end)
