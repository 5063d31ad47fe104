"""Sentences about a video, as its tasks gave them, put together into what its row says.

A moment is written `12.480 s` and a time range `12.480-13.120 s`, on the video's clock; commas separate several,
and ` and 7 more` stands for those that are left out. Sentences that differ only in these become one, and so do those
that differ only in a number in front, which is added up: `3 frames are damaged at 1.200 s, 1.240 s, 2.000 s`. So what
is said of a video does not depend on how it was cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_NAMED = 8
"""Moments that one sentence of a row names; the others are counted."""
MAX_NAMED_BY_TASK = 200
"""The same for one task, whose sentences lie staged: enough for the first of the video to be among them."""
MAX_SENTENCES = 40
"""Sentences in one row; the others are counted."""
MAX_CHARACTERS = 500
"""Length of one sentence; a longer one ends in dots."""

_ONE = r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))? s\b"
_MOMENTS = re.compile(rf"(?<![\w.-]){_ONE}(?:, {_ONE})*(?: and (?P<more>\d+) more\b)?")
_COUNT = re.compile(r"(\d+) (?=[^\W\d])")

Span = tuple[float, float]
"""Start and end in seconds; equal for a moment."""


def moments(spans: Iterable[float | Span], most: int = MAX_NAMED_BY_TASK) -> str:
    """The moments (seconds) or time ranges (start and end) as a sentence gives them: `1.200 s, 3.000-4.000 s`."""
    return _spelled(_union(span if isinstance(span, tuple) else (span, span) for span in spans), 0, most)


def merged(sentences: Iterable[str]) -> tuple[str, ...]:
    """Each sentence once, whichever task gave it: those without a moment first, then in order of time."""
    found: dict[str, _Remark] = {}
    for text in sentences:
        remark = _Remark.of(text)
        found[remark.key] = found[remark.key].and_(remark) if remark.key in found else remark
    remarks = sorted(found.values(), key=lambda r: (bool(r.spans), r.spans, r.key))
    texts = [r.text() for r in remarks[:MAX_SENTENCES]]
    if len(remarks) > MAX_SENTENCES:
        texts.append(f"{len(remarks) - MAX_SENTENCES} more warnings are not listed")
    return tuple(texts)


@dataclass(frozen=True, slots=True)
class _Remark:
    """A sentence taken apart: `3 frames are damaged at 1.200 s` -> key `# frames are damaged at @`."""

    key: str
    count: int | None = None
    spans: list[Span] = field(default_factory=list)
    """Ascending, none touching another."""
    more: int = 0
    """Moments that it does not name."""

    @classmethod
    def of(cls, text: str) -> _Remark:
        told = list(_MOMENTS.finditer(text))
        if len(told) > 1:  # `from 3.960 s to 1003.960 s` is one statement about two moments
            return cls(text, spans=[_spans(told[0])[0]])
        key, count, spans, more = text, None, [], 0
        if told:
            spans, more = _spans(told[0]), int(told[0]["more"] or 0)
            key = f"{text[: told[0].start()]}\0{text[told[0].end() :]}"
        if counted := _COUNT.match(key):
            count, key = int(counted[1]), f"\1{key[counted.end() - 1 :]}"
        return cls(key, count, _union(spans), more)

    def and_(self, other: _Remark) -> _Remark:
        if self.count is None and "\0" not in self.key:
            return self
        spans, more = _union([*self.spans, *other.spans]), self.more + other.more
        counts = [r.count for r in (self, other) if r.count is not None]
        one_each = all(r.count == len(r.spans) + r.more for r in (self, other))  # neighbours may name the same one
        count = (len(spans) + more if one_each else sum(counts)) if counts else None
        return _Remark(self.key, count, spans, more)

    def text(self) -> str:
        text = self.key.replace("\0", _spelled(self.spans, self.more, MAX_NAMED)).replace("\1", str(self.count))
        return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 3] + "..."


def _spans(match: re.Match[str]) -> list[Span]:
    return [(float(start), float(end or start)) for start, end in re.findall(_ONE, match[0])]


def _union(spans: Iterable[Span]) -> list[Span]:
    """Ascending, those that overlap or touch put together."""
    out: list[Span] = []
    for start, end in sorted((round(a, 3), round(b, 3)) for a, b in spans):
        if out and start <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((start, end))
    return out


def _spelled(spans: Sequence[Span], more: int, most: int) -> str:
    named = ", ".join(f"{a:.3f} s" if a == b else f"{a:.3f}-{b:.3f} s" for a, b in spans[:most])
    more += max(0, len(spans) - most)
    return f"{named} and {more} more" if more else named
