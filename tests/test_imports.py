"""Imports point one way, `import vidproc` stays light, and one module each knows the outside world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidproc"

# From the nouns to the command line. A module imports from its own layer's packages or from those above it here.
LAYERS = [
    ["clock", "errors", "faults", "folders", "h264", "machine", "memory", "mp4", "output"],
    ["remarks", "secrets", "text"],
    ["beneath", "documents", "media", "step"],
    ["annotations", "edits", "outcome"],
    ["s3"],
    ["storage"],
    ["progress", "store_clock"],
    ["container", "archive", "pulse", "tables", "models.base", "runtime.events", "runtime.retry", "runtime.executor"],
    [
        "models",
        "probe",
        "plan",
        "passes",
        "pictures",
        "sequential",
        "sparse",
        "decode",
        "verify",
        "ask",
        "link",
        "config",
        "runtime",
    ],
    ["pipeline", "query", "unlisted", "away"],
    ["run"],
    ["forecast", "demo", "learn"],
    ["cli"],
    ["__main__"],
]

OWNERS = {
    "av": {"container", "decode", "passes", "pictures", "probe", "sequential", "sparse", "demo.world", "learn.overlay"},
    "ray": {"runtime.ray", "runtime.cluster", "runtime.jobs", "runtime.metrics", "learn.workers"},
    "boto3": {"s3"},
    "deltalake": {"tables.delta", "tables.lake", "tables.vacuum", "tables.changes", "tables.publish", "ask.engine"},
    "duckdb": {"ask.engine", "ask.faults", "ask.guard", "ask.twin"},
    "typer": {"cli"},
    "yaml": {"documents", "learn.fewshot", "learn.train"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    found.pop("__init__", None)
    return found


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
            same_package = other.split(".")[0] == module.split(".")[0]
            assert same_package or layer(other) < own or (layer(other) == own and other != "cli"), (
                f"{module} imports {other}, which stands below it"
            )


@pytest.mark.parametrize("library", OWNERS)
def test_one_place_knows_each_library(library: str) -> None:
    users = {name for name, path in modules().items() if any(i.split(".")[0] == library for i in imported(path))}
    assert users <= OWNERS[library], f"{users - OWNERS[library]} import {library}"


def test_importing_the_package_is_light() -> None:
    heavy = ("torch", "ray", "av", "pyarrow", "duckdb", "boto3")
    code = f"import sys, vidproc, vidproc.config, vidproc.media; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
