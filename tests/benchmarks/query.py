"""Latency of questions to a large lake on local disk: one video, and a label within a range of time.

    python -m tests.benchmarks.query                       5 million detections, some 30 s
    python -m tests.benchmarks.query --rows 100_000_000    the size of the promise: 3.2 GB, some 3 minutes

Rows go straight into Parquet as `vidproc compact` leaves it (a day's file ordered by video_id, row groups of
131,072), and into the table's log with their statistics. The answers about a sample of videos and hours
are compared with a plain pyarrow filter over the same files.

How the engine was chosen (5 M rows in 20 files, and 1 M rows in 1,000 files; p50 of one video, ms, two idle cores):

    duckdb 1.5.5, Delta extension        11 in 20 files    8 in 1,000     27 in 1,000 on S3
    read_parquet over the live file list  9                55            865
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from vidproc.ask import LakeDatabase, connect
from vidproc.media import content_hash
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake
from vidproc.tables.schema import load_schema

LABELS = ("person", "car", "bicycle", "dog", "truck", "bus", "bird", "cat")
SHARES = (0.5, 0.25, 0.08, 0.05, 0.05, 0.02, 0.02, 0.03)
FIRST_DAY = date(2026, 1, 1)
ROW_GROUP = 1 << 17
"""As publishing and compaction write them (vidproc/tables/delta.py)."""
FPS = 2.0
A_SAMPLE = 4
"""Detections in a sampled frame."""

VIDEO = "SELECT * FROM detections WHERE video_id = $video_id"
VIDEO_AND_DAY = VIDEO + " AND recorded_date = $day"
URI = "SELECT d.* FROM detections d JOIN videos USING (video_id, pipeline) WHERE uri = $uri"
URI_BY_DAY = "SELECT d.* FROM detections d JOIN videos USING (video_id, pipeline, recorded_date) WHERE uri = $uri"
LABEL_AND_HOUR = """
    SELECT uri, d.* FROM detections d JOIN videos v USING (video_id, pipeline)
    WHERE d.label = $label AND d.score >= 0.5 AND d.recorded_date = $day
        AND v.recorded_at + to_microseconds((d.time_s * 1e6)::BIGINT) BETWEEN $since AND $until
    ORDER BY video_id, time_s LIMIT 1000"""
COUNT_LABEL_AND_WEEK = """
    SELECT recorded_date, count(*) AS n FROM detections
    WHERE label = $label AND recorded_date BETWEEN $day AND $day + 6 GROUP BY ALL ORDER BY ALL"""

QUESTIONS = {
    "one video": VIDEO,
    "one video, its day given": VIDEO_AND_DAY,
    "one video by URI": URI,
    "one video by URI, joined by day too": URI_BY_DAY,
    "a label within an hour, 1,000 rows": LABEL_AND_HOUR,
    "a label within a week, counted by day": COUNT_LABEL_AND_WEEK,
}


@dataclass(frozen=True)
class Latency:
    question: str
    p50_ms: float
    p95_ms: float
    first_ms: float
    cpu_ms: float
    """Median of the process's own time, over all threads: the figure to trust on a busy machine."""
    files: str
    """Data files of `detections` read, of how many."""
    rows: int


def make_lake(folder: Path, rows: int, videos: int, days: int) -> Lake:
    """`rows` detections of `videos` videos, spread evenly over `days` days."""
    from deltalake import CommitProperties, Schema, Transaction
    from deltalake.transaction import AddAction

    from vidproc.tables.delta import APPLICATION

    lake = Lake.create(str(folder), StorageOptions(endpoint_url=None))
    schema = load_schema("detections").stored
    chance = np.random.default_rng(0)
    actions, listed = [], []
    for k in range(days):
        day = FIRST_DAY + timedelta(days=k)
        uris = sorted((f"s3://cameras/{day}/camera-{i:05d}.mp4" for i in range(videos // days)), key=content_hash)
        table = _detections(chance, [content_hash(u) for u in uris], rows // videos, schema)
        listed += [_video(uri, day, i, rows // videos) for i, uri in enumerate(uris)]
        name = f"recorded_date={day}/part-00000-{uuid.uuid4()}-c000.zstd.parquet"
        path = folder / "detections" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=ROW_GROUP)
        statistics = {
            "numRecords": len(table),
            "minValues": {c: pc.min(table[c]).as_py() for c in ("video_id", "label", "time_s")},
            "maxValues": {c: pc.max(table[c]).as_py() for c in ("video_id", "label", "time_s")},
            "nullCount": {c: table[c].null_count for c in table.column_names},
        }
        where = {"recorded_date": str(day)}
        actions.append(
            AddAction(name, path.stat().st_size, where, int(time.time() * 1000), True, json.dumps(statistics))
        )
    lake.tables.open("detections").create_write_transaction(
        actions,
        mode="append",
        schema=Schema.from_arrow(schema),
        partition_by=["recorded_date"],
        commit_properties=CommitProperties(app_transactions=[Transaction(APPLICATION, 1)]),
    )
    stored = load_schema("videos").conform(pa.Table.from_pylist(listed)).sort_by("video_id")
    lake.tables.replace("videos", lambda: iter(stored.to_batches()), None, 1)
    return lake


def _detections(chance: np.random.Generator, video_ids: list[str], each: int, schema: pa.Schema) -> pa.Table:
    """Rows of one day, ordered by video and time, without the partition column."""
    n = len(video_ids) * each
    sample = np.tile(np.arange(each) // A_SAMPLE, len(video_ids))
    kind = chance.choice(len(LABELS), n, p=SHARES).astype(np.int32)
    corner = chance.random((2, n), dtype=np.float32) * 1000
    size = chance.random((2, n), dtype=np.float32) * 200 + 5

    def strings(index: np.ndarray, values: Any) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(values)).cast(pa.string())

    same = np.zeros(n, np.int8)
    columns = {
        "video_id": strings(np.repeat(np.arange(len(video_ids), dtype=np.int32), each), video_ids),
        "pipeline": strings(same, ["default"]),
        "model": strings(same, ["detector@0a1b2c3d"]),
        "time_s": sample / FPS,
        "pts": (sample * 512).astype(np.int64),
        "label": strings(kind.astype(np.int8), LABELS),
        "class_id": kind,
        "score": chance.random(n, dtype=np.float32),
        "x_min": corner[0],
        "y_min": corner[1],
        "x_max": corner[0] + size[0],
        "y_max": corner[1] + size[1],
        "track_id": chance.integers(0, 50, n),
    }
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema if f.name != "recorded_date"})


def _video(uri: str, day: date, i: int, rows: int) -> dict[str, Any]:
    # Videos of a day begin evenly over it.
    recorded_at = datetime(day.year, day.month, day.day, i % 24, tzinfo=UTC)
    return {
        "video_id": content_hash(uri), "pipeline": "default", "uri": uri, "content_id": f"etag:{i}", "size_bytes": 1,
        "duration_s": rows / A_SAMPLE / FPS, "recorded_at": recorded_at, "recorded_date": day, "status": "indexed",
        "coverage": 1.0, "attempts": 1, "frames_decoded": 0, "frames_sampled": 0, "n_detections": rows, "n_tracks": 0,
        "n_actions": 0, "n_segments": 0, "n_shots": 0, "n_embeddings": 0, "pipeline_id": "p", "run_id": "r",
        "indexed_at": recorded_at, "vidproc_version": "0",
    }  # fmt: skip


def asked(seed: int, videos: list[dict[str, Any]], n: int) -> Iterator[dict[str, Any]]:
    """What n people ask for: a video, a label, an hour that begins within that video's day."""
    chance = random.Random(seed)
    for _ in range(n):
        video = chance.choice(videos)
        since = video["recorded_at"] + timedelta(minutes=chance.randrange(-30, 30))
        yield {
            "video_id": video["video_id"],
            "uri": video["uri"],
            "day": video["recorded_date"],
            "label": chance.choice(LABELS),
            "since": since,
            "until": since + timedelta(hours=1),
        }


def ask(db: LakeDatabase, query: str, values: dict[str, Any]) -> pa.Table:
    return db.sql(query, {k: v for k, v in values.items() if f"${k}" in query}).read_all()


def measure(db: LakeDatabase, name: str, query: str, videos: list[dict[str, Any]], n: int, files: int) -> Latency:
    times, cpu, rows = [], [], 0
    for values in asked(1, videos, n):
        started, used = time.perf_counter(), time.process_time()
        rows = ask(db, query, values).num_rows
        times.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - used))
    plan = ask(db, "EXPLAIN ANALYZE " + query, values)["explain_value"][0].as_py()
    # `videos` is one file, so the scan over the most files is that of `detections`.
    read = max(int(n) for n in re.findall(r"Total Files Read: (\d+)", plan))
    p50, p95 = np.percentile(times, [50, 95])
    return Latency(name, float(p50), float(p95), times[0], float(np.median(cpu)), f"{read} of {files}", rows)


def check(db: LakeDatabase, folder: Path, videos: list[dict[str, Any]], n: int) -> int:
    """Compares n answers of two kinds with pyarrow's own filter; gives the number of rows compared."""
    by_id = {v["video_id"]: v for v in videos}
    compared = 0
    for values in asked(2, videos, n):
        [path] = (folder / "detections" / f"recorded_date={values['day']}").glob("*.parquet")
        plain = ds.dataset(path)
        names = plain.schema.names
        want = plain.to_table(filter=ds.field("video_id") == values["video_id"])
        for query in (VIDEO, VIDEO_AND_DAY, URI, URI_BY_DAY):
            got = ask(db, query, values).select(names)
            order = [(c, "ascending") for c in ("time_s", "label", "score", "x_min")]
            if got.sort_by(order) != want.cast(got.schema).sort_by(order):
                raise AssertionError(f"another answer than pyarrow's: {query} {values}")
            compared += got.num_rows
        found = plain.to_table(filter=(ds.field("label") == values["label"]) & (ds.field("score") >= 0.5))
        starts = np.array([by_id[v]["recorded_at"].timestamp() for v in found["video_id"].to_pylist()])
        moments = starts + found["time_s"].to_numpy()
        inside = (moments >= values["since"].timestamp()) & (moments <= values["until"].timestamp())
        hits = ask(db, LABEL_AND_HOUR.replace("LIMIT 1000", ""), values)
        if sorted(hits["score"].to_pylist()) != sorted(found.filter(pa.array(inside))["score"].to_pylist()):
            raise AssertionError(f"another answer than pyarrow's: {LABEL_AND_HOUR} {values}")
        compared += hits.num_rows
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--videos", type=int, help="default: one for 5,000 rows")
    parser.add_argument("--days", type=int, help="default: one for a million rows, at least 20")
    parser.add_argument("--asked", type=int, default=40, help="how often each question is asked, of random videos")
    parser.add_argument("--folder", type=Path, help="where the lake is made, and kept; default: a temporary folder")
    parser.add_argument("--threads", type=int, help="DuckDB's threads; default: one a core")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    days = options.days or max(20, options.rows // 1_000_000)
    videos = options.videos or max(days, options.rows // 5_000)
    temporary = None if options.folder else Path(tempfile.mkdtemp(prefix="vidproc-benchmark-"))
    folder = (options.folder or temporary) / "lake"
    try:
        started = time.perf_counter()
        if not folder.exists():
            make_lake(folder, options.rows, videos, days)
        made_s = time.perf_counter() - started
        sizes = [p.stat().st_size for p in (folder / "detections").rglob("*.parquet")]
        started = time.perf_counter()
        with connect(str(folder), StorageOptions(endpoint_url=None), threads=options.threads) as db:
            connect_s = time.perf_counter() - started
            listed = db.sql("SELECT video_id, uri, recorded_at, recorded_date FROM videos").read_all().to_pylist()
            latencies = [
                measure(db, name, query, listed, options.asked, len(sizes)) for name, query in QUESTIONS.items()
            ]
            compared = check(db, folder, listed, 5)
        summary = {
            "rows": options.rows, "videos": len(listed), "days": days, "bytes": sum(sizes), "made_s": round(made_s, 1),
            "connect_ms": round(1000 * connect_s, 1), "rows_compared_with_pyarrow": compared,
            "questions": [asdict(latency) for latency in latencies],
        }  # fmt: skip
        print(json.dumps(summary, indent=1) if options.json else _text(summary, latencies))
    finally:
        if temporary is not None:
            shutil.rmtree(temporary)


def _text(summary: dict[str, Any], latencies: list[Latency]) -> str:
    lines = [
        f"{summary['rows']:,} detections of {summary['videos']:,} videos on {summary['days']} days, "
        f"{summary['bytes'] / 1e9:.2f} GB; connecting took {summary['connect_ms']:.0f} ms; "
        f"{summary['rows_compared_with_pyarrow']:,} rows of answers equal pyarrow's",
        f"{'question':<40}{'p50 ms':>9}{'p95 ms':>9}{'first ms':>10}{'cpu ms':>8}{'files read':>14}{'rows':>8}",
    ]
    for x in latencies:
        lines.append(
            f"{x.question:<40}{x.p50_ms:>9.1f}{x.p95_ms:>9.1f}{x.first_ms:>10.1f}{x.cpu_ms:>8.1f}{x.files:>14}{x.rows:>8,}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
