"""train, eval, fewshot, relabel, explain, dataset: make models from labels, and measure them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidproc.cli.answers import cell, plain, print_answer, print_json, print_table
from vidproc.cli.options import (
    JsonOption,
    LakeArgument,
    PipelineOption,
    S3Options,
    absolute,
    absolute_or_none,
    expanded,
)
from vidproc.text import printable, say

app = typer.Typer()


@app.command()
@expanded
def train(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A training job, such as jobs/train_actions.yaml.")],
    *,
    out: Annotated[str | None, typer.Option("--out", help="The new model folder; wins over the job's own.")] = None,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Train a detector or an action model; a killed training goes on where it was.

    OUT/metrics.csv (and OUT/tensorboard) grow with every epoch.
    """
    from vidproc.learn.job import read_job
    from vidproc.learn.train.settings import TrainSettings
    from vidproc.learn.train.training import train as run_train

    settings = read_job(job, TrainSettings, **({} if out is None else {"out": absolute(out)}))

    def tell(metrics: Mapping[str, float]) -> None:
        text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(printable(text), file=sys.stderr, flush=True)

    print_answer(run_train(settings, options=s3.options(), listen=tell), json=as_json)


@app.command("eval")
@expanded
def evaluate(
    task: Annotated[
        Literal["detection", "classification", "segments", "tracking"],
        typer.Argument(help="What is scored.", show_default=False),
    ],
    truth: Annotated[str, typer.Argument(help="Label file in the field's format.")],
    *,
    predictions: Annotated[str | None, typer.Option("--predictions", help="A file in the field's format.")] = None,
    lake: Annotated[str | None, typer.Option("--lake", help="Or a lake: what it found is scored.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for figures and pictures.")] = None,
    truth_fps: Annotated[
        float | None, typer.Option("--truth-fps", help="Tracking: frames a second of the truth.")
    ] = None,
    sample_fps: Annotated[float | None, typer.Option("--sample-fps", help="Tracking: samples a second.")] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Detection: seconds from a labelled frame to the lake's sample.")
    ] = 0.02,
    pipeline: PipelineOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model of the lake's rows, where there are several.")
    ] = None,
    subset: Annotated[str | None, typer.Option("--subset", help="Score only this split of the truth.")] = None,
    source: Annotated[
        Literal["segments", "windows"],
        typer.Option("--source", help="Segments of a lake: its segments, or its windows by soft-NMS."),
    ] = "segments",
    iou: Annotated[float, typer.Option("--iou", help="Tracking: least overlap of a match, for MOTA and IDF1.")] = 0.5,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Score predictions, or a lake, against the truth."""
    from vidproc.learn.scoring.evaluate import evaluate as run_evaluate
    from vidproc.learn.scoring.settings import EvalSettings

    settings = EvalSettings(
        task=task, truth=truth, predictions=predictions, lake=absolute_or_none(lake), out=absolute_or_none(out),
        truth_fps=truth_fps, sample_fps=sample_fps, tolerance_s=tolerance, pipeline=pipeline, model=model,
        subset=subset, source=source, iou=iou,
    )  # fmt: skip
    found = run_evaluate(settings, options=s3.options())
    if as_json:
        print_json(found)
        return
    print_table("", ("figure", "value"), [(k, f"{v:.4f}") for k, v in found.summary.items()])
    if found.per_class:
        rows = [plain(row) for row in found.per_class]
        cells = [[f"{v:.4f}" if isinstance(v, float) else cell(v) for v in row.values()] for row in rows]
        print_table("", tuple(rows[0]), cells)
    say(*found.files)


@app.command()
@expanded
def fewshot(
    examples: Annotated[
        str, typer.Argument(help="CSV: label, uri, start_s, end_s; made for 1 to 20 rows a class, more are taken too.")
    ],
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Where the videos of the examples are.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The new model folder.")],
    *,
    backbone: Annotated[
        str, typer.Option("--backbone", help="A model whose features tell the classes apart.")
    ] = "demo",
    head: Annotated[Literal["prototypes", "linear"], typer.Option("--head", help="What decides about classes.")] = (
        "prototypes"
    ),
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "few-shot",
    ways: Annotated[int, typer.Option("--ways", help="Evaluation: classes an episode, or all there are.")] = 5,
    shots: Annotated[int, typer.Option("--shots", help="Evaluation: examples a class, as far as one is left.")] = 5,
    episodes: Annotated[int, typer.Option("--episodes", help="Evaluation: number of episodes.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Evaluation: which episodes are drawn.")] = 0,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """A new action model from a few examples a class."""
    from vidproc.learn.fewshot import FewShotSettings, few_shot

    settings = FewShotSettings(
        examples=examples, archive=absolute(archive), backbone=backbone, out=absolute(out), head=head, name=name,
        ways=ways, shots=shots, episodes=episodes, seed=seed,
    )  # fmt: skip
    print_answer(few_shot(settings, options=s3.options()), json=as_json)


@app.command()
@expanded
def relabel(
    lake: LakeArgument,
    model: Annotated[str, typer.Argument(help="A model folder that `vidproc fewshot` made.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="Pipeline of the new rows; by default the model's name.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Pipeline whose vectors are labelled, where there are several.")
    ] = None,
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Label the vectors that a lake holds with a few-shot model; nothing is decoded again."""
    from vidproc.learn.relabel import RelabelSettings
    from vidproc.learn.relabel import relabel as run_relabel

    settings = RelabelSettings(lake=absolute(lake), model=model, name=name, pipeline=pipeline)
    print_answer(run_relabel(settings, options=s3.options()), json=as_json)


@app.command()
@expanded
def explain(
    source: Annotated[
        str, typer.Argument(metavar="LAKE|VIDEO", help="A lake, with --row; or a video, with --model and --time.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for overlay.mp4, overlay.png, explanation.json.")],
    *,
    row: Annotated[str | None, typer.Option("--row", help="SQL condition that picks a row (d) of a video (v).")] = None,
    kind: Annotated[
        Literal["detector", "actions"], typer.Option("--kind", help="Kind of the model that is explained.")
    ] = "detector",
    model: Annotated[
        str | None, typer.Option("--model", help="A name or folder; by default the one that wrote the row.")
    ] = None,
    time_s: Annotated[float, typer.Option("--time", help="Seconds into the video.")] = 0.0,
    pipeline: PipelineOption = None,
    label: Annotated[str | None, typer.Option("--label", help="The label to explain.")] = None,
    method: Annotated[
        Literal["auto", "grad-cam", "occlusion"], typer.Option("--method", help="How the heat map is made.")
    ] = "auto",
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Why a model answered so: a heat map over the frames."""
    from vidproc.learn.explain.explaining import explain as run_explain
    from vidproc.learn.explain.settings import ExplainSettings

    where = absolute(source)
    settings = ExplainSettings(
        kind=kind, out=absolute(out), video=None if row else where, time_s=time_s, lake=where if row else None,
        row=row, pipeline=pipeline, model=model, label=label, method=method,
    )  # fmt: skip
    found = run_explain(settings, options=s3.options())
    when, x, y = found.peak
    if as_json:
        peak = {"time_s": when, "x": x, "y": y}
        print_json({n: getattr(found, n) for n in ("label", "score", "method", "files")} | {"peak": peak})
        return
    say(f"{found.label} ({found.score:.2f}) by {found.method}: most at {when:.2f} s, x {x:.0f}, y {y:.0f}")
    say(*found.files)


@app.command()
@expanded
def dataset(
    lake: LakeArgument,
    out: Annotated[str, typer.Argument(metavar="OUT.json", help="The new label file.")],
    *,
    kind: Annotated[Literal["coco", "activitynet"], typer.Option("--kind", help="Format of the label file.")] = "coco",
    where: Annotated[str | None, typer.Option("--where", help="SQL condition on rows (d) and videos (v).")] = None,
    pipeline: PipelineOption = None,
    subset: Annotated[str, typer.Option("--subset", help="The split that an ActivityNet file names.")] = "training",
    as_json: JsonOption = False,
    s3: S3Options,
) -> None:
    """Rows of the lake as training data."""
    from vidproc.learn.dataset import DatasetSettings, make_dataset

    settings = DatasetSettings(
        lake=absolute(lake), out=absolute(out), kind=kind, where=where, pipeline=pipeline, subset=subset
    )
    print_answer(make_dataset(settings, options=s3.options()), json=as_json)
