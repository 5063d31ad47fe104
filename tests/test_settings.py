"""Job settings: what a job file may say, and how it is refused."""

import json
import subprocess
from pathlib import Path

import pytest

from vidproc.errors import ConfigError
from vidproc.settings import Job, json_schema, load_job, parse_failure_budget

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
