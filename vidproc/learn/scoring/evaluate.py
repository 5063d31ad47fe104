"""Scoring: predictions in the field's file formats, or a lake, against truth in the field's file formats.

task            truth                                   predictions
detection       COCO instances JSON                     COCO results JSON, or a lake's detections
classification  Kinetics CSV or ActivityNet JSON        CSV uri,label,score[,start_s,view], ActivityNet
                                                        classification JSON, or a lake's actions
segments        ActivityNet JSON                        ActivityNet detection JSON, or a lake
tracking        MOTChallenge text: a file, or a folder  the same, or a lake's detections with tracks
                of <video>.txt or <video>/gt/gt.txt
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping

from vidproc.learn.lake import LakeRows, open_rows
from vidproc.learn.scoring.settings import EvalSettings, Evaluation, Made, Task
from vidproc.learn.scoring.tasks.classification import score_classification
from vidproc.learn.scoring.tasks.detection import score_detection
from vidproc.learn.scoring.tasks.segments import score_segments
from vidproc.learn.scoring.tasks.tracking import score_tracking
from vidproc.storage import StorageOptions, open_storage, signed


def evaluate(settings: EvalSettings, *, options: StorageOptions | None = None) -> Evaluation:
    """Score, and write the scores where `out` says. Raises ConfigError for files that do not fit each other."""
    if settings.lake is None:
        made, pictures = _TASKS[settings.task](settings, None)
    else:
        with open_rows(settings.lake, settings.pipeline, signed(options)) as rows:
            made, pictures = _TASKS[settings.task](settings, rows)
    return made if settings.out is None else _written(made, pictures, settings.out, options)


_TASKS: dict[Task, Callable[[EvalSettings, LakeRows | None], Made]] = {
    "detection": score_detection,
    "classification": score_classification,
    "segments": score_segments,
    "tracking": score_tracking,
}


def _written(made: Evaluation, pictures: Mapping[str, bytes], out: str, options: StorageOptions | None) -> Evaluation:
    storage = open_storage(out, options=signed(options))
    files = dict(pictures)
    files["scores.json"] = json.dumps({"task": made.task, **made.summary}, indent=1).encode()
    table = io.StringIO()
    writer = csv.DictWriter(table, list(made.per_class[0]) if made.per_class else ["label"])
    writer.writeheader()
    writer.writerows(made.per_class)
    files["per_class.csv"] = table.getvalue().encode()
    for name, data in files.items():
        storage.put(name, data)
    return Evaluation(
        task=made.task,
        summary=made.summary,
        per_class=made.per_class,
        files=tuple(storage.uri_of(name) for name in sorted(files)),
    )
