"""Publishing: exactly once over kills between any two side effects, whole videos, two publishers at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.conftest import Root
from tests.support.lakes import CARD, RUN, START, contents, failure, link, objects, outcome
from vidproc.errors import ConfigError, TransientError
from vidproc.storage import LocalStorage, S3Storage
from vidproc.tables import changes
from vidproc.tables.lake import Lake
from vidproc.tables.outcome import VideoOutcome
from vidproc.tables.publish import RunInfo, publish, recover
from vidproc.tables.schema import MODEL_TABLES
from vidproc.tables.staging import Staging

NAMES = ["a", "b", "f", "ünï 'code'", "-e"]


def make(root: Root) -> Lake:
    return Lake.create(root.uri, root.options)


def stage(lake: Lake, names: list[str] = NAMES, **more: Any) -> list[VideoOutcome]:
    return [outcome(name, storage=lake.storage, **more) for name in names]


def test_a_batch_of_whole_videos(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = stage(lake)
    report = publish(lake, batch, link, RUN)
    assert report.number == 1
    assert set(report.published) == {o.video.video_id for o in batch}
    assert report.missing == report.link_failed == ()
    for name in ("detections", "tracks", "actions", "segments", "videos"):
        table = lake.tables.read(name)
        assert table.num_rows == report.rows[name] == lake.status().tables[name].rows
        assert set(table["video_id"].to_pylist()) == set(report.published)
    videos = lake.videos()
    assert videos["uri"].to_pylist() == sorted(o.video.uri for o in batch)
    detections = lake.tables.read("detections")
    counted = {v["values"]: v["counts"] for v in pc.value_counts(detections["video_id"]).to_pylist()}
    assert dict(zip(videos["video_id"].to_pylist(), videos["n_detections"].to_pylist(), strict=True)) == counted
    assert detections["track_id"].null_count == 0
    dates = dict(zip(videos["video_id"].to_pylist(), videos["recorded_date"].to_pylist(), strict=True))
    assert None in dates.values() and len(set(dates.values())) >= 3
    for row in detections.select(["video_id", "recorded_date"]).to_pylist():
        assert row["recorded_date"] == dates[row["video_id"]]
    assert objects(lake.storage) == []


def test_a_link_that_gives_back_what_it_was_given_keeps_all_rows(local_root: Root) -> None:
    lake = make(local_root)
    report = publish(lake, stage(lake), lambda outcome, tables: tables, RUN)
    assert report.rows["detections"] > 0 and report.rows["actions"] > 0
    assert lake.tables.read("detections").num_rows == report.rows["detections"]


def test_nothing_to_publish(local_root: Root) -> None:
    lake = make(local_root)
    assert publish(lake, [], link, RUN).number is None
    assert lake.status().videos == 0


def test_the_same_call_again_changes_nothing(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = [*stage(lake), replace(outcome("bad", tasks=0, status="declined", error="no video"), failures=())]
    batch[-1] = replace(batch[-1], failures=(failure(batch[-1]),))
    publish(lake, batch, link, RUN)
    before = contents(lake)
    again = publish(lake, batch, link, RUN)
    assert again.number is None
    assert set(again.published) == {o.video.video_id for o in batch} and again.missing == ()
    assert contents(lake) == before


def test_a_call_again_removes_what_one_left_that_the_store_cut_off(
    local_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make(local_root)
    batch = stage(lake)
    real, down = LocalStorage.delete, iter([True])

    def delete(self: LocalStorage, keys: Iterable[str]) -> None:
        if next(down, False):
            raise TransientError("the store is gone for a moment")
        real(self, keys)

    monkeypatch.setattr(LocalStorage, "delete", delete)
    with pytest.raises(TransientError):
        publish(lake, batch, link, RUN)
    assert objects(lake.storage) != []
    assert set(publish(lake, batch, link, RUN).published) == {o.video.video_id for o in batch}
    assert objects(lake.storage) == []


def test_reindexing_replaces_in_every_table_also_where_nothing_is_left(lake_root: Root) -> None:
    lake = make(lake_root)
    first = publish(lake, stage(lake), link, RUN)
    run = RunInfo(run_id="run-2", pipeline="night", pipeline_id="pid-22")
    new = outcome("a", content="2", tasks=3, storage=lake.storage, run=run)
    # The second answer for b has nothing in it at all.
    empty = outcome("b", content="2", tasks=0, run=run, status="declined", error="audio only")
    versions = {name: lake.tables.open(name).version() for name in MODEL_TABLES}
    publish(lake, [new, empty], link, run)
    for name in ("detections", "tracks", "actions", "segments"):
        ids = lake.tables.read(name)["video_id"]
        assert new.video.video_id in ids.to_pylist() and empty.video.video_id not in ids.to_pylist()
        assert len(set(ids.to_pylist())) == len(NAMES) - 1
        assert lake.tables.open(name).version() == versions[name] + 1, "one commit a table"
    for name in ("shots", "embeddings"):
        assert lake.tables.open(name).version() == versions[name], "no commit where nothing was nor comes"
    rows = {r["uri"]: r for r in lake.videos().to_pylist()}
    assert len(rows) == len(NAMES) == first.rows["videos"]
    assert (rows[new.video.uri]["content_id"], rows[new.video.uri]["pipeline_id"]) == ("2:1000", "pid-22")
    assert (rows[empty.video.uri]["status"], rows[empty.video.uri]["n_detections"]) == ("declined", 0)
    mine = lake.tables.read("detections", predicate=f"video_id = '{new.video.video_id}'")
    assert mine.num_rows == rows[new.video.uri]["n_detections"]
    assert mine["time_s"].to_pylist() == sorted(mine["time_s"].to_pylist())


def test_pipelines_live_beside_each_other(local_root: Root) -> None:
    lake = make(local_root)
    other = RunInfo(run_id="run-2", pipeline="it's another", pipeline_id="pid-2")
    publish(lake, stage(lake, ["a"]), link, RUN)
    before = contents(lake)["detections"]
    publish(lake, stage(lake, ["a"], run=other), link, other)
    publish(lake, stage(lake, ["a"], run=other, content="2"), link, replace(other, run_id="run-3"))
    assert [r for r in contents(lake)["detections"] if "'night'" in r] == before
    assert lake.status().by_pipeline == {"it's another": 1, "night": 1}
    assert lake.status().videos == 1


def test_a_lost_part_leaves_the_video_as_it_is(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = stage(lake, ["a", "b"])
    Staging(lake.storage, RUN.pipeline_id).discard_tasks([(batch[0].video.video_id, batch[0].task_ids[1])])
    report = publish(lake, batch, link, RUN)
    assert report.missing == (batch[0].video.video_id,)
    assert report.published == (batch[1].video.video_id,)
    assert lake.videos()["uri"].to_pylist() == [batch[1].video.uri]
    assert objects(lake.storage) == [], "a report without its part would be found, and missed, by every later run"


def test_what_another_run_published_is_not_missing(lake_root: Root) -> None:
    lake = make(lake_root)
    batch = stage(lake, ["a", "b"])
    publish(lake, batch, link, RUN)
    report = publish(lake, batch, link, replace(RUN, run_id="run-2"))
    assert (report.published, report.missing) == ((), ())
    assert set(report.elsewhere) == {o.video.video_id for o in batch}


def test_failed_attempts_are_kept_once(lake_root: Root) -> None:
    lake = make(lake_root)
    bad = outcome("a", storage=lake.storage, attempts=3)
    staging = Staging(lake.storage, RUN.pipeline_id)
    staging.put_failure(failure(bad, 1))
    staging.put_failure(failure(bad, 2))
    bad = replace(bad, failures=(failure(bad, 2),))
    publish(lake, [bad], link, RUN)
    assert lake.failures()["attempt"].to_pylist() == [2, 1]
    assert objects(lake.storage) == []
    publish(lake, [outcome("a", content="2", storage=lake.storage)], link, replace(RUN, run_id="run-2"))
    assert lake.failures().num_rows == 2, "failures are history"


def test_a_video_on_which_linking_raises_is_a_row_and_the_others_go_on(local_root: Root) -> None:
    lake = make(local_root)
    batch = stage(lake, ["a", "b", "c"])

    def picky(o: VideoOutcome, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
        if o is batch[1]:
            raise ZeroDivisionError("no frames?Signature=abcdef")
        return link(o, tables) | ({"colours": tables["actions"]} if o is batch[2] else {})

    report = publish(lake, batch, picky, RUN)
    assert set(report.link_failed) == {o.video.video_id for o in batch[1:]}
    rows = {r["uri"]: r for r in lake.videos().to_pylist()}
    assert [rows[o.video.uri]["status"] for o in batch] == ["indexed", "failed", "failed"]
    assert rows[batch[1].video.uri]["error"] == "linking failed: no frames?[redacted]"
    assert "'colours'" in rows[batch[2].video.uri]["error"]
    failures = lake.failures(stage="link").to_pylist()
    assert len(failures) == 2 and all("abcdef" not in f["traceback"] for f in failures)
    assert set(lake.tables.read("detections")["video_id"].to_pylist()) == {batch[0].video.video_id}


def test_names_that_are_not_utf8_have_a_row(local_root: Root) -> None:
    lake = make(local_root)
    bad = outcome(os.fsdecode(b"caf\xe9"), tasks=0, status="failed", error=os.fsdecode(b"caf\xe9?"))
    publish(lake, [replace(bad, failures=(failure(bad),))], link, RUN)
    assert lake.videos()["uri"].to_pylist() == ["s3://archive/caf\\xe9.mp4"]
    assert lake.videos()["video_id"].to_pylist() == [bad.video.video_id]


def test_a_video_twice_in_a_batch_fails(local_root: Root) -> None:
    lake = make(local_root)
    with pytest.raises(ValueError, match="only once"):
        publish(lake, stage(lake, ["a", "a"]), link, RUN)


# --- kills -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Instead of a SIGKILL where a new process for each moment would take too long: after it no side effect
    happens any more, whatever the code tries. Real ones come further down."""


@contextmanager
def killed_before(effect: int) -> Iterator[list[bool]]:
    """Kills before the n-th side effect (0: the first) on storage or tables, between any two that is.
    The list then holds whether it came to that."""
    left, dead = effect, []

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                dead.append(True)
                raise Killed
            left -= 1
            return function(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for storage in (LocalStorage, S3Storage):
            for name in ("put", "delete"):
                patch.setattr(storage, name, counted(getattr(storage, name)))
        patch.setattr(deltalake, "write_deltalake", counted(deltalake.write_deltalake))
        with suppress(Killed):
            yield dead


def _second_night(lake: Lake) -> tuple[list[VideoOutcome], RunInfo]:
    """One video anew, one changed, one that lost its rows, one with a failed attempt."""
    run = RunInfo(run_id="run-2", pipeline="night", pipeline_id="pid-22")
    changed = outcome("a", content="2", storage=lake.storage, run=run)
    gone = outcome("b", content="2", tasks=0, run=run, status="declined", error="audio only")
    new = outcome("new", storage=lake.storage, run=run, attempts=2)
    staged = failure(new, run=run)
    Staging(lake.storage, run.pipeline_id).put_failure(staged)
    return [changed, gone, new], run


def _copy(lake: Lake, root: Root) -> Lake:
    """Another lake with the same objects: cheaper than to index them again."""
    storage = root.storage
    if isinstance(lake.storage, LocalStorage):  # without the syncs of many puts
        shutil.copytree(lake.storage.root, root.uri)
        return Lake.open(root.uri, root.options)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.put(key, lake.storage.get(key)), [o.key for o in lake.storage.list()]))
    return Lake.open(root.uri, root.options)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("place", "every"), [("local", 1), ("s3", 3), pytest.param("s3", 1, marks=pytest.mark.slow)])
def test_killed_between_any_two_side_effects(place: str, every: int, request: pytest.FixtureRequest) -> None:
    lake_root: Root = request.getfixturevalue(f"{place}_root")
    evening = make(lake_root.below("evening"))
    publish(evening, stage(evening), link, RUN)
    old = _videos_by_table(evening)
    batch, run = _second_night(evening)
    calm = _copy(evening, lake_root.below("calm"))
    publish(calm, batch, link, run)
    expected = contents(calm)

    outcomes, died = set(), [True]
    effect = INTENT % every  # so that the moment right after the intent is among them
    while died:
        lake = _copy(evening, lake_root.below(f"killed-{effect}"))
        with killed_before(effect) as died:
            publish(lake, batch, link, run)
        seen = _videos_by_table(lake)
        recovered = recover(lake)
        outcomes.add((len(recovered), seen == old))
        if recovered:
            assert contents(lake) == expected and objects(lake.storage) == []
        report = publish(lake, batch, link, run)
        assert set(report.published) == {o.video.video_id for o in batch} and not report.missing
        assert contents(lake) == expected, f"killed before side effect {effect}"
        assert objects(lake.storage, "_staging/") == []
        effect += every
    # Among the moments: before and after the intent, before and after the first commit, after the last.
    assert effect > 12 and outcomes == {(0, True), (1, True), (1, False), (0, False)}


INTENT = len({"detections", "tracks", "actions", "segments", "failures", "videos"}) + 1
"""Side effects until the intent is written and nothing is committed: the rows of six tables are put before it."""


def _videos_by_table(lake: Lake) -> dict[str, set[str]]:
    return {name: set(lake.tables.read(name, ["video_id"])["video_id"].to_pylist()) for name in MODEL_TABLES}


def test_killed_while_recovering(local_root: Root) -> None:
    evening = make(local_root.below("evening"))
    publish(evening, stage(evening), link, RUN)
    batch, run = _second_night(evening)
    calm = _copy(evening, local_root.below("calm"))
    publish(calm, batch, link, run)
    with killed_before(INTENT) as died:
        publish(evening, batch, link, run)
    deaths = 0
    while died:
        with killed_before(1 + deaths // 2) as died:
            recover(evening)
        deaths += 1
        assert deaths < 40
    assert deaths > 5
    assert contents(evening) == contents(calm)
    assert objects(evening.storage) == []


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.tables.test_publish"])


def _publish_all(environment: dict[str, str], lake: Lake, batches: list[list[VideoOutcome]], effects: Any) -> None:
    os.environ.update(environment)  # the fork server has that of its own start

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            effects.value += 1
            return function(*arguments, **named)

        return call

    for storage in (LocalStorage, S3Storage):
        for name in ("put", "delete"):
            setattr(storage, name, counted(getattr(storage, name)))
    deltalake.write_deltalake = counted(deltalake.write_deltalake)
    for batch in batches:
        publish(lake, batch, link, RUN, patience_s=0.1)
    os._exit(0)


@pytest.mark.timeout(240)
def test_killed_at_random_moments(lake_root: Root) -> None:
    """SIGKILL from outside, within side effects too: the lake equals the undisturbed one."""
    seed = random.randrange(1 << 32)
    print(f"{seed = }")
    chance = random.Random(seed)
    names = [[f"{i}-{j}" for j in range(3)] for i in range(4)]
    calm = make(lake_root.below("undisturbed"))
    for group in names:
        publish(calm, stage(calm, group, tasks=1, frames=2), link, RUN)
    lake = make(lake_root.below("killed"))
    batches = [stage(lake, group, tasks=1, frames=2) for group in names]
    kills = 0
    while True:
        effects = CONTEXT.Value("i", 0, lock=False)
        child = CONTEXT.Process(target=_publish_all, args=(dict(os.environ), lake, batches, effects))
        child.start()
        life = chance.randrange(1, 25)
        while child.is_alive() and effects.value < life:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        if child.exitcode is None:
            os.kill(child.pid or 0, signal.SIGKILL)
            kills += 1
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert contents(lake) == contents(calm)
    recover(lake)
    assert objects(lake.storage, "_staging/") == []


# --- two publishers --------------------------------------------------------------------------------


def _publish_each(
    environment: dict[str, str],
    lake: Lake,
    batches: list[list[VideoOutcome]],
    run: RunInfo,
    gate: Any,
    patience_s: float,
) -> None:
    os.environ.update(environment)
    gate.wait()
    for batch in batches:
        report = publish(lake, batch, link, run, patience_s=patience_s)
        assert len(report.published) == len(batch)
    os._exit(0)


def _together(lake: Lake, jobs: list[tuple[list[list[VideoOutcome]], RunInfo]], patience_s: float) -> None:
    gate = CONTEXT.Barrier(len(jobs))
    children = [
        CONTEXT.Process(target=_publish_each, args=(dict(os.environ), lake, batches, run, gate, patience_s))
        for batches, run in jobs
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [c.exitcode for c in children] == [0] * len(jobs)


@pytest.mark.parametrize("patience_s", [30.0, 0.0], ids=["waiting", "helping"])
def test_two_publishers_of_different_videos(lake_root: Root, patience_s: float) -> None:
    lake = make(lake_root)
    jobs = []
    for job in range(2):
        run = replace(RUN, run_id=f"run-{job}")
        jobs.append(([stage(lake, [f"{job}-{i}-{j}" for j in range(2)], run=run) for i in range(3)], run))
    _together(lake, jobs, patience_s)
    assert lake.status().videos == 12
    calm = make(lake_root.below("elsewhere")) if lake_root.uri.startswith("s3") else make(_sibling(lake_root))
    for batches, run in jobs:
        for batch in batches:
            for o in batch:
                outcome(o.video.uri.removeprefix("s3://archive/").removesuffix(".mp4"), storage=calm.storage, run=run)
            publish(calm, batch, link, run)
    assert contents(lake) == contents(calm)
    assert objects(lake.storage) == []


def _sibling(root: Root) -> Root:
    return Root(root.uri + "-elsewhere", root.options)


@pytest.mark.parametrize("patience_s", [30.0, 0.0], ids=["waiting", "helping"])
def test_of_two_publishers_of_one_video_one_wins_whole(lake_root: Root, patience_s: float) -> None:
    lake = make(lake_root)
    jobs = []
    names = ["a", "b", "c"]
    for job in range(2):
        # Other rows, another number of them, and of different tables.
        run = RunInfo(run_id=f"run-{job}", pipeline="night", pipeline_id=f"pid-{'x' * (job + 1)}")
        batches = [stage(lake, names, run=run, content=f"{i}", frames=3 + job, tasks=1 + job) for i in range(3)]
        jobs.append((batches, run))
    _together(lake, jobs, patience_s)
    videos = {r["video_id"]: r for r in lake.videos().to_pylist()}
    assert len(videos) == 3
    assert len({(r["run_id"], r["content_id"]) for r in videos.values()}) == 1
    row = videos[jobs[0][0][0][0].video.video_id]
    job = int(row["run_id"][-1])
    for name in ("detections", "tracks", "actions", "segments"):
        counts = pc.value_counts(lake.tables.read(name)["video_id"]).to_pylist()
        assert {c["values"]: c["counts"] for c in counts} == {v: r[f"n_{name}"] for v, r in videos.items()}
    calm = make(lake_root.below("elsewhere")) if lake_root.uri.startswith("s3") else make(_sibling(lake_root))
    content = row["content_id"].partition(":")[0]
    again = stage(calm, names, run=jobs[job][1], content=content, frames=3 + job, tasks=1 + job)
    publish(calm, again, link, jobs[job][1])
    assert contents(lake) == contents(calm)


def test_one_who_slept_through_everything_harms_nothing(lake_root: Root) -> None:
    """A publisher stops after writing its intent; others finish it, publish more of the same video, forget
    nothing; then it wakes up and applies its change from the start."""
    lake = make(lake_root)
    batch = stage(lake, ["a", "b"])
    number = changes.turn(lake.tables)

    class Sleepy(Exception):
        pass

    written: list[tuple[int, changes.Change]] = []
    finish = changes.finish

    def sleeping_finish(tables: Any, number: int, change: changes.Change) -> None:
        written.append((number, change))
        raise Sleepy

    changes.finish = sleeping_finish
    try:
        with pytest.raises(Sleepy):
            publish(lake, batch, link, RUN)
    finally:
        changes.finish = finish
    assert written[0][0] == number
    run = replace(RUN, run_id="run-2")
    publish(lake, stage(lake, ["a"], content="2", run=run), link, run, patience_s=0)
    before = contents(lake)
    changes.finish(lake.tables, *written[0])
    assert contents(lake) == before
    assert not changes.take(lake.tables, number, written[0][1]), "a spent number is not taken again"
    assert recover(lake) == [] and contents(lake) == before


def _written_down(lake: Lake, batch: list[VideoOutcome]) -> changes.Change:
    """A publisher dies when its intent is written and nothing is committed."""
    files = len({"detections", "tracks", "actions", "segments", "videos"})
    with killed_before(files + 1) as died:
        publish(lake, batch, link, RUN)
    found = changes.pending(lake.tables)
    assert died and found is not None and found[0] == 1
    return found[1]


@pytest.mark.parametrize("gone", ["detections", "videos"])
def test_a_change_whose_rows_are_gone_is_undone(lake_root: Root, gone: str) -> None:
    """And its author, if it is only asleep, publishes again what is still staged."""
    lake, calm = make(lake_root.below("lake")), make(lake_root.below("calm"))
    publish(calm, stage(calm), link, RUN)
    batch = stage(lake)
    change = _written_down(lake, batch)
    lake.storage.delete([changes.rows_key(change.id, gone)])
    recover(lake)
    assert lake.status().videos == 0 and changes.pending(lake.tables) is None, "nothing stands in the way"
    assert not changes.finish(lake.tables, 1, change), "whoever wakes up later is told"
    assert set(publish(lake, batch, link, RUN).published) == {o.video.video_id for o in batch}
    assert contents(lake) == contents(calm) and objects(lake.storage) == []


def test_a_change_whose_rows_are_gone_and_that_a_table_has_taken_says_so(local_root: Root) -> None:
    lake = make(local_root)
    change = _written_down(lake, stage(lake))
    lake.tables.spend("detections", 1)
    lake.storage.delete([changes.rows_key(change.id, "tracks")])
    with pytest.raises(ConfigError, match=rf"change 1 .* _changes/{change.id}/tracks.parquet are gone.*restore"):
        recover(lake)


def test_readers_never_see_a_part_of_a_video(local_root: Root) -> None:
    """In every snapshot of every table each video has all rows of one generation, or none."""
    lake = make(local_root)
    for generation in range(3):
        run = replace(RUN, run_id=f"run-{generation}")
        publish(lake, stage(lake, ["a", "b"], content=str(generation), frames=4 + generation), link, run)
    for name, moment in (("actions", "start_s"), ("detections", "time_s")):
        table = lake.tables.open(name)
        seen = []
        for version in range(table.version() + 1):
            table.load_as_version(version)
            rows = pa.RecordBatchReader.from_stream(table.scan()).read_all()
            moments = rows.group_by("video_id").aggregate([(moment, "count_distinct")])
            seen.append(sorted(moments[f"{moment}_count_distinct"].to_pylist()))
        # Two tasks of 4, 5 and then 6 sampled frames; the table is made empty.
        assert seen == [[], [8, 8], [10, 10], [12, 12]], name


def test_many_commits_keep_their_numbers_over_checkpoints(local_root: Root) -> None:
    lake = make(local_root)
    for i in range(25):
        run = replace(RUN, run_id=f"run-{i}")
        assert publish(lake, [outcome("a", tasks=0, content=str(i), status="failed")], link, run).number == i + 1
    log = Path(local_root.uri, "videos/_delta_log")
    assert len(list(log.glob("*.checkpoint.parquet"))) >= 2
    assert lake.tables.done("videos") == 25
    assert lake.videos().num_rows == 1


def test_time_of_writing(local_root: Root) -> None:
    lake = make(local_root)
    began = datetime.now(UTC)
    publish(lake, stage(lake, ["a"]), link, RUN)
    row = lake.videos().to_pylist()[0]
    assert began <= row["indexed_at"] <= datetime.now(UTC)
    assert row["modified_at"] == START and row["time_base"] == "1/12800"
    assert lake.tables.read("detections")["model"].unique().to_pylist() == [CARD.ref]
