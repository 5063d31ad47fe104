"""Labels of actions: Kinetics CSV, ActivityNet JSON, or one folder for each class."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vidproc.errors import ConfigError
from vidproc.learn.labels.catalog import Catalog
from vidproc.learn.labels.fields import as_mapping, field_of, is_number, load_json, number_of
from vidproc.learn.labels.values import ActionLabels, LabelledClip
from vidproc.media import Video


def read_actions(
    path: Path | str, catalog: Catalog, labels: Sequence[str] | None = None, *, subset: str | None = None
) -> ActionLabels:
    """Kinetics CSV (`.csv`), ActivityNet JSON (`.json`), or `folders`: a folder a class in the archive.

    `subset`: keep only these rows (Kinetics: `split`; ActivityNet: `subset`); None: all.
    """
    if str(path) == "folders":
        return read_class_folders(catalog, labels)
    path = Path(path)
    if path.suffix == ".json":
        return read_activitynet(path, catalog, labels, subset=subset)
    if path.suffix == ".csv":
        return read_kinetics(path, catalog, labels, subset=subset)
    raise ConfigError(f"{path}: label files for actions are .csv (Kinetics), .json (ActivityNet), or the word folders.")


def read_kinetics(
    path: Path, catalog: Catalog, labels: Sequence[str] | None = None, *, subset: str | None = None
) -> ActionLabels:
    """Columns `label`, then `uri` or `youtube_id`, and `time_start` and `time_end` (seconds; `start_s`
    and `end_s` are taken too), perhaps `split`.

    An object named <youtube_id>_<start>_<end>, six digits each, as the usual downloaders cut them, is the
    clip itself: then all of it is meant.
    """
    rows: list[tuple[str, Video, float, float | None, str]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            columns = set(reader.fieldnames or ())
            name_key = next((c for c in ("uri", "path", "youtube_id") if c in columns), None)
            if "label" not in columns or name_key is None:
                has = ", ".join(sorted(columns))
                raise ConfigError(f"{path}, line 1: needs the columns label and uri (or youtube_id), has {has}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if subset is not None and row.get("split") != subset:
                    continue
                label = (row["label"] or "").strip()
                if not label:
                    raise ConfigError(f"{where}: the label is empty.")
                start, end = _range(row, where)
                name = row[name_key] or ""
                trimmed = f"{name}_{int(start):06d}_{int(end or 0):06d}"
                if name_key == "youtube_id" and catalog.holds(trimmed):
                    name, start, end = trimmed, 0.0, None
                rows.append((where, catalog.find(name, where), start, end, label))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path}: cannot be read as CSV: {e}") from e
    return _action_labels(path, rows, labels, subset)


def _range(row: dict[str, str], where: str) -> tuple[float, float | None]:
    values = []
    for keys in (("start_s", "time_start"), ("end_s", "time_end")):
        key, text = next(((k, row[k]) for k in keys if row.get(k)), ("", ""))
        try:
            values.append(float(text) if text else None)
        except ValueError:
            raise ConfigError(f"{where}: {key} must be seconds, not {text!r}.") from None
    start, end = values[0] or 0.0, values[1]
    _check_range(start, end, where)
    return start, end


def _check_range(start: float, end: float | None, where: str) -> None:
    if not start >= 0 or (end is not None and not end > start):
        until = "the end" if end is None else f"{end:g} s"
        raise ConfigError(f"{where}: the range from {start:g} to {until} holds nothing.")


def read_activitynet(
    path: Path, catalog: Catalog, labels: Sequence[str] | None = None, *, subset: str | None = None
) -> ActionLabels:
    """`database`: {video: {subset, duration, annotations: [{label, segment: [start, end]}]}}."""
    data = load_json(path)
    if not isinstance(data.get("database"), dict):
        raise ConfigError(f"{path}: not an ActivityNet file, it has no mapping 'database'.")
    rows: list[tuple[str, Video, float, float | None, str]] = []
    for name, entry in data["database"].items():
        whole = f"{path}: database.{name}"
        annotations = as_mapping(entry, whole).get("annotations", [])
        if subset is not None and entry.get("subset") != subset:
            continue
        if not isinstance(annotations, list):
            raise ConfigError(f"{whole}: annotations must be a list, not {annotations!r}.")
        video = catalog.find(str(entry.get("uri", name)), whole)
        duration = number_of(entry, "duration", whole, least=0) if "duration" in entry else math.inf
        for i, annotation in enumerate(annotations):
            where = f"{whole}.annotations[{i}]"
            segment = field_of(annotation, "segment", where)
            if not (isinstance(segment, list) and len(segment) == 2 and all(map(is_number, segment))):
                raise ConfigError(f"{where}: segment must be two numbers, start and end in seconds, not {segment!r}.")
            start, end = map(float, segment)
            _check_range(start, end, where)
            if end > duration + 1.0:
                raise ConfigError(f"{where}: ends at {end:g} s, after the video's {duration:g} s.")
            rows.append((where, video, start, end, str(field_of(annotation, "label", where))))
    return _action_labels(path, rows, labels, subset)


def read_class_folders(catalog: Catalog, labels: Sequence[str] | None = None) -> ActionLabels:
    """Every object of the archive is an example of the folder that it lies in."""
    rows: list[tuple[str, Video, float, float | None, str]] = []
    for key in sorted(catalog.keys):
        folder = PurePosixPath(key).parent
        if folder.name and not any(p.startswith((".", "_")) for p in PurePosixPath(key).parts):
            where = f"{catalog.uri}/{key}"
            rows.append((where, catalog.find(key, where), 0.0, None, folder.name))
    return _action_labels(catalog.uri, rows, labels, None)


def _action_labels(
    origin: Path | str,
    rows: Sequence[tuple[str, Video, float, float | None, str]],
    labels: Sequence[str] | None,
    subset: str | None,
) -> ActionLabels:
    if not rows:
        raise ConfigError(f"{origin}: holds no example" + (f" of the subset {subset!r}." if subset else "."))
    order = tuple(labels) if labels is not None else tuple(sorted({label for *_, label in rows}))
    class_of = {label: i for i, label in enumerate(order)}
    clips = []
    for where, video, start, end, label in rows:
        if label not in class_of:
            raise ConfigError(f"{where}: {label!r} is none of the labels {', '.join(order)}.")
        clips.append(LabelledClip(where=where, source=video, start_s=start, end_s=end, class_id=class_of[label]))
    return ActionLabels(order, tuple(clips))
