"""Files of predictions and truth, read and checked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidproc.documents import load_json_file
from vidproc.errors import ConfigError
from vidproc.learn.labels.actions import read_actions
from vidproc.learn.labels.catalog import AnyName, Catalog
from vidproc.learn.labels.fields import load_json
from vidproc.learn.labels.values import ActionLabels
from vidproc.learn.lake import LakeRows
from vidproc.learn.scoring.settings import EvalSettings


def read_action_truth(s: EvalSettings, lake: LakeRows | None) -> ActionLabels:
    catalog: Catalog = lake.catalog if lake is not None else AnyName()
    return read_actions(s.truth, catalog, subset=s.subset)


def activitynet_results(path: Path) -> dict[str, list[dict[str, Any]]]:
    results = load_json(path).get("results")
    if not isinstance(results, dict) or not all(isinstance(rows, list) for rows in results.values()):
        raise ConfigError(f"{path}: not an ActivityNet prediction file, it has no mapping 'results' of lists.")
    return results


def load_list(path: Path) -> list[dict[str, Any]]:
    data = load_json_file(path)
    if not isinstance(data, list) or not all(isinstance(r, dict) for r in data):
        raise ConfigError(f"{path}: COCO results are a list of mappings, this is a {type(data).__name__}.")
    return data


def csv_rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if missing := [c for c in needed if c not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path}, line 1: lacks the column {missing[0]}.")
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path}: cannot be read as CSV: {e}") from e
