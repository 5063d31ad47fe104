"""Every file of the real data ends in the right status, for the right reason, with the right frames.

The table was written from the files' own description and checked by the plainest decode loop.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.media import video_of
from vidproc.errors import MediaError
from vidproc.media import FrameBatch, FrameSize, Grid, VideoInfo
from vidproc.video.container import MediaLimits, Source
from vidproc.video.decode import coverage, decode
from vidproc.video.plan import CutSettings, cut
from vidproc.video.probe import probe
from vidproc.video.verify import decode_and_verify

pytestmark = pytest.mark.acceptance

DATA = Path(os.environ.get("VIDPROC_ACCEPTANCE_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
VIDEOS = DATA / "videos"
GRID = Grid(fps=Fraction(2), size=FrameSize())
WHOLE = 0.999


@dataclass(frozen=True)
class Expected:
    status: str
    """indexed, partial, or the class by which it is declined."""
    frames: int = 0
    """That really decode."""
    samples: int = 0
    """At two a second."""
    rotation: int = 0


def ok(frames: int, samples: int, rotation: int = 0) -> Expected:
    return Expected("indexed", frames, samples, rotation)


def no(error_class: str) -> Expected:
    return Expected(error_class)


TABLE = {
    "cosmos/test_clip_10s.mp4": ok(240, 20),
    "evadb/actions.mp4": ok(151, 11),
    "exoplayer/bbb_2500ms.ts": ok(58, 5),
    "exoplayer/bear-vp9.webm": ok(82, 6),
    "exoplayer/dolbyVision-hdr.MOV": ok(4, 1, 90),
    "exoplayer/roadtrip-vp92-10bit.webm": ok(72, 7),
    "exoplayer/sample.flv": ok(30, 2),
    "exoplayer/sample.mkv": ok(30, 2),
    "exoplayer/sample.mp4": ok(30, 3),
    "exoplayer/sample_ac3.mp4": no("audio_only"),
    "exoplayer/sample_ac4_protected.mp4": no("audio_only"),
    "exoplayer/sample_ait.ts": no("audio_only"),
    "exoplayer/sample_android_slow_motion.mp4": ok(7, 2),
    "exoplayer/sample_av1.mp4": ok(30, 3),
    "exoplayer/sample_fragmented.mp4": ok(30, 3),
    "exoplayer/sample_fragmented_seekable.mp4": ok(30, 3),
    "exoplayer/sample_h262_mpeg_audio.ts": ok(3, 1),
    "exoplayer/sample_h264_mpeg_audio.ts": ok(3, 1),
    "exoplayer/sample_h264_no_access_unit_delimiters.ts": ok(3, 1),
    "exoplayer/sample_latm.ts": no("audio_only"),
    "exoplayer/sample_mdat_too_long.mp4": ok(30, 3),
    "exoplayer/sample_opus.mp4": no("audio_only"),
    "exoplayer/sample_with_htc_rotation_track_name.mkv": ok(30, 2),
    "exoplayer/sample_with_increasing_timestamps_320w_240h.mp4": ok(932, 32),
    "exoplayer/sample_with_opus_audio.mkv": no("audio_only"),
    "exoplayer/sample_with_sdt.ts": no("no_frames"),
    "exoplayer/subsample_encrypted_noaltref.webm": no("encrypted"),
    "exoplayer/testvid_1022ms.mp4": ok(30, 3),
    "ffmpeg_python/in.mp4": ok(209, 14),
    "intel/bottle-detection.mp4": ok(1189, 80),
    "intel/one-by-one-person-detection.mp4": ok(1394, 279),
    "libwebm/bbb_480p_vp9_opus_1second.webm": ok(24, 2),
    "libwebm/block_ends_beyond_cluster.mkv": Expected("partial", 1, 1),
    "libwebm/invalid_vp9_bitstream-bug_1416.webm": no("limit"),
    "mmaction2/demo.mp4": ok(280, 20),
    "mmaction2/tests_data_rawvideo_dataset_part_0.mp4": ok(32, 3),
    "mmaction2/tests_data_test.avi": ok(164, 14),
    "mmaction2/tests_data_test.mp4": ok(300, 20),
    "moviepy/-video-with-dash-.mp4": ok(5, 10),
    "moviepy/big_buck_bunny_0_30.webm": ok(720, 60),
    "moviepy/big_buck_bunny_432_433.webm": ok(24, 2),
    "moviepy/bitmap.mp4": ok(5, 10),
    "moviepy/chaplin.mp4": ok(241, 20),
    "moviepy/doc_medias_example2.mp4": ok(48, 4),
    "moviepy/doc_medias_long_examples_example.mp4": ok(400, 32),
    "moviepy/smpte-2997.mp4": ok(251, 21),
    "moviepy/transparent.webm": ok(150, 10),
    "pyscenedetect/counter.mp4": ok(30, 6),
    "pyscenedetect/fades.mp4": ok(250, 20),
    "pyscenedetect/testvideo.mp4": ok(720, 49),
    "spliced/dev_splice.mp4": ok(894, 72),
    "tf_examples/carving_ice_android.mp4": ok(200, 14),
    "tf_examples/carving_ice_rpi.mp4": ok(131, 9),
    "torchcodec/av1_video.mkv": ok(125, 10),
    "torchcodec/bt2020_10bit.mp4": ok(60, 4),
    "torchcodec/bt709_full_range.mp4": ok(30, 2),
    "torchcodec/h264_10bits.mp4": ok(30, 2),
    "torchcodec/h265_video.mp4": ok(10, 2),
    "torchcodec/nasa_13013.mp4": ok(325, 26),
    "torchcodec/nasa_13013.mp4.audio.mp3": no("audio_only"),
    "torchcodec/nasa_13013_rotated.mp4": ok(17, 2, 270),
    "torchcodec/nasa_13013_vfr.mp4": ok(50, 9),
    "torchcodec/testsrc2_av1_10bit.mp4": ok(25, 2),
    "torchcodec/testsrc2_h265.mp4": ok(60, 4),
    "torchcodec/testsrc2_hdr.mp4": ok(60, 4),
    "torchcodec/testsrc2_mpeg4.avi": ok(30, 2),
    "torchcodec/testsrc2_odd_height_and_width_444.mp4": ok(25, 2),
    "torchcodec/testsrc2_vp8.webm": ok(30, 2),
    "torchcodec/testsrc2_vp9.webm": ok(30, 2),
    "torchcodec/var_fps_video.mp4": ok(300, 30),
}


def files() -> set[str]:
    return {str(p.relative_to(VIDEOS)) for p in VIDEOS.rglob("*") if p.is_file()} if VIDEOS.is_dir() else set()


def plain_decode(path: Path, stream: int) -> tuple[list[av.VideoFrame], list[int]]:
    """All frames in order of output, and their packets' decoding times."""
    frames: list[av.VideoFrame] = []
    times: list[int] = []
    with av.open(f"file:{path}") as container:
        video = container.streams[stream]
        video.thread_count = 1
        for packet in container.demux(video):
            if packet.size:
                times.append(packet.dts)
            try:
                frames += video.codec_context.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                continue
    return frames, times


def test_the_table_names_every_file() -> None:
    assert VIDEOS.is_dir(), f"no videos at {VIDEOS}: set VIDPROC_ACCEPTANCE_DATA"
    assert files() == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_file(name: str) -> None:
    expected, path = TABLE[name], VIDEOS / name
    video = video_of(path)
    try:
        info = probe(video, Source(), MediaLimits())
    except MediaError as e:
        assert e.error_class == expected.status
        assert name in str(e)
        return
    (task,) = cut(info, CutSettings(clip_seconds=1e9, hard_bytes=1 << 40, soft_bytes=1 << 40), [GRID], "p")
    (batch,), report = decode(task, [GRID], Source(), MediaLimits())
    share = coverage(info, [report])
    assert ("indexed" if share >= WHOLE else "partial") == expected.status
    assert (report.error is None) == (expected.status == "indexed")
    frames, decoding_times = plain_decode(path, info.stream_index)
    assert len(frames) == expected.frames
    assert len(batch.sample) == expected.samples and batch.sample.tolist() == [*range(expected.samples)]
    if expected.status == "indexed":
        assert report.end_s is not None and expected.samples == math.ceil(2 * report.end_s - 1e-9)
    assert info.rotation == expected.rotation
    check_frames(info, batch, frames, decoding_times)
    tasks = cut(info, CutSettings(clip_seconds=1, clips_per_task=1), [GRID], "p")
    parts = [decode_and_verify(t, [GRID], Source(), MediaLimits(), share=1.0, time_limit_s=math.inf) for t in tasks]
    assert all(report.verified for _, report in parts)
    assert np.array_equal(np.concatenate([b.pts[: b.owned] for (b,), _ in parts]), batch.pts)
    assert np.array_equal(np.concatenate([b.pixels[: b.owned] for (b,), _ in parts]), batch.pixels)
    assert coverage(info, [r for _, r in parts]) == pytest.approx(share, abs=1e-6)


def check_frames(info: VideoInfo, batch: FrameBatch, frames: list[av.VideoFrame], decoding_times: list[int]) -> None:
    """The sampled frames are those on screen at their time, bit for bit."""
    if info.exact_timestamps:
        timed = sorted(((f.pts, f) for f in frames if f.pts is not None), key=lambda pair: pair[0])
    else:  # no times in the container but those of decoding: the n-th frame shown gets the n-th
        pace = [t - min(decoding_times) + info.origin_pts for t in sorted(decoding_times)]
        timed = list(zip(pace, frames, strict=True))
    upright = (info.width, info.height) == (frames[0].width, frames[0].height) and not info.rotation
    for k, pts, pixels in zip(batch.sample, batch.pts, batch.pixels, strict=True):
        moment = info.origin_pts + Fraction(int(k), 2) / info.time_base
        shown, frame = max((p for p in timed if p[0] <= moment), key=lambda pair: pair[0])
        assert pts == shown
        if upright:
            assert np.array_equal(pixels, frame.to_ndarray(format="rgb24"))
        else:  # turned or stretched: the same picture, to the resizer's rounding
            picture = frame.reformat(
                width=info.height if info.rotation in (90, 270) else info.width,
                height=info.width if info.rotation in (90, 270) else info.height,
                format="rgb24",
            ).to_ndarray()
            assert np.array_equal(pixels, np.rot90(picture, -info.rotation // 90))


def test_the_front_of_a_file_is_never_called_whole(tmp_path: Path) -> None:
    """The first 300,000 bytes of an MP4 with its index in front decode without an error."""
    seen = 0
    for name in sorted(TABLE):
        path = VIDEOS / name
        data = path.read_bytes()
        if path.suffix != ".mp4" or TABLE[name].status != "indexed" or len(data) < 400_000:
            continue
        if data.find(b"moov") > 300_000 or b"moov" not in data[:300_000]:
            continue
        cut_ = tmp_path / f"{seen}.mp4"
        cut_.write_bytes(data[:300_000])
        info = probe(video_of(cut_), Source(), MediaLimits())
        parts = [
            decode(t, [GRID], Source(), MediaLimits()) for t in cut(info, CutSettings(clip_seconds=2), [GRID], "p")
        ]
        assert coverage(info, [r for _, r in parts]) < 0.98, name
        assert any(r.error for _, r in parts), name
        seen += 1
    assert seen >= 3
