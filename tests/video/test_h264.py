"""H.264 slice headers: what is read from them, by hand-made cases. What follows from it, test_decode checks pixel by
pixel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.media import make_video
from vidproc.video import h264
from vidproc.video.h264 import INTRA, B, P, Picture, Stream, Unknown, needed, ue

SPS = h264._Sequence(
    id=0, frame_num_bits=4, order_type=0, order_bits=4, references=4, macroblocks=24, colour=True
)  # fmt: skip
PPS = h264._Parameters(id=0, sequence=0, bottom_order=False, active=(1, 1), weights=(False, False))


def slice_(kind: int = P, frame_num: int = 0, low: int = 0, is_reference: bool = True, **more: Any) -> h264._Slice:
    lists = {P: 1, B: 2, INTRA: 0}[kind]
    fields: dict[str, Any] = {"active": (1,) * lists, "changes": ([],) * lists, "marking": None} | more
    return h264._Slice(
        0, kind, 0x61 if is_reference else 0x01, PPS, frame_num, (low, 0), place="", marking_bits="", **fields
    )


def held(*frames: tuple[int, int], long: dict[int, int] | None = None) -> h264._References:
    """References by (frame_num, picture order), which are called by their picture order."""
    made = h264._References(SPS)
    made.short = [h264._Reference(order, number, order) for number, order in frames]
    made.long = {i: h264._Reference(order, 0, order) for i, order in (long or {}).items()}
    return made


def lists(references: h264._References, s: h264._Slice, order: int = 0) -> list[list[int]]:
    return [[r.picture for r in some] for some in references.lists(s, order)]


@given(st.lists(st.integers(0, 2**20), min_size=1), st.integers(0, 3))
def test_numbers_come_back(numbers: list[int], zeros: int) -> None:
    """Through Exp-Golomb and emulation prevention."""
    nal = h264.nal_of(0x61, "0" * 24 * zeros + "".join(map(ue, numbers)))
    assert b"\0\0\0" not in nal and b"\0\0\1" not in nal and b"\0\0\2" not in nal
    bits = h264._Bits(nal)
    assert bits.u(24 * zeros) == 0
    left = bits.left
    assert [bits.ue() for _ in numbers] == numbers
    assert bits.since(left) == "".join(map(ue, numbers))


def test_numbers_by_hand() -> None:
    """Table 9-2, and 9-3 for signed ones."""
    assert [ue(k) for k in range(5)] == ["1", "010", "011", "00100", "00101"]
    bits = h264._Bits(h264.nal_of(0, "".join(ue(k) for k in range(5))))
    assert [bits.se() for _ in range(5)] == [0, 1, -1, 2, -2]
    with pytest.raises(Unknown, match="too early"):
        h264._Bits(b"\x61\x80").u(9)


def test_lists_of_a_p_slice() -> None:
    """The latest first, over the wrap of frame_num; the long-term ones last."""
    r = held((14, 20), (15, 22), (0, 24), (1, 26), long={3: 8, 1: 2})
    now = {"frame_num": 2, "active": (6,)}
    assert lists(r, slice_(P, **now, changes=([],))) == [[26, 24, 22, 20, 2, 8]]
    # 2 - 3 = -1, which is 15 before the wrap; from there + 2 is 1; then long-term 3.
    assert lists(r, slice_(P, **now, changes=([(0, 2), (1, 1), (2, 3)],))) == [[22, 26, 8, 24, 20, 2]]
    # The same picture twice, as encoders do to weight it in two ways.
    twice = slice_(P, frame_num=2, active=(3,), changes=([(0, 0), (0, 15)],))
    assert lists(r, twice) == [[26, 26, 24]]
    with pytest.raises(Unknown, match="not there"):
        r.lists(slice_(P, **now, changes=([(0, 5)],)), 0)
    with pytest.raises(Unknown, match="fewer"):
        r.lists(slice_(P, frame_num=2, active=(7,)), 0)


def test_lists_of_a_b_slice() -> None:
    r = held((0, 0), (1, 8), (2, 4))
    now = {"frame_num": 3, "active": (3, 3), "changes": ([], [])}
    assert lists(r, slice_(B, **now), order=2) == [[0, 4, 8], [4, 8, 0]]
    assert lists(r, slice_(B, **now), order=6) == [[4, 0, 8], [8, 4, 0]]
    # Both would be the same: the second begins with the other one, whether that place is active or not.
    assert lists(r, slice_(B, **now), order=10) == [[8, 4, 0], [4, 8, 0]]
    assert lists(r, slice_(B, frame_num=3), order=10) == [[8], [4]]


def test_marking() -> None:
    r = held((14, 20), (15, 22), (0, 24), (1, 26))
    r.mark(slice_(frame_num=2), 28, 28, idr=False)
    assert [x.picture for x in r.short] == [22, 24, 26, 28]  # the oldest made room
    r.mark(slice_(frame_num=3, marking=[(1, 1)]), 30, 30, idr=False)  # forget number 3 - 2 = 1
    assert [x.picture for x in r.short] == [22, 24, 28, 30]
    r.mark(slice_(frame_num=4, marking=[(3, 4, 0), (1, 0), (6, 1)]), 32, 32, idr=False)
    assert [x.picture for x in r.short] == [24, 28]
    assert {i: x.picture for i, x in r.long.items()} == {0: 22, 1: 32}
    r.mark(slice_(frame_num=5, marking=[(2, 1), (4, 1)]), 34, 34, idr=False)
    assert {i: x.picture for i, x in r.long.items()} == {0: 22}
    with pytest.raises(Unknown, match="more references"):
        held((0, 0), (1, 2), (2, 4), (3, 6)).mark(slice_(frame_num=4, marking=[]), 8, 8, idr=False)


def test_picture_order_over_its_wraps() -> None:
    r = h264._References(SPS)
    shown = [0, 6, 2, 4, 12, 8, 10, 16, 14, 22, 18, 20, 28, 34]
    assert [r.order_of(slice_(low=n % 16), idr=n == 0) for n in shown] == shown


def test_what_is_needed() -> None:
    """I0 P3 B1 b2 P6 B4 b5, in decoding order by these places: a pyramid."""
    uses = [(), (0,), (0, 1), (2, 1), (1,), (1, 4), (5, 4)]
    pictures = [Picture(True, frozenset(u), ()) for u in uses]
    assert needed(pictures, [4]) == {0, 1, 4}
    assert needed(pictures, [3]) == {0, 1, 2, 3}
    assert needed(pictures, [6]) == {0, 1, 4, 5, 6}
    assert needed(pictures, []) == set()


def packets_of(path: Path) -> tuple[bytes, list[bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return bytes(stream.codec_context.extradata or b""), [bytes(p) for p in container.demux(stream) if p.size]


@pytest.mark.parametrize("extension", ["mp4", "ts"])
def test_a_real_stream(extension: str, tmp_path: Path) -> None:
    params = "b-adapt=0:b-pyramid=normal:scenecut=0:ref=1:slices=2"
    made = make_video(tmp_path / f"v.{extension}", gop=60, bframes=3, seconds=1, options={"x264-params": params})
    extradata, packets = packets_of(made.path)
    stream = Stream(extradata)
    assert bool(stream.length_bytes) == (extension == "mp4")
    assert [stream.is_idr(p) for p in packets[:3]] == [True, False, False]
    pictures = stream.group(packets)
    # I P, then the middle B-frame of three and its two neighbours: only these use it.
    assert [sorted(p.uses) for p in pictures[:6]] == [[], [0], [0, 1], [0, 2], [1, 2], [1]]
    assert [p.is_reference for p in pictures[:6]] == [True, True, True, False, False, True]
    assert [len(p.slices) for p in pictures] == [2] * len(packets)
    assert [p.can_be_hollow for p in pictures[:4]] == [False, True, True, False]
    hollow = stream.hollow(packets[2], pictures[2])
    assert len(hollow) < 80
    again = stream.group([*packets[:2], hollow, *packets[3:]])
    assert [p.is_reference for p in again] == [p.is_reference for p in pictures]
    assert [p.uses for p in again[3:]] == [p.uses for p in pictures[3:]]
    with pytest.raises(Unknown, match="no IDR"):
        stream.group(packets[1:])
    with pytest.raises(Unknown, match="missing"):
        stream.group([packets[0], *packets[2:]])


@pytest.mark.parametrize("params", ["interlaced=1", "fake-interlaced=1"])
def test_fields_are_not_understood(params: str, tmp_path: Path) -> None:
    made = make_video(tmp_path / "v.mp4", seconds=1, options={"x264-params": params})
    with pytest.raises(Unknown, match="fields"):
        Stream(packets_of(made.path)[0])


@given(data=st.data())
def test_damage_is_unknown_and_nothing_else(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    extension = data.draw(st.sampled_from(["mp4", "ts"]))
    path = tmp_path_factory.getbasetemp() / f"to-damage.{extension}"
    if not path.exists():
        make_video(path, bframes=3, seconds=1, options={"x264-params": "b-pyramid=normal:ref=3:weightp=2"})
    extradata, packets = packets_of(path)

    def damaged(whole: bytes) -> bytes:
        changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
        for at in data.draw(st.lists(st.integers(0, min(60, max(0, len(changed) - 1))), max_size=3)) if changed else ():
            changed[at] = data.draw(st.integers(0, 255))
        return bytes(changed)

    with suppress(Unknown):
        stream = Stream(damaged(extradata) if data.draw(st.booleans()) else extradata)
        hit = data.draw(st.integers(0, 10))
        group = [damaged(p) if i == hit else p for i, p in enumerate(packets[:12])]
        with suppress(Unknown):
            stream.is_idr(group[hit])
        for packet, picture in zip(group, stream.group(group), strict=True):
            if picture.can_be_hollow:
                stream.hollow(packet, picture)
