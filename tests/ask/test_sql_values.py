"""Values out of queries are exact: each type of DuckDB, nested too, in each format, against DuckDB's own printing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidproc.ask import LakeDatabase, connect, write_result
from vidproc.errors import ConfigError
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeDatabase]:
    lake, options = str(tmp_path_factory.mktemp("values") / "lake"), StorageOptions(endpoint_url=None)
    Lake.create(lake, options)
    with connect(lake, options) as database:
        yield database


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def written(db: LakeDatabase, select: str, format: Any) -> bytes:
    out = io.BytesIO()
    write_result(db.sql(select), format, out)
    return out.getvalue()


NUMBERS = [  # value, type: JSON has them as numbers
    ("-128", "TINYINT"), ("32767", "SMALLINT"), ("-2147483648", "INTEGER"), ("9223372036854775807", "BIGINT"),
    ("255", "UTINYINT"), ("65535", "USMALLINT"), ("4294967295", "UINTEGER"), ("18446744073709551615", "UBIGINT"),
    ("170141183460469231731687303715884105727", "HUGEINT"), ("-170141183460469231731687303715884105728", "HUGEINT"),
    ("12", "HUGEINT"),
    ("0", "UHUGEINT"), ("170141183460469231731687303715884105727", "UHUGEINT"),
    ("170141183460469231731687303715884105728", "UHUGEINT"), ("340282366920938463463374607431768211455", "UHUGEINT"),
    ("-123456789012345678901234567890123456789012345678901234567890", "BIGNUM"), ("0", "BIGNUM"),
    ("1.10", "DECIMAL(5,2)"), ("-0.01", "DECIMAL(5,2)"), ("12.00", "DECIMAL(10,2)"), ("0.1", "DECIMAL(18,1)"),
    ("0.0000000001", "DECIMAL(20,10)"), ("12345678901234567890123456789012345.678", "DECIMAL(38,3)"),
    ("9007199254740993.1", "DECIMAL(20,1)"), ("99999999999999999999999999999999999999", "DECIMAL(38,0)"),
    ("0.1", "FLOAT"), ("16777217", "FLOAT"), ("3.4028235e+38", "FLOAT"), ("1e-45", "FLOAT"),
    ("0.1", "DOUBLE"), ("1e16", "DOUBLE"), ("-0.0", "DOUBLE"), ("5e-324", "DOUBLE"),
    ("1.7976931348623157e308", "DOUBLE"),
    ("0.30000000000000004", "DOUBLE"),
]  # fmt: skip
TEXTS = [  # JSON has them as texts
    ("0101", "BIT"), ("1", "BIT"), ("000000000000000000000001", "BIT"),
    ("12:00:00+02", "TIMETZ"), ("00:00:00+15:59:59", "TIMETZ"), ("24:00:00-15:59:59", "TIMETZ"),
    ("12:00:00.123456-03:30", "TIMETZ"),
    ("12:34:56", "TIME"), ("12:34:56.000001", "TIME"), ("24:00:00", "TIME"), ("12:34:56.123456789", "TIME_NS"),
    ("2026-03-01", "DATE"), ("0001-01-01", "DATE"), ("9999-12-31", "DATE"), ("10000-01-01", "DATE"),
    ("0044-03-15 (BC)", "DATE"), ("0001-12-31 (BC)", "DATE"), ("infinity", "DATE"), ("-infinity", "DATE"),
    ("5881580-07-10", "DATE"), ("5877642-06-25 (BC)", "DATE"), ("2000-02-29", "DATE"), ("1900-03-01", "DATE"),
    ("infinity", "TIMESTAMP"), ("-infinity", "TIMESTAMPTZ"), ("infinity", "TIMESTAMP_S"), ("infinity", "TIMESTAMP_MS"),
    ("-infinity", "TIMESTAMP_NS"), ("0044-03-15 (BC) 12:00:00", "TIMESTAMP"),
    ("0044-03-15 (BC) 12:00:00+00", "TIMESTAMPTZ"),
    ("a \"quoted\", text\nof two lines \\ 'x'", "VARCHAR"), ("käse 🎥", "VARCHAR"), ("", "VARCHAR"),
    ("NULL", "VARCHAR"),
    ("\\xAA\\x00b\\x27\\x22\\x5C", "BLOB"), ("plain", "BLOB"), ("", "BLOB"),
    ("f2bae700-ada3-40b7-bb05-547615e486ed", "UUID"), 
    ("b'c", "ENUM('a', 'b''c')"),
    ('{"a": [1, 2]}', "JSON"), ("POINT (1 2)", "GEOMETRY"),
]  # fmt: skip
TIMES = [  # in the form of ISO 8601: value, type, text
    ("2026-03-01 12:00:00", "TIMESTAMP", "2026-03-01T12:00:00"),
    ("2026-03-01 12:00:00.5", "TIMESTAMP", "2026-03-01T12:00:00.500000"),
    ("2026-03-01 12:00:00.000001", "TIMESTAMP", "2026-03-01T12:00:00.000001"),
    ("1969-12-31 23:59:59.999999", "TIMESTAMP", "1969-12-31T23:59:59.999999"),
    ("0001-01-01 00:00:00", "TIMESTAMP", "0001-01-01T00:00:00"),
    ("290000-01-01 00:00:00", "TIMESTAMP", "290000-01-01T00:00:00"),
    ("2026-03-01 12:00:00+02", "TIMESTAMPTZ", "2026-03-01T10:00:00Z"),
    ("9999-12-31 23:59:59.999999+00", "TIMESTAMPTZ", "9999-12-31T23:59:59.999999Z"),
    ("10000-01-01 00:00:00+00", "TIMESTAMPTZ", "10000-01-01T00:00:00Z"),
    ("2026-03-01 12:00:00", "TIMESTAMP_S", "2026-03-01T12:00:00"),
    ("2026-03-01 12:00:00.123", "TIMESTAMP_MS", "2026-03-01T12:00:00.123000"),
    ("2026-03-01 12:00:00.123456789", "TIMESTAMP_NS", "2026-03-01T12:00:00.123456789"),
    ("2 months 3 days -00:00:01.5", "INTERVAL", "P2M3DT-1.5S"),
    ("-1 year -2 months 4 days", "INTERVAL", "P-14M4DT0S"),
    ("1000000 hours 0.000001 seconds", "INTERVAL", "P0M0DT3600000000.000001S"),
]  # fmt: skip
VALUES: list[tuple[str, str, str | None, bool]] = [
    *((value, kind, None, True) for value, kind in NUMBERS),
    *((value, kind, None, False) for value, kind in TEXTS),
    *((value, kind, text, False) for value, kind, text in TIMES),
]


def expression(value: str, kind: str) -> str:
    return f"CAST('{value.replace(chr(39), chr(39) * 2)}' AS {kind})"


def nestings(e: str, kind: str, leaf: str) -> list[tuple[str, str]]:
    """Expressions with the value inside, and the JSON of each."""
    return [
        (f"[{e}]", f"[{leaf}]"),
        (f"[NULL, {e}, {e}]", f"[null, {leaf}, {leaf}]"),
        (f"{{'a': {e}, 'b c': 1}}", f'{{"a": {leaf}, "b c": 1}}'),
        (f"MAP {{'k': {e}}}", f'{{"k": {leaf}}}'),
        (f"array_value({e}, {e})", f"[{leaf}, {leaf}]"),
        (f"[{{'a': [{e}], 'b': NULL}}]", f'[{{"a": [{leaf}], "b": null}}]'),
        (f"[[], [{e}]]", f"[[], [{leaf}]]"),
        (f"MAP {{1: MAP {{2: [{e}]}}}}", f'{{"1": {{"2": [{leaf}]}}}}'),
    ]


@pytest.mark.parametrize(("value", "kind", "iso", "number"), VALUES, ids=lambda v: str(v)[:40])
def test_each_type_in_each_format(
    db: LakeDatabase, plain: duckdb.DuckDBPyConnection, value: str, kind: str, iso: str | None, number: bool
) -> None:
    e = expression(value, kind)
    [(printed,)] = plain.execute(f"SELECT CAST({e} AS VARCHAR)").fetchall()
    want = iso or printed
    nested = nestings(e, kind, want if number else json.dumps(want, ensure_ascii=False))
    columns = [(e, want), (f"CAST(NULL AS {kind})", None), *nested]
    select = "SELECT " + ", ".join(f"{column} AS c{i}" for i, (column, _) in enumerate(columns))

    header, row = csv.reader(io.StringIO(written(db, select, "csv").decode(), newline=""))
    assert header == [f"c{i}" for i in range(len(columns))]
    assert row == [text or "" for _, text in columns]

    leaf = want if number else json.dumps(want, ensure_ascii=False)
    texts = [leaf, "null", *(text for _, text in nested)]
    assert written(db, select, "json").decode() == (
        "[\n{" + ", ".join(f'"c{i}": {text}' for i, text in enumerate(texts)) + "}\n]\n"
    )
    json.loads(written(db, select, "json"))

    table = written(db, f"SELECT {e} AS v", "table").decode().splitlines()
    assert table[2].strip() == shown(want).strip()

    parquet = pq.read_table(io.BytesIO(written(db, select, "parquet")))
    if value == str(-(2**127)):  # DuckDB writes it to Arrow, but cannot read it from there
        assert str(parquet["c0"][0].as_py()) == value
        return
    plain.register("parquet", parquet)
    for i, (column, _) in enumerate(columns):
        [(found,)] = plain.execute(f"SELECT CAST(c{i} AS VARCHAR) FROM parquet").fetchall()
        [(own,)] = plain.execute(f"SELECT CAST({column} AS VARCHAR)").fetchall()
        if i < 2:
            assert found == (want if kind == "INTERVAL" and i == 0 else own)
        elif kind == "INTERVAL":
            assert found.count(want) == column.count(e)
        else:
            # A text inside of a list is printed in quotes where it needs them; Parquet has no enums and no JSON.
            assert re.sub(r"['\\\\]", "", found) == re.sub(r"['\\\\]", "", own), column


def shown(text: str) -> str:
    """In a table for people: a space in a time, thousandths of a second, no line breaks, no `.0` of a whole number."""
    if re.match(r"\d+-\d\d-\d\dT", text):
        text = text.replace("T", " ")
    text = re.sub(r"^(-?\d+)\.0$", r"\1", text)
    return text.encode("unicode_escape").decode().replace("\\\\", "\\") if "\n" in text else text


def test_values_of_several_rows_keep_their_places(db: LakeDatabase, plain: duckdb.DuckDBPyConnection) -> None:
    """Over more than one batch, with NULLs among them."""
    select = (
        "SELECT CASE WHEN i % 7 = 0 THEN NULL WHEN i % 7 = 1 THEN [] ELSE [i::UHUGEINT << 100, NULL, i] END AS l, "
        "CASE WHEN i % 5 = 0 THEN NULL ELSE MAP {i: {'t': TIMETZ '12:00:00+02', 'n': [i]}} END AS m, "
        "CASE WHEN i % 3 = 0 THEN NULL ELSE {'b': i::BIT, 'd': i::DECIMAL(10, 2) / 4} END AS s FROM range(120_000) t(i)"
    )
    lines = written(db, select, "json").decode().splitlines()[1:-1]
    assert len(lines) == 120_000
    for i in (0, 1, 2, 14, 15, 49_999, 50_000, 50_001, 119_999):
        found = json.loads(lines[i].rstrip(","), parse_float=str)
        assert found["l"] == (None if i % 7 == 0 else [] if i % 7 == 1 else [i << 100, None, i])
        assert found["m"] == (None if i % 5 == 0 else {str(i): {"t": "12:00:00+02", "n": [i]}})
        if i % 3:
            assert found["s"]["b"] == f"{i:064b}"
    assert pq.read_table(io.BytesIO(written(db, select, "parquet"))).num_rows == 120_000


def test_a_value_of_any_of_several_types(db: LakeDatabase, plain: duckdb.DuckDBPyConnection) -> None:
    select = (
        "SELECT CAST(v AS UNION(n INTEGER, t VARCHAR, d DECIMAL(5, 2))) AS u FROM (VALUES "
        "(union_value(n := 7)::UNION(n INTEGER, t VARCHAR, d DECIMAL(5, 2))), "
        "(union_value(t := 'x')::UNION(n INTEGER, t VARCHAR, d DECIMAL(5, 2))), "
        "(union_value(d := 1.50)::UNION(n INTEGER, t VARCHAR, d DECIMAL(5, 2))), (NULL)) w(v)"
    )
    assert written(db, select, "json").decode() == '[\n{"u": 7},\n{"u": "x"},\n{"u": 1.50},\n{"u": null}\n]\n'
    assert written(db, select, "csv").decode() == 'u\n7\nx\n1.50\n""\n'
    assert pq.read_table(io.BytesIO(written(db, select, "parquet")))["u"].to_pylist() == ["7", "x", "1.50", None]
    with_text = "SELECT union_value(big := 340282366920938463463374607431768211455::UHUGEINT) AS u"
    assert written(db, with_text, "csv").decode() == "u\n340282366920938463463374607431768211455\n"


@pytest.mark.parametrize("value", ["42", "{'a': 1.10, 'b': [x]}", "text", "[1, 2]"])
def test_variants_are_printed_as_duckdb_does(db: LakeDatabase, value: str) -> None:
    literal = value.replace("[x]", "['x']") if value != "text" else "'text'"
    for format in ("csv", "json", "table", "parquet"):
        data = written(db, f"SELECT {literal}::VARIANT AS v, [{literal}::VARIANT] AS l", format)
        if format == "parquet":
            [row] = pq.read_table(io.BytesIO(data)).to_pylist()
            assert row == {"v": value, "l": [value]}
        elif format == "json":
            assert json.loads(data) == [{"v": value, "l": [value]}]
        else:
            assert value in data.decode().replace('""', '"')


def test_rows_without_names(db: LakeDatabase) -> None:
    select = "SELECT row(1, 'a', row(2, 1.10)) AS r, [row(1, 340282366920938463463374607431768211455::UHUGEINT)] AS big"
    [row] = json.loads(written(db, select, "json"), parse_float=str)
    assert row == {"r": [1, "a", [2, "1.10"]], "big": "[(1, 340282366920938463463374607431768211455)]"}
    [kept] = pq.read_table(io.BytesIO(written(db, select, "parquet"))).to_pylist()
    assert kept["r"]["v1"] == 1 and kept["r"]["v2"] == "a" and str(kept["r"]["v3"]["v2"]) == "1.10"


def test_no_number_is_null_in_json_alone(db: LakeDatabase) -> None:
    select = "SELECT 'nan'::DOUBLE AS n, 'inf'::FLOAT AS i, ['-inf'::DOUBLE, 1.5] AS l, NULL::DOUBLE AS z"
    assert written(db, select, "json") == b'[\n{"n": null, "i": null, "l": [null, 1.5], "z": null}\n]\n'
    assert written(db, select, "csv") == b'n,i,l,z\nnan,inf,"[null, 1.5]",\n'
    table = pq.read_table(io.BytesIO(written(db, select, "parquet")))
    assert str(table.to_pylist()) == "[{'n': nan, 'i': inf, 'l': [-inf, 1.5], 'z': None}]"


def test_csv_ends_its_lines_as_unix_does_and_knows_null_from_an_empty_text(db: LakeDatabase) -> None:
    select = "SELECT * FROM (VALUES (1, 'a'), (2, ''), (3, NULL), (4, E'x\\r\\ny'), (5, 'say \"x\", y')) t(n, t)"
    assert written(db, select, "csv") == b'n,t\n1,a\n2,""\n3,\n4,"x\r\ny"\n5,"say ""x"", y"\n'
    assert written(db, "SELECT NULL AS a", "csv") == b'a\n""\n', "a row, and no blank line"
    assert written(db, 'SELECT 1 AS "a,b" WHERE false', "csv") == b'"a,b"\n'


def test_numbers_that_python_reads_too(db: LakeDatabase) -> None:
    """Through `sql` itself: what Arrow has no type for comes as the text that DuckDB prints."""
    [row] = db.sql(
        "SELECT md5_number('a') AS m, TIMETZ '12:00:00+02' AS t, '01'::BIT AS b, "
        "1.10::DECIMAL(5, 2) AS d, 12::HUGEINT AS h"
    ).read_all().to_pylist()  # fmt: skip
    assert {k: str(v) for k, v in row.items()} == {
        "m": str(int.from_bytes(bytes.fromhex("0cc175b9c0f1b6a831c399e269772661"), "little")),
        "t": "12:00:00+02", "b": "01", "d": "1.10", "h": "12",
    }  # fmt: skip
    schema = db.sql("SELECT [1::UHUGEINT] AS a, INTERVAL 1 DAY AS i").schema
    assert schema.field("a").type.value_field.metadata == {b"duckdb": b"UHUGEINT"}
    assert pa.types.is_interval(schema.field("i").type)


def test_an_interval_that_arrow_would_turn_round_is_refused(db: LakeDatabase) -> None:
    assert "P0M0DT9223360000S" in written(db, "SELECT to_seconds(9223360000) AS i", "csv").decode()
    with pytest.raises(ConfigError, match=r"292 years.*cast it to VARCHAR"):
        written(db, "SELECT to_hours(24 * 365 * 400) AS i", "csv")
    assert "3504000:00:00" in written(db, "SELECT CAST(to_hours(24 * 365 * 400) AS VARCHAR) AS i", "csv").decode()
    assert "P0M0DT12614400000S" in written(db, "SELECT [to_hours(24 * 365 * 400)] AS i", "csv").decode()


QUIET = [HealthCheck.function_scoped_fixture]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(
    days=st.integers(-2_147_483_646, 2_147_483_646),
    micros=st.integers(-(2**62), 2**62),
    hugeint=st.integers(0, 2**128 - 1),
)
def test_any_day_any_moment_any_number(
    db: LakeDatabase, plain: duckdb.DuckDBPyConnection, days: int, micros: int, hugeint: int
) -> None:
    select = f"SELECT DATE '1970-01-01' + {days} AS d, make_timestamp({micros}) AS t, '{hugeint}'::UHUGEINT AS h"
    try:
        [want] = plain.execute(f"SELECT d::VARCHAR, t::VARCHAR, h::VARCHAR FROM ({select})").fetchall()
    except duckdb.Error:
        return  # beyond what DuckDB's calendar holds
    [_, found] = csv.reader(io.StringIO(written(db, select, "csv").decode()))
    assert (found[0], found[2]) == (want[0], want[2])
    assert plain.execute("SELECT CAST(? AS TIMESTAMP)::VARCHAR", [found[1]]).fetchone() == (want[1],)


def test_a_file_is_what_the_terminal_shows(db: LakeDatabase, tmp_path: Path) -> None:
    """The same text through the pipe of a shell: `$(vidproc query …)` gets the value and nothing else."""
    (tmp_path / "x.csv").write_bytes(
        written(db, "SELECT 340282366920938463463374607431768211455::UHUGEINT AS n", "csv")
    )
    assert (tmp_path / "x.csv").read_text().split("\n") == ["n", "340282366920938463463374607431768211455", ""]
