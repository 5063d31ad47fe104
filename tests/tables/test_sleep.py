"""Whatever sleeps, and whenever it wakes up: no row is lost, and the lake can be written."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.lakes import RUN, START, contents, failure, link, outcome
from tests.support.media import make_video
from tests.support.sleepers import Sleeper, asleep, clock, later
from tests.whole.test_end_to_end import job, tables
from vidproc.media import content_hash
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.storage import LocalStorage, open_storage
from vidproc.tables.lake import Lake
from vidproc.tables.publish import PublishReport, RunInfo, publish, recover
from vidproc.tables.staging import Staging

NIGHT = RunInfo(run_id="run-2", pipeline="night", pipeline_id="pid-22")
OTHER = RunInfo(run_id="run-3", pipeline="other", pipeline_id="pid-33")
CLOCKS = [timedelta(0), *(timedelta(minutes=m) for m in (2, -2)), *(timedelta(hours=h) for h in (25, -25))]
OPTIONS = [(timedelta(hours=24), False), (timedelta(0), False), (timedelta(hours=24), True), (timedelta(0), True)]
"""Of vacuum: the age, and whether it believes to be alone."""


@dataclass(frozen=True)
class Moment:
    """What happens while somebody sleeps."""

    effect: int
    option: tuple[timedelta, bool]
    its_clock: timedelta
    """How wrong the clock of the one who sleeps is."""
    our_clock: timedelta
    slept: timedelta
    """By the store's clock."""
    another_first: bool
    """Whether another job publishes before the sleeper wakes up."""


def moments(effect: int) -> Iterator[Moment]:
    """The whole product for one side effect."""
    clocks = [(c, timedelta(0)) for c in CLOCKS] + [(timedelta(0), c) for c in CLOCKS[1:]]
    for option, (its, ours), hours, first in itertools.product(OPTIONS, clocks, (0, 25), (False, True)):
        yield Moment(effect, option, its, ours, timedelta(hours=hours), first)


def a_few(effect: int, most: int) -> list[Moment]:
    """Other ones for each effect; over all effects each choice meets each."""
    everything = list(moments(effect))
    step = 37  # prime to their number, so that all of them come before one comes again
    return [everything[(effect * most + i) * step % len(everything)] for i in range(most)]


def evening(root: Root) -> Lake:
    lake = Lake.create(root.uri, root.options)
    publish(lake, [outcome(n, storage=lake.storage, tasks=1, frames=3) for n in "ab"], link, RUN)
    publish(lake, [outcome("b", storage=lake.storage, tasks=1, frames=3, content="2")], link, RUN)
    return lake


def scattered(root: Root) -> Lake:
    """More files than compaction leaves."""
    lake = evening(root)
    for name in "cde":
        publish(lake, [outcome(name, storage=lake.storage, tasks=1, frames=3)], link, RUN)
    return lake


def copied(lake: Lake, root: Root) -> Lake:
    if isinstance(lake.storage, LocalStorage):
        shutil.copytree(lake.storage.root, root.uri)
    else:
        storage = root.storage
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: storage.put(key, lake.storage.get(key)), [o.key for o in lake.storage.list()]))
    return Lake.open(root.uri, root.options)


def night(lake: Lake) -> Any:
    """What one run does in a lake: stages, with a strike, and publishes; a video anew, one changed, one without
    rows. -> its report."""
    new = outcome("new", storage=lake.storage, run=NIGHT, tasks=1, frames=3, attempts=2)
    Staging(lake.storage, NIGHT.pipeline_id).put_failure(failure(new, run=NIGHT))
    changed = outcome("a", content="2", storage=lake.storage, run=NIGHT, tasks=1, frames=3)
    gone = outcome("b", content="3", tasks=0, run=NIGHT, status="declined", error="audio only")
    return publish(lake, [changed, gone, new], link, NIGHT)


def others(lake: Lake) -> None:
    publish(lake, [outcome("z", storage=lake.storage, run=OTHER, tasks=1, frames=3)], link, OTHER, patience_s=0)


def while_it_sleeps(lake: Lake, moment: Moment) -> None:
    with clock(moment.our_clock), later(moment.slept):
        age, exclusive = moment.option
        lake.vacuum(age, exclusive=exclusive, patience_s=0)
    if moment.another_first:
        others(lake)


def tried(
    act: Callable[[Lake], Any], prepared: Lake, root: Root, effects: range, some: Callable[[int], list[Moment]]
) -> Iterator[tuple[Moment, Lake, Sleeper]]:
    for effect in effects:
        for i, moment in enumerate(some(effect)):
            lake = copied(prepared, root.below(f"{effect}-{i}"))
            with asleep(lambda lake=lake: act(lake), effect, moment.its_clock) as sleeper:  # type: ignore[misc]
                while_it_sleeps(lake, moment)
            yield moment, lake, sleeper
            if isinstance(lake.storage, LocalStorage):
                shutil.rmtree(lake.storage.root)
            if not sleeper.slept:
                return


def expected(prepared: Lake, act: Callable[[Lake], Any], root: Root, another: bool) -> dict[str, Any]:
    calm = copied(prepared, root)
    act(calm)
    if another:
        others(calm)
    return contents(calm)


def check_nights(root: Root, effects: range, some: Callable[[int], list[Moment]]) -> int:
    prepared = evening(root.below("evening"))
    wanted = {again: expected(prepared, night, root.below(f"calm-{again}"), again) for again in (False, True)}
    number = 0
    for moment, lake, sleeper in tried(night, prepared, root, effects, some):
        number += 1
        assert sleeper.error is None, moment
        rows = wanted[moment.another_first]
        if contents(lake) != rows:
            # A part that it had staged was old enough to be taken away. It says so, and the same job does it again.
            assert sleeper.answer.missing, moment
            missing = set(sleeper.answer.missing)
            present = {r["video_id"] for r in lake.videos(pipeline="night").to_pylist() if r["run_id"] == "run-2"}
            assert not missing & present, moment
            again = night(lake)
            assert not again.missing, moment
        # A strike that was taken away before its video was published is the one thing that may be less.
        have, want = contents(lake), dict(rows)
        if moment.slept:
            assert set(have.pop("failures")) <= set(want.pop("failures")), moment
        assert have == want, moment
        others(lake)
        assert recover(lake) == []
        assert lake.vacuum(timedelta(0), exclusive=True).files.keys() == wanted[True].keys(), "the lake can be written"
        assert lake.videos(pipeline="other").num_rows == 1
    return number


@pytest.mark.timeout(900)
def test_a_run_that_slept(local_root: Root) -> None:
    """Stopped before each of its side effects once, each time with another vacuum and other clocks."""
    number = check_nights(local_root, range(100), lambda effect: a_few(effect, 1))
    print(f"{number} moments tried")
    assert number > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_slept_on_s3(s3_root: Root) -> None:
    number = check_nights(s3_root, range(2, 22, 5), lambda effect: a_few(effect, 1))
    assert number == 4


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_a_run_that_slept_over_everything(lake_root: Root) -> None:
    """Side effects x options x clocks x sleeps x whether another job came first."""
    number = check_nights(lake_root, range(100), lambda effect: list(moments(effect)))
    print(f"{number} moments tried")
    assert number > 20 * 144


# --- whole runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for i in range(2):
        make_video(folder / f"{i}.mp4", seconds=1, gop=6)
    return folder


def check_jobs(archive: str, root: Root, effects: Iterable[int], some: Callable[[int], list[Moment]]) -> int:
    """The same with `vidproc index` from its first side effect, the lake's marker, to its last."""

    def indexed(lake: str) -> RunSummary:
        given = {"cut": {"clip_seconds": 0.5}, "execution": {"executor": "inline", "device": "cpu"}}
        return index(
            job(archive, lake, detector="tests.support.fakes:Slow", actions="tests.support.fakes:Order", **given)
        )

    calm = root.below("calm")
    assert indexed(calm.uri).exit_code == 0
    wanted = tables(calm.uri)
    number = 0
    for effect in effects:
        for i, moment in enumerate(some(effect)):
            number += 1
            uri = root.below(f"{effect}-{i}").uri
            with asleep(lambda uri=uri: indexed(uri), effect, moment.its_clock) as sleeper:  # type: ignore[misc]
                if open_storage(uri).exists("vidproc.json"):
                    lake = Lake.create(uri)  # another job may have begun at the same time
                    while_it_sleeps(lake, moment)
            assert sleeper.error is None and sleeper.answer is not None, moment
            if sleeper.answer.exit_code == 0:
                assert sum(sleeper.answer.statuses.values()) == 2, moment
            else:
                assert "run the same command again" in sleeper.answer.reason, moment
                assert indexed(uri).exit_code == 0, moment
            assert {name: mine(rows) for name, rows in tables(uri).items()} == wanted, moment
            assert indexed(uri).due == 0, moment
            if not sleeper.slept:
                return number
    return number


def mine(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["video_id"] != content_hash("s3://archive/z.mp4")]


@pytest.mark.timeout(900)
def test_a_job_that_slept(archive: Path, local_root: Root) -> None:
    effects = range(0, 40, 6)
    assert check_jobs(str(archive), local_root, effects, lambda effect: a_few(effect, 1)) > 5


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_a_job_that_slept_before_each_side_effect(archive: Path, lake_root: Root) -> None:
    number = check_jobs(str(archive), lake_root, range(100), lambda effect: a_few(effect, 6))
    print(f"{number} moments tried")
    assert number > 30 * 6


# --- upkeep that sleeps ----------------------------------------------------------------------------------


def check_upkeep(root: Root, name: str, some: Callable[[int], list[Moment]]) -> int:
    """Who tidies sleeps, and a night comes and goes, vacuum too."""
    act, prepared = UPKEEP[name], (scattered if name == "compact" else evening)(root.below("evening"))
    calm = copied(prepared, root.below("calm"))
    act(calm)
    night(calm)
    others(calm)
    wanted = contents(calm)
    number = 0
    for effect in range(100):
        for i, moment in enumerate(some(effect)):
            number += 1
            lake = copied(prepared, root.below(f"{effect}-{i}"))
            with asleep(lambda lake=lake: act(lake), effect, moment.its_clock) as sleeper:  # type: ignore[misc]
                report = night_without_patience(lake)
                while_it_sleeps(lake, replace(moment, another_first=True))
            assert sleeper.error is None and not report.missing, moment
            assert contents(lake) == wanted, moment
            others(lake)
            lake.vacuum(timedelta(0), exclusive=True)
            assert contents(lake) == wanted, moment
            shutil.rmtree(lake.storage.root) if isinstance(lake.storage, LocalStorage) else None
            if not sleeper.slept:
                return number
    return number


def night_without_patience(lake: Lake) -> PublishReport:
    recover(lake)
    report: PublishReport = night(lake)
    return report


UPKEEP: dict[str, Callable[[Lake], Any]] = {
    "vacuum": lambda lake: lake.vacuum(timedelta(0), exclusive=True, patience_s=0),
    "compact": lambda lake: lake.compact(),
    "record_run": lambda lake: lake.record_run(
        {"run_id": "r", "pipeline": "night", "pipeline_id": "p", "command": "c", "outcome": "ok", "started_at": START}
    ),
}


@pytest.mark.parametrize("act", UPKEEP)
@pytest.mark.timeout(900)
def test_upkeep_that_slept(act: str, local_root: Root) -> None:
    assert check_upkeep(local_root, act, lambda effect: a_few(effect, 1)[: effect % 7 == 0]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("act", UPKEEP)
@pytest.mark.timeout(6 * 3600)
def test_upkeep_that_slept_before_each_side_effect(act: str, lake_root: Root) -> None:
    number = check_upkeep(lake_root, act, lambda effect: a_few(effect, 6))
    print(f"{number} moments tried")
    assert number > 6, "it has side effects"
