"""The kinds of file: each function makes one case of its kind from the choices it is given.

A case's truth is what the construction says. Where readers may differ by right, it says so too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tests.support.containers import avi, flv, mkv, mp4, mpeg2, ps, ts
from tests.support.containers.draws import Draw
from tests.support.containers.nal import with_start_codes
from tests.support.containers.streams import ENCODED_RATE, REORDERING, Packet, Recipe, Stream, encode, recipe
from tests.support.containers.truth import Case, Edit, Stretch, Truth, edited, timeline

KINDS: dict[str, Callable[[Draw], Case]] = {}

MP4_CODECS = ("h264", "mpeg4", "hevc", "vp9", "av1", "vp8", "mpeg2video", "mjpeg")
MKV_CODECS = ("h264", "mpeg4", "hevc", "vp8", "vp9", "av1", "mpeg2video", "msmpeg4v3", "wmv2", "flv1", "mjpeg")
FALSE_KEY_CODECS = ("flv1", "msmpeg4v3", "wmv2", "mpeg4", *MKV_CODECS)
"""Those first whose decoder does not notice that it was entered at a picture that leans on others."""
AVI_CODECS = ("msmpeg4v3", "mpeg4", "msmpeg4v2", "wmv2", "wmv1", "flv1", "mjpeg", "h264")
TS_CODECS = ("h264", "mpeg2video", "hevc", "mpeg4")
SIZES = ((96, 64), (160, 120), (64, 48))
NOT_SMALL = ("av1", "msmpeg4v3", "msmpeg4v2")
"""Whose encoders do not make the smallest size, or make it too coarse for numbers to be read."""
MAX_FRAME_DURATION_S = 600
"""Default of the setting: a picture stands for no longer, beyond it is a gap."""


def kind(function: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
    name = function.__name__.replace("_", "-")

    def named(draw: Draw) -> Case:
        return replace(function(draw), kind=name)

    KINDS[name] = named
    return named


# Choices that many kinds share


@dataclass(frozen=True)
class Film:
    """A stream, and when each of its pictures is shown."""

    stream: Stream
    times: tuple[Fraction, ...]
    """Seconds, by place; one more than there are pictures: the last is the end."""

    @property
    def pictures(self) -> list[tuple[Fraction, int]]:
        return sorted((self.times[p.place], p.number) for p in self.stream.packets)

    @property
    def end(self) -> Fraction:
        return self.times[-1]

    @property
    def keys(self) -> list[tuple[Fraction, int]]:
        return sorted((self.times[p.place], p.number) for p in self.stream.packets if p.key)


def _stream(draw: Draw, codecs: Sequence[str], **options: object) -> Stream:
    codec = draw.pick(codecs)
    made = {
        "frames": draw.pick((60, 90)),
        "gop": draw.pick((12, 5, 25, 40)),
        "bframes": draw.pick((0, 2, 3, 1)) if codec in REORDERING else 0,
        "open_gop": draw.flip(),
        "variant": draw.pick((0, 1, 2)),
        "size": draw.pick(SIZES[:2] if codec in NOT_SMALL else SIZES),
    } | options
    return encode(recipe(codec, **made))


def _uniform(stream: Stream, rate: int = ENCODED_RATE) -> Film:
    return Film(stream, tuple(Fraction(i, rate) for i in range(len(stream.packets) + 1)))


def _film(
    draw: Draw, codecs: Sequence[str], *, even: bool = False, rates: Sequence[int] = (10, 25), **options: object
) -> Film:
    stream = _stream(draw, codecs, **options)
    # MPEG-2 counts on at the rate of its own header, which is the encoder's, where pictures carry no time.
    rate = ENCODED_RATE if stream.codec == "mpeg2video" else draw.pick(rates)
    gaps = (1,) if even else draw.pick(((1,), (1, 2, 1, 3), (1, 1, 1, 12)))
    times, now, count = [Fraction(0)], 0, len(stream.packets)
    for i in range(count):
        now += (
            gaps[i % len(gaps)] if i < count - 6 else 1
        )  # at the end even, so that the last one's length is no riddle
        times.append(Fraction(now, rate))
    return Film(stream, tuple(times))


def _fps(draw: Draw) -> Fraction:
    return Fraction(draw.pick((5, 2, 10, 1)))


def _truth(film: Film, **more: object) -> Truth:
    shown, end = timeline(film.pictures, film.end)
    return Truth(shown=shown, end=end, **more)  # type: ignore[arg-type]


def _case(draw: Draw, film: Film, extension: str, data: bytes, truth: Truth | None = None, **more: object) -> Case:
    return Case(
        kind="",
        extension=extension,
        data=data,
        truth=truth or _truth(film),
        **{"fps": _fps(draw), "recipes": (film.stream.recipe,)} | more,  # type: ignore[arg-type]
    )


def _about(film: Film) -> str:
    r = film.stream.recipe
    group = f"gop {r.gop}{' open' if r.open_gop else ''}"
    return f"{r.codec} {r.frames} pictures, {group}, {r.bframes} B-frames, variant {r.variant}"


# MP4

SCALES = (1000, 12800, 90_000)


@dataclass(frozen=True)
class Written:
    """The samples of one film on one clock."""

    samples: list[mp4.Sample]
    shift: int
    """Ticks: presentation time of the picture shown first."""


def _samples(film: Film, scale: int, *, version: int | None = 0, entry: int = 1) -> Written:
    """Decoding goes at the pace of presentation. Version 0 of `ctts` knows no negative offsets, so presentation is
    late by as much as is needed; None: no offsets, so times of presentation are those of decoding."""
    ticks = [int(t * scale) for t in film.times]
    places = [p.place for p in film.stream.packets]
    shift = 0 if version else max(ticks[i] - ticks[place] for i, place in enumerate(places))
    if version is None:
        shift = 0
    samples = [
        mp4.Sample(
            data=mp4.payload(film.stream, p.data),
            duration=ticks[i + 1] - ticks[i],
            offset=0 if version is None else ticks[p.place] + shift - ticks[i],
            sync=p.key,
            entry=entry,
        )
        for i, p in enumerate(film.stream.packets)
    ]
    return Written(samples, shift)


def _track(film: Film, written: Written, scale: int, version: int | None = 0, **more: object) -> mp4.Track:
    return mp4.Track(
        **{  # type: ignore[arg-type]
            "samples": written.samples,
            "entries": [mp4.entry(film.stream)],
            "size": film.stream.size,
            "scale": scale,
            "offsets": version,
        }
        | more
    )


def _whole_edit(film: Film, written: Written, scale: int, movie_scale: int) -> list[tuple[int, int, int]]:
    """What muxers write where presentation is late."""
    return [(int(film.end * movie_scale), written.shift, 1)]


@kind
def mp4_plain(draw: Draw) -> Case:
    film, scale = _film(draw, MP4_CODECS), draw.pick(SCALES)
    version = draw.pick((0, 1))
    written = _samples(film, scale, version=version)
    edits = _whole_edit(film, written, scale, 1000) if draw.flip() else []
    track = _track(film, written, scale, version, edits=edits)
    data = mp4.write([track], front=draw.flip(), brand=draw.pick((b"isom", b"qt  ")))
    keyframes = tuple(timeline(film.pictures, film.end)[0][film.pictures.index(k)].at for k in film.keys)
    return _case(draw, film, "mp4", data, keyframes=keyframes, why=_about(film))


def _edit_case(draw: Draw, film: Film, pieces: Sequence[tuple[int, int] | Fraction], **more: object) -> Case:
    """`pieces`: places [first, last) shown, or seconds of nothing."""
    scale, movie_scale = draw.pick(SCALES), draw.pick((1000, 12800, 90_000))
    version = draw.pick((0, 1))
    written = _samples(film, scale, version=version)
    edits: list[Edit] = []
    rows: list[tuple[int, int, int]] = []
    for piece in pieces:
        if isinstance(piece, Fraction):
            edits.append(Edit(piece, None))
            rows.append((int(piece * movie_scale), -1, 1))
        else:
            start, stop = film.times[piece[0]], film.times[piece[1]]
            edits.append(Edit(stop - start, start))
            rows.append((int((stop - start) * movie_scale), int(start * scale) + written.shift, 1))
    out, end = edited(film.pictures, film.end, edits)
    first = next(at for at, number in out if number is not None)
    shown = [(at - first, number) for at, number in out if at >= first]
    nothing = tuple(
        Stretch(at, following)
        for (at, number), following in zip(shown, [*(a for a, _ in shown[1:]), end - first], strict=True)
        if number is None
    )
    from tests.support.containers.truth import Shown

    truth = Truth(shown=tuple(Shown(at, number) for at, number in shown), end=end - first, unsettled=nothing)
    track = _track(film, written, scale, version, edits=rows)
    data = mp4.write([track], movie_scale=movie_scale, front=draw.flip())
    spelled = ", ".join(f"nothing {p} s" if isinstance(p, Fraction) else f"{p[0]}-{p[1] - 1}" for p in pieces)
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; edits: {spelled}", **more)


def _cuts(draw: Draw, count: int, most: int) -> list[int]:
    """`count` places in order, at least 3 apart and not at the ends."""
    step = most // (count + 1)
    return [draw.between(i * step + 3, (i + 1) * step) for i in range(count)]


@kind
def mp4_edit_trim(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    a, b = _cuts(draw, 2, n)
    return _edit_case(draw, film, [(a, draw.pick((n, b)))])


@kind
def mp4_edit_cut_out(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    a, b = _cuts(draw, 2, n)
    return _edit_case(draw, film, [(0, a), (b, n)])


@kind
def mp4_edit_order(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    (a,) = _cuts(draw, 1, n)
    return _edit_case(draw, film, [(a, n), (0, a)])


@kind
def mp4_edit_twice(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    a, b = _cuts(draw, 2, len(film.stream.packets))
    return _edit_case(draw, film, [(a, b), (a, b)])


@kind
def mp4_edit_empty_first(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    (a,) = _cuts(draw, 1, n)
    return _edit_case(draw, film, [Fraction(draw.pick((3, 1, 20)), 2), (draw.pick((0, a)), n)])


@kind
def mp4_edit_empty_inside(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    (a,) = _cuts(draw, 1, n)
    return _edit_case(draw, film, [(0, a), Fraction(draw.pick((2, 7)), 2), (a, n)])


@kind
def mp4_edit_rounded(draw: Draw) -> Case:
    """As muxers write it where the movie's clock is coarse: the edit ends a few milliseconds beside a picture's end."""
    film, scale = _film(draw, MP4_CODECS, even=True), 12_800
    written = _samples(film, scale)
    a, b = _cuts(draw, 2, len(film.stream.packets))
    start, stop = film.times[a], draw.pick((film.times[b], film.end))
    beside = Fraction(draw.pick((-3, 5, -15)), 1000)
    track = _track(
        film, written, scale, edits=[(int((stop - start + beside) * 1000), int(start * scale) + written.shift, 1)]
    )
    shown, end = timeline([p for p in film.pictures if start <= p[0] < stop], stop)
    truth = Truth(shown=shown, end=end, unsettled=(Stretch(shown[-1].at, end + 1),))
    why = f"{_about(film)}; from picture {a}, {float(beside):+.3f} s"
    return _case(draw, film, "mp4", mp4.write([track], front=draw.flip()), truth, why=why)


@kind
def mp4_edit_dwell(draw: Draw) -> Case:
    """An edit of rate 0 holds one picture. Whoever does not know of it must say so."""
    film, scale = _film(draw, MP4_CODECS), 1000
    n = len(film.stream.packets)
    (a,) = _cuts(draw, 1, n)
    written, held = _samples(film, scale), Fraction(draw.pick((2, 5)))
    whole = film.times[a]
    rows = [(int(whole * 1000), written.shift, 1), (int(held * 1000), int(whole * scale) + written.shift, 0)]
    rows.append((int((film.end - whole) * 1000), int(whole * scale) + written.shift, 1))
    moved = [(at if at < whole else at + held, number) for at, number in film.pictures]
    shown, end = timeline([*moved, (whole, film.pictures[a][1])], film.end + held)
    truth = Truth(shown=shown, end=end, excused=True)
    data = mp4.write([_track(film, written, scale, edits=rows)], front=draw.flip())
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; picture {a} is held for {held} s")


@kind
def mp4_edit_many(draw: Draw) -> Case:
    film = _film(draw, MP4_CODECS)
    n = len(film.stream.packets)
    pieces: list[tuple[int, int] | Fraction] = [Fraction(1, 2)] if draw.flip() else []
    for _ in range(draw.between(2, 5)):
        a = draw.between(0, n - 4)
        pieces.append((a, draw.between(a + 2, n)))
    return _edit_case(draw, film, pieces)


@kind
def mp4_no_offsets(draw: Draw) -> Case:
    """B-frames without `ctts`: pictures leave a decoder in the order in which they are shown, one a tick."""
    film = _film(draw, ("h264", "mpeg4", "hevc"), even=True, bframes=draw.pick((2, 3, 1)))
    scale = draw.pick(SCALES)
    track = _track(film, _samples(film, scale, version=None), scale, None)
    return _case(draw, film, "mp4", mp4.write([track], front=draw.flip()), why=_about(film))


def _false_sync(draw: Draw, samples: Sequence[mp4.Sample]) -> tuple[list[mp4.Sample], bool, str]:
    """Return samples, whether there is a sync table, and what was done."""
    match draw.pick(("no table", "all", "some")):
        case "no table":
            return list(samples), False, "no sync table"
        case "all":
            return [replace(s, sync=True) for s in samples], True, "all marked"
    step = draw.pick((7, 3, 10))
    return [replace(s, sync=s.sync or i % step == 0) for i, s in enumerate(samples)], True, f"every {step}th marked"


@kind
def mp4_false_sync(draw: Draw) -> Case:
    film, scale = _film(draw, MP4_CODECS), draw.pick(SCALES)
    written = _samples(film, scale)
    samples, table, what = _false_sync(draw, written.samples)
    track = _track(film, written, scale, samples=samples, sync_table=table, chunk=draw.pick((1, 7)))
    keyframes = tuple(at for at, _ in film.keys)
    return _case(
        draw, film, "mp4", mp4.write([track], front=draw.flip()), keyframes=keyframes, why=f"{_about(film)}; {what}"
    )


def _joined(draw: Draw, codecs: Sequence[str], other_size: bool, **options: object) -> list[Film]:
    """Films one after the other, each with other parameters than the one before it."""
    codec = draw.pick(codecs)
    shared = {"frames": 30, "gop": draw.pick((10, 30)), "bframes": draw.pick((0, 2)), "open_gop": False} | options
    films, now, count = [], Fraction(0), draw.pick((2, 3))
    for i in range(count):
        more = {"size": (128, 96)} if other_size and i % 2 else {"variant": i % 2}
        made = _uniform(encode(recipe(codec, first=30 * i, **shared | more)))
        films.append(Film(made.stream, tuple(t + now for t in made.times)))
        now = films[-1].end
    return films


def _joined_truth(films: Sequence[Film], **more: object) -> Truth:
    shown, end = timeline([p for f in films for p in f.pictures], films[-1].end)
    same = len({f.stream.size for f in films}) == 1
    return Truth(shown=shown, end=end, exact=same, **more)  # type: ignore[arg-type]


@kind
def mp4_few_sync(draw: Draw) -> Case:
    """Only the first picture is marked, or every other group."""
    film, scale = _film(draw, MP4_CODECS), draw.pick(SCALES)
    written = _samples(film, scale)
    step = draw.pick((100, 2))
    keys = [i for i, s in enumerate(written.samples) if s.sync][::step]
    samples = [replace(s, sync=i in keys) for i, s in enumerate(written.samples)]
    data = mp4.write([_track(film, written, scale, samples=samples)], front=draw.flip())
    return _case(draw, film, "mp4", data, why=f"{_about(film)}; {len(keys)} marked")


@kind
def mp4_parameters_once(draw: Draw) -> Case:
    """Parameter sets stand in the first sample only (`avc3`, `hev1`)."""
    film, scale = _film(draw, ("h264", "hevc")), draw.pick(SCALES)
    film = Film(_with_first(film.stream), film.times)
    written = _samples(film, scale)
    track = _track(film, written, scale, entries=[mp4.entry(film.stream, inside=True)])
    return _case(draw, film, "mp4", mp4.write([track], front=draw.flip()), why=_about(film))


def _with_first(stream: Stream) -> Stream:
    """The parameters moved into the first packet."""
    first, *others = stream.packets
    return replace(stream, packets=(replace(first, data=stream.header + first.data), *others))


@kind
def mp4_new_entry(draw: Draw) -> Case:
    """Sample entries that follow each other: another size, or other parameters at the same. FFmpeg's decoder of MPEG-4
    takes no second header, so whoever cannot read on may say so."""
    other_size = draw.flip()
    films = _joined(draw, ("h264", "hevc", "mpeg4") if other_size else ("h264", "hevc"), other_size)
    scale = draw.pick(SCALES)
    shift = max(_samples(f, scale).shift for f in films)
    samples: list[mp4.Sample] = []
    for i, film in enumerate(films):
        made = _samples(film, scale)
        samples += [replace(s, offset=s.offset + shift - made.shift, entry=i + 1) for s in made.samples]
    first = films[0]
    track = _track(
        first, Written(samples, shift), scale, entries=[mp4.entry(f.stream) for f in films],
        edits=[(int(films[-1].end * 1000), shift, 1)] if shift else [],
    )  # fmt: skip
    truth = _joined_truth(films, excused=first.stream.codec == "mpeg4")
    return _case(
        draw, first, "mp4", mp4.write([track], front=draw.flip()), truth,
        recipes=tuple(f.stream.recipe for f in films), fps=Fraction(draw.pick((5, 1, Fraction(1, 2)))),
        why=f"{_about(first)}; {len(films)} entries, {'other sizes' if other_size else 'same size'}",
    )  # fmt: skip


@kind
def mp4_new_parameters(draw: Draw) -> Case:
    """Parameter sets that change inside the samples (`avc3`, `hev1`); the sample entry knows the first ones only."""
    films, scale = _joined(draw, ("h264", "hevc"), draw.flip()), draw.pick(SCALES)
    shift, first = max(_samples(f, scale).shift for f in films), films[0]
    everywhere, from_the_start = draw.flip(), draw.flip()
    samples: list[mp4.Sample] = []
    for i, film in enumerate(films):
        packets = [
            replace(p, data=film.stream.header + p.data)
            if (everywhere and p.key) or (n == 0 and (i or from_the_start))
            else p
            for n, p in enumerate(film.stream.packets)
        ]
        made = _samples(Film(replace(film.stream, packets=tuple(packets)), film.times), scale)
        samples += [replace(s, offset=s.offset + shift - made.shift) for s in made.samples]
    track = _track(
        first, Written(samples, shift), scale, entries=[mp4.entry(first.stream, inside=from_the_start)],
        edits=[(int(films[-1].end * 1000), shift, 1)] if shift else [],
    )  # fmt: skip
    return _case(
        draw, first, "mp4", mp4.write([track], front=draw.flip()), _joined_truth(films),
        recipes=tuple(f.stream.recipe for f in films), fps=Fraction(draw.pick((5, 1, Fraction(1, 2)))),
        why=f"{_about(first)}; {len(films)} parts, {everywhere=}, {from_the_start=}, "
        f"sizes {[f.stream.size for f in films]}",
    )  # fmt: skip


@kind
def mp4_fragments(draw: Draw) -> Case:
    film, scale = _film(draw, ("h264", "hevc", "mpeg4", "vp9", "av1"), even=True), draw.pick(SCALES)
    written = _samples(film, scale)
    inside = draw.pick((0, 20))
    how = mp4.Fragments(
        length=draw.pick((10, 7, 30)),
        flags=draw.pick(("true", "all", "none", "first")),
        index=draw.flip(),
        duration=draw.pick((None, "true", "short")),
    )
    track = _track(film, written, scale, fragmented_from=inside)
    data = mp4.write([track], front=True, fragments=how, movie_duration=None if inside else 0)
    return _case(draw, film, "mp4", data, why=f"{_about(film)}; {inside} in the movie, then {how}")


@kind
def mp4_fragments_truncated(draw: Draw) -> Case:
    """The file ends inside the pictures of a fragment, whose table promises them all."""
    film, scale = _film(draw, ("h264", "hevc", "mpeg4"), even=True), 1000
    inside, count = draw.pick((0, 20)), len(film.stream.packets)
    # Nothing tells of fragments that are gone whole where no header tells of the end.
    share = Fraction(draw.between(50, 90), 100) if inside else Fraction(count - draw.between(2, 9), count)
    found: list[Stretch] = []

    def cut(out: bytearray, places: list[list[tuple[int, int]]]) -> None:
        at = int(len(places[0]) * share)
        while places[0][at][0] + places[0][at][1] != places[0][at + 1][0]:  # not at the end of a fragment
            at -= 1
        del out[places[0][at + 1][0] + 4 :]
        found.append(Stretch(_behind(film, range(at + 1, len(places[0]))).start, film.end))

    data = mp4.write(
        [_track(film, _samples(film, scale), scale, fragmented_from=inside)],
        front=True, fragments=mp4.Fragments(length=draw.pick((10, 30))),
        movie_duration=None if inside else 0, damage=cut,
    )  # fmt: skip
    truth = _truth(film, damaged=tuple(found), say="damage")
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; {inside} in the movie; cut off")


@kind
def mp4_fragments_cut_out(draw: Draw) -> Case:
    """Fragments out of something longer, whose clock is far from zero; the file ends inside one of them."""
    film, scale = _film(draw, ("h264", "hevc", "mpeg4"), even=True, bframes=draw.pick((2, 0))), 1000
    offsets, count = draw.flip(), len(film.stream.packets)
    share = Fraction(count - draw.between(2, 9), count)
    found: list[Stretch] = []

    def cut(out: bytearray, places: list[list[tuple[int, int]]]) -> None:
        at = int(len(places[0]) * share)
        while places[0][at][0] + places[0][at][1] != places[0][at + 1][0]:  # not at the end of a fragment
            at -= 1
        del out[places[0][at + 1][0] + 4 :]
        # Without offsets nobody knows where pictures that a decoder still held back belong.
        first = at + 1 if offsets else at - 3
        found.append(Stretch(_behind(film, range(first, len(places[0]))).start, film.end))

    how = mp4.Fragments(length=draw.pick((10, 30)), start=draw.pick((1_000_000, 20_000)))
    written = _samples(film, scale) if offsets else _samples(film, scale, version=None)
    track = _track(film, written, scale, *(() if offsets else (None,)), fragmented_from=0)
    data = mp4.write([track], front=True, fragments=how, movie_duration=0, damage=cut)
    truth = _truth(film, damaged=tuple(found), say="damage")
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; {offsets=}, {how}; cut off")


@kind
def mp4_last_long(draw: Draw) -> Case:
    """The picture decoded last is said to last long; so the one shown last does, whichever that is."""
    film, scale = _film(draw, MP4_CODECS, even=True), draw.pick(SCALES)
    held = Fraction(draw.pick((9, 3, 100)))
    film = Film(film.stream, (*film.times[:-1], film.times[-2] + held))
    written = _samples(Film(film.stream, film.times), scale)
    track = _track(film, written, scale, edits=_whole_edit(film, written, scale, 90_000))
    data = mp4.write([track], movie_scale=90_000, front=draw.flip())
    return _case(
        draw, film, "mp4", data, why=f"{_about(film)}; the last is held {held} s", fps=Fraction(draw.pick((2, 1)))
    )


@kind
def mp4_last_zero(draw: Draw) -> Case:
    """The last sample lasts no time at all by its table: how long it is shown is open."""
    film, scale = _film(draw, MP4_CODECS, even=True), draw.pick(SCALES)
    written = _samples(film, scale)
    samples = [*written.samples[:-1], replace(written.samples[-1], duration=0)]
    track = _track(film, written, scale, samples=samples)
    last = film.pictures[-1][0]
    truth = _truth(film, unsettled=(Stretch(last, film.end + 1),), open_end=True)
    return _case(draw, film, "mp4", mp4.write([track], front=draw.flip()), truth, why=_about(film))


@kind
def mp4_header_duration(draw: Draw) -> Case:
    """`mdhd` and `mvhd` say too much, too little or nothing; the tables are right."""
    film, scale = _film(draw, MP4_CODECS), draw.pick(SCALES)
    written = _samples(film, scale)
    share = draw.pick((Fraction(0), Fraction(1, 3), Fraction(3)))
    said = int(film.end * share * scale)
    track = _track(film, written, scale, media_duration=said)
    data = mp4.write([track], front=draw.flip(), movie_duration=int(film.end * share * 1000))
    return _case(draw, film, "mp4", data, why=f"{_about(film)}; the header says {share} of the length")


@kind
def mp4_poster(draw: Draw) -> Case:
    """A still picture as first track, then the film."""
    film, scale = _film(draw, ("h264", "mpeg4", "hevc")), 1000
    still = _uniform(
        encode(recipe(draw.pick(("mjpeg", "h264")), frames=1, first=4000, size=draw.pick(((64, 64), (128, 96)))))
    )
    held = draw.pick((still.times[-1], film.end))
    still = Film(still.stream, (Fraction(0), held))
    flags = draw.pick(((3, 3), (3, 2), (1, 1)))
    tracks = [
        _track(still, _samples(still, scale), scale, flags=flags[0]),
        _track(film, _samples(film, scale), scale, flags=flags[1]),
    ]
    why = f"{_about(film)}; a {still.stream.codec} picture for {held} s as first track, flags {flags}"
    return _case(draw, film, "mp4", mp4.write(tracks, front=draw.flip()), _truth(film, say="warning"), why=why)


@kind
def mp4_two_films(draw: Draw) -> Case:
    """Two cameras in one file: the first is read, the other named."""
    scale = 1000
    film = _uniform(_stream(draw, ("h264", "mpeg4")))
    other = _uniform(encode(recipe("h264", frames=60, first=2000)))
    tracks = [_track(f, _samples(f, scale), scale) for f in (film, other)]
    return _case(draw, film, "mp4", mp4.write(tracks, front=draw.flip()), _truth(film, say="warning"), why=_about(film))


@kind
def mp4_equal_times(draw: Draw) -> Case:
    """Two pictures with one time: the later one stays on screen."""
    film, scale = _film(draw, ("h264", "hevc", "mpeg4", "vp8", "vp9"), even=True, bframes=0), 1000
    step = draw.pick((10, 7, 15))
    times = list(film.times)
    for i in range(step, len(times) - 2, step):
        times[i] = times[i - 1]
    film = Film(film.stream, tuple(times))
    track = _track(film, _samples(film, scale), scale)
    return _case(draw, film, "mp4", mp4.write([track], front=draw.flip()), why=f"{_about(film)}; every {step}th")


@kind
def mp4_leap(draw: Draw) -> Case:
    """Hours between two pictures: each stands for ten minutes at most."""
    film, scale = _film(draw, ("h264", "mpeg4", "vp9"), even=True), 1000
    return _leap_case(draw, film, lambda f: mp4.write([_track(f, _samples(f, scale), scale)], front=True), "mp4")


def _leap_case(draw: Draw, film: Film, write: Callable[[Film], bytes], extension: str) -> Case:
    from tests.support.containers.truth import Shown

    at, leap = draw.between(10, 40), Fraction(draw.pick((7200, 3000, 10_000)))
    times = tuple(t + (leap if i >= at else 0) for i, t in enumerate(film.times))
    film = Film(film.stream, times)
    shown, end = timeline(film.pictures, film.end)
    gap = Shown(shown[at - 1].at + MAX_FRAME_DURATION_S, None)
    truth = Truth(shown=(*shown[:at], gap, *shown[at:]), end=end, say="warning")
    fps = Fraction(1, draw.pick((100, 50)))
    return _case(
        draw, film, extension, write(film), truth, fps=fps, why=f"{_about(film)}; {leap} s before picture {at}"
    )


def _behind(film: Film, damaged: Sequence[int]) -> Stretch:
    """Where pictures may be wrong if packets `damaged` (in decoding order) are."""
    packets = film.stream.packets
    first = min(damaged)
    stop = max(damaged) + 1
    while stop < len(packets) and not packets[stop].key:
        stop += 1
    touched = [p.place for p in packets[first:stop]]
    if stop < len(packets):  # what is shown before the next key picture, and comes behind it, may lean on these
        touched += [p.place for p in packets[stop:] if p.place < packets[stop].place]
    start = film.pictures[0][0]
    return Stretch(film.times[min(touched)] - start, film.times[max(touched) + 1] - start)


def _noise(draw: Draw, film: Film, data: bytearray, places: Sequence[tuple[int, int]]) -> Stretch:
    """Overwrite the inside of some packets, without those that begin a group."""
    packets = film.stream.packets
    able = [
        i
        for i, p in enumerate(packets)
        if not p.key and places[i][1] > 24 and len(packets) / 4 < i < len(packets) * 3 / 4
    ]
    first = draw.pick(able)
    count = draw.pick((3, 1, 8))
    hit = [i for i in able if first <= i < first + count]
    noise = random.Random(first * 1000 + count)
    for i in hit:
        at, size = places[i]
        start = at + draw.pick((8, 14))
        data[start : at + size] = noise.randbytes(at + size - start)
    return _behind(film, hit)


@kind
def mp4_noise(draw: Draw) -> Case:
    film, scale = _film(draw, ("h264", "hevc", "mpeg4"), even=True), 1000
    found: list[Stretch] = []
    data = mp4.write(
        [_track(film, _samples(film, scale), scale)],
        front=draw.flip(),
        damage=lambda out, places: found.append(_noise(draw, film, out, places[0])),
    )
    truth = _truth(film, damaged=tuple(found), say="damage")
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; noise")


@kind
def mp4_truncated(draw: Draw) -> Case:
    film, scale = _film(draw, MP4_CODECS, even=True), 1000
    found: list[Stretch] = []
    share = Fraction(draw.between(30, 90), 100)

    def cut(out: bytearray, places: list[list[tuple[int, int]]]) -> None:
        at = places[0][int(len(places[0]) * share)][0]
        del out[at:]
        missing = [i for i, (start, size) in enumerate(places[0]) if start + size > at]
        found.append(_behind(film, missing))

    data = mp4.write([_track(film, _samples(film, scale), scale)], front=True, damage=cut)
    truth = _truth(film, damaged=(Stretch(found[0].start, film.end),), say="damage")
    return _case(draw, film, "mp4", data, truth, why=f"{_about(film)}; cut off")


@kind
def mp4_open_start(draw: Draw) -> Case:
    """A piece cut out of a longer film at a key picture of an open group: what is shown before it cannot be decoded."""
    stream = _stream(
        draw, ("hevc", "h264", "mpeg4"), bframes=draw.pick((2, 3)), open_gop=True, frames=90, gop=draw.pick((12, 25))
    )
    piece, leading = stream.from_key(draw.pick((1, 2)))
    scale = 1000
    film = _uniform(piece)
    written = _samples(film, scale)
    edits = [(int((film.end - film.times[leading]) * 1000), written.shift + int(film.times[leading] * scale), 1)]
    track = _track(film, written, scale, edits=edits if draw.flip() else [])
    shown, end = timeline([p for p in film.pictures if p[0] >= film.times[leading]], film.end)
    return _case(
        draw, film, "mp4", mp4.write([track], front=draw.flip()), Truth(shown=shown, end=end),
        why=f"{_about(film)}; begins with {leading} pictures that cannot be decoded",
    )  # fmt: skip


# AVI


def _avi_film(draw: Draw, codecs: Sequence[str] = AVI_CODECS) -> Film:
    """With as few B-frames as AVI knows: none but in MPEG-4."""
    codec = draw.pick(codecs)
    bframes = draw.pick((0, 1)) if codec == "mpeg4" else 0
    return _uniform(_stream(draw, (codec,), bframes=bframes), draw.pick((10, 25)))


def _avi(draw: Draw, film: Film, layout: avi.Layout) -> bytes:
    rate = Fraction(1) / (film.times[1] - film.times[0])
    data = [avi_payload(film.stream, p) for p in film.stream.packets]
    return avi.write(film.stream, data, rate, layout)[0]


def avi_payload(stream: Stream, packet: Packet) -> bytes:
    if stream.codec == "h264":
        return ts.elementary(stream, packet.data, packet.key)
    return packet.data


@kind
def avi_plain(draw: Draw) -> Case:
    film = _avi_film(draw)
    data = _avi(draw, film, avi.Layout(sound=draw.flip()))
    return _case(draw, film, "avi", data, why=_about(film))


@kind
def avi_all_key(draw: Draw) -> Case:
    film = _avi_film(draw)
    data = _avi(draw, film, avi.Layout(index="all key", sound=draw.flip()))
    return _case(draw, film, "avi", data, keyframes=tuple(at for at, _ in film.keys), why=_about(film))


@kind
def avi_no_index(draw: Draw) -> Case:
    film = _avi_film(draw)
    data = _avi(draw, film, avi.Layout(index="none", sound=draw.flip()))
    return _case(draw, film, "avi", data, why=_about(film))


@kind
def avi_never_indexed(draw: Draw) -> Case:
    film = _avi_film(draw)
    data = _avi(draw, film, avi.Layout(index="never", sound=draw.flip()))
    return _case(draw, film, "avi", data, why=_about(film))


@kind
def avi_truncated(draw: Draw) -> Case:
    film = _avi_film(draw, ("msmpeg4v3", "mpeg4", "wmv2", "mjpeg"))
    rate = Fraction(1) / (film.times[1] - film.times[0])
    data = [avi_payload(film.stream, p) for p in film.stream.packets]
    layout = avi.Layout(index=draw.pick(("true", "none")), sound=draw.flip(), kept=draw.between(40, 90) / 100)
    out, places = avi.write(film.stream, data, rate, layout)
    missing = [i for i, (at, size) in enumerate(places) if at + size > len(out)]
    truth = _truth(film, damaged=(Stretch(_behind(film, missing).start, film.end),), say="damage")
    return _case(draw, film, "avi", out, truth, why=f"{_about(film)}; {layout}")


@kind
def avi_half_index(draw: Draw) -> Case:
    """The index lists the first half of the pictures."""
    film = _avi_film(draw)
    data = _avi(draw, film, avi.Layout(index="half", sound=draw.flip()))
    return _case(draw, film, "avi", data, why=_about(film))


@kind
def avi_parameters_once(draw: Draw) -> Case:
    film = _avi_film(draw, ("h264", "mpeg4"))
    film = Film(replace(_with_first(film.stream), header=b""), film.times)
    rate = Fraction(1) / (film.times[1] - film.times[0])
    data = [with_start_codes(p.data) if film.stream.codec == "h264" else p.data for p in film.stream.packets]
    layout = avi.Layout(index=draw.pick(("true", "all key", "none")), sound=draw.flip())
    return _case(draw, film, "avi", avi.write(film.stream, data, rate, layout)[0], why=f"{_about(film)}; {layout}")


@kind
def avi_dropped(draw: Draw) -> Case:
    """Empty chunks: the picture before stays."""
    film = _avi_film(draw, ("msmpeg4v3", "wmv2", "mjpeg"))
    rate = Fraction(1) / (film.times[1] - film.times[0])
    every = draw.pick((5, 3))
    data: list[bytes] = []
    shown: list[tuple[Fraction, int]] = []
    packets: list[Packet] = []
    for i, p in enumerate(film.stream.packets):
        shown.append((len(data) / rate, p.number))
        data.append(p.data)
        packets.append(p)
        if i % every == every - 1 and i + 1 < len(film.stream.packets):
            data.append(b"")
            packets.append(replace(p, data=b"", key=False))
    stream = replace(film.stream, packets=tuple(packets))
    times, end = timeline(shown, len(data) / rate)
    out, _ = avi.write(stream, data, rate, avi.Layout(sound=draw.flip()))
    return _case(
        draw, film, "avi", out, Truth(shown=times, end=end), why=f"{_about(film)}; an empty chunk each {every}"
    )


# Matroska


def _blocks(
    film: Film,
    *,
    key: Callable[[int, Packet], bool] | None = None,
    track: int = 1,
    durations: bool = False,
    decoding: bool = False,
) -> list[mkv.Block]:
    blocks = []
    for i, p in enumerate(film.stream.packets):
        place = i if decoding else p.place
        at, following = int(film.times[place] * 1000), int(film.times[place + 1] * 1000)
        marked = p.key if key is None else key(i, p)
        blocks.append(
            mkv.Block(mkv.payload(film.stream, p.data), at, marked, following - at if durations else None, track)
        )
    return blocks


def _lasting(film: Film) -> int:
    """Milliseconds of the last picture: without them a track leaves its end to be guessed."""
    return int((film.end - film.times[-2]) * 1000)


def _mkv(draw: Draw, film: Film, blocks: Sequence[mkv.Block], **layout: object) -> bytes:
    chosen = {"duration_ms": int(film.end * 1000), "cluster_blocks": draw.pick((10, 25))} | layout
    track = mkv.Track(stream=film.stream, default_duration_ms=_lasting(film))
    return mkv.write([track], blocks, mkv.Layout(**chosen))[0]  # type: ignore[arg-type]


def _mkv_film(draw: Draw, codecs: Sequence[str] = MKV_CODECS, **options: object) -> Film:
    film = _film(draw, codecs, **options)  # type: ignore[arg-type]
    last = film.times[-2] - film.times[-3]
    return Film(film.stream, (*film.times[:-1], film.times[-2] + last))


@kind
def mkv_plain(draw: Draw) -> Case:
    film = _mkv_film(draw, even=True)
    blocks = _blocks(film, durations=draw.flip())
    data = _mkv(draw, film, blocks, cues=draw.pick(("true", "none")))
    return _case(draw, film, "mkv", data, keyframes=tuple(at for at, _ in film.keys), why=_about(film))


@kind
def mkv_live(draw: Draw) -> Case:
    film = _mkv_film(draw, FALSE_KEY_CODECS, even=True)
    every = draw.pick((0, 1, 7))
    key = None if not every else (lambda i, p: p.key or i % every == 0)
    data = _mkv(draw, film, _blocks(film, key=key), live=True)
    return _case(
        draw, film, "mkv", data, why=f"{_about(film)}; live, {'true flags' if not every else f'every {every}th marked'}"
    )


@kind
def mkv_false_keys(draw: Draw) -> Case:
    film = _mkv_film(draw, FALSE_KEY_CODECS, even=True)
    every = draw.pick((1, 7, 3))
    blocks = _blocks(film, key=lambda i, p: p.key or i % every == 0)
    data = _mkv(draw, film, blocks, cues=draw.pick(("true", "none", "all")))
    return _case(
        draw,
        film,
        "mkv",
        data,
        keyframes=tuple(at for at, _ in film.keys),
        why=f"{_about(film)}; every {every}th marked",
    )


@kind
def mkv_pts_is_dts(draw: Draw) -> Case:
    film = _mkv_film(draw, ("h264", "mpeg4", "hevc"), even=True, bframes=draw.pick((2, 3, 1)))
    data = _mkv(draw, film, _blocks(film, decoding=True))
    return _case(draw, film, "mkv", data, why=_about(film))


@kind
def mkv_equal_times(draw: Draw) -> Case:
    film = _mkv_film(draw, ("h264", "vp8", "vp9", "mpeg4", "msmpeg4v3"), even=True, bframes=0)
    step = draw.pick((5, 7))
    times = list(film.times)
    for i in range(step, len(times) - 2, step):
        times[i] = times[i - 1]
    film = Film(film.stream, tuple(times))
    durations = draw.flip()
    blocks = [replace(b, duration=b.duration or None) for b in _blocks(film, durations=durations)]
    data = _mkv(draw, film, blocks, cues=draw.pick(("true", "none")))
    return _case(draw, film, "mkv", data, why=f"{_about(film)}; every {step}th")


@kind
def mkv_leap(draw: Draw) -> Case:
    film = _mkv_film(draw, ("h264", "vp9", "mpeg4"), even=True)
    return _leap_case(draw, film, lambda f: _mkv(draw, f, _blocks(f), cues=draw.pick(("true", "none"))), "mkv")


@kind
def mkv_new_parameters(draw: Draw) -> Case:
    """Parameter sets that change inside the stream; the header knows the first ones only."""
    films = _joined(draw, ("h264", "hevc", "vp9", "mpeg4"), draw.flip())
    everywhere = draw.flip()
    blocks: list[mkv.Block] = []
    for film in films:
        begin = True
        for p, block in zip(film.stream.packets, _blocks(film), strict=True):
            carried = p.key and (begin or everywhere)
            begin = False
            data = mkv.payload(film.stream, (film.stream.header if carried else b"") + p.data)
            blocks.append(replace(block, data=data))
    first = films[0]
    whole = Film(first.stream, (*(t for f in films for t in f.times[:-1]), films[-1].end))
    data = _mkv(draw, whole, blocks, cues=draw.pick(("true", "none")))
    sizes = len({f.stream.size for f in films}) > 1
    return _case(
        draw, first, "mkv", data, _joined_truth(films), recipes=tuple(f.stream.recipe for f in films),
        fps=Fraction(draw.pick((5, 1, Fraction(1, 2)))),
        why=f"{_about(first)}; {'other sizes' if sizes else 'same size'}",
    )  # fmt: skip


@kind
def mkv_two_films(draw: Draw) -> Case:
    film = _uniform(_stream(draw, ("h264", "vp8", "mpeg4"), frames=60))
    other = _uniform(encode(recipe("h264", frames=60, first=2000)))
    blocks = sorted([*_blocks(film), *_blocks(other, track=2)], key=lambda b: b.at)
    # Each track keeps its own order of decoding.
    own = {1: iter(_blocks(film)), 2: iter(_blocks(other, track=2))}
    blocks = [next(own[b.track]) for b in blocks]
    lasting = _lasting(film)
    tracks = [
        mkv.Track(stream=film.stream, default_duration_ms=lasting),
        mkv.Track(stream=other.stream, default=draw.flip(), default_duration_ms=lasting),
    ]
    data = mkv.write(tracks, blocks, mkv.Layout(duration_ms=int(film.end * 1000)))[0]
    return _case(draw, film, "mkv", data, _truth(film, say="warning"), why=_about(film))


@kind
def mkv_poster(draw: Draw) -> Case:
    """A track of one picture, then the film."""
    film = _mkv_film(draw, ("h264", "vp8", "mpeg4"), even=True)
    still = _uniform(encode(recipe(draw.pick(("mjpeg", "h264")), frames=1, first=4000)))
    default = draw.pick(((True, False), (True, True), (False, False)))
    tracks = [
        mkv.Track(stream=still.stream, default=default[0]),
        mkv.Track(stream=film.stream, default=default[1], default_duration_ms=_lasting(film)),
    ]
    blocks = [*_blocks(still), *_blocks(film, track=2)]
    data = mkv.write(tracks, blocks, mkv.Layout(duration_ms=int(film.end * 1000)))[0]
    return _case(draw, film, "mkv", data, _truth(film, say="warning"), why=f"{_about(film)}; default flags {default}")


@kind
def mkv_parameters_once(draw: Draw) -> Case:
    """Parameter sets stand in the first block only."""
    film = _mkv_film(draw, ("h264", "hevc"), even=True)
    film = Film(_with_first(film.stream), film.times)
    track = mkv.Track(stream=film.stream, inside=True, default_duration_ms=_lasting(film))
    layout = mkv.Layout(duration_ms=int(film.end * 1000), cues=draw.pick(("true", "none")))
    return _case(draw, film, "mkv", mkv.write([track], _blocks(film), layout)[0], why=_about(film))


@kind
def mkv_false_cues(draw: Draw) -> Case:
    """Cues that point to the cluster before or behind the one they mean."""
    film = _mkv_film(draw, even=True)
    data = _mkv(draw, film, _blocks(film), cues=draw.pick(("before", "behind")))
    return _case(draw, film, "mkv", data, why=_about(film))


@kind
def mkv_truncated(draw: Draw) -> Case:
    film = _mkv_film(draw, even=True)
    layout = mkv.Layout(duration_ms=int(film.end * 1000), cues=draw.pick(("true", "none")))
    data, places = mkv.write([mkv.Track(stream=film.stream, default_duration_ms=_lasting(film))], _blocks(film), layout)
    at = places[int(len(places) * draw.between(30, 90) / 100)][0] + 4
    missing = [i for i, (start, size) in enumerate(places) if start + size > at]
    truth = _truth(film, damaged=(Stretch(_behind(film, missing).start, film.end),), say="damage")
    return _case(draw, film, "mkv", data[:at], truth, why=f"{_about(film)}; cut off before packet {missing[0]}")


@kind
def mkv_noise(draw: Draw) -> Case:
    film = _mkv_film(draw, ("h264", "hevc"), even=True)
    track = mkv.Track(stream=film.stream, default_duration_ms=_lasting(film))
    data, places = mkv.write([track], _blocks(film), mkv.Layout(duration_ms=int(film.end * 1000)))
    out = bytearray(data)
    stretch = _noise(draw, film, out, places)
    return _case(
        draw, film, "mkv", bytes(out), _truth(film, damaged=(stretch,), say="damage"), why=f"{_about(film)}; noise"
    )


# FLV


def _flv_frames(film: Film, *, offsets: bool = True) -> list[flv.Frame]:
    ticks = [int(t * 1000) for t in film.times]
    places = [p.place for p in film.stream.packets]
    shift = max(ticks[i] - ticks[place] for i, place in enumerate(places)) if offsets else 0
    return [
        flv.Frame(film.stream, p.data, ticks[i], ticks[p.place] + shift - ticks[i] if offsets else 0, p.key)
        for i, p in enumerate(film.stream.packets)
    ]


@kind
def flv_plain(draw: Draw) -> Case:
    film = _film(draw, ("h264", "flv1"), even=True)
    duration = draw.pick((None, film.end, film.end / 2, Fraction(0), film.end * 3))
    data = flv.write(_flv_frames(film), None if duration is None else float(duration))
    # A tag has no duration: the last picture's is open.
    # Too long a duration may also be that of a file that was cut off.
    say = "anything" if duration and duration > film.end else None
    truth = _truth(film, unsettled=(Stretch(film.times[-2], film.end + 1),), open_end=True, say=say)
    return _case(draw, film, "flv", data, truth, why=f"{_about(film)}; the header says {duration} s")


@kind
def flv_pts_is_dts(draw: Draw) -> Case:
    film = _film(draw, ("h264",), even=True, bframes=draw.pick((2, 3, 1)))
    data = flv.write(_flv_frames(film, offsets=False), float(film.end))
    return _case(
        draw, film, "flv", data, _truth(film, unsettled=(Stretch(film.times[-2], film.end),)), why=_about(film)
    )


@kind
def flv_truncated(draw: Draw) -> Case:
    """Cut off inside a tag; the header says how long it was."""
    film = _film(draw, ("h264", "flv1"), even=True)
    frames = _flv_frames(film)
    count = len(frames) * draw.between(30, 90) // 100
    data = flv.write(frames[:count], float(film.end))
    data = data[: len(data) - len(frames[count - 1].data) // 2]
    start = _behind(film, range(count - 1, len(frames))).start
    held = Stretch(start, start + 1)  # a tag has no duration, so how long the last whole picture is shown is open
    truth = _truth(film, damaged=(Stretch(start, film.end),), unsettled=(held,), say="damage")
    return _case(draw, film, "flv", data, truth, why=f"{_about(film)}; cut off in packet {count - 1}")


@kind
def flv_new_header(draw: Draw) -> Case:
    films = _joined(draw, ("h264",), draw.flip())
    frames: list[flv.Frame] = []
    shift = max(f.offset for film in films for f in _flv_frames(film))
    for film in films:
        made = _flv_frames(film)
        own = made[0].at + made[0].offset - int(film.times[0] * 1000)
        wanted = max(m[0].offset for m in (_flv_frames(f) for f in films))
        frames += [replace(f, offset=f.offset + wanted - own) for f in made]
    del shift
    first = films[0]
    last = films[-1]
    truth = _joined_truth(films, unsettled=(Stretch(last.times[-2], last.end + 1),), open_end=True)
    sizes = len({f.stream.size for f in films}) > 1
    return _case(
        draw, first, "flv", flv.write(frames, float(last.end)), truth, recipes=tuple(f.stream.recipe for f in films),
        fps=Fraction(draw.pick((5, 1, Fraction(1, 2)))),
        why=f"{_about(first)}; {'other sizes' if sizes else 'same size'}",
    )  # fmt: skip


# Transport streams

TABLE_PID, VIDEO_PID = 0x1000, 0x100


def _ts_frames(film: Film, begin: int = 126_000) -> list[ts.Frame]:
    """`begin`: ticks at which the first picture is shown."""
    ticks = [int(t * ts.HZ) for t in film.times]
    places = [p.place for p in film.stream.packets]
    shift = max(ticks[i] - ticks[place] for i, place in enumerate(places))
    return [
        ts.Frame(ts.elementary(film.stream, p.data, p.key), begin + ticks[p.place], begin + ticks[i] - shift, p.key)
        for i, p in enumerate(film.stream.packets)
    ]


def _programme(codec: str, pid: int = VIDEO_PID, number: int = 1) -> tuple[int, int, list[tuple[int, str]]]:
    return number, TABLE_PID + number - 1, [(pid, codec)]


def _ts_film(draw: Draw, codecs: Sequence[str] = TS_CODECS, **options: object) -> Film:
    return _film(draw, codecs, even=True, **options)


def _open_last(film: Film) -> dict[str, object]:
    """A transport stream does not say how long its last picture lasts."""
    start = film.pictures[0][0]
    return {"unsettled": (Stretch(film.pictures[-1][0] - start, film.end - start + 1),), "open_end": True}


def _ts(film: Film, frames: Sequence[ts.Frame], every: int = 10) -> bytes:
    writer = ts.Writer()
    for i, frame in enumerate(frames):
        if i % every == 0:
            writer.tables([_programme(film.stream.codec)])
        writer.picture(VIDEO_PID, frame)
    return bytes(writer.out)


@kind
def ts_plain(draw: Draw) -> Case:
    film = _ts_film(draw)
    return _case(draw, film, "ts", _ts(film, _ts_frames(film)), _truth(film, **_open_last(film)), why=_about(film))


@kind
def ts_wrap(draw: Draw) -> Case:
    """The clock of 33 bits begins anew."""
    film = _ts_film(draw)
    before = draw.pick((Fraction(2), Fraction(1, 2), Fraction(3)))
    frames = _ts_frames(film, ts.WRAP - int(before * ts.HZ))
    return _case(
        draw, film, "ts", _ts(film, frames), _truth(film, **_open_last(film)), why=f"{_about(film)}; after {before} s"
    )


@kind
def ts_leap(draw: Draw) -> Case:
    """The clock leaps; with or without the flag that says so. The leap is closed up."""
    film = _ts_film(draw, frames=90, rates=(ENCODED_RATE,))  # closed up by the length that the stream itself says
    leap = draw.pick((1000, -600, 100, 36_000)) * ts.HZ
    keys = [i for i, p in enumerate(film.stream.packets) if p.key and i > 10]
    at, flagged = keys[draw.between(0, len(keys) - 1)], draw.flip()
    if film.stream.recipe.open_gop:  # pictures behind the key and shown before it would lie beyond the leap
        at = draw.between(20, 60) if film.stream.recipe.bframes == 0 else at
    writer = ts.Writer()
    begin = 126_000 + 1000 * ts.HZ
    for i, frame in enumerate(_ts_frames(film, begin)):
        if i % 10 == 0:
            writer.tables([_programme(film.stream.codec)])
        if i >= at:
            frame = replace(frame, pts=frame.pts + leap, dts=frame.dts + leap)
        writer.picture(VIDEO_PID, frame, leap=flagged and i == at)
    why = f"{_about(film)}; {leap // ts.HZ} s at packet {at}, {'flagged' if flagged else 'not flagged'}"
    return _case(draw, film, "ts", bytes(writer.out), _truth(film, say="warning", **_open_last(film)), why=why)


@kind
def ts_new_pid(draw: Draw) -> Case:
    """The programme's table moves the video to another PID: it is read on, or the video is partial."""
    films = _joined(draw, ("h264", "mpeg2video"), draw.flip())
    writer = ts.Writer()
    for n, film in enumerate(films):
        pid = VIDEO_PID + n
        begin = 126_000 + int(film.times[0] * ts.HZ)
        local = Film(film.stream, tuple(t - film.times[0] for t in film.times))
        for i, frame in enumerate(_ts_frames(local, begin)):
            if i % 10 == 0:
                writer.tables([_programme(film.stream.codec, pid)], changed=i == 0 and n > 0)
            writer.picture(pid, frame)
    first, last = films[0], films[-1]
    truth = _joined_truth(
        films,
        damaged=(Stretch(films[1].times[0], last.end),),
        unsettled=(Stretch(last.times[-2], last.end + 1),),
        open_end=True,
    )
    return _case(
        draw, first, "ts", bytes(writer.out), truth, recipes=tuple(f.stream.recipe for f in films), why=_about(first)
    )


@kind
def ts_two_programmes(draw: Draw) -> Case:
    film = _ts_film(draw, ("h264", "mpeg2video"), frames=60)
    other = _uniform(encode(recipe("h264", frames=60, first=2000)))
    writer = ts.Writer()
    for i, (a, b) in enumerate(zip(_ts_frames(film), _ts_frames(other), strict=True)):
        if i % 10 == 0:
            writer.tables([_programme(film.stream.codec), _programme("h264", VIDEO_PID + 1, 2)])
        writer.picture(VIDEO_PID, a)
        writer.picture(VIDEO_PID + 1, b)
    truth = _truth(film, say="warning", **_open_last(film))
    return _case(draw, film, "ts", bytes(writer.out), truth, why=_about(film))


@kind
def ts_joined(draw: Draw) -> Case:
    """Recordings one behind the other, each with a clock of its own and closed groups."""
    films = _joined(draw, ("h264", "mpeg2video"), False, open_gop=False)
    if films[0].stream.codec == "mpeg2video":
        films = _joined(draw, ("mpeg2video",), False, bframes=0)
    writer = ts.Writer()
    for n, film in enumerate(films):
        local = Film(film.stream, tuple(t - film.times[0] for t in film.times))
        begin = 126_000 + draw.pick((0, 500, 200)) * ts.HZ
        for i, frame in enumerate(_ts_frames(local, begin)):
            if i % 10 == 0:
                writer.tables([_programme(film.stream.codec)])
            writer.picture(VIDEO_PID, frame, leap=False)
        del n
    first, last = films[0], films[-1]
    truth = _joined_truth(films, unsettled=(Stretch(last.times[-2], last.end + 1),), open_end=True)
    return _case(
        draw, first, "ts", bytes(writer.out), truth, recipes=tuple(f.stream.recipe for f in films), why=_about(first)
    )


@kind
def ts_joined_open(draw: Draw) -> Case:
    """Recordings that begin in an open group, one behind the other. What is on screen where they meet is open, and by
    how much the second is moved for the pictures that it lacks."""
    stream = _stream(
        draw,
        ("h264", "mpeg2video", "hevc"),
        bframes=draw.pick((2, 3)),
        open_gop=True,
        frames=60,
        gop=draw.pick((12, 20)),
    )
    piece, leading = stream.from_key(1)
    film = _uniform(piece)
    begin = 126_000 + draw.pick((0, 500, 200)) * ts.HZ
    writer = ts.Writer()
    for n in range(2):
        for i, frame in enumerate(_ts_frames(film, begin if n else 126_000)):
            if i % 10 == 0:
                writer.tables([_programme(film.stream.codec)])
            writer.picture(VIDEO_PID, frame)
    whole = [p for p in film.pictures if p[0] >= film.times[leading]]
    start, length = film.times[leading], film.end
    second = [(at + length, number) for at, number in whole]
    shown, end = timeline([*whole, *second], 2 * length)
    group = next(p.place for p in piece.packets if p.key and p.place > leading)
    meeting = Stretch(length - start, length - start + film.times[group])
    truth = Truth(
        shown=shown, end=end, unsettled=(meeting, Stretch(end - Fraction(1, 10), end + 1)), open_end=True,
        slack=Stretch(length - start, 2 * length), late=film.times[leading], say="anything",
    )  # fmt: skip
    return _case(draw, film, "ts", bytes(writer.out), truth, why=f"{_about(film)}; {leading} cannot be decoded, twice")


@kind
def ts_open_start(draw: Draw) -> Case:
    stream = _stream(
        draw,
        ("h264", "mpeg2video", "hevc"),
        bframes=draw.pick((2, 3)),
        open_gop=True,
        frames=90,
        gop=draw.pick((12, 25)),
    )
    piece, leading = stream.from_key(draw.pick((1, 2)))
    film = _uniform(piece)
    shown, end = timeline([p for p in film.pictures if p[0] >= film.times[leading]], film.end)
    truth = Truth(shown=shown, end=end, unsettled=(Stretch(end - Fraction(1, 10), end + 1),), open_end=True)
    return _case(
        draw, film, "ts", _ts(film, _ts_frames(film)), truth, why=f"{_about(film)}; {leading} cannot be decoded"
    )


@kind
def ts_lost_packets(draw: Draw) -> Case:
    """Packets of the transport stream are lost, by whole packets of 188 bytes."""
    film = _ts_film(draw, ("h264", "hevc"))
    frames = _ts_frames(film)
    writer = ts.Writer()
    starts = []
    for i, frame in enumerate(frames):
        if i % 10 == 0:
            writer.tables([_programme(film.stream.codec)])
        starts.append(len(writer.out))
        writer.picture(VIDEO_PID, frame)
    able = [i for i, p in enumerate(film.stream.packets) if not p.key and 20 < i < len(frames) - 20]
    hit = draw.pick(able)
    out = writer.out[: starts[hit]] + writer.out[starts[hit + draw.pick((1, 3))] :]
    packets = film.stream.packets
    lost = [i for i in range(len(packets)) if starts[hit] <= starts[i] < starts[hit] + len(writer.out) - len(out)]
    stretch = _behind(film, lost)  # whose pictures nobody can know of: the one before may stay on screen
    last = _open_last(film)
    last["unsettled"] = (*last["unsettled"], stretch)  # type: ignore[misc]
    truth = _truth(film, say="anything", **last)
    return _case(draw, film, "ts", bytes(out), truth, why=f"{_about(film)}; packets {lost} lost")


# Programme streams


@kind
def ps_plain(draw: Draw) -> Case:
    film = _ts_film(draw, ("mpeg2video",))
    frames = _ts_frames(film)
    every = draw.pick((1, 5))
    stamped = [i % every == 0 or p.key for i, p in enumerate(film.stream.packets)]
    truth = _truth(film, **_open_last(film))
    return _case(
        draw, film, "mpg", ps.write(frames, stamped=stamped), truth, why=f"{_about(film)}; every {every}th stamped"
    )


@kind
def ps_steps_back(draw: Draw) -> Case:
    """Now and then the clock goes back by more than a picture, and is right again a little later."""
    film = _ts_film(draw, ("mpeg2video",), frames=90)
    step = int((film.times[1] - film.times[0]) * ts.HZ) * 3 // 2  # by one, two pictures would have one time
    every, lasts = draw.pick((20, 30)), draw.pick((1, 3))
    frames = []
    for i, frame in enumerate(_ts_frames(film)):
        back = step if i >= every and i % every < lasts else 0
        frames.append(replace(frame, pts=frame.pts - back, dts=frame.dts - back))
    truth = _truth(film, **_open_last(film))
    return _case(draw, film, "mpg", ps.write(frames), truth, why=f"{_about(film)}; {lasts} pictures each {every}")


@kind
def ps_telecine(draw: Draw) -> Case:
    """Every other picture is shown for three fields, as films are on discs; times stand at some pictures only."""
    stream = _stream(draw, ("mpeg2video",), size=(96, 64))
    repeats = [place % 2 == 1 for place in range(len(stream.packets))]
    field = Fraction(1, 2 * ENCODED_RATE)
    times = [Fraction(0)]
    for repeated in repeats:
        times.append(times[-1] + (3 if repeated else 2) * field)
    packets, top_first = [], True
    order = []
    for repeated in repeats:
        order.append(top_first)
        top_first ^= repeated
    for p in stream.packets:
        data = mpeg2.with_fields(p.data, top_first=order[p.place], repeated=repeats[p.place])
        packets.append(replace(p, data=data))
    film = Film(replace(stream, packets=tuple(packets)), tuple(times))
    every = draw.pick((1, 12))
    stamped = [p.key if every > 1 else True for p in film.stream.packets]
    data = ps.write(_ts_frames(film), stamped=stamped)
    truth = _truth(film, exact=False, **_open_last(film))
    return _case(draw, film, "mpg", data, truth, why=f"{_about(film)}; times at {'keys' if every > 1 else 'all'}")


__all__ = ["KINDS", "Recipe", "kind"]
