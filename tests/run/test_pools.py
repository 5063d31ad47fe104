"""A pool of actors for a model of its own: the same rows, other places."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fakes import Numbers, Order, Pairs
from tests.support.media import make_video
from vidproc.ask import connect
from vidproc.errors import ConfigError
from vidproc.media import Task
from vidproc.models import ModelSettings
from vidproc.run.driver import index
from vidproc.run.executing import pool_sizes
from vidproc.run.forecast import forecast
from vidproc.run.pipeline import Decode, DecodedTask, make_pipeline, routes
from vidproc.run.release import release
from vidproc.runtime.events import said
from vidproc.runtime.executor import Admission, Limits, PoolSize
from vidproc.runtime.ray.sizing import Room, share
from vidproc.runtime.step import Resources
from vidproc.runtime.units import Unit
from vidproc.settings import Job, load_job
from vidproc.storage import StorageOptions, open_storage
from vidproc.tables.publish import RunInfo


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive")
    make_video(made / "a.mp4", seconds=5, gop=12, bframes=2)
    make_video(made / "b.mkv", seconds=3.5, gop=10)
    (made / "c.mp4").write_text("not a video\n")
    return made


def job(archive: Path, lake: Path | str, **given: Any) -> Job:
    base: dict[str, Any] = {
        "detector": {"model": "tests.support.fakes:Numbers"},
        "actions": {"model": "tests.support.fakes:Order"},
        "embedding": {"model": "tests.support.fakes:Pairs"},
        "cut": {"clip_seconds": 1.0},
        "execution": {"executor": "inline"},
    }
    for key, value in given.items():
        base[key] = base.get(key, {}) | value
    return load_job(None, {"archive": str(archive), "lake": str(lake)} | base)


def rows(lake: Path | str) -> dict[str, list[dict[str, Any]]]:
    with connect(str(lake)) as database:
        return {
            table: database.sql(f"SELECT * FROM {table} ORDER BY ALL").read_all().to_pylist()
            for table in ("detections", "tracks", "actions", "segments", "embeddings")
        }


def steps(wanted: Job) -> dict[str, Resources]:
    run = RunInfo(run_id="r", pipeline="default", pipeline_id="p")
    lake = open_storage(wanted.lake)
    made = routes(make_pipeline(wanted), wanted, archive_options=StorageOptions(), lake=lake, run=run)
    return {step.name: step.needs for step in made["task"]}


OWN: dict[str, Any] = {"actions": {"pool": {"num_gpus": 0}}, "embedding": {"pool": {"min": 1, "max": 2}}}


def test_rows_are_equal_with_and_without_pools(archive: Path, tmp_path: Path) -> None:
    together, apart = index(job(archive, tmp_path / "one")), index(job(archive, tmp_path / "own", **OWN))
    assert together.pipeline_id == apart.pipeline_id, "where a model runs is not what it answers"
    assert set(together.busy_s) == {"probe", "decode", "infer", "publish"}
    assert set(apart.busy_s) == {"probe", "decode", "infer", "infer-actions", "infer-embedding", "publish"}
    assert together.statuses == apart.statuses == {"indexed": 2, "declined": 1}
    assert together.tasks_done == apart.tasks_done, "a task is staged once"
    found = rows(tmp_path / "one")
    assert found == rows(tmp_path / "own") and all(found.values())


def test_a_trial_goes_through_all_pools(archive: Path, tmp_path: Path) -> None:
    trial = forecast(job(archive, tmp_path / "lake", **OWN), calibrate_s=5).trial
    assert trial is not None and trial.frames > 0 and trial.row_bytes > 0
    assert set(trial.busy_s) == {"decode", "infer", "infer-actions", "infer-embedding"}


def test_auto_looks_at_the_models_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def describe(spec: str, settings: ModelSettings) -> None:
        asked.append(spec)

    monkeypatch.setattr("vidproc.run.pipeline.describe_model", describe)
    models = {"detector": {"model": "auto", "pool": {"num_gpus": 0}}, "actions": {"model": "auto", "num_gpus": 1}}
    with pytest.raises(ConfigError, match="no model to run"):
        make_pipeline(job(Path("/a"), "/l", embedding={"model": "none"}, **models))
    assert asked == ["ssdlite320_mobilenet_v3_large", "s3d"]


def test_a_pool_takes_what_the_job_says() -> None:
    pool = {"min": 2, "max": 8, "num_gpus": 0.25, "num_cpus": 2, "accelerator_type": "L4", "memory_bytes": 3 << 30}
    wanted = job(Path("/a"), "/l", actions={"pool": pool}, embedding={"model": "none"})
    assert list(steps(wanted)) == ["decode", "infer", "infer-actions"]
    apart = steps(wanted)["infer-actions"]
    assert apart == Resources(
        cpus=2, gpus=0.25, memory_bytes=3 << 30, memory_limit_bytes=4 << 30, accelerator_type="L4", time_limit_s=900
    )
    assert steps(wanted)["infer"].accelerator_type is None
    assert pool_sizes(wanted) == {"infer": PoolSize(1, None), "infer-actions": PoolSize(2, 8)}


def test_each_kind_of_worker_declares_what_it_is_expected_to_use_within_its_limit() -> None:
    wanted = job(Path("/a"), "/l", execution={"memory": {"decode": 1 << 30}})
    declared = {name: (needs.memory_bytes, needs.memory_limit_bytes) for name, needs in steps(wanted).items()}
    assert declared == {"decode": (1 << 30, 4 << 30), "infer": (2 << 30, 4 << 30)}
    small = job(Path("/a"), "/l", limits={"memory_bytes": 1 << 30}, actions={"pool": {"memory_bytes": 3 << 30}})
    asked = {name: (needs.memory_bytes, needs.memory_limit_bytes) for name, needs in steps(small).items()}
    assert asked.pop("infer-actions") == (3 << 30, 3 << 30)
    assert set(asked.values()) == {(1 << 30, 1 << 30)}


def test_gpus_of_models_that_live_together_add_up() -> None:
    wanted = job(Path("/a"), "/l", detector={"num_gpus": 0.5}, actions={"num_gpus": 0.25})
    assert steps(wanted)["infer"].gpus == 0.75
    with pytest.raises(ConfigError, match=r"in one actor add up to 1\.25: above 1 it must be whole"):
        job(Path("/a"), "/l", detector={"num_gpus": 0.75}, actions={"num_gpus": 0.5})


def test_the_example_in_the_nightly_job_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "jobs" / "nightly.yaml").read_text()
    (tmp_path / "job.yaml").write_text(text.replace("# pool:", "pool:"))
    pool = load_job(tmp_path / "job.yaml").actions.pool
    assert pool is not None and (pool.max, pool.num_gpus, pool.accelerator_type) == (8, 0.5, "L4")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"pool": {"min": 3, "max": 2}}, r"`detector.pool`: a pool's max \(2\) may not be less than its min \(3\)"),
        ({"pool": {"gpus": 1}}, r"unknown key `detector.pool.gpus`, did you mean `num_gpus`\?"),
        ({"pool": {"num_gpus": 1}, "num_gpus": 1}, "num_gpus is given twice"),
        ({"pool": {"num_gpus": 1.5}}, "num_gpus above 1 must be a whole number, not 1.5"),
        ({"pool": {"min": 0}}, "`detector.pool.min`"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_by_name(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job(Path("/a"), "/l", detector=model)


def test_gpus_of_another_type_are_no_room() -> None:
    l4, any_gpu = Resources(gpus=1, accelerator_type="L4"), Resources(gpus=1)
    room = Room(cpus=32, gpus=4, memory_bytes=2**40, gpus_of_type={"L4": 2, "H100": 2})
    assert share({"a": l4}, {"a": None}, room, 1) == {"a": 2}
    assert share({"a": any_gpu}, {"a": None}, room, 1) == {"a": 4}
    assert share({"a": l4, "b": any_gpu}, {"a": None, "b": 1}, room, 1) == {"a": 2, "b": 1}
    assert share({"a": l4}, {"a": None}, Room(32, 4, 2**40), 1) == {"a": 1}, "it waits for the autoscaler"


def test_the_window_follows_the_cluster() -> None:
    admission = Admission(["task", "probe"], Limits(max_units=4, route_units={"probe": 3}, max_bytes=100))

    class Endless:
        exhausted = False
        taken = 0

        def take(self, admitted: frozenset[str]) -> Unit | None:
            self.taken += 1
            return Unit(str(self.taken), 0, "task", bytes=40) if "task" in admitted else None

    feed = Endless()

    def admitted() -> int:
        while admission.take(feed):
            pass
        return admission.in_flight

    assert admitted() == 2, "100 bytes a node"
    admission.follow(cpus=8.0, nodes=3, store_bytes=10_000)
    assert admitted() == 7
    admission.follow(cpus=8.0, nodes=30, store_bytes=800)
    assert admitted() == 10, "never more than half of the store"
    admission.follow(cpus=0.5, nodes=1, store_bytes=10**6)
    assert admitted() == 10, "where nodes are lost, what is there is finished first"
    unlimited = Admission(["task"], Limits(max_units=99))
    unlimited.follow(cpus=1.0, nodes=4, store_bytes=1000)
    taken = 0
    while unlimited.take(feed):
        taken += 40
    assert taken == 480, "half of the store"
    assert said({"CPU": 2, "GPU": 0.5, "memory": 4e9, "accelerator_type:L4": 0.001}) == "2 CPU, 0.5 GPU, 4.0 GB, L4"


def test_a_pool_that_this_machine_can_never_hold_is_refused(archive: Path, tmp_path: Path) -> None:
    """No autoscaler will bring a node to a Ray of our own."""
    given: dict[str, Any] = {"detector": {"num_gpus": 0}, "actions": {"pool": {"num_gpus": 64}}}
    wanted = job(archive, tmp_path / "lake", **given, execution={"executor": "ray"})
    with pytest.raises(ConfigError, match=r"step 'infer-actions', which asks for 1 CPU, 64 GPU, 2.1 GB: ask for less"):
        index(wanted)
    with connect(str(tmp_path / "lake")) as database:
        (run,) = database.sql("SELECT outcome, exit_code, reason FROM runs").read_all().to_pylist()
    assert (run["outcome"], run["exit_code"]) == ("failed", 2) and "64 GPU" in run["reason"]


class FragilePairs(Pairs):
    """Ends its process at the sight of frame 13, while it is told to."""

    def embed(self, windows: np.ndarray) -> np.ndarray:
        found = super().embed(windows)
        if os.environ.get("VIDPROC_TEST_FAULT") and (found[:, 0] == 13).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return found


@pytest.mark.timeout(240)
def test_a_crash_in_a_later_pool_costs_its_own_task_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier pools answered is kept for the next attempt; the rows of the others are whole."""
    given: dict[str, Any] = {
        "embedding": {"model": "tests.run.test_pools:FragilePairs", "fps": 25, "pool": {"max": 1}},
        "execution": {"executor": "ray", "address": "local"},
        "limits": {"memory_bytes": 1 << 30},
    }
    monkeypatch.setenv("VIDPROC_TEST_FAULT", "kill")
    summary = index(job(archive, tmp_path / "lake", **given))
    assert summary.statuses == {"partial": 2, "declined": 1} and summary.exit_code == 1
    with connect(str(tmp_path / "lake")) as database:
        failed = database.sql("SELECT stage, error_class, attempt FROM failures WHERE stage <> 'probe' ORDER BY ALL")
        rows_of = failed.read_all().to_pylist()
    assert [(r["stage"], r["error_class"], r["attempt"]) for r in rows_of] == [
        ("infer-embedding", "crash", attempt) for attempt in (1, 1, 2, 2, 3, 3)
    ]
    monkeypatch.setenv("VIDPROC_TEST_FAULT", "")
    release(str(tmp_path / "lake"), StorageOptions(), ())
    assert index(job(archive, tmp_path / "lake", **given)).statuses == {"indexed": 2}
    given["execution"] = {"executor": "inline"}
    index(job(archive, tmp_path / "plain", **given))
    assert rows(tmp_path / "lake") == rows(tmp_path / "plain")


# ---- On several nodes, one of them with a GPU (in name; nothing asks for a real one) ----------------


def _note(what: str) -> None:
    import ray

    Path(os.environ["VIDPROC_TEST_NODES"], f"{what}-{ray.get_runtime_context().get_node_id()}").touch()


@dataclass(frozen=True, kw_only=True)
class NotedDecode(Decode):
    def __call__(self, task: Task) -> DecodedTask:
        _note("decode")
        return Decode.__call__(self, task)


class NotedNumbers(Numbers):
    def detect(self, frames: Any) -> Any:
        _note("detector")
        return super().detect(frames)


class NotedOrder(Order):
    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)

    def classify(self, windows: Any) -> Any:
        _note("actions")
        return super().classify(windows)


def noted_routes(*arguments: Any, **named: Any) -> dict[str, tuple[Any, ...]]:
    """`vidproc.run.pipeline.routes`; decoding leaves a note where it ran."""
    made = dict(routes(*arguments, **named))
    decode, *rest = made["task"]
    made["task"] = (NotedDecode(**{f.name: getattr(decode, f.name) for f in fields(decode)}), *rest)  # type: ignore[arg-type]
    return made


SEVERAL_NODES = """
import os, sys
from pathlib import Path
scratch, archive, lake = map(Path, sys.argv[1:4])
os.environ |= {"RAY_TMPDIR": str(scratch / "ray"), "VIDPROC_TEST_NODES": str(scratch / "nodes"),
               "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
from ray.cluster_utils import Cluster
import vidproc.run.driver, vidproc.runtime.ray.timing
from tests.run import test_pools
from vidproc.progress import Reporter

vidproc.runtime.ray.timing.WAITING_AFTER_S = vidproc.runtime.ray.timing.LOOK_EVERY_S = 1.0
vidproc.run.driver.routes = test_pools.noted_routes
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cpu = cluster.add_node(num_cpus=3, object_store_memory=100 << 20)
gpu = []

class Said(Reporter):
    def say(self, message, **fields):
        print(message, flush=True)
        if message.startswith("infer-actions waits") and not gpu:
            gpu.append(cluster.add_node(
                num_cpus=3, num_gpus=2, resources={"accelerator_type:L4": 1}, object_store_memory=100 << 20
            ))

pool = {"num_gpus": 0.5, "accelerator_type": "L4", "memory_bytes": 256 << 20}
job = test_pools.job(
    archive, lake, detector={"model": "tests.run.test_pools:NotedNumbers", "num_gpus": 0},
    actions={"model": "tests.run.test_pools:NotedOrder", "pool": pool}, limits={"memory_bytes": 512 << 20},
    execution={"executor": "ray", "address": cluster.address, "workers": 2},
)
summary = vidproc.run.driver.index(job, reporter=Said())
assert summary.exit_code == 0, summary
names = {gpu[0].node_id: "gpu", cpu.node_id: "cpu", cluster.head_node.node_id: "head"}
print("ran:", sorted("-".join((note.split("-")[0], names[note.split("-")[1]]))
                      for note in os.listdir(scratch / "nodes")))
cluster.shutdown()
"""


@pytest.mark.timeout(300)
def test_gpu_nodes_infer_while_cpu_nodes_decode_and_a_pool_waits_for_its_node(archive: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vp-", dir="/tmp") as folder:
        for name in ("ray", "nodes"):
            Path(folder, name).mkdir()
        ran = subprocess.run(
            [sys.executable, "-c", SEVERAL_NODES, folder, str(archive), str(tmp_path / "ray")],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    expected = "infer-actions waits for a worker (1 CPU, 0.5 GPU, 0.3 GB, L4): the cluster has no such node yet"
    assert expected in ran.stdout
    places = ran.stdout.rpartition("ran: ")[2]
    assert "'actions-gpu'" in places and "actions-cpu" not in places and "actions-head" not in places
    assert "'decode-cpu'" in places or "'decode-head'" in places
    assert "decode-gpu" not in places, places
    index(job(archive, tmp_path / "plain"))
    assert rows(tmp_path / "plain") == rows(tmp_path / "ray")
