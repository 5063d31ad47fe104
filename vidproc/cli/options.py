"""Options that several commands share, declared once.

A set of options that belong together is a dataclass whose fields are declared as typer declares parameters. A command
that has such a dataclass among its parameters is decorated with `expanded`: it gets one option a field on the command
line, and an instance of the dataclass when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from vidproc.storage import StorageOptions, absolute_address

Executor = Literal["ray", "inline"]
LogFormat = Literal["auto", "text", "json"]

LakeArgument = Annotated[
    str, typer.Argument(metavar="LAKE", help="A folder or s3://bucket/prefix that `vidproc index` wrote to.")
]
ArchiveArgument = Annotated[
    str | None, typer.Argument(metavar="ARCHIVE", help="A folder or s3://bucket/prefix.", show_default=False)
]
JobFileOption = Annotated[
    Path | None, typer.Option("--job", help="A job file (YAML); options win over it.", show_default=False)
]
LakePipelineOption = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        help="Pipeline of the lake, where it has several; `all` for all. By default the one with the most videos.",
    ),
]
PipelineOption = Annotated[str | None, typer.Option("--pipeline", help="Pipeline of the lake, where it has several.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
ExecutorOption = Annotated[
    Executor | None,
    typer.Option(
        "--executor",
        help="Ray, on this machine or a cluster; or one thing after the other, here, with no limit of time or memory.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda:N.")]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Format of progress messages; auto: a bar on a terminal, lines elsewhere."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. What is not given is left to the AWS environment and profile."""

    endpoint_url: Annotated[
        str | None, typer.Option(help="S3 endpoint, where it is not AWS.", rich_help_panel="S3")
    ] = None
    profile: Annotated[str | None, typer.Option(help="AWS profile.", rich_help_panel="S3")] = None
    region: Annotated[str | None, typer.Option(help="AWS region.", rich_help_panel="S3")] = None
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Read a public archive or lake unsigned.", rich_help_panel="S3")
    ] = False

    def given(self) -> dict[str, Any]:
        """Return the `storage` section of a job; None stands for what was not given."""
        return {f.name: getattr(self, f.name) or None for f in fields(self)}

    def options(self) -> StorageOptions:
        return StorageOptions(**{name: value for name, value in self.given().items() if value is not None})


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a job looks for, and how closely."""

    detector: Annotated[
        str | None, typer.Option("--detector", help="Model name, file, folder or package.module:Class; or none.")
    ] = None
    actions: Annotated[str | None, typer.Option("--actions", help="The same for actions.")] = None
    embedding: Annotated[
        str | None,
        typer.Option("--embedding", help="Model that turns frames into vectors (resnet18, demo, ...); or none."),
    ] = None
    name: Annotated[
        str | None, typer.Option("--name", help="The pipeline's name: a lake holds one answer a name and video.")
    ] = None
    fps: Annotated[float | None, typer.Option("--fps", help="Samples a second for the detector.")] = None
    sampling: Annotated[
        Literal["grid", "keyframes"] | None,
        typer.Option("--sampling", help="Frames for the detector: evenly spaced, or every keyframe and no others."),
    ] = None
    clip_seconds: Annotated[float | None, typer.Option("--clip-seconds", help="Length of a clip in seconds.")] = None
    recorded_at: Annotated[str | None, typer.Option("--recorded-at", help="strptime pattern over the file name.")] = (
        None
    )
    max_duration: Annotated[
        float | None,
        typer.Option("--max-duration", metavar="SECONDS", help="Decline videos that say they last longer."),
    ] = None
    max_frame_duration: Annotated[
        float | None,
        typer.Option("--max-frame-duration", metavar="SECONDS", help="Longest time that one frame stays on screen."),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return sections of a job; None stands for what was not given."""
        return {
            "name": self.name,
            "detector": {"model": self.detector, "fps": self.fps},
            "actions": {"model": self.actions},
            "embedding": {"model": self.embedding},
            "sampling": self.sampling,
            "recorded_at": self.recorded_at,
            "cut": {"clip_seconds": self.clip_seconds},
            "limits": {"max_duration": self.max_duration, "max_frame_duration": self.max_frame_duration},
        }


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Which objects of the archive a job takes."""

    include: Annotated[
        list[str] | None, typer.Option("--include", help="Glob on the path below the archive; may be repeated.")
    ] = None
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Glob of what to leave out; may be repeated.")
    ] = None
    min_bytes: Annotated[int | None, typer.Option("--min-bytes", help="Only objects of this size or larger.")] = None
    max_bytes: Annotated[int | None, typer.Option("--max-bytes", help="Only objects of this size or smaller.")] = None
    modified_since: Annotated[
        datetime | None, typer.Option("--modified-since", help="Only objects changed at this moment (UTC) or later.")
    ] = None
    modified_before: Annotated[
        datetime | None, typer.Option("--modified-before", help="Only objects changed before this moment (UTC).")
    ] = None
    follow_links: Annotated[
        bool | None,
        typer.Option("--follow-links/--no-follow-links", help="Go into folders outside of ARCHIVE that links lead to."),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return sections of a job; None stands for what was not given."""
        filters = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "follow_links"}
        return {"filters": filters | {k: v or None for k, v in filters.items() if k in ("include", "exclude")},
                "follow_links": self.follow_links}  # fmt: skip


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Declare one option for each field of the command's dataclass parameters."""
    hints = get_type_hints(command, include_extras=True)
    parts: dict[str, Any] = {}
    declared: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            declared.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind))
            continue
        parts[parameter.name] = kind
        field_hints = get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            default = Parameter.empty if f.default is MISSING else f.default
            declared.append(Parameter(f.name, Parameter.KEYWORD_ONLY, default=default, annotation=field_hints[f.name]))

    @wraps(command)
    def with_parts(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in parts.items()}
        command(**given, **made)

    with_parts.__signature__ = Signature(declared)  # type: ignore[attr-defined]
    with_parts.__annotations__ = {p.name: p.annotation for p in declared}
    return with_parts


def merged(*sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested sections of a job as one; none says the same thing twice."""
    found: dict[str, Any] = {}
    for section in sections:
        for key, value in section.items():
            found[key] = merged(found[key], value) if isinstance(value, Mapping) and key in found else value
    return found


def absolute(path: str) -> str:
    """Return a local path from where the user stands as an absolute one, and an s3:// address as it is."""
    return absolute_address(path)


def absolute_or_none(path: str | None) -> str | None:
    return None if path is None else absolute(path)
