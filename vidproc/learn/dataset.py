"""Rows of a lake as a label file: what was found (and looked over) becomes what is learned from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from vidproc.errors import ConfigError
from vidproc.learn.lake import open_rows
from vidproc.storage import StorageOptions, open_storage, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSettings:
    lake: str
    out: str
    """Label file to write: .json."""
    kind: Literal["coco", "activitynet"] = "coco"
    """coco: detections as boxes of frames; activitynet: action segments."""
    where: str | None = None
    """SQL condition on the rows (d) and their videos (v): `d.score > 0.8 AND v.recorded_at > ...`."""
    pipeline: str | None = None
    subset: str = "training"
    """Value of ActivityNet's `subset`."""

    def __post_init__(self) -> None:
        if self.kind not in ("coco", "activitynet"):
            raise ConfigError(f"the kind must be coco or activitynet, not {self.kind!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    path: str
    videos: int
    examples: dict[str, int]
    """Label -> boxes, or segments."""
    frames: int = 0


def make_dataset(settings: DatasetSettings, *, options: StorageOptions | None = None) -> DatasetReport:
    """Write the label file; its videos are URIs of the archive. Raises ConfigError where no row fits."""
    columns, table, extra = {
        "coco": ("d.time_s, d.label, d.x_min, d.y_min, d.x_max, d.y_max, v.width, v.height", "detections", "TRUE"),
        "activitynet": ("d.label, d.start_s, d.end_s, v.duration_s", "segments", "d.kind = 'action'"),
    }[settings.kind]
    with open_rows(settings.lake, settings.pipeline, signed(options)) as lake:
        rows = lake.rows(
            f"SELECT v.uri, {columns} FROM {table} d JOIN videos v USING (video_id, pipeline) "
            f"WHERE pipeline = $pipeline AND {extra} AND (\n{settings.where or 'TRUE'}\n) ORDER BY ALL"
        ).to_pylist()
    if not rows:
        raise ConfigError(f"{settings.lake}: no row of {table} fits {settings.where or 'the pipeline'}.")
    document = _coco(rows) if settings.kind == "coco" else _activitynet(rows, settings.subset)
    folder, _, name = settings.out.rpartition("/")
    storage = open_storage(folder or ("/" if settings.out.startswith("/") else "."), options=signed(options))
    storage.put(name, json.dumps(document, indent=1).encode())
    return DatasetReport(
        path=settings.out,
        videos=len({r["uri"] for r in rows}),
        examples=dict(Counter(r["label"] for r in rows)),
        frames=len(document.get("images", ())),
    )


def _coco(rows: list[dict[str, Any]]) -> dict[str, Any]:
    categories = {label: i for i, label in enumerate(sorted({r["label"] for r in rows}), 1)}
    images: dict[tuple[str, float], dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for r in rows:
        at = r["uri"], r["time_s"]
        size = {"width": r["width"], "height": r["height"]}
        image = images.setdefault(at, {"id": len(images) + 1, "file_name": at[0], "time_s": at[1], **size})
        bbox = [round(v, 3) for v in (r["x_min"], r["y_min"], r["x_max"] - r["x_min"], r["y_max"] - r["y_min"])]
        if min(bbox[2:]) > 0:
            own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": categories[r["label"]]}
            annotations.append(own | {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
    named = [{"id": i, "name": label} for label, i in categories.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": named}


def _activitynet(rows: list[dict[str, Any]], subset: str) -> dict[str, Any]:
    database: dict[str, Any] = {}
    for r in rows:
        entry = database.setdefault(r["uri"], {"subset": subset, "duration": r["duration_s"], "annotations": []})
        entry["annotations"].append({"label": r["label"], "segment": [r["start_s"], r["end_s"]]})
    return {"version": "vidproc 1", "database": database}
