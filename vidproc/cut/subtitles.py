"""Subtitles of what a lake says: labels in view and actions, for the clips of an export or a whole video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from vidproc.errors import ConfigError
from vidproc.media import content_hash
from vidproc.text import printable

if TYPE_CHECKING:
    from vidproc.ask import LakeDatabase
    from vidproc.cut.export import Export

Format = Literal["srt", "vtt"]
FORMATS: tuple[Format, ...] = ("srt", "vtt")


def formats_of(names: Sequence[str]) -> tuple[Format, ...]:
    """Return the formats, each once. Raises ConfigError for a name that is none."""
    if unknown := sorted({*names} - {*FORMATS}):
        raise ConfigError(f"--subtitles is srt or vtt, not {', '.join(unknown)}")
    return tuple(format for format in FORMATS if format in names)


@dataclass(frozen=True, slots=True, order=True)
class Cue:
    """Text that is shown from `start_s` to `end_s`, in seconds."""

    start_s: float
    end_s: float
    text: str


def cues_between(lake: LakeDatabase, video_id: str, start_s: float, end_s: float) -> list[Cue]:
    """Return the cues of a stretch, on the video's clock: one for each time in which the same labels and actions hold,
    so that no two overlap."""
    sql = (
        "SELECT start_s, end_s, label FROM segments WHERE video_id = ? AND end_s > ? AND start_s < ? "
        "ORDER BY start_s, end_s, kind DESC, label"
    )
    rows = lake.sql(sql, [video_id, start_s, end_s]).read_all().to_pylist()
    held = [Cue(max(r["start_s"], start_s), min(r["end_s"], end_s), printable(r["label"])) for r in rows]
    return joined(held)


def joined(held: Sequence[Cue]) -> list[Cue]:
    """Return cues that do not overlap: each names, a line each, everything that holds during it."""
    edges = sorted({edge for cue in held for edge in (cue.start_s, cue.end_s)})
    found: list[Cue] = []
    for start_s, end_s in pairwise(edges):
        lines = dict.fromkeys(c.text for c in held if c.start_s <= start_s and c.end_s >= end_s)
        text = "\n".join(lines)
        if not text:
            continue
        if found and found[-1].text == text and found[-1].end_s == start_s:
            found[-1] = Cue(found[-1].start_s, end_s, text)
        else:
            found.append(Cue(start_s, end_s, text))
    return found


def shifted(cues: Sequence[Cue], start_s: float, end_s: float) -> list[Cue]:
    """Return the cues on the clock of a clip that shows [start_s, end_s) of the video."""
    inside = (Cue(max(c.start_s, start_s) - start_s, min(c.end_s, end_s) - start_s, c.text) for c in cues)
    return [cue for cue in inside if _ms(cue.end_s) > _ms(cue.start_s)]


def write_subtitles(lake: LakeDatabase, export: Export, formats: Sequence[Format]) -> int:
    """Write subtitles beside each clip that is there, on the clip's clock; return how many files."""
    written = 0
    for work in export.works if formats else ():
        record = export.records.get(work.clip.name)
        if record is None or record.start_s is None or record.end_s is None:
            continue
        video_id = content_hash(record.uri)
        cues = shifted(cues_between(lake, video_id, record.start_s, record.end_s), record.start_s, record.end_s)
        for format in formats:
            export.place.put(f"{record.name}.{format}", as_subtitles(cues, format).encode())
            written += 1
    return written


def as_subtitles(cues: Sequence[Cue], format: Format) -> str:
    """Return a file of SubRip or WebVTT."""
    blocks = []
    for number, cue in enumerate(cues, 1):
        start, end = (_clock(seconds, "," if format == "srt" else ".") for seconds in (cue.start_s, cue.end_s))
        blocks.append(f"{number}\n{start} --> {end}\n{_harmless(cue.text, format)}\n")
    return ("WEBVTT\n\n" if format == "vtt" else "") + "\n".join(blocks)


def _harmless(text: str, format: Format) -> str:
    """Labels are text: no line ends a cue, and none is a tag."""
    text = "\n".join(line or " " for line in text.replace("-->", "->").split("\n"))
    if format == "vtt":
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("<", "\u2039").replace(">", "\u203a").replace("{", "(").replace("}", ")")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float, point: str) -> str:
    ms = _ms(seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
