"""What an ONNX file says of itself, read from its bytes: nothing is run, and no other file is opened.

An ONNX file is one protobuf message. Only the fields that are needed here are read; their numbers are those of
onnx.proto, which are never given to anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

MAX_NESTING = 100
"""Deepest nesting of messages, as in protobuf's own parsers."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message -> field number -> the message in it. What holds no tensor is left out.
_BELOW: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_FLOATS: dict[int, type[np.generic]] = {1: np.float32, 10: np.float16, 11: np.float64}
_BFLOAT16 = 16

_ELEMENTS = (
    "nothing float32 uint8 int8 uint16 int16 int32 int64 text bool float16 float64 uint32 uint64 complex64 complex128 "
    "bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1"
)
ELEMENTS = tuple(_ELEMENTS.split())
"""Names of the element types by their number."""


class NoGraph(ValueError):
    """The bytes are no ONNX file; the text says why."""


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output of the graph."""

    name: str
    element: str
    """float32, uint8, ...; for what is no tensor: sequence, map, optional or sparse tensor."""
    shape: tuple[int | str, ...] | None
    """A size, or the name of one that is open (empty: without a name). None: not said."""

    def __str__(self) -> str:
        shape = "of unknown shape" if self.shape is None else f"({', '.join(str(s or '?') for s in self.shape)})"
        return f"{self.name or 'without a name'}: {self.element} {shape}"


@dataclass(slots=True)
class GraphFile:
    """What is needed of an ONNX file."""

    inputs: list[GraphValue] = field(default_factory=list)
    """Without those that have a value of their own in the file."""
    outputs: list[GraphValue] = field(default_factory=list)
    external: list[ExternalTensor] = field(default_factory=list)
    no_number: str | None = None
    """Name of a tensor that holds NaN."""


class ExternalTensor(NamedTuple):
    """A tensor whose bytes lie in another file."""

    name: str
    element: int
    location: str
    offset: int
    length: int | None


def read_graph(data: bytes) -> GraphFile:
    """Raises NoGraph for what is no ONNX file."""
    view = memoryview(data)
    found = GraphFile()
    valued: set[str] = set()
    graphs = 0
    for number, kind, value in _fields(view):
        if number == 7 and kind == _BYTES:
            graphs += 1
            for n, k, v in _fields(value):
                if k == _BYTES and n in (11, 12):
                    (found.inputs if n == 11 else found.outputs).append(_value(v))
                elif k == _BYTES and n == 5:
                    valued.update(_text(text) for m, t, text in _fields(v) if (m, t) == (8, 2))
    if not graphs:
        raise NoGraph("it holds no graph")
    for tensor in _tensors(view, "Model", 0):
        _look_at(tensor, found)
    found.inputs = [i for i in found.inputs if i.name not in valued]
    return found


def holds_nan(data: memoryview | bytes, element: int) -> bool:
    """Whether numbers of that element type, little-endian, hold one that is none."""
    kind = _FLOATS.get(element)
    if kind is not None and len(data) % np.dtype(kind).itemsize == 0:
        return bool(np.isnan(np.frombuffer(data, kind)).any())
    if element == _BFLOAT16 and len(data) % 2 == 0:
        return bool(((np.frombuffer(data, np.uint16) & 0x7FFF) > 0x7F80).any())
    return False


def _tensors(view: memoryview, message: str, depth: int) -> Iterator[memoryview]:
    if depth > MAX_NESTING:
        raise NoGraph(f"its parts are nested deeper than {MAX_NESTING} levels")
    for number, kind, value in _fields(view):
        below = _BELOW[message].get(number)
        if below is None or kind != _BYTES:
            continue
        if below == "Tensor":
            yield value
        else:
            yield from _tensors(value, below, depth + 1)


def _look_at(tensor: memoryview, found: GraphFile) -> None:
    name, element, outside = "", 0, False
    places: dict[str, str] = {}
    parts: list[tuple[memoryview | bytes, int]] = []
    for number, kind, value in _fields(tensor):
        if (number, kind) == (2, _VARINT):
            element = int(value)
        elif (number, kind) == (8, _BYTES):
            name = _text(value)
        elif (number, kind) == (13, _BYTES):
            outside = True
            texts = {n: bytes(v).decode("utf-8", "surrogateescape") for n, k, v in _fields(value) if k == _BYTES}
            places[texts.get(1, "")] = texts.get(2, "")
        elif (number, kind) == (14, _VARINT):
            outside = outside or int(value) != 0
        elif number in (4, 9, 10) and kind != _VARINT:
            parts.append((value, {4: 1, 9: 0, 10: 11}[number]))
    if outside:
        offset, length = (_size(places.get(key), name) for key in ("offset", "length"))
        found.external.append(ExternalTensor(name, element, places.get("location", ""), offset or 0, length))
    elif any(holds_nan(data, own or element) for data, own in parts):
        found.no_number = found.no_number or name


def _size(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NoGraph(f"the place of {name!r} in another file is {text[:40]!r}")
    return int(text)


def _value(view: memoryview) -> GraphValue:
    name, element, shape = "", "nothing", None
    for number, kind, value in _fields(view):
        if (number, kind) == (1, _BYTES):
            name = _text(value)
        elif (number, kind) == (2, _BYTES):
            for n, k, v in _fields(value):
                if k == _BYTES and n == 1:
                    element, shape = _tensor_type(v)
                elif k == _BYTES and n in (4, 5, 8, 9):
                    element = {4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}[n]
    return GraphValue(name, element, shape)


def _tensor_type(view: memoryview) -> tuple[str, tuple[int | str, ...] | None]:
    element: int = 0
    shape: tuple[int | str, ...] | None = None
    for number, kind, value in _fields(view):
        if (number, kind) == (1, _VARINT):
            element = int(value)
        elif (number, kind) == (2, _BYTES):
            shape = (shape or ()) + tuple(_dimension(v) for n, k, v in _fields(value) if (n, k) == (1, _BYTES))
    return (ELEMENTS[element] if element < len(ELEMENTS) else f"element type {element}"), shape


def _dimension(view: memoryview) -> int | str:
    size: int | str = ""
    for number, kind, value in _fields(view):
        if (number, kind) == (1, _VARINT):
            size = int(value) - (1 << 64) if int(value) >> 63 else int(value)
        elif (number, kind) == (2, _BYTES):
            size = _text(value)
    return size


def _fields(view: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a message: an int for a varint, else the bytes."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise NoGraph("it is no protobuf message")
        if number == 0 or size > end - at:
            raise NoGraph("it is cut short, or no protobuf message")
        yield number, kind, view[at : at + size]
        at += size


def _text(view: memoryview) -> str:
    return bytes(view).decode("utf-8", "replace")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise NoGraph("it is cut short, or no protobuf message")
