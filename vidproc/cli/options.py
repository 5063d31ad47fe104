"""Options that several commands share, declared once.

A set of options that belong together is a dataclass whose fields are declared as typer declares parameters. A command
that has such a dataclass among its parameters is decorated with `expanded`: it gets one option a field on the command
line, and an instance of the dataclass when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from vidproc.reference import entry
from vidproc.storage import StorageOptions, absolute_address

Executor = Literal["ray", "inline"]
LogFormat = Literal["auto", "text", "json"]


def setting_option(key: str, *names: str, **more: Any) -> Any:
    """Declare the option that makes a setting, by its key in a job file. Its help and default are the setting's."""
    told = entry(key)
    return typer.Option(*names, help=told.meaning, show_default=told.default or False, **more)


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
ExecutorOption = Annotated[Executor | None, setting_option("execution.executor", "--executor")]
DeviceOption = Annotated[str | None, setting_option("execution.device", "--device")]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Format of progress messages; auto: a bar on a terminal, lines elsewhere."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. What is not given is left to the AWS environment and profile."""

    endpoint_url: Annotated[str | None, setting_option("storage.endpoint_url", rich_help_panel="S3")] = None
    profile: Annotated[str | None, setting_option("storage.profile", rich_help_panel="S3")] = None
    region: Annotated[str | None, setting_option("storage.region", rich_help_panel="S3")] = None
    anonymous: Annotated[bool, setting_option("storage.anonymous", "--anonymous", rich_help_panel="S3")] = False

    def given(self) -> dict[str, Any]:
        """Return keywords of `vidproc.index`; None: not given."""
        return {f.name: getattr(self, f.name) or None for f in fields(self)}

    def options(self) -> StorageOptions:
        return StorageOptions(**{name: value for name, value in self.given().items() if value is not None})


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a job looks for, and how closely."""

    detector: Annotated[str | None, setting_option("detector", "--detector")] = None
    actions: Annotated[str | None, setting_option("actions", "--actions")] = None
    embedding: Annotated[
        str | None,
        setting_option("embedding", "--embedding"),
    ] = None
    name: Annotated[str | None, setting_option("name", "--name")] = None
    fps: Annotated[float | None, setting_option("detector.fps", "--fps")] = None
    sampling: Annotated[
        Literal["grid", "keyframes"] | None,
        setting_option("sampling", "--sampling"),
    ] = None
    clip_seconds: Annotated[float | None, setting_option("cut.clip_seconds", "--clip-seconds")] = None
    recorded_at: Annotated[str | None, setting_option("recorded_at", "--recorded-at")] = None
    max_duration: Annotated[
        float | None,
        setting_option("limits.max_duration", "--max-duration", metavar="SECONDS"),
    ] = None
    max_frame_duration: Annotated[
        float | None,
        setting_option("limits.max_frame_duration", "--max-frame-duration", metavar="SECONDS"),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return keywords of `vidproc.index`; None: not given."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Which objects of the archive a job takes."""

    include: Annotated[list[str] | None, setting_option("filters.include", "--include")] = None
    exclude: Annotated[list[str] | None, setting_option("filters.exclude", "--exclude")] = None
    min_bytes: Annotated[int | None, setting_option("filters.min_bytes", "--min-bytes")] = None
    max_bytes: Annotated[int | None, setting_option("filters.max_bytes", "--max-bytes")] = None
    modified_since: Annotated[datetime | None, setting_option("filters.modified_since", "--modified-since")] = None
    modified_before: Annotated[datetime | None, setting_option("filters.modified_before", "--modified-before")] = None
    follow_links: Annotated[
        bool | None,
        setting_option("follow_links", "--follow-links/--no-follow-links"),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return keywords of `vidproc.index`; None: not given."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return given | {name: given[name] or None for name in ("include", "exclude")}


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


def absolute(path: str) -> str:
    """Return a local path from where the user stands as an absolute one, and an s3:// address as it is."""
    return absolute_address(path)


def absolute_or_none(path: str | None) -> str | None:
    return None if path is None else absolute(path)
