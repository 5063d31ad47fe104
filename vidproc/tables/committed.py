"""What a lake has of each video of one pipeline, held in columns: millions of videos fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidproc.errors import Damaged


@dataclass(frozen=True, slots=True)
class CommittedVideo:
    content_id: str
    pipeline_id: str
    status: str
    error_class: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """video_id -> CommittedVideo for one pipeline, in columns: about 80 bytes a video."""

    _ids: np.ndarray = field(repr=False)
    """S12 (n,), ascending: the ids' bytes."""
    _row: np.ndarray = field(repr=False)
    """int32 (n,): where in the columns below its row is."""
    _content: pa.ChunkedArray = field(repr=False)
    _small: tuple[tuple[np.ndarray, list[str | None]], ...] = field(repr=False)
    """pipeline_id, status, error_class: int32 codes (n,) and what they mean."""
    away: Mapping[str, str] = field(default_factory=dict)
    """By video_id: why a video could not be looked at by the last run; the others are not there."""

    @classmethod
    def of(cls, reader: pa.RecordBatchReader) -> Committed:
        """From a stream of these five columns, and `away` where it is there."""
        names = ("pipeline_id", "status", "error_class")
        meanings: dict[str, dict[str | None, int]] = {name: {} for name in names}
        codes: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
        ids: list[np.ndarray] = [np.zeros(0, "S12")]
        content: list[pa.Array] = []
        away: dict[str, str] = {}
        for batch in reader:
            if "away" in batch.schema.names and batch["away"].null_count < batch.num_rows:
                pairs = zip(batch["video_id"].to_pylist(), batch["away"].to_pylist(), strict=True)
                away |= {video_id: why for video_id, why in pairs if why is not None}
            named = batch["video_id"].cast(pa.string())
            if not pc.all(pc.match_substring_regex(named, r"^[0-9a-f]{24}\z"), min_count=0).as_py():
                raise Damaged("`videos` holds a video_id that is none: restore the lake from a copy")
            ids.append(np.frombuffer(bytes.fromhex("".join(named.to_pylist())), "S12"))
            content.append(batch["content_id"].cast(pa.string()))
            for name in names:
                encoded = batch[name].cast(pa.string()).dictionary_encode()
                known = meanings[name]
                table = [known.setdefault(v, len(known)) for v in encoded.dictionary.to_pylist()]
                table.append(known.setdefault(None, len(known)))
                index = pc.fill_null(encoded.indices, len(table) - 1).to_numpy(zero_copy_only=False)
                codes[name].append(np.array(table, np.int32)[index])
        all_ids = np.concatenate(ids)
        row = np.argsort(all_ids, kind="stable").astype(np.int32)
        small = tuple((np.concatenate(codes[name]), list(meanings[name])) for name in names)
        return cls(all_ids[row], row, pa.chunked_array(content, pa.string()), small, away)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        data = self._ids.tobytes()
        for i in range(0, len(data), 12):
            yield data[i : i + 12].hex()

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self.place(video_id) is not None

    def get(self, video_id: str) -> CommittedVideo | None:
        i = self.place(video_id)
        if i is None:
            return None
        pipeline_id, status, error_class = (meaning[codes[i]] for codes, meaning in self._small)
        assert pipeline_id is not None and status is not None
        return CommittedVideo(self._content[i].as_py(), pipeline_id, status, error_class)

    def place(self, video_id: str) -> int | None:
        """Its place among all, from 0: for columns that somebody keeps beside these."""
        try:
            raw = bytes.fromhex(video_id)
        except ValueError:
            return None
        if len(raw) != 12:
            return None
        key = np.array(raw, "S12")
        i = int(np.searchsorted(self._ids, key))
        return int(self._row[i]) if i < len(self._ids) and self._ids[i] == key else None
