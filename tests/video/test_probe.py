"""What is said of a video without reading it: the index, the clock, and what is declined and why."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.media import cut_off, make_sound, make_video, video_of
from vidproc.dates import check_name_pattern, recorded_from_name
from vidproc.errors import Declined, LimitExceeded, MediaError, SourceChanged
from vidproc.media import Video, VideoInfo
from vidproc.video.container import MediaLimits, Source
from vidproc.video.probe import probe

LIMITS = MediaLimits()


def info_of(video: Video, pattern: str | None = None) -> VideoInfo:
    return probe(video, Source(), LIMITS, pattern)


@pytest.mark.parametrize(
    "extension,scanned", [("mp4", False), ("mov", False), ("mkv", False), ("ts", True), ("flv", True)]
)
@pytest.mark.parametrize("first_s", [0, Fraction(5, 2)])
def test_what_a_container_says(extension: str, scanned: bool, first_s: Fraction, tmp_path: Path) -> None:
    made = make_video(
        tmp_path / f"v.{extension}", seconds=6, gop=25, first_s=first_s, bframes=2, audio=extension != "flv"
    )
    info = info_of(made.video)
    assert (info.codec, info.width, info.height, info.rotation) == ("h264", 96, 64, 0)
    assert info.scanned is scanned and info.exact_timestamps
    assert info.fps == pytest.approx(25, rel=0.02)
    assert info.duration_s == pytest.approx(6, abs=0.05)
    assert info.pts_to_seconds(info.origin_pts) == 0
    assert [round(info.pts_to_seconds(k), 2) for k in info.keyframe_pts] == [0, 1, 2, 3, 4, 5]
    if not scanned and extension != "mkv":
        assert info.frames_promised == 150


def test_a_fragmented_file_is_scanned(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=4, gop=25, container_options={"movflags": "frag_keyframe+empty_moov"})
    info = info_of(made.video)
    assert info.scanned and len(info.keyframe_pts) == 4 and info.duration_s == pytest.approx(4, abs=0.05)


def test_a_rate_that_is_a_time_base_is_not_believed(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mkv", fps=1000, seconds=0.03, bframes=0)
    fps = info_of(made.video).fps
    assert fps is None or fps <= 480


def test_the_clock_of_the_wall(tmp_path: Path) -> None:
    tagged = make_video(tmp_path / "v.mp4", seconds=0.2, metadata={"creation_time": "2024-05-06T07:08:09Z"})
    assert info_of(tagged.video).recorded_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    never_set = make_video(tmp_path / "w.mp4", seconds=0.2, metadata={"creation_time": "1904-01-01T00:00:00Z"})
    assert info_of(never_set.video).recorded_at is None
    named = make_video(tmp_path / "cam7_20251231-235958_x.mp4", seconds=0.2)
    assert info_of(named.video, "%Y%m%d-%H%M%S").recorded_at == datetime(2025, 12, 31, 23, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    "name,pattern,expected",
    [
        ("2025-01-02T03:04:05+0200.mp4", "%Y-%m-%dT%H:%M:%S%z", datetime(2025, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("9920250102.mp4", "%Y%m%d", datetime(2025, 1, 2, tzinfo=UTC)),
        ("100%_20250102.mp4", "%%_%Y%m%d", datetime(2025, 1, 2, tzinfo=UTC)),
        ("03 Feb 2025 (1).mp4", "%d %b %Y", datetime(2025, 2, 3, tzinfo=UTC)),
        ("cam1_1767225600_x.mp4", "cam1_%s", datetime(2026, 1, 1, tzinfo=UTC)),
        ("nothing.mp4", "%Y%m%d", None),
        ("20259999.mp4", "%Y%m%d", None),
    ],
)
def test_times_in_names(name: str, pattern: str, expected: datetime | None) -> None:
    assert recorded_from_name(name, pattern) == expected


@pytest.mark.parametrize(
    "pattern,why",
    [
        ("%Q", "%Q in '%Q' is not understood; known are %y"),
        ("cam1", "tells no day"),
        ("%H%M%S", "tells no day"),
        ("%Y%m%d%", "% in"),
        ("%Y-%m-%d %Y", "holds %Y twice"),
    ],
)
def test_a_pattern_that_no_name_can_match_fails(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_name_pattern(pattern)


HOSTILE_NAMES = [
    "-i.mp4",
    "a b.mp4",
    "line\nbreak.mp4",
    "ünï😀.mp4",
    "#1%20?.mp4",
    "http:x.mp4",
    "concat:a|b.mp4",
    "{}*.mp4",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_opens(name: str, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=0.2)
    os.rename(made.path, tmp_path / name)
    assert info_of(video_of(tmp_path / name)).frames_promised == 5


def test_files_that_are_no_videos_are_declined_by_their_right_name(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=1)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("just some words\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(os.urandom(5000))
    (tmp_path / "sound.mp4").write_bytes(make_sound(tmp_path / "s.m4a").read_bytes())
    (tmp_path / "noindex.mp4").write_bytes(made.path.read_bytes()[:3000])
    classes = {}
    for name in ("empty", "text", "noise", "sound", "noindex"):
        with pytest.raises(Declined, match=name) as caught:
            info_of(video_of(tmp_path / f"{name}.mp4"))
        classes[name] = caught.value.error_class
    assert classes == {
        "empty": "empty",
        "text": "not_media",
        "noise": "not_media",
        "sound": "audio_only",
        "noindex": "not_media",
    }


def test_files_that_point_elsewhere_are_refused(tmp_path: Path) -> None:
    """Nothing but the object itself is ever opened."""
    made = make_video(tmp_path / "v.ts", seconds=1)
    path = made.path
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{path}'\n",
        "dash.mp4": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:'
        f'isoff-on-demand:2011" type="static"><Period><AdaptationSet><Representation id="1"><BaseURL>{path}</BaseURL>'
        f"</Representation></AdaptationSet></Period></MPD>",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "image.mp4": "P6\n2 2\n255\n" + "x" * 12,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(Declined):
            info_of(video_of(tmp_path / name))


def test_limits_are_checked_before_decoding(tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=0.2, size=(128, 96))
    for extension in ("mp4", "mkv"):
        made = make_video(tmp_path / f"v.{extension}", seconds=0.2, size=(128, 96))
        with pytest.raises(LimitExceeded, match="128x96"):
            probe(made.video, Source(), MediaLimits(max_pixels=128 * 95))
    with pytest.raises(LimitExceeded, match="lasts"):
        probe(made.video, Source(), MediaLimits(max_duration=0.1))
    two = make_video(tmp_path / "two.mp4", seconds=0.2, audio=True)
    with pytest.raises(LimitExceeded, match="2 streams"):
        probe(two.video, Source(), MediaLimits(max_streams=1))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "ts", "avi", "flv", "mpg"])
def test_a_cut_off_file_never_crashes_or_grows(extension: str, share: float, tmp_path: Path) -> None:
    codec = {"webm": "libvpx", "avi": "mjpeg", "mpg": "mpeg2video"}.get(extension, "libx264")
    options: dict[str, Any] = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    made = make_video(
        tmp_path / f"v.{extension}", codec=codec, seconds=3, gop=12,
        container_options={"movflags": "faststart"} if extension == "mp4" else {}, **options,
    )  # fmt: skip
    whole = info_of(made.video)
    try:
        info = info_of(cut_off(made, tmp_path / f"cut.{extension}", share))
    except MediaError:
        assert share < 0.5
        return
    assert info.duration_s <= whole.duration_s + 0.1
    if extension in ("mp4", "mkv", "webm", "avi", "flv"):  # a header in front promised the whole
        assert info.duration_s == pytest.approx(whole.duration_s, abs=0.15)


def test_index_at_the_end_over_s3_costs_few_requests(s3_root: Root, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=4)
    data = made.path.read_bytes()
    etag = s3_root.storage.put("v.mp4", data)
    video = Video(f"{s3_root.uri}/v.mp4", len(data), f"{etag}:{len(data)}")
    for access in ("url", "blocks"):
        source = Source(s3_root.options, access=access)  # type: ignore[arg-type]
        info = probe(video, source, LIMITS)
        assert info.frames_promised == 100
    s3_root.storage.put("v.mp4", data[:-1])
    with pytest.raises((SourceChanged, MediaError)):
        probe(video, Source(s3_root.options), LIMITS)
    s3_root.storage.delete(["v.mp4"])
    with pytest.raises(SourceChanged) as gone:
        probe(video, Source(s3_root.options), LIMITS)
    assert "Signature" not in str(gone.value) and "?" not in str(gone.value)
