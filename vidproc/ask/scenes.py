"""What a row of any table means as a picture: which video, which moment, which boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import pyarrow as pa

from vidproc.ask.database import LakeDatabase
from vidproc.errors import ConfigError
from vidproc.media import Video
from vidproc.storage import is_s3

VIDEO_COLUMNS = (
    "video_id", "pipeline", "uri", "content_id", "size_bytes", "recorded_at", "warnings", "away", "run_id",
    "duration_s",
)  # fmt: skip

DECODED_PLAINLY = "decoded plainly"
"""Begins the warning in the row of a video on which the fast path was found wrong."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the upright frame."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    track_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One row, as something that can be looked at."""

    video: Video
    """As indexed; its URI is where the archive is now."""
    listed_uri: str
    """URI in the tables."""
    time_s: float
    """The moment that stands for the row, on the video's clock."""
    pts: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    """The stretch that the row is about; None for a single moment."""
    label: str = ""
    score: float | None = None
    boxes: tuple[Box, ...] = ()
    recorded_at: datetime | None = None
    """UTC wall-clock time of `time_s`; None where it is not known."""
    plain: bool = False
    away: str | None = None
    duration_s: float | None = None
    """Of the whole video; None where it is not known."""

    @property
    def title(self) -> str:
        """The last two parts of the video's name."""
        return "/".join(self.listed_uri.rsplit("/", 2)[-2:])


def scenes(lake: LakeDatabase, rows: pa.Table | Iterable[Any], *, archive: str | None = None) -> list[Scene]:
    """Return a scene for each row, in order.

    A row is a mapping or a dataclass with `video_id` or `uri`, and a time: `time_s` (detections), `path` (tracks),
    or `start_s` and `end_s` (segments, actions, hits of a search). For a stretch the moment in its middle stands, or
    the nearest at which one of its tracks was seen. `archive`: where the archive is now, if it was moved.

    Raises ConfigError for a row without these, or of a video that the lake does not have.
    """
    given = [_mapping(row) for row in (rows.to_pylist() if isinstance(rows, pa.Table) else rows)]
    videos = _videos(lake, given)
    homes = _Homes(lake, videos.values(), archive) if archive else None
    paths = _paths(lake, given)
    return [_scene(row, _video_of(row, videos), homes, paths) for row in given]


def _mapping(row: Any) -> dict[str, Any]:
    if is_dataclass(row) and not isinstance(row, type):
        return asdict(row)
    if isinstance(row, Mapping):
        return dict(row)
    raise ConfigError(f"a row is a mapping with the columns of a table, not {type(row).__name__}")


def _videos(lake: LakeDatabase, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of `videos` by id (or URI) and pipeline."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    columns = ", ".join(VIDEO_COLUMNS)
    for key in ("video_id", "uri"):
        values = sorted({str(row[key]) for row in rows if row.get(key) is not None})
        if key == "uri":
            values = sorted({str(row["uri"]) for row in rows if row.get("video_id") is None and row.get("uri")})
        for i in range(0, len(values), 500):
            chunk = values[i : i + 500]
            marks = ", ".join("?" * len(chunk))
            # `pipeline` in an expression: rows of every pipeline are seen.
            sql = f"SELECT {columns} FROM videos WHERE {key} IN ({marks}) AND pipeline IS NOT NULL ORDER BY indexed_at"
            for video in lake.sql(sql, chunk).read_all().to_pylist():
                found[video[key], video["pipeline"]] = video
                found[video[key], ""] = video
            if lake.pipeline is not None:
                for video in [v for (_, name), v in found.items() if name == lake.pipeline]:
                    found[video[key], ""] = video
    return found


def _video_of(row: Mapping[str, Any], videos: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    name = row.get("video_id") or row.get("uri")
    if name is None:
        raise ConfigError(f"a row names no video: select video_id or uri (it has {', '.join(row) or 'no columns'})")
    found = videos.get((str(name), str(row.get("pipeline") or "")))
    if found is None:
        raise ConfigError(f"the lake has no video {name!r}" + (f" of {row['pipeline']}" if row.get("pipeline") else ""))
    return found


Paths = Mapping[tuple[str, str, int], Sequence[Mapping[str, Any]]]


def _paths(lake: LakeDatabase, rows: Sequence[Mapping[str, Any]]) -> Paths:
    """The tracks that stretches name: video, pipeline and track -> label and path."""
    wanted = {(str(row["video_id"]), int(i)) for row in rows if row.get("video_id") for i in row.get("track_ids") or ()}
    found: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    videos = sorted({video_id for video_id, _ in wanted})
    for i in range(0, len(videos), 500):
        chunk = videos[i : i + 500]
        ids = sorted({track for video_id, track in wanted if video_id in set(chunk)})
        sql = (
            "SELECT video_id, pipeline, track_id, label, path FROM tracks WHERE pipeline IS NOT NULL "
            f"AND video_id IN ({', '.join('?' * len(chunk))}) AND track_id IN ({', '.join(map(str, ids))})"
        )
        for batch in lake.sql(sql, chunk):
            # A path may be long: those of tracks that nobody named are let go at once.
            keys = zip(batch["video_id"].to_pylist(), batch["track_id"].to_pylist(), strict=True)
            for track in batch.take([n for n, key in enumerate(keys) if key in wanted]).to_pylist():
                found.setdefault((track["video_id"], track["pipeline"], track["track_id"]), []).append(track)
    return found


def _scene(row: Mapping[str, Any], video: Mapping[str, Any], homes: _Homes | None, paths: Paths) -> Scene:
    uri = video["uri"]
    now = uri if homes is None else homes.now(video)
    label = " + ".join(str(v) for v in (row.get("label"), row.get("action")) if v)
    score = next((row[k] for k in ("score", "score_max", "score_mean") if row.get(k) is not None), None)
    scene = Scene(
        video=Video(now, video["size_bytes"], video["content_id"]),
        listed_uri=uri,
        time_s=0.0,
        start_s=row.get("start_s"),
        end_s=row.get("end_s"),
        label=label,
        score=None if score is None else float(score),
        plain=any(w.startswith(DECODED_PLAINLY) for w in video["warnings"] or ()),
        away=video["away"],
        duration_s=video["duration_s"],
    )
    scene = _at_its_moment(scene, row, video, paths)
    if video["recorded_at"] is not None:
        try:
            at = video["recorded_at"].astimezone(UTC) + timedelta(seconds=scene.time_s)
        except OverflowError:
            at = None
        scene = replace(scene, recorded_at=at)
    return scene


def _at_its_moment(scene: Scene, row: Mapping[str, Any], video: Mapping[str, Any], paths: Paths) -> Scene:
    if row.get("time_s") is not None:
        box = _box(row, scene.label, row.get("track_id"))
        return replace(scene, time_s=float(row["time_s"]), pts=row.get("pts"), boxes=(box,) if box else ())
    if scene.start_s is None:
        raise ConfigError(
            f"a row of {video['uri']} names no moment: select time_s, or start_s and end_s (it has {', '.join(row)})"
        )
    end_s = scene.start_s if scene.end_s is None else scene.end_s
    middle = (scene.start_s + end_s) / 2
    tracks: list[Mapping[str, Any]] = []
    if row.get("path"):
        tracks.append({"track_id": row.get("track_id"), "label": scene.label, "path": row["path"]})
    for track_id in row.get("track_ids") or ():
        tracks += paths.get((video["video_id"], video["pipeline"], track_id), ())
    points = [
        (abs(point["time_s"] - middle), point["time_s"], point, track)
        for track in tracks
        for point in track["path"] or ()
        if scene.start_s - 1e-6 <= point["time_s"] <= end_s + 1e-6
    ]
    if not points:
        return replace(scene, time_s=middle)
    time_s = min(points, key=lambda p: p[:2])[1]
    boxes = [_box(point, track["label"], track["track_id"]) for _, at, point, track in points if at == time_s]
    return replace(scene, time_s=time_s, boxes=tuple(box for box in boxes if box))


def _box(row: Mapping[str, Any], label: str, track_id: int | None) -> Box | None:
    sides = [row.get(side) for side in ("x_min", "y_min", "x_max", "y_max")]
    known = [float(side) for side in sides if side is not None]
    return Box(label, known[0], known[1], known[2], known[3], track_id) if len(known) == 4 else None


class _Homes:
    """Where videos are now that their archive was moved: the part of a URI below the old archive stays."""

    def __init__(self, lake: LakeDatabase, videos: Iterable[Mapping[str, Any]], archive: str) -> None:
        self._archive = archive.rstrip("/") or "/"
        runs = sorted({video["run_id"] for video in videos})
        self._roots: dict[str, str] = {}
        for i in range(0, len(runs), 500):
            chunk = runs[i : i + 500]
            marks = ", ".join("?" * len(chunk))
            sql = f"SELECT run_id, job ->> 'archive' AS archive FROM runs WHERE run_id IN ({marks})"
            for row in lake.sql(sql, chunk).read_all().to_pylist():
                if row["archive"]:
                    self._roots[row["run_id"]] = row["archive"].rstrip("/") + "/"
        sql = "SELECT min(uri) AS first, max(uri) AS last FROM videos"
        [ends] = lake.sql(sql).read_all().to_pylist()
        first, last = ends["first"] or "", ends["last"] or ""
        parts = zip(first.split("/")[:-1], last.split("/")[:-1], strict=False)
        self._common = "".join(f"{a}/" for a, b in takewhile(lambda pair: pair[0] == pair[1], parts))
        """The folder that holds all: for lakes whose runs do not say what their archive was."""

    def now(self, video: Mapping[str, Any]) -> str:
        uri: str = video["uri"]
        root = self._roots.get(video["run_id"], self._common)
        below = uri.removeprefix(root) if uri.startswith(root) else uri.removeprefix(self._common)
        if ".." in below.split("/") and not is_s3(self._archive):
            return uri
        return f"{self._archive}/{below.lstrip('/')}"
