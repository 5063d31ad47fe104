"""What training asks of labels: examples of each class, and videos held back for validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from vidproc.errors import ConfigError
from vidproc.learn.labels.values import ActionLabels


def require_examples(class_ids: Iterable[int], labels: Sequence[str], origin: object) -> None:
    """Raises ConfigError for the first class that has no example."""
    seen = set(class_ids)
    for i, label in enumerate(labels):
        if i not in seen:
            raise ConfigError(f"{origin}: the class {label!r} has no example; give some, or take it out of the labels.")


def split_by_video(labels: ActionLabels, share: float, seed: int) -> tuple[ActionLabels, ActionLabels]:
    """Split into training and validation by whole videos: clips of one scene on both sides would make the score too
    good. Each class keeps at least one video for training."""
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
