"""What learning reads from a lake: the videos as a catalog for label files, and the rows of one pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vidproc.ask import ALL, LakeDatabase, connect
from vidproc.errors import ConfigError
from vidproc.learn.labels.catalog import Catalog
from vidproc.media import Video
from vidproc.storage import StorageOptions


@dataclass(frozen=True, slots=True)
class LakeRows:
    """One pipeline's rows of an open lake."""

    lake: LakeDatabase
    pipeline: str
    uris: dict[str, str]
    """video_id -> uri, of the videos that are indexed, wholly or in part."""
    durations: dict[str, float]

    @property
    def catalog(self) -> Catalog:
        """Found by URI, or by the name of the object."""
        return Catalog(self.lake.uri, [(u.rpartition("/")[2], Video(u, 0, "")) for u in self.uris.values()])

    def rows(self, sql: str, **params: Any) -> pa.Table:
        """`sql` may use $pipeline beside the parameters given."""
        return self.lake.sql(sql, {"pipeline": self.pipeline, **params}).read_all()

    def model(self, table: str, wanted: str | None) -> str:
        """Return the model whose rows are meant. Raises ConfigError where there is none, or several."""
        found = self.rows(f"SELECT DISTINCT model FROM {table} WHERE pipeline = $pipeline ORDER BY 1")[
            "model"
        ].to_pylist()
        if wanted is not None:
            found = [m for m in found if m == wanted or m.partition("@")[0] == wanted]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise ConfigError(f"{self.lake.uri}: {table} holds rows of {', '.join(found)}; say which model is meant.")
        of = f" of the model {wanted}" if wanted else ""
        raise ConfigError(f"{self.lake.uri}: {table} holds no rows{of} in the pipeline {self.pipeline}.")


@contextmanager
def open_rows(uri: str, pipeline: str | None = None, options: StorageOptions | None = None) -> Iterator[LakeRows]:
    """`pipeline` may be left out where the lake has one. Raises ConfigError."""
    with connect(uri, options, pipeline=ALL) as lake:
        videos = lake.sql(
            "SELECT pipeline, video_id, uri, duration_s FROM videos WHERE status IN ('indexed', 'partial')"
        ).read_all()
        names = sorted(set(videos["pipeline"].to_pylist()))
        if pipeline is None and len(names) > 1:
            raise ConfigError(f"{uri}: the lake holds the pipelines {', '.join(names)}; say which is meant.")
        chosen = pipeline or (names[0] if names else "")
        rows = [r for r in videos.to_pylist() if r["pipeline"] == chosen]
        if not rows:
            has = f"; it has {', '.join(names)}" if names else ""
            raise ConfigError(f"{uri}: the lake holds no indexed video of the pipeline {chosen or 'given'}{has}.")
        yield LakeRows(
            lake,
            chosen,
            {r["video_id"]: r["uri"] for r in rows},
            {r["video_id"]: float(r["duration_s"] or 0.0) for r in rows},
        )
