"""A second database engine that has the lake's tables without rows, and no way to anything else.

It reads SQL, binds it and plans it as the real engine would, since both are the same program and know the
same tables; but it has no rows, no Delta extension, no file system and no network. So whatever a statement
names is resolved here first, where that does no harm, and the plan says what the statement would touch.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import duckdb

from vidproc.errors import ConfigError

Params = Sequence[Any] | Mapping[str, Any] | None

MAIN: Final = "main"
EVERY: Final = "every_pipeline"
"""Schemas of the views: the rows of the chosen pipeline, and those of every one."""

TABLE_FUNCTIONS = frozenset(
    {"unnest", "range", "generate_series", "json_each", "json_tree", "repeat", "repeat_row"}
)  # fmt: skip
"""All that SQL may call in place of a table. None of them reaches beyond its arguments."""

REFUSED_FUNCTIONS = frozenset(
    {
        # They read the process or the engine rather than the lake.
        "getenv", "current_setting", "getvariable", "current_query", "current_query_id", "current_connection_id",
        "current_transaction_id", "txid_current", "in_search_path", "get_block_size", "stats", "obj_description",
        "col_description", "shobj_description", "map_to_pg_oid", "parse_duckdb_log_message",
        # They act.
        "nextval", "currval", "write_log", "write_blob", "sleep_ms",
        # They take SQL as a text, which nobody has checked.
        "json_serialize_plan", "json_serialize_sql", "json_deserialize_sql", "json_execute_serialized_sql", "query",
        "query_table",
    }
)  # fmt: skip
"""Functions that may not be called, whatever stands around them."""
REFUSED_PREFIXES = ("pg_", "has_", "inet_", "duckdb_", "pragma_", "__internal_", "delta_", "read_", "parquet_")
"""The same of families of functions."""
HARMLESS = frozenset({"pg_typeof", "pg_size_pretty"})
"""Members of such families that look at their argument alone."""

PLAIN_OPERATORS = frozenset(
    {
        "AGGREGATE", "ANY_JOIN", "ASOF_JOIN", "CHUNK_GET", "COMPARISON_JOIN", "CROSS_PRODUCT", "CTE", "CTE_SCAN",
        "DELIM_GET", "DELIM_JOIN", "DEPENDENT_JOIN", "DISTINCT", "DUMMY_SCAN", "EMPTY_RESULT", "EXCEPT",
        "EXPRESSION_GET", "FILTER", "GENERATE_SERIES", "INTERSECT", "JOIN", "JSON_EACH", "JSON_TREE", "LIMIT",
        "ORDER_BY", "PIVOT", "POSITIONAL_JOIN", "PROJECTION", "RANGE", "REC_CTE", "REPEAT", "REPEAT_ROW", "SAMPLE",
        "SEQ_SCAN", "TOP_N", "UNION", "UNNEST", "WINDOW",
    }
)  # fmt: skip

"""Every step that a plan may consist of. SEQ_SCAN reads a table of the twin, which has only the lake's. Whatever
writes, reads files, or describes the engine has a name of its own, which is not here."""


class Twin:
    """The engine without doors. Safe to share among threads; close it when done."""

    def __init__(self, tables: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """`tables`: name -> columns, each with its name and its type as SQL writes it."""
        self._lock = threading.Lock()
        self._con = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_persistent_secrets": "false",
                "python_enable_replacements": "false",
                "threads": "1",
            },
        )
        self._con.execute("SET TimeZone = 'UTC'")
        self._con.execute(f"CREATE SCHEMA no_rows; CREATE SCHEMA {EVERY}")
        for name, columns in tables.items():
            declared = ", ".join(f"{identifier(column)} {kind}" for column, kind in columns)
            self._con.execute(f"CREATE TABLE no_rows.{identifier(name)} ({declared})")
            for schema in (MAIN, EVERY):
                self._con.execute(f"CREATE VIEW {schema}.{identifier(name)} AS FROM no_rows.{identifier(name)}")
        # The plan as it is bound: an optimizer may drop what it finds to be empty, and everything is empty here.
        self._con.execute("SET explain_output = 'all'; PRAGMA disable_optimizer")
        self._con.execute("SET enable_external_access = false; SET disabled_filesystems = 'LocalFileSystem'")
        self._con.execute("SET lock_configuration = true")

    def close(self) -> None:
        self._con.close()

    def statements(self, text: str) -> list[tuple[duckdb.StatementType, str]]:
        """Kind and text of each statement; comments belong to the one that follows."""
        with self._lock:
            return [(s.type, s.query) for s in self._con.extract_statements(text)]

    def tree(self, select: str) -> Any:
        """The syntax tree of a SELECT, as DuckDB writes it in JSON."""
        tree = json.loads(self._value("SELECT json_serialize_sql(?)", select))
        if tree.get("error"):
            raise ConfigError(f"SQL: this statement is not understood: {tree.get('error_message', '')}")
        return tree

    def text(self, tree: Any) -> str:
        """The SELECT that has this syntax tree."""
        return self._value("SELECT json_deserialize_sql(?::JSON)", json.dumps(tree))

    def _value(self, query: str, given: str) -> str:
        with self._lock:
            row = self._con.execute(query, [given]).fetchone()
        return str(row[0]) if row else ""

    def columns(self, select: str, params: Params = None) -> list[tuple[str, str]]:
        """Name and type of each column that the SELECT would give. Its mistakes are raised here as they stand in the
        text, moved down by one line."""
        with self._lock:
            rows = self._con.execute(f"DESCRIBE FROM (\n{select}\n)", params).fetchall()
        return [(name, kind) for name, kind, *_ in rows]

    def type(self, name: str) -> Any:
        """A type by its name, as DuckDB knows it; None where it has no form that could be read again."""
        with self._lock, suppress(duckdb.Error):
            return self._con.type(name)
        return None

    def check(self, select: str, params: Params = None) -> None:
        """Raises ConfigError unless the text is one SELECT that reads nothing but the lake's tables."""
        found = self.statements(select)
        if [kind for kind, _ in found] != [duckdb.StatementType.SELECT]:
            raise ConfigError("SQL: a lake is only read here, by one SELECT")
        check_functions(self.tree(select))
        with self._lock:
            plans = self._con.execute(f"EXPLAIN (FORMAT json)\n{select}", params).fetchall()
        # As it is bound, before anything is left out or chosen.
        bound = next(json.loads(plan) for key, plan in plans if key == "logical_plan")
        if strange := sorted(set(_operators(bound)) - PLAIN_OPERATORS):
            raise ConfigError(f"SQL: {strange[0].lower()} is refused{ALONE}")


ALONE = ", since SQL here sees the lake's tables alone"


def check_functions(tree: Any) -> None:
    """Raises ConfigError where a function that does more than look at its arguments is called, anywhere in the tree."""
    for node in nodes(tree):
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", ""))
            if name.lower() not in TABLE_FUNCTIONS:
                raise ConfigError(f"SQL: {name}() is refused{ALONE}")
        name = str(node.get("function_name") or "")
        if (low := name.lower()) in REFUSED_FUNCTIONS or (low.startswith(REFUSED_PREFIXES) and low not in HARMLESS):
            raise ConfigError(f"SQL: {name}() is refused{ALONE}")


def nodes(tree: Any) -> Iterable[dict[str, Any]]:
    """Every node of a syntax tree, in no order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _operators(plan: Any) -> Iterable[str]:
    waiting = list(plan)
    while waiting:
        step = waiting.pop()
        yield str(step["name"]).strip()
        waiting.extend(step["children"])


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
