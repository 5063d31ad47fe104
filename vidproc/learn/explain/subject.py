"""Find the video, time and model that an explanation is about."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.explain.settings import ExplainSettings, Kind
from vidproc.learn.labels.catalog import object_at
from vidproc.learn.lake import LakeRows, open_rows
from vidproc.media import Video
from vidproc.models import list_models
from vidproc.models.settings import ModelSettings
from vidproc.secrets import hidden_in
from vidproc.storage import StorageOptions, signed
from vidproc.tables.own import is_own


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    video: Video
    time_s: float
    label: str | None
    model: str
    settings: ModelSettings
    box: np.ndarray | None = None
    """Box of the detection in the lake, (1, 4), in pixels of the upright frame."""
    ref: str | None = None
    """The model that the row names. None where the settings name one."""


def find_subject(s: ExplainSettings, options: StorageOptions | None) -> Subject:
    own = ModelSettings(kind=s.kind)
    if s.video is not None:
        assert s.model is not None
        video = object_at(s.video, options)
        return Subject(video=video, time_s=s.time_s, label=s.label, model=s.model, settings=own)
    assert s.lake is not None
    table, start = ("actions", "start_s") if s.kind == "actions" else ("detections", "time_s")
    box = ", d.x_min, d.y_min, d.x_max, d.y_max" if s.kind == "detector" else ""
    with open_rows(s.lake, s.pipeline, signed(options)) as lake:
        rows = lake.rows(
            f"SELECT v.uri, v.run_id, d.model, d.{start} AS at, d.label{box} "
            f"FROM {table} d JOIN videos v USING (video_id, pipeline) "
            f"WHERE pipeline = $pipeline AND (\n{s.row}\n) ORDER BY d.score DESC LIMIT 1"
        ).to_pylist()
        if not rows:
            raise ConfigError(f"{s.lake}: no row of {table} fits {s.row}.")
        row = rows[0]
        model, settings = (s.model, own) if s.model else _model_of_run(lake, row["run_id"], row["model"], s.kind)
    return Subject(
        video=object_at(str(row["uri"]), options),
        time_s=float(row["at"]),
        label=s.label or str(row["label"]),
        model=model,
        settings=settings,
        box=np.array([[row[k] for k in ("x_min", "y_min", "x_max", "y_max")]], np.float32) if box else None,
        ref=None if s.model else str(row["model"]),
    )


def _model_of_run(lake: LakeRows, run_id: str, ref: str, kind: Kind) -> tuple[str, ModelSettings]:
    """Return the spec and the settings of the model in a run's job, so that its frames look as they did then."""
    jobs = lake.rows("SELECT job FROM runs WHERE run_id = $run AND $pipeline IS NOT NULL", run=run_id)
    said = json.loads(jobs["job"][0].as_py()) if jobs.num_rows else {}
    wanted = said.get(kind) if isinstance(said, dict) else None
    if hidden := hidden_in(wanted, kind):
        raise ConfigError(
            f"{lake.lake.uri}: a secret was left out of what the run {run_id} wrote down ({', '.join(hidden)}), so the "
            "model cannot be opened as it was then: say which model is meant."
        )
    if not isinstance(wanted, dict) or wanted.get("model") in (None, "auto"):
        raise ConfigError(f"{lake.lake.uri}: the run {run_id} does not say where {ref} lies; say which model is meant.")
    listed = wanted["model"] in {m.name for m in list_models()} and not (wanted.get("weights") or wanted.get("options"))
    if not listed and not is_own(jobs["job"][0].as_py()):
        raise ConfigError(
            f"{lake.lake.uri}: its run {run_id}, which was not yours on this machine, names the model "
            f"{wanted['model']}: say that it is meant (--model), or another one."
        )
    known = {f.name for f in fields(ModelSettings)} - {"kind", "device", "storage"}
    given = {k: v for k, v in wanted.items() if k in known and v is not None}
    return str(wanted["model"]), ModelSettings(kind=kind, **given)
