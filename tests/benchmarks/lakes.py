"""The rows about reading no more than needed, memory that does not grow, and runs with nothing to do."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks import videos
from tests.benchmarks.jobs import index, job
from tests.benchmarks.measure import Cost, Row, Settings, median, run, size
from tests.support.s3 import BUCKET, SeaweedFS

STRETCH_S = 10.0


def stretch(settings: Settings) -> list[Row]:
    """Bytes that come from S3 while 10 s in the middle of a large file are probed, decoded and put into rows."""
    base = videos.drawn(8 if settings.quick else 60, 60)
    total = 30_000_000 if settings.quick else 1_000_000_000
    path = videos.repeated(base, size(total).replace(" ", ""), size_bytes=total)
    folder = Path(tempfile.mkdtemp(prefix="s3-", dir=videos.cache()))
    server = SeaweedFS(folder)
    server.start()
    try:
        server.client().upload_file(str(path), BUCKET, "archive/large.mp4")
        with _counted(server.endpoint) as (endpoint, counter):
            environment = server.environment | {"AWS_ENDPOINT_URL": endpoint}
            command = [sys.executable, "-m", "tests.benchmarks.lakes", f"s3://{BUCKET}/archive"]
            run([*command, "probe"], env=environment)
            probed = counter.received
            cost = run([*command, "all"], env=environment)
            got = counter.received - probed
    finally:
        server.stop()
    a = cost.answer
    own = a["stretch_bytes"]
    allowed = 1.2 * own + 2e6
    row = Row(name="stretch", what="bytes from S3 for 10 s of a large file", target=f"<= {size(allowed)}")
    row.value = size(got)
    row.met = got <= allowed if not settings.quick else None
    row.frames, row.bytes, row.rows, row.peak_bytes = a["frames"], got, a["rows"], cost.peak_bytes
    row.notes += [
        f"{size(path.stat().st_size)}, {a['duration_s'] / 60:.0f} min of 720p25; the stretch ({a['length_s']:.1f} s "
        f"between keyframes) is {size(own)}; allowed 1.2 x that + 2 MB",
        f"listing and probe {size(probed)}, then one task {size(got - probed)}, of which packets "
        f"{size(a['packet_bytes'])}; {counter.connections} connections. Counted between client and server, headers and "
        "what was sent in vain included",
        f"the file's index (moov) is {size(a['index_bytes'])} and is read once to probe and once to decode",
    ]
    return [row]


class _Counter:
    def __init__(self) -> None:
        self.received = self.connections = 0
        self.lock = threading.Lock()

    def add(self, n: int) -> None:
        with self.lock:
            self.received += n


@contextmanager
def _counted(endpoint: str) -> Iterator[tuple[str, _Counter]]:
    """A door in front of the server, which counts what goes through it to the client."""
    url = urlsplit(endpoint)
    counter, door = _Counter(), socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def pump(source: socket.socket, sink: socket.socket, count: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if count:
                    counter.add(len(data))
                sink.sendall(data)
        for s in (source, sink):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while not over.is_set():
            try:
                client, _ = door.accept()
            except OSError:
                return
            # Small buffers: what is under way when the client hangs up was not asked for by it.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            server = socket.create_connection((url.hostname, url.port))
            counter.connections += 1
            threading.Thread(target=pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, True), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", counter
        time.sleep(0.3)
    finally:
        over.set()
        door.close()


def _index_stretch(archive: str, upto: str) -> None:
    """In a process of its own: list and probe, then (`all`) decode and infer one task of some 10 s."""
    from tests.benchmarks.models import Brightness
    from vidproc.media import Video
    from vidproc.models import ModelSettings
    from vidproc.run.pipeline import detect_upright
    from vidproc.storage import StorageOptions
    from vidproc.tables.rows import detections_table
    from vidproc.video.archive import list_videos
    from vidproc.video.container import MediaLimits, Source
    from vidproc.video.decode import decode
    from vidproc.video.plan import CutSettings, cut
    from vidproc.video.probe import probe

    (video,) = [v for v in list_videos(archive, StorageOptions()) if isinstance(v, Video)]
    source, limits, model = Source(StorageOptions()), MediaLimits(), Brightness(ModelSettings())
    info = probe(video, source, limits)
    if upto == "probe":
        return
    tasks = cut(info, CutSettings(clip_seconds=STRETCH_S, clips_per_task=1), [model.card.grid], "p")
    task = tasks[len(tasks) // 2]
    (batch,), report = decode(task, [model.card.grid], source, limits)
    table = detections_table(video.video_id, "p", model.card, batch, detect_upright(model, batch))
    length_s = float((task.range.end_pts - task.range.start_pts) * info.time_base)  # type: ignore[operator]
    per_second = video.size_bytes / info.duration_s
    print(
        json.dumps(
            {
                "duration_s": info.duration_s, "length_s": length_s, "stretch_bytes": round(per_second * length_s),
                "packet_bytes": report.bytes_read, "rows": len(table),
                "frames": report.frames_sampled, "index_bytes": _index_bytes(info.duration_s),
            }
        )
    )  # fmt: skip


def _index_bytes(duration_s: float) -> int:
    """An MP4's index: size (4), composition offset (8) and a share of chunk offsets for each frame."""
    return round(duration_s * videos.FPS * 16)


def second_run(settings: Settings) -> list[Row]:
    """`vidproc index` where everything is there already, less the time of the listing itself."""
    number = 2_000 if settings.quick else 100_000
    folder = Path(tempfile.mkdtemp(prefix="second-", dir=videos.cache()))
    try:
        archive, lake = folder / "archive", folder / "lake"
        _pretend_indexed(archive, lake, number)
        began = time.perf_counter()
        listed = _listed(archive)
        listing_s = time.perf_counter() - began
        found = index(archive, _second_job(), keep=lake)
    finally:
        shutil.rmtree(folder)
    s = found.summary
    if listed != number or s["current"] != number or s["due"]:
        raise RuntimeError(f"{listed} listed; {s['current']} of {number} were current and {s['due']} due")
    after = found.cost.seconds - listing_s
    row = Row(name="second-run", what=f"second run over {number:,} indexed videos, after the listing", target="<= 10 s")
    row.value, row.met = f"{after:.1f} s", None if settings.quick else after <= 10
    row.rows, row.peak_bytes = number, found.cost.peak_bytes
    row.notes += [
        f"the whole command {found.cost.seconds:.1f} s, of it {s['elapsed_s']:.1f} s in the driver; listing the folder "
        f"alone {listing_s:.1f} s; the rest is the start of Python, imports, and describing the model",
        f"CPU of all processes {found.cost.cpu_s:.1f} s",
    ]
    row.figures = {"seconds": found.cost.seconds, "listing_s": listing_s, "elapsed_s": s["elapsed_s"]}
    return [row]


def _second_job() -> dict[str, Any]:
    return job(detector={"model": "tests.benchmarks.models:Brightness"})


def _listed(archive: Path) -> int:
    from vidproc.video.archive import list_videos

    return sum(1 for _ in list_videos(str(archive)))


def _pretend_indexed(archive: Path, lake_path: Path, number: int) -> None:
    """Files of a few bytes, and the rows that indexing them would have left in `videos`."""
    import pyarrow as pa

    from tests.support.media import video_of
    from vidproc.run.pipeline import make_pipeline
    from vidproc.settings import load_job
    from vidproc.tables.lake import Lake
    from vidproc.tables.schema import load_schema

    given = _second_job() | {"archive": str(archive), "lake": str(lake_path)}
    pipeline = make_pipeline(load_job(None, given))
    now = datetime.now(UTC)
    rows = []
    for n in range(number):
        path = archive / f"day-{n % 100:02d}" / f"camera-{n:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a video")
        video = video_of(path)
        rows.append(
            {
                "video_id": video.video_id, "pipeline": pipeline.name, "uri": video.uri, "content_id": video.content_id,
                "size_bytes": video.size_bytes, "duration_s": 60.0, "status": "indexed", "coverage": 1.0, "attempts": 1,
                "frames_decoded": 0, "frames_sampled": 0, "pipeline_id": pipeline.pipeline_id, "run_id": "r",
                "indexed_at": now, "vidproc_version": "0",
                **{f"n_{t}": 0 for t in ("detections", "tracks", "actions", "segments", "shots", "embeddings")},
            }
        )  # fmt: skip
    lake = Lake.create(str(lake_path))
    stored = load_schema("videos").conform(pa.Table.from_pylist(rows)).sort_by("video_id")
    lake.tables.replace("videos", lambda: iter(stored.to_batches()), None, 1)


def memory(settings: Settings) -> list[Row]:
    """Peak memory of every process over ten hours and over ten minutes of the same video."""
    base = videos.drawn(8 if settings.quick else 60, 50, width=320, height=180, crf=30)
    lengths = {"short": 60.0, "long": 600.0} if settings.quick else {"short": 600.0, "long": 36_000.0}
    # The same processes for both, on any machine, and a window of four tasks, which the ten of the short video fill
    # while the model is late.
    wanted = job(
        detector={"model": "tests.benchmarks.models:Late"},
        execution={"workers": 2, "actors": 1},
        limits={"bytes_in_flight": 256 << 20},
    )
    row = Row(name="memory", what="peak memory, 10 h video / 10 min", target="<= 1.05")
    costs: dict[str, list[Cost]] = {}
    for name, seconds in lengths.items():
        path = videos.repeated(base, f"{seconds:g}s", seconds=seconds)
        archive = videos.cache() / f"memory-{seconds:g}s-{videos.VERSION}"
        archive.mkdir(exist_ok=True)
        if not (archive / "video.mp4").exists():
            (archive / "video.mp4").hardlink_to(path)
        # A peak is where two workers happen to be at theirs: in minutes they are, in seconds they may be.
        found = [
            index(archive, wanted, look_every_s=0.25) for _ in range(settings.repetitions if name == "short" else 1)
        ]
        costs[name] = [f.cost for f in found]
        summary = found[0].summary
        row.frames, row.bytes = summary["frames_sampled"], summary["bytes_read"]
        row.rows = sum(summary["rows"].values())
        row.notes.append(
            f"{seconds / 3600:.2f} h: peak {', '.join(f'{c.own_peak_bytes / 1e6:.0f}' for c in costs[name])} MB in "
            f"{costs[name][0].seconds:.0f} s, {row.frames:,} frames sampled, {summary['tasks_done']} tasks"
        )
        settings.say(row.notes[-1])
    peaks = {name: median([c.own_peak_bytes for c in found]) for name, found in costs.items()}
    ratio = peaks["long"] / peaks["short"]
    row.value, row.met = f"{ratio:.3f}", None if settings.quick else ratio <= 1.05
    row.peak_bytes = costs["long"][0].peak_bytes
    # Of the run in the middle, when all processes together were at their peak.
    at_peak = {
        name: sorted(found, key=lambda c: c.own_peak_bytes)[len(found) // 2].own_at_peak
        for name, found in costs.items()
    }
    kinds = {kind: [at_peak[name].get(kind, 0) for name in lengths] for kind in at_peak["long"] | at_peak["short"]}
    grown = sorted(kinds, key=lambda kind: kinds[kind][0] - kinds[kind][1])
    row.notes += [
        "320x180 H.264, two samples a second; memory of driver, Ray and all workers without pages of files. At the "
        "peak of all together, in MB, short and long, from what grew most: "
        + ", ".join(f"{kind} {kinds[kind][0] / 1e6:.0f} {kinds[kind][1] / 1e6:.0f}" for kind in grown),
        "each at its own peak: "
        + ", ".join(
            f"{kind} {' '.join(f'{median([c.own_peaks.get(kind, 0) for c in costs[n]]) / 1e6:.0f}' for n in lengths)}"
            for kind in grown
        ),
    ]
    row.figures = {
        name: [{"peak": c.peak_bytes, "own": c.own_peak_bytes, **c.own_peaks} for c in found]
        for name, found in costs.items()
    }
    return [row]


if __name__ == "__main__":
    _index_stretch(*sys.argv[1:])
