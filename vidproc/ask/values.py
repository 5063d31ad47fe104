"""Write each value exactly: as text, and as JSON.

Numbers keep every digit. A time has the form of ISO 8601 (`2026-03-01T12:00:00.5Z`), a duration too
(`P2M3DT-1.5S`), while what ISO 8601 has no form for (infinity, years before Christ, times with an offset) and all
else is written as DuckDB prints it. Lists, structs and maps are written as JSON, also in CSV.

Arrow does not carry every type of DuckDB: some come out as wrong numbers or as DuckDB's inner bytes. A
column of such a type travels as the text that DuckDB itself prints (`carried`), and its Arrow field names
the type (`marked`), at any depth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

TYPE: Final = b"duckdb"
"""Key in the metadata of an Arrow field: the DuckDB type of values that travel as text."""

_AS_TEXT = frozenset(
    {"UHUGEINT", "BIGNUM", "BIT", "TIME WITH TIME ZONE", "VARIANT", "GEOMETRY"}
)  # fmt: skip
_NUMBERS = frozenset({"UHUGEINT", "BIGNUM"})


# --- what travels as text ----------------------------------------------------------------------------------


def may_change(type_: str) -> bool:
    """Whether a type, by its name, may hold what Arrow would change."""
    return any(name in type_ for name in (*_AS_TEXT, "INTERVAL"))


def carried(kind: Any, *, inside: bool = False) -> str | None:
    """The SQL type to which a column of this type (a DuckDBPyType) is cast before it becomes Arrow; None: its own.

    An interval inside of other values travels as text too: Arrow's is in nanoseconds, and wraps around at 292 years.
    """
    if kind is None:
        return None
    name = str(kind)
    if (name.partition("(")[0] in _AS_TEXT and not name.endswith("]")) or (inside and name == "INTERVAL"):
        return "VARCHAR"
    if kind.id not in ("list", "array", "struct", "map", "union"):
        return None
    children = dict(kind.children)
    size = children.pop("size", "")
    if kind.id == "union":
        children.pop("", None)  # the tag
    below = {key: carried(child, inside=True) for key, child in children.items()}
    if not any(below.values()):
        return None
    if kind.id == "union":
        return "VARCHAR"
    types = {key: new or str(children[key]) for key, new in below.items()}
    match kind.id:
        case "struct":
            quoted = (f'"{key.replace(chr(34), chr(34) * 2)}" {type_}' for key, type_ in types.items())
            return f"STRUCT({', '.join(quoted)})"
        case "map":
            return f"MAP({types['key']}, {types['value']})"
    return f"{types['child']}[{size}]"


def marked(field: pa.Field, kind: Any, *, inside: bool = False) -> pa.Field:
    """The Arrow field of a column that was cast as `carried` says, with the names of the types that travel as text."""
    if carried(kind, inside=inside) is None:
        return field
    type_ = field.type
    if pa.types.is_string(type_):
        return field.with_metadata({TYPE: str(kind)})
    below = dict(kind.children)
    if pa.types.is_struct(type_):
        return field.with_type(pa.struct([marked(f, below[f.name], inside=True) for f in type_.fields]))
    if pa.types.is_map(type_):
        key, item = (
            marked(f, below[n], inside=True) for f, n in ((type_.key_field, "key"), (type_.item_field, "value"))
        )
        return field.with_type(pa.map_(key, item))
    value = marked(type_.value_field, below["child"], inside=True)
    if pa.types.is_fixed_size_list(type_):
        return field.with_type(pa.list_(value, type_.list_size))
    return field.with_type(pa.list_(value))


# --- text --------------------------------------------------------------------------------------------------


def is_number(field: pa.Field) -> bool:
    """Whether JSON writes the values without quotes."""
    type_ = field.type
    named = (field.metadata or {}).get(TYPE, b"").decode()
    return named in _NUMBERS or any(
        test(type_) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )


def texts(array: pa.Array, field: pa.Field, *, separator: str = "T") -> list[str | None]:
    """Each value as plain text; None for NULL. `separator` stands between a date and its time of day."""
    if isinstance(array, pa.ChunkedArray):
        return [text for chunk in array.chunks for text in texts(chunk, field, separator=separator)]
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    type_ = array.type
    if pa.types.is_union(type_):
        return _of_union(array, field.type, lambda a, f: texts(a, f, separator=separator))
    if pa.types.is_nested(type_):
        return [None if text == "null" else text for text in json_texts(array, field)]
    write = _writer(type_, field, separator)
    return [None if value is None else write(value) for value in _raw(array)]


def json_texts(array: pa.Array, field: pa.Field) -> list[str]:
    """Each value as JSON; `null` for NULL, and for numbers that are none or infinite, which JSON does not know."""
    type_ = field.type  # it has the marks, which the array's own has not
    if pa.types.is_union(type_):
        return ["null" if text is None else text for text in _of_union(array, type_, json_texts)]
    if pa.types.is_struct(type_):
        return _of_struct(array, type_)
    if pa.types.is_map(type_):
        return _of_map(array, type_)
    if pa.types.is_nested(type_):
        return _of_list(array, type_)
    found = texts(array, field)
    if pa.types.is_floating(type_):
        return ["null" if text in (None, "nan", "inf", "-inf") else str(text) for text in found]
    if is_number(field) or pa.types.is_boolean(type_):
        return ["null" if text is None else text for text in found]
    return ["null" if text is None else json.dumps(text, ensure_ascii=False) for text in found]


def _of_struct(array: pa.StructArray, type_: pa.DataType) -> list[str]:
    fields = type_.fields
    columns = [json_texts(child, field) for child, field in zip(array.flatten(), fields, strict=True)]
    rows = list(zip(*columns, strict=True)) if columns else [()] * len(array)
    valid = array.is_valid().to_pylist()
    names = [field.name for field in fields]
    if any(names):
        keys = [json.dumps(name, ensure_ascii=False) + ": " for name in names]
        return [
            "{" + ", ".join(map(str.__add__, keys, row)) + "}" if ok else "null"
            for row, ok in zip(rows, valid, strict=True)
        ]
    # The members of row(1, 2) have no names.
    return ["[" + ", ".join(row) + "]" if ok else "null" for row, ok in zip(rows, valid, strict=True)]


def _of_list(array: pa.Array, type_: pa.DataType) -> list[str]:
    values = json_texts(array.flatten(), type_.value_field)
    lengths = pc.list_value_length(array).to_pylist()
    ends = list(accumulate(length or 0 for length in lengths))
    return [
        "null" if length is None else "[" + ", ".join(values[end - length : end]) + "]"
        for length, end in zip(lengths, ends, strict=True)
    ]


def _of_map(array: pa.MapArray, type_: pa.DataType) -> list[str]:
    keys, items = texts(array.keys, type_.key_field), json_texts(array.items, type_.item_field)
    offsets, valid = array.offsets.to_pylist(), array.is_valid().to_pylist()
    return [
        "{" + ", ".join(f"{json.dumps(keys[i], ensure_ascii=False)}: {items[i]}" for i in range(first, end)) + "}"
        if ok
        else "null"
        for first, end, ok in zip(offsets[:-1], offsets[1:], valid, strict=True)
    ]


def _of_union(
    array: pa.UnionArray, type_: pa.DataType, write: Callable[[pa.Array, pa.Field], Sequence[str | None]]
) -> list[str | None]:
    """Each value as one of its own type."""
    members = {code: write(array.field(i), type_.field(i)) for i, code in enumerate(type_.type_codes)}
    codes = array.type_codes.to_pylist()
    places = array.offsets.to_pylist() if type_.mode == "dense" else range(len(codes))
    return [members[code][place] for code, place in zip(codes, places, strict=True)]


# --- single values -----------------------------------------------------------------------------------------


def _raw(array: pa.Array) -> list[Any]:
    """Values as Python has them; times as the numbers that they are kept as, which have no limits of a calendar."""
    type_ = array.type
    if pa.types.is_float32(type_):
        # The shortest number that is the same float32: 0.1 and not 0.10000000149011612.
        return list(pc.cast(pc.cast(array, pa.string()), pa.float64()).to_pylist())
    if pa.types.is_date32(type_) or pa.types.is_time32(type_):
        return list(array.cast(pa.int32()).to_pylist())
    if pa.types.is_date64(type_) or pa.types.is_time64(type_) or pa.types.is_timestamp(type_):
        return list(array.cast(pa.int64()).to_pylist())
    return list(array.to_pylist())


_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ENDLESS = 2**63 - 1


def _writer(type_: pa.DataType, field: pa.Field, separator: str) -> Callable[[Any], str]:
    match type_:
        case _ if pa.types.is_boolean(type_):
            return lambda value: "true" if value else "false"
        case _ if pa.types.is_floating(type_):
            return _float
        case _ if pa.types.is_decimal(type_):
            return _decimal
        case _ if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
            return _blob
        case _ if pa.types.is_date32(type_):
            return _date
        case _ if pa.types.is_date64(type_):
            return lambda value: _date(value // 86_400_000)
        case _ if pa.types.is_time(type_):
            return lambda value: _clock(value, _A_SECOND[type_.unit])
        case _ if pa.types.is_timestamp(type_):
            zone = "" if type_.tz is None else "Z"
            return lambda value: _timestamp(value, _A_SECOND[type_.unit], separator, zone)
        case _ if pa.types.is_interval(type_):
            return lambda value: _duration(value.months, value.days, value.nanoseconds // 1000)
        case _ if (field.metadata or {}).get(TYPE) == b"INTERVAL":
            return _duration_of_text
    return str


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _decimal(value: Decimal) -> str:
    return f"{value:f}"


def _blob(value: bytes) -> str:
    return "".join(chr(b) if 32 <= b <= 126 and b not in b"\\'\"" else f"\\x{b:02X}" for b in value)


def _date(days: int) -> str:
    if abs(days) == 2**31 - 1:
        return "infinity" if days > 0 else "-infinity"
    # The proleptic Gregorian calendar by whole numbers, in eras of 400 years that begin on a 1st of March.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    return f"{year:04}-{month:02}-{of_month:02}" if year > 0 else f"{1 - year:04}-{month:02}-{of_month:02} (BC)"


def _clock(value: int, a_second: int) -> str:
    seconds, part = divmod(value, a_second)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if part:
        nanoseconds = part * (10**9 // a_second)
        text += f".{nanoseconds // 1000:06}" if nanoseconds % 1000 == 0 else f".{nanoseconds:09}"
    return text


def _timestamp(value: int, a_second: int, separator: str, zone: str) -> str:
    if abs(value) == _ENDLESS:
        return "infinity" if value > 0 else "-infinity"
    days, of_day = divmod(value, 86_400 * a_second)
    date = _date(days)
    if date.endswith("(BC)"):
        separator, zone = " ", zone and "+00"
    return f"{date}{separator}{_clock(of_day, a_second)}{zone}"


def _duration(months: int, days: int, microseconds: int) -> str:
    return f"P{months}M{days}DT{Decimal(microseconds) / 10**6:f}S"


_INTERVAL = re.compile(
    r"(?:(-?\d+) years? ?)?(?:(-?\d+) months? ?)?(?:(-?\d+) days? ?)?(?:(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?"
)


def _duration_of_text(text: str) -> str:
    """From DuckDB's form, such as `1 year 2 months 3 days -00:00:01.5`."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        return text
    years, months, days, minus, hours, minutes, seconds, part = found.groups(default="0")
    microseconds = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 10**6 + int(f"{part:0<6}"[:6])
    return _duration(int(years) * 12 + int(months), int(days), -microseconds if minus == "-" else microseconds)
