"""YAML and JSON that people write, read into plain values: the one place where such files are parsed.

A file that somebody else wrote may be made to exhaust its reader: aliases that multiply, brackets nested
ten thousand deep, numbers of a million digits. Everything here ends within bounds, as values or as a
ConfigError that names the file and the line.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vidproc.errors import ConfigError

MAX_CHARACTERS = 1 << 20
"""Largest job file or model description, also with its aliases written out. A list of 20,000 labels is half of it."""
MAX_VALUES = 50_000
"""Most values in one YAML file, also with its aliases written out."""
MAX_DEPTH = 40
"""Deepest nesting. Job files need five."""
MAX_DIGITS = 64
"""Longest number. The time that a longer one takes grows with the square of its length."""

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map"))


def read_document(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, or in a JSON file by its ending. Keys are text, as written. `what` names the
    kind of file in messages: "job file". Raises ConfigError for anything else."""
    path = Path(path)
    text = _text(path, what)
    found = parse_json(text, path, what) if path.suffix == ".json" else parse_yaml(text, path, what)
    if not isinstance(found, dict):
        raise ConfigError(f"The {what} {path} must be a mapping: it must hold keys and values, such as `name: value`.")
    return found


def parse_yaml(text: str, path: object, what: str) -> Any:
    """Return the values in YAML text. Anchors, aliases and merge keys may be used; tags of other programs, a key given
    twice and an alias to what contains it are refused."""
    try:
        return _Loader(text).get_single_data()
    except _Refused as e:
        raise ConfigError(f"The {what} {path} cannot be read: {_line(e)}{e.problem}.") from e
    except yaml.MarkedYAMLError as e:  # said without the library's excerpt of the file, which may hold a secret
        why = ", ".join(part for part in (e.context, e.problem) if part)
        raise ConfigError(f"The {what} {path} cannot be read: {_line(e)}it is not YAML: {why}.") from e
    except Exception as e:  # a month 13, an !!int that is none: the library's constructors raise what they like
        raise ConfigError(f"The {what} {path} cannot be read: it is not YAML: {' '.join(str(e).split())[:200]}.") from e


def dump_yaml(values: dict[str, Any]) -> bytes:
    """YAML text in UTF-8 of plain values, keys in the order given."""
    return yaml.safe_dump(values, sort_keys=False).encode()


def parse_json(text: str, path: object, what: str) -> Any:
    """Return the values in JSON text. A key given twice and what is no number (NaN, Infinity) are refused."""
    try:
        found = json.loads(
            text, object_pairs_hook=_once, parse_int=_whole, parse_float=_real, parse_constant=_no_number
        )
    except RecursionError:
        raise ConfigError(_too_deep(path, what)) from None
    except ValueError as e:
        raise ConfigError(f"The {what} {path} cannot be read: it is not JSON: {e}.") from e
    level, depth = [found], 0
    while level := [v for one in level if isinstance(one, (dict, list)) for v in _below(one)]:
        if (depth := depth + 1) > MAX_DEPTH:
            raise ConfigError(_too_deep(path, what))
    return found


def load_json_file(path: Path) -> Any:
    """Return the values in a JSON file of any size, such as a data set's labels. Raises a ConfigError that begins with
    the path."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}).") from e
    except RecursionError:
        raise ConfigError(f"{path}: not JSON that can be read: it is nested too deep.") from None
    except ValueError as e:
        raise ConfigError(f"{path}: not JSON: {e}") from e


def filled_in(value: Any) -> Any:
    """Return the values with `${NAME}`, `${NAME-default}` and `${NAME:-default}` in strings filled in from the
    environment, as shells do it: with the colon the default also replaces an empty value."""
    if isinstance(value, str):

        def fill(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None or (match[2] == ":-" and not found):
                found = match[3]
            if found is None:
                raise ConfigError(
                    f"the job file uses ${{{match[1]}}}, which is not set: set it, or write ${{{match[1]}:-default}}"
                )
            return found

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^}]*))?\}", fill, value)
    if isinstance(value, dict):
        return {k: filled_in(v) for k, v in value.items()}
    if isinstance(value, list):
        return [filled_in(v) for v in value]
    return value


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Lay `new` over the sections of a job. None means: not given. A model's name alone stands for its section."""
    for key, value in new.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            below = into.get(key)
            below = {"model": below} if isinstance(below, str) else dict(below or {})
            merge(below, value)
            if below:
                into[key] = below
        else:
            into[key] = value


def _text(path: Path, what: str) -> str:
    longest = 4 * MAX_CHARACTERS  # a character takes up to four bytes
    try:
        # Not blocking: a pipe of that name would be waited on for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(f"The {what} {path} cannot be read: it is no file.")
            small = os.fstat(handle).st_size <= longest
            data = b"".join(iter(lambda: os.read(handle, longest), b"")) if small else None
        finally:
            os.close(handle)
        text = data.decode("utf-8-sig") if data is not None else None
    except FileNotFoundError:
        raise ConfigError(f"there is no {what} {path}") from None
    except (OSError, ValueError) as e:
        raise ConfigError(f"The {what} {path} cannot be read: {getattr(e, 'strerror', None) or e}.") from e
    if text is None or len(text) > MAX_CHARACTERS:
        raise ConfigError(f"The {what} {path} is too long: such files hold up to {MAX_CHARACTERS:,} characters.")
    return text


def _too_deep(path: object, what: str) -> str:
    return f"The {what} {path} cannot be read: it is nested deeper than {MAX_DEPTH} levels."


def _below(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}: " if mark else ""


class _Refused(yaml.MarkedYAMLError):
    """YAML that is refused: too much of it, or of a kind that is not read here."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which checks the tree of nodes before it makes values of them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth, self._values = self._depth + 1, self._values + 1
        # The library composes by recursion, so depth must be bounded here and not on the finished tree.
        if self._depth > MAX_DEPTH:
            _refuse(f"it is nested deeper than {MAX_DEPTH} levels", self.get_mark())
        if self._values > MAX_VALUES:
            _refuse(f"it holds more than {MAX_VALUES:,} values", self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        root = super().get_single_node()
        if root is not None:
            _check(root, {})
        return root


def _check(node: Any, sizes: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the number of values and characters of a node with its aliases written out, and make every key text.
    `sizes` holds those numbers by the id of the node; None: the node is being looked at."""
    if id(node) in sizes:
        known = sizes[id(node)]
        return known or _refuse("an alias stands within what it names", node.start_mark)
    sizes[id(node)] = None
    values, characters = 1, 1
    if isinstance(node, yaml.ScalarNode):
        characters += len(node.value)
        if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > MAX_DIGITS:
            _refuse(f"a number has {len(node.value):,} characters", node.start_mark)
        if node.tag == _TAG + "float" and not _is_finite(node.value):
            _refuse(f"{node.value} is not a number", node.start_mark)
        if node.tag in (_TAG + "value", _TAG + "merge"):  # a plain `=` or `<<`
            node.tag = _TAG + "str"
        below: list[Any] = []
    elif isinstance(node, yaml.MappingNode):
        below = [*_keys(node), *(value for _, value in node.value)]
    else:
        below = list(node.value)
    if node.tag not in _KNOWN_TAGS:
        _refuse(f"the tag {node.tag.removeprefix(_TAG)!r} is not known here", node.start_mark)
    for child in below:
        more_values, more_characters = _check(child, sizes)
        values, characters = values + more_values, characters + more_characters
        if values > MAX_VALUES or characters > MAX_CHARACTERS:
            _refuse(
                f"with its aliases written out it holds more than {MAX_VALUES:,} values or {MAX_CHARACTERS:,} "
                "characters",
                child.start_mark,
            )
    sizes[id(node)] = values, characters
    return values, characters


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace("_", "")))
    except ValueError:
        return ":" in text  # 1:30.5 is a number of YAML 1.1; .inf and .nan are none here


def _keys(node: Any) -> list[Any]:
    """Return the keys of a mapping without merge keys. A bare `on` or `2` is that text, not True or 2."""
    keys: dict[str, Any] = {}
    merges = 0
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            _refuse("a key must be text", key.start_mark)
        if key.tag == _TAG + "merge":
            merges += 1
            continue
        if key.value in keys or merges > 1:
            _refuse(f"the key {key.value[:100]!r} is given twice", key.start_mark)
        key.tag = _TAG + "str"
        keys[key.value] = key
    return list(keys.values())


def _refuse(problem: str, mark: Any) -> NoReturn:
    raise _Refused(problem=problem, problem_mark=mark)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)[:100]!r} is given twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text):,} characters")
    return int(text)


def _real(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:MAX_DIGITS]} is too large")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
