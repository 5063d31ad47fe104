"""Imports point one way, `import vidproc` stays light, and one module each knows the outside world."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidproc"

# From the nouns to the command line. A module imports from its own room, and from rooms that stand above it here; what
# two rooms of one layer share moves up.
LAYERS = [
    ["errors", "globs", "machine", "media", "memory", "output", "text"],
    ["annotations", "checked", "extras", "dates", "documents", "renamed", "secrets"],
    ["quantities"],
    ["settings"],
    ["config"],
    ["reference"],
    ["progress", "storage"],
    ["models.base", "runtime"],
    ["tables"],
    ["ask", "models", "video"],
    ["run"],
    ["cut", "learn", "look"],
    ["api"],
    ["demo"],
    ["cli"],
    ["__main__"],
]

OWNERS = {
    "av": {"cut", "video", "demo.archive", "learn.overlay"},
    "ray": {"runtime.ray", "learn.workers"},
    "boto3": {"storage.credentials"},
    "botocore": {"storage.credentials"},
    "aiohttp": {"runtime.ray.jobs"},
    "requests": {"runtime.ray.jobs"},
    "deltalake": {"tables", "ask.engine"},
    "duckdb": {"ask"},
    "typer": {"cli"},
    "yaml": {"documents"},
}
"""The rooms and files that know a library."""


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    found.pop("__init__", None)
    return found


@cache
def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def layer(module: str) -> int:
    for depth, names in reversed(list(enumerate(LAYERS))):
        if module in names:
            return depth
    top = module.split(".")[0]
    return next(depth for depth, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", modules())
def test_imports_point_to_the_nouns(module: str) -> None:
    own = layer(module)
    for name in imported(modules()[module]):
        if name.startswith("vidproc."):
            other = name.removeprefix("vidproc.")
            same_room = other.split(".")[0] == module.split(".")[0]
            assert same_room or layer(other) < own, f"{module} imports {other}, which does not stand above it"


@pytest.mark.parametrize("library", OWNERS)
def test_one_place_knows_each_library(library: str) -> None:
    users = {name for name, path in modules().items() if any(i.split(".")[0] == library for i in imported(path))}
    strangers = {user for user in users if not any(f"{user}.".startswith(f"{owner}.") for owner in OWNERS[library])}
    assert not strangers, f"{strangers} import {library}"


def needed(path: Path) -> set[str]:
    """The modules that one imports: of a package, the module that is named, else its face."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in named if name.removeprefix("vidproc.") in modules()}
            found |= submodules if submodules == named else submodules | {node.module}
    return {name.removeprefix("vidproc.") for name in found if name.startswith("vidproc.")} & modules().keys()


def test_no_module_imports_itself_by_a_way_round() -> None:
    """Rooms are kept apart by their layers; this holds inside a room too, and for imports inside of functions."""
    left = {name: needed(path) - {name} for name, path in modules().items()}
    while ground := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in ground}
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_the_loop_knows_nothing_of_ray() -> None:
    loop = {name: path for name, path in modules().items() if name.startswith("runtime.")}
    knows = {n for n, p in loop.items() if any(i.startswith("vidproc.runtime.ray") for i in imported(p))}
    assert all(name.startswith("runtime.ray.") for name in knows)


def test_one_file_looks_at_the_scheme_of_an_address() -> None:
    def looks(path: Path) -> bool:
        constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        return "s3://" in constants

    assert {name for name, path in modules().items() if looks(path)} == {"storage.addresses"}


def test_importing_the_package_is_light() -> None:
    heavy = ("torch", "ray", "av", "pyarrow", "duckdb", "boto3")
    light = "vidproc, vidproc.settings, vidproc.settings, vidproc.media"
    code = f"import sys, {light}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
