"""Subtitles: what holds, when it holds, read by FFmpeg's own readers."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from vidproc.cut.subtitles import Cue, Format, as_subtitles, joined, shifted


def test_cues_do_not_overlap_and_name_all_that_holds() -> None:
    held = [Cue(0, 10, "person"), Cue(2, 4, "run"), Cue(4, 5, "run"), Cue(12, 13, "car"), Cue(3, 13, "person")]
    assert joined(held) == [
        Cue(0, 2, "person"), Cue(2, 5, "person\nrun"), Cue(5, 12, "person"), Cue(12, 13, "car\nperson"),
    ]  # fmt: skip
    assert shifted([Cue(1, 3, "a"), Cue(3, 4, "b"), Cue(6, 8, "c")], 2, 6) == [Cue(0, 1, "a"), Cue(1, 2, "b")]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_a_reader_gets_times_and_text_back(format: Format, tmp_path: Path) -> None:
    cues = [Cue(0.5, 1.25, "person\nrun"), Cue(3661.001, 3662, "a & b --> c"), Cue(3663, 3664, "<i>{\\an8}x</i>")]
    (path := tmp_path / f"a.{format}").write_text(as_subtitles(cues, format), "utf-8")
    with av.open(str(path)) as file:
        stream = file.streams.subtitles[0]
        read = [
            (float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p))
            for p in file.demux(stream)
            if p.size
        ]
    assert [(start, start + length) for start, length, _ in read] == [
        pytest.approx((cue.start_s, cue.end_s), abs=0.001) for cue in cues
    ]
    texts = [text.decode() for _, _, text in read]
    assert texts[0] == "person\nrun" and "-->" not in texts[1] and "<i>" not in texts[2]
