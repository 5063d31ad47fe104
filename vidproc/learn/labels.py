"""Label files: COCO JSON, Kinetics CSV, ActivityNet JSON, a folder a class, read into plain values.

Everything that can be wrong with a label file is found here, before anything is trained or scored,
and said in one sentence that names the file and the line or key.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidproc.documents import load_json_file
from vidproc.errors import ConfigError
from vidproc.media import Video
from vidproc.storage import StorageOptions, is_s3, open_storage

BOX_SLACK = 1.0
"""Pixels by which a box may stick out of its image: rounding, not a mistake. It is clipped."""
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelledFrame:
    """An image, or a frame of a video, with the boxes in it."""

    where: str
    """File and key, for messages."""
    image_id: int
    source: Video
    """The video, or the image file."""
    time_s: float | None
    """On the video's clock; None: the source is an image."""
    width: int
    height: int
    boxes: np.ndarray
    """float32 (m, 4): x_min, y_min, x_max, y_max in pixels of the upright frame."""
    class_id: np.ndarray
    """int64 (m,): index into the labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClip:
    """A stretch of a video in which one thing happens."""

    where: str
    source: Video
    start_s: float
    end_s: float | None
    """None: to the end of the video."""
    class_id: int


@dataclass(frozen=True, slots=True, eq=False)
class DetectionLabels:
    labels: tuple[str, ...]
    frames: tuple[LabelledFrame, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ActionLabels:
    labels: tuple[str, ...]
    clips: tuple[LabelledClip, ...]


class Catalog:
    """The objects of an archive, found by what label files call them: the whole URI, the path below
    the archive, or (a video) its name with or without folder and extension."""

    def __init__(self, uri: str, objects: Iterable[tuple[str, Video]]) -> None:
        self.uri = uri
        self._by_path: dict[str, Video] = {}
        self._by_name: defaultdict[str, list[Video]] = defaultdict(list)
        for key, video in objects:
            self._by_path[key] = self._by_path[video.uri] = video
            name = PurePosixPath(key)
            for alias in {name.name, name.stem, name.stem.removeprefix("v_")}:
                self._by_name[alias].append(video)
        self.keys = tuple(key for key in self._by_path if not (key.startswith("/") or is_s3(key)))

    @classmethod
    def of(cls, uri: str, options: StorageOptions | None = None) -> Catalog:
        """One listing. Raises ConfigError where there is nothing."""
        storage = open_storage(uri, options=options)
        found = [
            (o.key, Video(storage.uri_of(o.key), o.size, f"{o.etag}:{o.size}", o.modified_at)) for o in storage.list()
        ]
        if not found:
            raise ConfigError(f"There is nothing in {uri}, to which the labels are to refer.")
        return cls(uri, found)

    def find(self, name: str, where: str) -> Video:
        if video := self._by_path.get(name):
            return video
        found = self._by_name.get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{where}: {name!r} is the name of {len(found)} objects of {self.uri}; give the path.")
        raise ConfigError(f"{where}: there is no {name!r} in {self.uri}.")

    def holds(self, name: str) -> bool:
        return name in self._by_path or len(self._by_name.get(name, [])) == 1


def object_at(uri: str, options: StorageOptions | None = None) -> Video:
    """One object by its path or URI, listed without the rest. Raises ConfigError where it is not there."""
    folder, _, name = uri.rpartition("/")
    storage = open_storage(folder or ("/" if uri.startswith("/") else "."), options=options)
    for o in storage.list(name):
        if o.key == name:
            return Video(storage.uri_of(name), o.size, f"{o.etag}:{o.size}", o.modified_at)
    raise ConfigError(f"There is no {uri}.")


class AnyName(Catalog):
    """Takes every name for an object of that name: for files that are compared with files alone."""

    def __init__(self) -> None:
        super().__init__("the files", ())

    def find(self, name: str, where: str) -> Video:
        return Video(name, 0, "")


# Detection


def read_coco(path: Path, catalog: Catalog, labels: Sequence[str] | None = None) -> DetectionLabels:
    """COCO instances JSON over images, or over frames of videos: an image whose entry has `time_s`
    (seconds on the video's clock) or `frame` and `fps` beside the `file_name` is the frame on screen then.

    `labels`: the classes and their order, where another file (the training's) has set them; None: the
    categories by id. Crowd annotations are left out: they are no objects one could box.
    """
    data = load_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise ConfigError(f"{path}: not a COCO instances file, it has no list {key!r}.")
    categories = sorted(data["categories"], key=lambda c: _number(c, "id", f"{path}: categories", least=-math.inf))
    names = tuple(str(_get(c, "name", f"{path}: categories, id {c['id']}")) for c in categories)
    for key, values in (("id", [c["id"] for c in categories]), ("name", names)):
        if twice := _twice(values):
            raise ConfigError(f"{path}: categories: the {key} {twice[0]!r} is given twice.")
    order = tuple(labels) if labels is not None else names
    if unknown := [n for n in names if n not in order]:
        raise ConfigError(f"{path}: categories: {unknown[0]!r} is none of the labels {', '.join(order)}.")
    class_of = {c["id"]: order.index(n) for c, n in zip(categories, names, strict=True)}
    boxes: defaultdict[Any, list[tuple[tuple[float, ...], int]]] = defaultdict(list)
    sizes = {}
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        if _get(image, "id", where) in sizes:
            raise ConfigError(f"{where}: the id {image['id']!r} is given twice.")
        sizes[image["id"]] = (
            _number(image, "width", where, least=1),
            _number(image, "height", where, least=1),
        )
    for i, annotation in enumerate(data["annotations"]):
        where = f"{path}: annotations[{i}]"
        where += f" (id {_mapping(annotation, where).get('id')})"
        image_id, category = _get(annotation, "image_id", where), _get(annotation, "category_id", where)
        if image_id not in sizes:
            raise ConfigError(f"{where}: image_id {image_id!r} is none of the file's images.")
        if category not in class_of:
            raise ConfigError(f"{where}: category_id {category!r} is none of the file's categories.")
        if not annotation.get("iscrowd"):
            box = _box(_get(annotation, "bbox", where), *sizes[image_id], where)
            boxes[image_id].append((box, class_of[category]))
    frames = []
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        source = catalog.find(str(_get(image, "file_name", where)), where)
        own = boxes[image["id"]]
        frames.append(
            LabelledFrame(
                where=where,
                image_id=image["id"],
                source=source,
                time_s=_time_of(image, source, where),
                width=int(image["width"]),
                height=int(image["height"]),
                boxes=np.array([b for b, _ in own], np.float32).reshape(-1, 4),
                class_id=np.array([c for _, c in own], np.int64),
            )
        )
    return DetectionLabels(order, tuple(frames))


def _box(bbox: Any, width: float, height: float, where: str) -> tuple[float, float, float, float]:
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
        raise ConfigError(f"{where}: bbox must be four numbers x, y, width, height, not {bbox!r}.")
    x, y, w, h = map(float, bbox)
    if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
        raise ConfigError(f"{where}: bbox {bbox} has no area.")
    if x < -BOX_SLACK or y < -BOX_SLACK or x + w > width + BOX_SLACK or y + h > height + BOX_SLACK:
        raise ConfigError(f"{where}: bbox {bbox} lies outside its image of {width:g} x {height:g} pixels.")
    return max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)


def _time_of(image: dict[str, Any], source: Video, where: str) -> float | None:
    if "time_s" in image:
        return _number(image, "time_s", where, least=0)
    if "frame" in image:
        return _number(image, "frame", where, least=0) / _number(image, "fps", where, least=1e-6)
    if PurePosixPath(source.uri).suffix.lower() not in IMAGES:
        raise ConfigError(
            f"{where}: {source.uri} is no image, so `time_s` (or `frame` and `fps`) must say which frame."
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMoment:
    """When an image of a COCO file is on screen."""

    image_id: Any
    source: Video
    time_s: float


def read_moments(data: dict[str, Any], path: Path, catalog: Catalog) -> list[LabelledMoment]:
    """The images of a COCO instances file whose images are frames of videos. `path` is for messages. Raises
    ConfigError, also for an image without a time."""
    moments = []
    for i, image in enumerate(data["images"]):
        where = f"{path}: images[{i}]"
        source = catalog.find(str(_get(image, "file_name", where)), where)
        time_s = _time_of(image, source, where)
        if time_s is None:
            raise ConfigError(f"{where}: a lake knows frames of videos, so the truth needs `time_s`.")
        moments.append(LabelledMoment(image_id=_get(image, "id", where), source=source, time_s=time_s))
    return moments


def to_coco(labels: DetectionLabels) -> dict[str, Any]:
    """Labelled frames as a COCO truth: image i + 1 is frame i, category c + 1 is class c."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, f in enumerate(labels.frames):
        images.append({"id": i + 1, "file_name": f.source.uri, "width": f.width, "height": f.height})
        for (x0, y0, x1, y1), c in zip(f.boxes.astype(float).tolist(), f.class_id.tolist(), strict=True):
            bbox = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": c + 1, "bbox": bbox})
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(labels.labels)]
    return {"images": images, "annotations": annotations, "categories": categories}


# Actions


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
        annotations = _mapping(entry, whole).get("annotations", [])
        if subset is not None and entry.get("subset") != subset:
            continue
        if not isinstance(annotations, list):
            raise ConfigError(f"{whole}: annotations must be a list, not {annotations!r}.")
        video = catalog.find(str(entry.get("uri", name)), whole)
        duration = _number(entry, "duration", whole, least=0) if "duration" in entry else math.inf
        for i, annotation in enumerate(annotations):
            where = f"{whole}.annotations[{i}]"
            segment = _get(annotation, "segment", where)
            if not (isinstance(segment, list) and len(segment) == 2 and all(map(_is_number, segment))):
                raise ConfigError(f"{where}: segment must be two numbers, start and end in seconds, not {segment!r}.")
            start, end = map(float, segment)
            _check_range(start, end, where)
            if end > duration + 1.0:
                raise ConfigError(f"{where}: ends at {end:g} s, after the video's {duration:g} s.")
            rows.append((where, video, start, end, str(_get(annotation, "label", where))))
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


# What training asks of labels


def require_examples(class_ids: Iterable[int], labels: Sequence[str], origin: object) -> None:
    """Raises ConfigError for the first class that has no example."""
    seen = set(class_ids)
    for i, label in enumerate(labels):
        if i not in seen:
            raise ConfigError(f"{origin}: the class {label!r} has no example; give some, or take it out of the labels.")


def split_by_video(labels: ActionLabels, share: float, seed: int) -> tuple[ActionLabels, ActionLabels]:
    """For training and for validation. A video goes whole to one side, or clips of one scene would be
    on both and the score a lie; each class keeps at least one video for training."""
    videos: defaultdict[int, list[str]] = defaultdict(list)
    for clip in labels.clips:
        if clip.source.uri not in videos[clip.class_id]:
            videos[clip.class_id].append(clip.source.uri)
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    kept: set[str] = set()
    for class_id in sorted(videos, key=lambda c: len(videos[c])):
        free = [v for v in sorted(videos[class_id]) if v not in held and v not in kept]
        already = sum(v in held for v in videos[class_id])
        wanted = min(round(share * len(videos[class_id])), len(videos[class_id]) - 1) - already
        chosen = set(rng.permutation(free)[: max(0, wanted)].tolist()) if free else set()
        held |= chosen
        kept |= set(free) - chosen
    return (
        replace(labels, clips=tuple(c for c in labels.clips if c.source.uri not in held)),
        replace(labels, clips=tuple(c for c in labels.clips if c.source.uri in held)),
    )


def load_json(path: Path) -> dict[str, Any]:
    data = load_json_file(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a label file is a mapping, this is a {type(data).__name__}.")
    return data


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be a mapping, not {str(value)[:80]!r}.")
    return value


def _get(mapping: Any, key: str, where: str) -> Any:
    if key not in _mapping(mapping, where):
        raise ConfigError(f"{where}: has no {key!r}.")
    return mapping[key]


def _number(mapping: dict[str, Any], key: str, where: str, *, least: float) -> float:
    value = _get(mapping, key, where)
    if not _is_number(value) or not value >= least:
        raise ConfigError(f"{where}: {key} must be a number from {least:g}, not {value!r}.")
    return float(value)


def _twice(values: Sequence[Any]) -> list[Any]:
    """Those that are there before."""
    return [v for i, v in enumerate(values) if v in values[:i]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
