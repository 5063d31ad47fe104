"""The options of the commands about learning have the defaults of the settings that they make."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
import typer

from vidproc.cli import app
from vidproc.learn.dataset import DatasetSettings
from vidproc.learn.explain.settings import ExplainSettings
from vidproc.learn.fewshot import FewShotSettings
from vidproc.learn.relabel import RelabelSettings
from vidproc.learn.scoring.settings import EvalSettings

SETTINGS = {
    "dataset": DatasetSettings,
    "eval": EvalSettings,
    "explain": ExplainSettings,
    "fewshot": FewShotSettings,
    "relabel": RelabelSettings,
}
OTHER_NAMES = {"tolerance": "tolerance_s"}


@pytest.mark.parametrize("command", SETTINGS)
def test_options_have_the_default_of_their_setting(command: str) -> None:
    group: Any = typer.main.get_command(app)
    known = {f.name: f for f in fields(SETTINGS[command])}  # type: ignore[arg-type]
    compared = 0
    for option in group.commands[command].params:
        setting = known.get(OTHER_NAMES.get(option.name, option.name))
        if setting is not None and option.param_type_name == "option" and setting.default is not MISSING:
            assert option.default == setting.default, option.name
            compared += 1
    assert compared >= 2
