"""Job settings: what a job file may say, and how it is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from tests.support.media import make_video
from vidproc.cli import app
from vidproc.errors import ConfigError
from vidproc.reference import entries, entry
from vidproc.run.pipeline import media_limits
from vidproc.settings import (
    CutSettings,
    DecodeSettings,
    Filters,
    Hysteresis,
    Job,
    LinkSettings,
    json_schema,
    load_job,
    parse_failure_budget,
)
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake
from vidproc.video.container import MediaLimits

JOBS = Path(__file__).parent.parent / "jobs"

MINIMAL = {"archive": "/videos", "lake": "/lake"}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "job.yaml", "archive: /videos\nlake: /lake\ndetector: {model: demo, fps: 4}\nname: nightly\n"
    )
    job = load_job(path, {"detector": {"model": None, "fps": 2.0}, "name": None, "limit": 7})
    assert (job.detector.model, job.detector.fps, job.name, job.limit) == ("demo", 2.0, "nightly", 7)
    assert job.actions.model == "auto"


def test_a_model_may_be_given_by_its_name_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "job.yaml", "archive: /videos\nlake: /lake\ndetector: demo\n")
    assert load_job(path, {"detector": {"fps": 3.0}}).detector.fps == 3.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"lake": "/lake"}, "`archive` is missing"),
        (MINIMAL | {"cut": {"clip_second": 3}}, "unknown key `cut.clip_second`, did you mean `clip_seconds`?"),
        (MINIMAL | {"color": "red"}, "unknown key `color`"),
        (MINIMAL | {"cut": {"clip_seconds": 0}}, "`cut.clip_seconds`"),
        (MINIMAL | {"limits": {"max_failures": "many"}}, "max_failures is a share"),
        (MINIMAL | {"limits": {"max_failures": "500%"}}, "max_failures is a share"),
        (MINIMAL | {"detector": "none", "actions": "none"}, "needs a detector, an action model or an embedding"),
        (MINIMAL | {"name": "../x"}, "`name`: String should match pattern"),
        (MINIMAL | {"verify": "101%"}, "`verify`: a share such as 1% or 0.01 is wanted, from 0 to 100%, not '101%'"),
        (MINIMAL | {"verify": 1.5}, "`verify`: a share such as 1% or 0.01 is wanted"),
        (MINIMAL | {"verify": True}, "`verify`: a share such as 1% or 0.01 is wanted"),
        (MINIMAL | {"limits": {"max_duration": 0}}, "`limits.max_duration`: Input should be greater than 0"),
        (MINIMAL | {"limits": {"max_frame_duration": -1}}, "`limits.max_frame_duration`: Input should be greater"),
        (MINIMAL | {"limit": 0}, "`limit`: Input should be greater than or equal to 1, not 0"),
        (MINIMAL | {"recorded_at": "%H%M"}, "`recorded_at`: '%H%M' tells no day"),
    ],
)
def test_a_bad_job_is_refused_by_name(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace(".", r"\.")):
        load_job(None, data)


@pytest.mark.parametrize(
    ("given", "share"), [("1%", 0.01), ("2.5 %", 0.025), ("0.5", 0.5), (0.5, 0.5), (1, 1.0), ("100%", 1.0), (0, 0.0)]
)
def test_the_share_of_tasks_that_are_verified(tmp_path: Path, given: str | float, share: float) -> None:
    path = write(tmp_path / "job.yaml", f"archive: /videos\nlake: /lake\nverify: {given}\n")
    assert load_job(path).verify_share == share
    assert Job.model_validate_json(load_job(path).model_dump_json()).verify_share == share, "as a run keeps its job"
    assert load_job(None, MINIMAL).verify_share == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML"), ("- just\n- a list\n", "must hold keys and values"), (None, "there is no job file")],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        load_job(path)
    assert str(path) in str(refusal.value)


def test_the_environment_fills_a_job_file_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "job.yaml", "archive: ${ARCHIVE}\nlake: ${LAKE:-/lake}\n")
    monkeypatch.setenv("ARCHIVE", "s3://cameras/2026")
    job = load_job(path)
    assert (job.archive, job.lake) == ("s3://cameras/2026", "/lake")
    monkeypatch.delenv("ARCHIVE")
    with pytest.raises(ConfigError, match="ARCHIVE"):
        load_job(path)


@pytest.mark.parametrize(
    ("text", "value", "filled"),
    [
        ("${NAME:-fall back}", None, "fall back"),
        ("${NAME:-fall back}", "", "fall back"),
        ("${NAME:-fall back}", "set", "set"),
        ("${NAME-fall back}", None, "fall back"),
        ("${NAME-fall back}", "", ""),
        ("${NAME-}", None, ""),
        ("${NAME:--}", "", "-"),
        ("${NAME}", "", ""),
        ("s3://${NAME:-b}/${NAME-c}", "", "s3://b/"),
    ],
)
def test_defaults_are_those_of_a_shell(
    text: str, value: str | None, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("NAME", raising=False)
    else:
        monkeypatch.setenv("NAME", value)
    path = write(tmp_path / "job.yaml", f"archive: 'x{text}'\nlake: /lake\n")
    assert load_job(path).archive == f"x{filled}"
    shell = subprocess.run(["sh", "-c", f'printf %s "{text}"'], capture_output=True, text=True, check=True)
    assert shell.stdout == filled


def test_a_dry_run_may_do_without_a_lake() -> None:
    assert load_job(None, {"archive": "/videos"}, lake_optional=True).lake == ""


def test_a_job_survives_its_own_json() -> None:
    job = load_job(None, MINIMAL | {"detector": {"model": "demo", "fps": 2}, "filters": {"include": ["*.mp4"]}})
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_the_published_schema_names_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Job.model_fields)
    assert schema["additionalProperties"] is False
    json.dumps(schema)


@pytest.mark.parametrize(
    ("text", "budget"), [("5%", (0.05, None)), ("0", (None, 0)), ("12", (None, 12)), ("0.5 %", (0.005, None))]
)
def test_a_failure_budget_is_a_share_or_a_number(text: str, budget: tuple[float | None, int | None]) -> None:
    assert parse_failure_budget(text) == budget


# One definition, shown in three places: the schema, the reference page and the options' help


def described(
    schema: dict[str, Any], node: dict[str, Any] | None = None, prefix: str = ""
) -> dict[str, dict[str, Any]]:
    """Every key of a JSON Schema that holds a value and no section, by its path."""
    found = {}
    for name, given in (schema if node is None else node)["properties"].items():
        refs = [one["$ref"] for one in (given, *given.get("anyOf", ())) if "$ref" in one]
        if refs:
            found |= described(schema, schema["$defs"][refs[0].rpartition("/")[2]], f"{prefix}{name}.")
        else:
            found[prefix + name] = given
    return found


def test_schema_and_reference_say_the_same_of_each_key() -> None:
    schema, told = described(json_schema()), {e.key: e for e in entries()}
    assert set(schema) == set(told) and len(told) > 100
    for key, said in told.items():
        assert schema[key]["description"] == said.meaning and said.meaning.endswith("."), key
        default = schema[key].get("default")
        assert said.default.split(" ")[0] == ("" if default in (None, []) else spelled(default)), key
        assert said.value.split(",")[0] == schema[key].get("unit", said.value.split(",")[0]), key


def spelled(default: Any) -> str:
    return (
        f"{default:g}"
        if isinstance(default, float) and default < 1000
        else json.dumps(default).strip('"').removesuffix(".0")
    )


def test_every_number_has_a_unit() -> None:
    for key, given in described(json_schema()).items():
        kinds = {one.get("type") for one in (given, *given.get("anyOf", ()))}
        assert "unit" in given or not kinds & {"integer", "number"} or key == "verify", key


def test_the_reference_page_is_the_one_that_the_settings_make() -> None:
    """`python -m vidproc.reference > jobs/README.md` makes it anew."""
    command = [sys.executable, "-m", "vidproc.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == (JOBS / "README.md").read_text()
    assert all(f"`{e.key}`" in printed for e in entries() if not e.key.startswith(("actions.", "embedding.")))


@pytest.mark.parametrize("file", ["nightly", "backfill", "reindex", "one_video"])
def test_the_job_files_hold_to_the_schema(file: str) -> None:
    job = load_job(JOBS / f"{file}.yaml")
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_settings_made_in_python_are_those_of_a_job_file(tmp_path: Path) -> None:
    given = "filters: {include: ['*.mp4'], min_bytes: 10}\ncut: {clip_seconds: 5}\nlimits: {max_streams: 3}\n"
    path = write(tmp_path / "job.yaml", f"archive: /videos\nlake: /lake\n{given}link: {{presence: {{on: 0.6}}}}\n")
    job = load_job(path)
    assert job.filters == Filters(include=("*.mp4",), min_bytes=10) and job.filters.admits("a.mp4", 10, None)
    assert job.cut == CutSettings(clip_seconds=5)
    assert job.link == LinkSettings(presence=Hysteresis(on=0.6))
    assert media_limits(job) == MediaLimits(max_streams=3) and media_limits(job).max_pixels == job.limits.max_pixels


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LinkSettings(lost_seconds=0),
            "LinkSettings: `lost_seconds`: Input should be .* than 0, not 0; give",
        ),
        (lambda: Hysteresis(on=2), "`on`: .*, not 2; give on a number between 0 and 1"),
        (lambda: Filters(includes=("a",)), "unknown key `includes`, did you mean `include`?"),
        (lambda: StorageOptions(endpoint_url="s3.local"), "the S3 endpoint must start with http:// or https://"),
        (lambda: MediaLimits(max_duration=-1.0), "`max_duration`: Input should be greater than 0"),
    ],
)
def test_settings_made_in_python_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        make()


def test_the_job_of_a_run_of_an_earlier_version_is_read() -> None:
    """It recorded null where nothing was said."""
    old = load_job(None, MINIMAL | {"detector": "demo"}).model_dump()
    old["detector"] |= {"half": None, "max_detections": None}
    del old["decode"]
    job = Job.model_validate(old)
    assert (job.detector.half, job.detector.max_detections, job.decode) == (True, 100, DecodeSettings())


# The command line

OPTIONS = {
    "detector": "detector", "actions": "actions", "embedding": "embedding", "name": "name", "fps": "detector.fps",
    "sampling": "sampling", "clip_seconds": "cut.clip_seconds", "recorded_at": "recorded_at",
    "max_duration": "limits.max_duration", "max_frame_duration": "limits.max_frame_duration",
    "max_failures": "limits.max_failures", "verify": "verify", "plan": "plan", "limit": "limit", "follow": "follow",
    "deleted": "deleted", "follow_links": "follow_links", "report": "report", "notify": "notify",
    **{name: f"filters.{name}" for name in (
        "include", "exclude", "min_bytes", "max_bytes", "modified_since", "modified_before"
    )},
    **{name: f"execution.{name}" for name in ("workers", "actors", "device", "executor", "address")},
    **{name: f"decode.{name}" for name in ("hollow_pictures", "partial_index")},
    **{name: f"storage.{name}" for name in ("endpoint_url", "profile", "region", "anonymous")},
}  # fmt: skip
"""Options of `vidproc index` and `vidproc plan`, and the setting that each makes."""
OF_THE_COMMAND = {"job", "lake", "dry_run", "as_json", "log_format", "quiet", "calibrate", "save"}


@pytest.mark.parametrize("command", ["index", "plan"])
def test_options_have_the_help_and_the_default_of_their_setting(command: str) -> None:
    group: Any = typer.main.get_command(app)
    options = {p.name: p for p in group.commands[command].params if p.param_type_name == "option"}
    assert set(options) <= set(OPTIONS) | OF_THE_COMMAND and len(options) > 20
    for name in set(options) & set(OPTIONS):
        setting, option = entry(OPTIONS[name]), options[name]
        assert option.help == setting.meaning, name
        assert option.show_default == (setting.default or False), name
        choices = get_args(kind) if get_origin(kind := option.type_descriptor.annotation) is Literal else ()
        assert " or ".join(f"`{c}`" for c in choices) in ("", setting.value), name


def test_the_switches_have_options(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "v.mp4", seconds=1)
    words = ["index", str(tmp_path / "in"), str(tmp_path / "lake"), "--executor", "inline", "--actions", "none"]
    switches = ["--detector", "tests.support.fakes:Numbers", "--no-hollow-pictures", "--no-partial-index", "--quiet"]
    assert CliRunner().invoke(app, [*words, *switches]).exit_code == 0
    (run,) = Lake.open(str(tmp_path / "lake")).runs().to_pylist()
    assert json.loads(run["job"])["decode"] == {"hollow_pictures": False, "partial_index": False}
