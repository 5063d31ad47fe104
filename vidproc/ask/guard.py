"""The first lock: a statement is read as a tree, checked, and written anew from the checked tree.

What was checked is what is run: the text that the user gave is never run itself, so nothing that stands
between its words (comments, quotes, an EXPLAIN of some form) can make it something else.

Names have scopes. A WITH names a table for the rest of its own statement, a recursive one for its second
half too, and nowhere else; any other name must be a table of the lake.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from vidproc.ask.twin import EVERY, MAIN, Twin, check_functions, nodes
from vidproc.errors import ConfigError

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One statement that only reads the lake."""

    select: str
    """SQL, written from the checked tree."""
    explain: str | None
    """`EXPLAIN` with its options, where the plan is asked for and not the rows."""
    original: str
    """What the user wrote, less the EXPLAIN; its words stand where they stood. For messages, never to be run."""
    every_pipeline: bool
    """It tells pipelines apart by itself, so it sees the rows of every one."""


def read(twin: Twin, text: str, tables: Collection[str], *, one_pipeline: bool = False) -> Question:
    """Raises ConfigError unless the text is one statement that reads the lake's `tables` alone.

    With `one_pipeline` a statement that asks about pipelines itself is led to the rows of every one.
    """
    original, explain = _one_statement(twin, text)
    tree = twin.tree(original)
    check_functions(tree)
    _answer_show_tables(twin, tree, tables)
    of_the_lake = list(_tables(tree, tables))
    every = one_pipeline and _asks_about_pipelines(tree)
    for table in of_the_lake if every else ():
        table["alias"] = table["alias"] or table["table_name"]
        table["catalog_name"], table["schema_name"] = "", EVERY
    _keep_doubles(twin, tree)
    select = twin.text(tree)
    # It is the new text that runs, so it is checked too.
    again = twin.tree(select)
    check_functions(again)
    for _ in _tables(again, tables, schemas=(MAIN, EVERY)):
        pass
    return Question(select, explain, original, every)


# --- the one statement, and its EXPLAIN ------------------------------------------------------------------


def _one_statement(twin: Twin, text: str) -> tuple[str, str | None]:
    """The SELECT in the text, and the EXPLAIN before it."""
    found = twin.statements(text)
    if len(found) != 1 or not found[0][1].strip():
        if any(kind == duckdb.StatementType.CREATE for kind, _ in found) and "pivot" in text.lower():
            raise ConfigError("SQL: name the values of this PIVOT: PIVOT … ON column IN ('a', 'b')")
        raise ConfigError(f"SQL: give one statement, not {len(found)}")
    kind, statement = found[0][0], found[0][1].rstrip().rstrip(";")
    explain = None
    if kind == duckdb.StatementType.EXPLAIN:
        explain, end = _explain(statement)
        statement = re.sub(r"\S", " ", statement[:end]) + statement[end:]
        inner = twin.statements(statement)
        kind = inner[0][0] if len(inner) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise ConfigError(
            f"SQL: a lake is only read here, so {kind.name.replace('_', ' ')} is refused; "
            "write SELECT, WITH, FROM, DESCRIBE, SUMMARIZE, EXPLAIN or SHOW TABLES"
        )
    return statement, explain


_WORD = re.compile(r"\w+|[(),]")
_FORMATS = ("TEXT", "JSON", "HTML", "GRAPHVIZ", "YAML", "MERMAID")


def _explain(statement: str) -> tuple[str, int]:
    """The EXPLAIN at the beginning, written anew, and where it ends."""
    words: list[str] = []
    ends: list[int] = []
    at = _skip(statement, 0)
    while len(words) < 9 and (word := _WORD.match(statement, at)):
        words.append(word[0].upper())
        ends.append(word.end())
        at = _skip(statement, word.end())
    if words[:1] != ["EXPLAIN"]:
        raise ConfigError("SQL: this EXPLAIN is not understood")
    options: list[str] = []
    used = 1
    if words[1:2] in (["ANALYZE"], ["ANALYSE"]):
        options, used = ["ANALYZE"], 2
    elif words[1:2] == ["("] and words[2:3] in (["FORMAT"], ["ANALYZE"], ["ANALYSE"]) and ")" in words:
        used = words.index(")") + 1
        for option in " ".join(words[2 : used - 1]).split(","):
            match option.split():
                case ["ANALYZE" | "ANALYSE"]:
                    options.append("ANALYZE")
                case ["FORMAT", name] if name in _FORMATS:
                    options.append(f"FORMAT {name}")
                case _:
                    raise ConfigError(f"SQL: the option {option.strip()} of EXPLAIN is not known here")
    return f"EXPLAIN ({', '.join(options)})" if options else "EXPLAIN", ends[used - 1]


def _skip(text: str, at: int) -> int:
    """The place behind white space and comments; comments in /* */ nest."""
    depth = 0
    while at < len(text):
        if text.startswith("/*", at):
            depth, at = depth + 1, at + 2
        elif depth and text.startswith("*/", at):
            depth, at = depth - 1, at + 2
        elif depth or text[at].isspace():
            at += 1
        elif text.startswith("--", at):
            at = end + 1 if (end := text.find("\n", at)) >= 0 else len(text)
        else:
            break
    return at


# --- names and their scopes ----------------------------------------------------------------------------


def _tables(tree: Any, tables: Collection[str], schemas: Collection[str] = (MAIN,)) -> Iterator[Node]:
    """The references to tables of the lake. Raises ConfigError at one to anything else that no WITH around it has
    named."""
    for node, named in _scopes(tree):
        match node.get("type"):
            case "BASE_TABLE":
                catalog, schema = node.get("catalog_name") or "", node.get("schema_name") or ""
                name = node["table_name"].lower()
                if not catalog and schema in ("", "recurring") and name in named:
                    continue
                if catalog not in ("", "memory") or schema not in ("", *schemas) or name not in tables:
                    full = ".".join(p for p in (catalog, schema, node["table_name"]) if p)
                    raise ConfigError(
                        f"SQL: there is no table {full!r} in this lake; it has {', '.join(sorted(tables))}"
                    )
                if node.get("at_clause"):
                    raise ConfigError("SQL: a lake is seen as it is now; AT is refused")
                yield node
            case "SHOW_REF" if node.get("query") is None:
                raise ConfigError("SQL: of the SHOW statements only SHOW TABLES is answered here")


def _scopes(tree: Any) -> Iterator[tuple[Node, frozenset[str]]]:
    """Every node, with the names that WITH gives to tables where it stands."""
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while waiting:
        node, named = waiting.pop()
        if isinstance(node, list):
            waiting.extend((n, named) for n in node)
            continue
        if not isinstance(node, dict):
            continue
        parts = dict(node)
        for entry in (parts.pop("cte_map", None) or {}).get("map", ()):
            waiting.append((entry["value"], named))  # sees those before it, and not itself
            named |= {entry["key"].lower()}
        yield node, named
        if node.get("type") == "RECURSIVE_CTE_NODE":
            waiting.append((parts.pop("right"), named | {node["cte_name"].lower()}))
        waiting.extend((n, named) for n in parts.values())


def _answer_show_tables(twin: Twin, tree: Any, tables: Collection[str]) -> None:
    """The lake's tables in place of SHOW TABLES, which would list the engine's."""
    for node in nodes(tree):
        below = node.get("from_table")
        if isinstance(below, dict) and below.get("type") == "SHOW_REF" and below.get("table_name") == '"tables"':
            names = ", ".join(f"('{name}')" for name in sorted(tables))
            listed = twin.tree(f"SELECT * FROM (SELECT name FROM (VALUES {names}) AS lake(name)) AS shown")
            node["from_table"] = listed["statements"][0]["node"]["from_table"] | {
                "alias": below.get("alias") or "shown"
            }


# --- pipelines -------------------------------------------------------------------------------------------


def _asks_about_pipelines(tree: Any) -> bool:
    """Whether the statement selects the column `pipeline` at its top, or uses it in an expression. To carry it along
    or to join tables by it is not to ask."""
    top = tree["statements"][0]["node"]
    if any(_is_pipeline(item) for item in top.get("select_list") or ()):
        return True
    for node in nodes(tree):
        if node.get("class") == "COMPARISON" and _is_pipeline(node.get("left")) and _is_pipeline(node.get("right")):
            continue
        operands = [node.get(key) for key in _OPERANDS]
        if any(_is_pipeline(operand) for operand in [*operands, *(node.get("children") or ())]):
            # The partitions and orders of a window are lists of their own.
            return True
    return False


_OPERANDS = ("left", "right", "child", "lower", "upper", "input", "when_expr", "then_expr", "else_expr")


def _is_pipeline(node: Any) -> bool:
    return (
        isinstance(node, dict) and node.get("type") == "COLUMN_REF" and node["column_names"][-1].lower() == "pipeline"
    )


# --- numbers ---------------------------------------------------------------------------------------------


def _keep_doubles(twin: Twin, tree: Any) -> None:
    """A number with an exponent is a DOUBLE, but would be written without one and read as a DECIMAL."""
    doubles = [node for node in nodes(tree) if _is_double(node)]
    if not doubles:
        return
    [cast] = twin.tree("SELECT CAST('1' AS DOUBLE)")["statements"][0]["node"]["select_list"]
    for node in doubles:
        new = copy.deepcopy(cast)
        new["child"]["value"]["value"] = repr(node["value"]["value"])
        new["alias"] = node.get("alias", "")
        node.clear()
        node.update(new)


def _is_double(node: Node) -> bool:
    value = node.get("value")
    return node.get("type") == "VALUE_CONSTANT" and isinstance(value, dict) and value["type"]["id"] == "DOUBLE"
