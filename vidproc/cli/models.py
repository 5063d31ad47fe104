"""models list, models fetch, models check: the models that a job can name."""

from __future__ import annotations

from typing import Annotated

import typer

from vidproc.cli.answers import cell, print_json, print_table
from vidproc.cli.options import DeviceOption, JsonOption, S3Options, expanded
from vidproc.settings import Kind
from vidproc.text import say

app = typer.Typer()
models_app = typer.Typer(help="The models that a job can name.", no_args_is_help=True)
app.add_typer(models_app, name="models")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A name, file, folder or package.module:Class.")]
KindOption = Annotated[
    Kind | None, typer.Option("--kind", help="Kind of model, where models of several kinds have the name.")
]


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """All models known by name, and whether their weights are on this machine."""
    from vidproc.models import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    print_table("models", ("name", "kind", "labels", "licence", "here", "weights"), [
        (m.name, m.kind, str(m.labels), m.licence, cell(m.cached), m.weights) for m in found
    ])  # fmt: skip


@models_app.command("fetch")
@expanded
def models_fetch(model: ModelName, *, kind: KindOption = None, as_json: JsonOption = False, s3: S3Options) -> None:
    """Bring a model's weights onto this machine and verify them."""
    from vidproc.models import ModelSettings, fetch_model

    path = fetch_model(model, ModelSettings(kind=kind, storage=s3.options()))
    if as_json:
        print_json({"model": model, "path": path})
        return
    say(path or f"{model} brings its own weights")


@models_app.command("check")
@expanded
def models_check(
    model: ModelName,
    *,
    kind: KindOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Load a model and run it once: does it answer as its card says?"""
    from vidproc.models import ModelSettings, check_model

    found = check_model(model, device=device or "auto", settings=ModelSettings(kind=kind, storage=s3.options()))
    if as_json:
        print_json(found)
        return
    card = found.card
    say(f"{card.ref}: {card.kind}, {len(card.labels)} labels, {float(card.grid.fps):g} frames/s, {card.licence}")
    print(f"loaded in {found.load_seconds:.2f} s, first answer in {found.run_seconds:.3f} s")
