"""Which pictures of an H.264 stream others are decoded from, by their slice headers alone (ITU-T H.264).

Pure functions of bytes: parameter sets (7.3.2.1, 7.3.2.2), slice headers (7.3.3), picture order count
(8.2.1), reference lists (8.2.4) and the marking of references (8.2.5), as far as whole frames need them.
What is not plainly understood raises Unknown, and nothing may then be concluded.

A decoder that is not given a picture has other references from there on than the encoder had. So a
picture that nobody needs is not left out but made *hollow*: its own header, with all that keeps the
decoder's books, and every macroblock skipped. That costs a copy of the picture before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Picture", "Stream", "Unknown", "needed"]

Data = bytes | memoryview

P, B, INTRA = range(3)
SLICE, IDR, SPS, PPS = 1, 5, 7, 8
PASSED_OVER = (6, 9, 10, 11, 12)
"""Supplemental information, delimiters, ends and filler: they refer to no picture."""
WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
"""Profiles whose sequence parameters have more fields (7.3.2.1.1)."""
HEADER_BYTES = 256
"""Looked at of a slice: headers take 5 to 30, and with the weights of many references 150."""
START_CODE = re.compile(b"\0\0\1")


class Unknown(Exception):
    """Not understood, or not what the standard allows."""


# Bits


class _Bits:
    """Reads a NAL unit's payload."""

    __slots__ = ("left", "value")

    def __init__(self, nal: Data) -> None:
        payload = bytes(nal[1:]).replace(b"\0\0\3", b"\0\0")  # 7.4.1: without emulation prevention
        self.value, self.left = int.from_bytes(payload), 8 * len(payload)

    def u(self, n: int) -> int:
        self.left -= n
        if self.left < 0:
            raise Unknown("it ends too early")
        return self.value >> self.left & ((1 << n) - 1)

    def ue(self) -> int:
        """Exp-Golomb (9.1): as many zeros as there are bits after the first one."""
        zeros = self.left - (self.value & ((1 << self.left) - 1)).bit_length()
        if zeros > 31:
            raise Unknown("a number too large")
        return self.u(2 * zeros + 1) - 1

    def se(self) -> int:
        k = self.ue()
        return (k + 1) // 2 if k % 2 else -(k // 2)

    def since(self, left: int) -> str:
        """The bits read since that many were left."""
        n = left - self.left
        return f"{self.value >> self.left & ((1 << n) - 1):0{n}b}" if n else ""


def ue(k: int) -> str:
    bits = f"{k + 1:b}"
    return "0" * (len(bits) - 1) + bits


def nal_of(header: int, bits: str) -> bytes:
    """The NAL unit with these bits, its trailing bits and emulation prevention (7.3.1)."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8)
    return bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


# Parameter sets


@dataclass(frozen=True, slots=True)
class _Sequence:
    id: int
    frame_num_bits: int
    order_type: int
    order_bits: int
    references: int
    """Held at most."""
    macroblocks: int
    colour: bool
    """There are chroma weights."""


def sequence_of(nal: Data) -> _Sequence:
    b = _Bits(nal)
    profile = b.u(8)
    b.u(16)
    id_ = b.ue()
    chroma = 1
    if profile in WITH_CHROMA_FORMAT:
        chroma = b.ue()
        if chroma == 3 and b.u(1):
            raise Unknown("colour planes coded apart")
        b.ue(), b.ue(), b.u(1)
        if b.u(1):
            for i in range(12 if chroma == 3 else 8):
                if b.u(1):
                    _skip_scaling_list(b, 16 if i < 6 else 64)
    frame_num_bits = b.ue() + 4
    order_type = b.ue()
    order_bits = b.ue() + 4 if order_type == 0 else 0
    if order_type not in (0, 2):
        raise Unknown("picture order by cycles")
    references, gaps = b.ue(), b.u(1)
    macroblocks = (b.ue() + 1) * (b.ue() + 1)
    if gaps or not b.u(1) or not references or max(frame_num_bits, order_bits) > 16 or id_ > 31:
        raise Unknown("fields, gaps, no references, or sizes that cannot be")
    return _Sequence(id_, frame_num_bits, order_type, order_bits, references, macroblocks, chroma != 0)


def _skip_scaling_list(b: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + b.se()) % 256
        last = following or last


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Of pictures."""

    id: int
    sequence: int
    bottom_order: bool
    active: tuple[int, int]
    """References in each list, where a slice does not say otherwise."""
    weights: tuple[bool, bool]
    """A table of them is in the headers of P, B slices."""


def parameters_of(nal: Data) -> _Parameters:
    b = _Bits(nal)
    id_, sequence, _, bottom_order = b.ue(), b.ue(), b.u(1), b.u(1)
    if b.ue():
        raise Unknown("slice groups")
    active = b.ue() + 1, b.ue() + 1
    weighted, bipred = b.u(1), b.u(2)
    b.se(), b.se(), b.se(), b.u(2)
    if b.u(1) or id_ > 255:
        raise Unknown("redundant pictures")
    return _Parameters(id_, sequence, bool(bottom_order), active, (bool(weighted), bipred == 1))


# Slices


@dataclass(frozen=True, slots=True)
class _Slice:
    first: int
    """Macroblock."""
    type: int
    nal: int
    """The unit's first byte."""
    parameters: _Parameters
    frame_num: int
    order: tuple[int, int]
    """Picture order: the low bits, and from the top field to the bottom one."""
    active: tuple[int, ...]
    """References in each list."""
    changes: tuple[list[tuple[int, int]], ...]
    """Of each list's order: operations and their numbers."""
    marking: list[tuple[int, ...]] | None
    """Memory management operations. None: the oldest reference makes room."""
    place: str
    """The bits that hold frame_num and picture order."""
    marking_bits: str


def slice_of(nal: Data, sequences: dict[int, _Sequence], parameters: dict[int, _Parameters]) -> _Slice:
    """A slice's header (7.3.3), up to the marking of references."""
    b = _Bits(nal[:HEADER_BYTES])
    idr, is_reference = nal[0] & 31 == IDR, nal[0] >> 5 & 3
    first, kind, id_ = b.ue(), b.ue() % 5, b.ue()
    if kind > INTRA or id_ not in parameters or parameters[id_].sequence not in sequences:
        raise Unknown("a switching slice, or one without its parameters")
    pps = parameters[id_]
    sps = sequences[pps.sequence]
    left = b.left
    frame_num = b.u(sps.frame_num_bits)
    if idr:
        b.ue()
    low = b.u(sps.order_bits)
    bottom = b.se() if pps.bottom_order and sps.order_type == 0 else 0
    place = b.since(left)
    lists = (1, 2, 0)[kind]
    if kind == B:
        b.u(1)
    active = pps.active[:lists]
    if lists and b.u(1):
        active = tuple(b.ue() + 1 for _ in range(lists))
    if lists and max(active) > 32:
        raise Unknown("too many references")
    changes = tuple(_changes(b) for _ in range(lists))
    if lists and pps.weights[kind]:
        _skip_weights(b, active, colour=sps.colour)
    left = b.left
    marking = _marking(b, idr=idr) if is_reference else None
    return _Slice(
        first, kind, nal[0], pps, frame_num, (low, bottom), active, changes, marking, place, b.since(left)
    )  # fmt: skip


def _changes(b: _Bits) -> list[tuple[int, int]]:
    """7.3.3.1"""
    changes: list[tuple[int, int]] = []
    if b.u(1):
        while (operation := b.ue()) != 3:
            if operation > 2 or len(changes) == 32:
                raise Unknown("a change of the list's order that cannot be")
            changes.append((operation, b.ue()))
    return changes


def _skip_weights(b: _Bits, active: Sequence[int], *, colour: bool) -> None:
    """7.3.3.2"""
    b.ue()
    if colour:
        b.ue()
    for _ in range(sum(active)):
        for numbers in (2, 4)[: 1 + colour]:
            if b.u(1):
                for _ in range(numbers):
                    b.se()


def _marking(b: _Bits, *, idr: bool) -> list[tuple[int, ...]] | None:
    """7.3.3.3"""
    if idr:
        if b.u(2) & 1:
            raise Unknown("a first picture for the long term")
        return None
    if not b.u(1):
        return None
    operations: list[tuple[int, ...]] = []
    while operation := b.ue():
        if operation > 6 or operation == 5 or len(operations) == 64:
            raise Unknown("references marked as cannot be, or all forgotten")
        operations.append((operation, *(b.ue() for _ in range(2 if operation == 3 else 1))))
    return operations


# References


@dataclass(eq=False, slots=True)
class _Reference:
    picture: int
    frame_num: int
    order: int


class _References:
    """What a decoder holds for later pictures, from an IDR picture on."""

    def __init__(self, sps: _Sequence) -> None:
        self.sps = sps
        self.short: list[_Reference] = []
        """In decoding order."""
        self.long: dict[int, _Reference] = {}
        """By long-term index, which for frames is LongTermPicNum too."""
        self.frame_num = 0
        """Of the last reference."""
        self.order_base = self.order_low = 0
        self.frame_num_base = self.last_frame_num = 0

    def order_of(self, s: _Slice, *, idr: bool) -> int:
        """PicOrderCnt of a frame: 8.2.1, for types 0 and 2."""
        low, bottom = s.order
        if self.sps.order_type == 2:
            if s.frame_num < self.last_frame_num:
                self.frame_num_base += 1 << self.sps.frame_num_bits
            self.last_frame_num = s.frame_num
            return 2 * (self.frame_num_base + s.frame_num) - (not s.nal >> 5 & 3)
        base, cycle = self.order_base, 1 << self.sps.order_bits
        if not idr and low < self.order_low and self.order_low - low >= cycle // 2:
            base += cycle
        elif not idr and low > self.order_low and low - self.order_low > cycle // 2:
            base -= cycle
        if s.nal >> 5 & 3:
            self.order_base, self.order_low = base, low
        return base + low + min(0, bottom)

    def number(self, reference: _Reference, now: int) -> int:
        """PicNum of a short-term reference (8.2.4.1)."""
        n = reference.frame_num
        return n - (1 << self.sps.frame_num_bits) if n > now else n

    def numbered(self, number: int, now: int) -> _Reference:
        for reference in self.short:
            if self.number(reference, now) == number:
                return reference
        raise Unknown("a reference that is not there")

    def lists(self, s: _Slice, order: int) -> list[list[_Reference]]:
        """RefPicList0 and RefPicList1 (8.2.4.2, 8.2.4.3), as long as they are active."""
        if s.type == INTRA:
            return []
        long = [self.long[i] for i in sorted(self.long)]
        if s.type == P:
            initial = [[*sorted(self.short, key=lambda r: -self.number(r, s.frame_num)), *long]]
        else:
            past = sorted((r for r in self.short if r.order < order), key=lambda r: -r.order)
            future = sorted((r for r in self.short if r.order >= order), key=lambda r: r.order)
            initial = [[*past, *future, *long], [*future, *past, *long]]
            if len(initial[1]) > 1 and initial[0] == initial[1]:
                initial[1][:2] = initial[1][1::-1]
        made = [self._changed(*each, s.frame_num) for each in zip(initial, s.active, s.changes, strict=True)]
        if any(len(a) < n for a, n in zip(made, s.active, strict=True)):
            raise Unknown("fewer references than are active")
        return made

    def _changed(
        self, initial: list[_Reference], active: int, changes: Iterable[tuple[int, int]], now: int
    ) -> list[_Reference]:
        made, cycle, number = initial[:active], 1 << self.sps.frame_num_bits, now
        for place, (operation, k) in enumerate(changes):
            if operation == 2:
                if k not in self.long:
                    raise Unknown("a long-term reference that is not there")
                moved = self.long[k]
            else:
                number = (number + (k + 1 if operation else -k - 1)) % cycle
                moved = self.numbered(number - cycle if number > now else number, now)
            if place >= active:
                raise Unknown("more changes than places")
            made[place:] = [moved, *(r for r in made[place:] if r is not moved)]
            del made[active:]
        return made

    def mark(self, s: _Slice, picture: int, order: int, *, idr: bool) -> None:
        """8.2.5, after a reference picture."""
        now, new = s.frame_num, _Reference(picture, s.frame_num, order)
        self.frame_num = now
        if s.marking is None and not idr and len(self.short) + len(self.long) >= self.sps.references:
            if not self.short:
                raise Unknown("no reference can make room")
            self.short.remove(min(self.short, key=lambda r: self.number(r, now)))
        stays = True
        for operation, *k in s.marking or ():
            if operation in (1, 3):
                old = self.numbered(now - k[0] - 1, now)
                self.short.remove(old)
                if operation == 3:
                    self.long[k[1]] = old
            elif operation == 2:
                if self.long.pop(k[0], None) is None:
                    raise Unknown("a long-term reference that is not there")
            elif operation == 4:
                self.long = {i: r for i, r in self.long.items() if i < k[0]}
            else:
                self.long[k[0]], stays = new, False
        if stays:
            self.short.append(new)
        if len(self.short) + len(self.long) > self.sps.references:
            raise Unknown("more references than are held")


# Streams


@dataclass(frozen=True, slots=True)
class Picture:
    """One access unit: a whole frame."""

    is_reference: bool
    uses: frozenset[int]
    """Pictures of the same group, by their place in it, that this one may be predicted from: those in its
    slices' active lists. Nothing else of another picture reaches its pixels: samples are predicted by an
    index into these lists (8.4.2.1), co-located motion is that of RefPicList1[0] (8.4.1.2.1), temporal
    direct mode takes its references from RefPicList0 (8.4.1.2.3), and implicit weights come from picture
    orders (8.4.2.3), which a hollow picture keeps."""
    slices: tuple[tuple[int, int, _Slice], ...]
    """First byte, end, header."""

    @property
    def can_be_hollow(self) -> bool:
        return self.is_reference and all(s.type != INTRA for _, _, s in self.slices)


def needed(pictures: Sequence[Picture], wanted: Iterable[int]) -> set[int]:
    """The wanted ones, and all that they are predicted from, by their places."""
    found, waiting = set[int](), list(wanted)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting.extend(pictures[place].uses)
    return found


class Stream:
    """Knows the parameter sets that a decoder got so far."""

    def __init__(self, extradata: bytes | None) -> None:
        """`extradata`: as the container stores it (ISO/IEC 14496-15, 5.3.3.1), or as a stream begins."""
        self.sequences: dict[int, _Sequence] = {}
        self.parameters: dict[int, _Parameters] = {}
        self.raw: dict[int, bytes] = {}
        """The sequences' own bytes."""
        self.length_bytes = 0
        """Before each NAL unit. 0: they begin with start codes."""
        extradata = extradata or b""
        if extradata[:1] != b"\1":
            for a, z in self._units(extradata):
                self._learn(extradata[a:z])
            return
        self.length_bytes = (extradata[4:5] or b"\0")[0] % 4 + 1
        at = 5
        for mask in (31, 255):
            count, at = (extradata[at : at + 1] or b"\0")[0] & mask, at + 1
            for _ in range(count):
                a, at = at + 2, at + 2 + int.from_bytes(extradata[at : at + 2])
                if not a < at <= len(extradata):
                    raise Unknown("a header cut off")
                self._learn(extradata[a:at])

    def group(self, packets: Sequence[Data]) -> list[Picture]:
        """One picture a packet, in decoding order, the first an IDR picture: no later one uses what came
        before it."""
        made: list[Picture] = []
        references: _References | None = None
        for place, data in enumerate(packets):
            slices = tuple(self._slices(data))
            if not slices:
                raise Unknown("a packet without a picture")
            s, idr = slices[0][2], slices[0][2].nal & 31 == IDR
            self._check_alike([s for _, _, s in slices])
            sps = self.sequences[s.parameters.sequence]
            is_reference = bool(s.nal >> 5 & 3)
            if idr:
                references = _References(sps)
                if s.frame_num or not is_reference or any(each.type != INTRA for _, _, each in slices):
                    raise Unknown("an IDR picture that cannot be one")
            elif references is None or references.sps is not sps:
                raise Unknown("no IDR picture begins it")
            elif s.frame_num != (references.frame_num + 1) % (1 << sps.frame_num_bits):
                raise Unknown("a reference is missing")
            order = references.order_of(s, idr=idr)
            uses = frozenset(r.picture for _, _, each in slices for some in references.lists(each, order) for r in some)
            if is_reference:
                references.mark(s, place, order, idr=idr)
            made.append(Picture(is_reference, uses, slices))
        return made

    def _slices(self, data: Data) -> Iterator[tuple[int, int, _Slice]]:
        units = [(a, z, data[a] & 31) for a, z in self._units(data)]
        idr = any(kind == IDR for _, _, kind in units)
        for a, z, kind in units:
            if kind in (SLICE, IDR):
                yield a, z, slice_of(data[a:z], self.sequences, self.parameters)
            elif kind in (SPS, PPS):
                self._learn(bytes(data[a:z]), may_change=idr)
            elif kind not in PASSED_OVER:
                raise Unknown(f"a NAL unit of type {kind}")

    def _check_alike(self, slices: Sequence[_Slice]) -> None:
        """Of one frame, whole and in order."""
        one, last = slices[0], -1
        size = self.sequences[one.parameters.sequence].macroblocks
        for s in slices:
            in_order = s.first == 0 if last < 0 else last < s.first < size
            same = (s.nal & 31, s.nal >> 5, s.place, s.marking_bits) == (
                one.nal & 31,
                one.nal >> 5,
                one.place,
                one.marking_bits,
            )
            if not in_order or not same or s.parameters.sequence != one.parameters.sequence:
                raise Unknown("slices that do not make one frame")
            last = s.first

    def _learn(self, nal: bytes, *, may_change: bool = True) -> None:
        if nal[0] & 31 == SPS:
            sps = sequence_of(nal)
            if self.raw.get(sps.id) != nal:
                if not may_change:
                    raise Unknown("other parameters in the middle of a group")
                self.sequences[sps.id], self.raw[sps.id] = sps, nal
        elif nal[0] & 31 == PPS:
            pps = parameters_of(nal)
            self.parameters[pps.id] = pps

    def _units(self, data: Data) -> Iterator[tuple[int, int]]:
        """First byte and end of each NAL unit."""
        if not self.length_bytes:
            found = [m.span() for m in START_CODE.finditer(data)]
            if data and not found:
                raise Unknown("no start code")
            for (_, a), (z, _) in pairwise([*found, (len(data), 0)]):
                while z > a and data[z - 1] == 0:
                    z -= 1
                if z > a:
                    yield a, z
            return
        at = 0
        while at < len(data):
            a = at + self.length_bytes
            at = a + int.from_bytes(data[at:a])
            if a >= at or at > len(data):
                raise Unknown("NAL units longer than their packet")
            yield a, at

    def is_idr(self, data: Data) -> bool:
        return any(data[a] & 31 == IDR for a, _ in self._units(data))

    def hollow(self, data: Data, picture: Picture) -> bytes:
        """The packet with every macroblock of its P and B slices skipped: a decoder's books are as if it
        were whole, its pixels are not. All slices become P slices, which copy where B slices would average,
        coded by runs (CAVLC) whatever the stream is, with picture parameters of our own that come along: so
        there is no arithmetic coding, no weight, and no filter at the edges."""
        spare = next(i for i in range(255, -1, -1) if i not in self.parameters)
        one = picture.slices[0][2].parameters
        size = self.sequences[one.sequence].macroblocks
        pps = f"{ue(spare)}{ue(one.sequence)}0{one.bottom_order:b}{ue(0) * 3}000{ue(0) * 3}100"
        ends = [*(s.first for _, _, s in picture.slices[1:]), size]
        replaced = {a: (s, end) for (a, _, s), end in zip(picture.slices, ends, strict=True)}
        units: list[bytes] = []
        for a, z in self._units(data):
            if a not in replaced:
                units.append(bytes(data[a:z]))
                continue
            s, end = replaced[a]
            if s is picture.slices[0][2]:
                units.append(nal_of(0x60 | PPS, pps))
            # Of one reference, in the list's own order.
            header = f"{ue(s.first)}{ue(P)}{ue(spare)}{s.place}00{s.marking_bits}{ue(0)}{ue(1)}"
            units.append(nal_of(s.nal, header + ue(end - s.first)))
        if self.length_bytes:
            return b"".join(len(u).to_bytes(self.length_bytes) + u for u in units)
        return b"".join(b"\0\0\0\1" + u for u in units)
