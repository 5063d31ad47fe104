"""The contract of an executor, run on each of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.faults import FaultTable, Faulty, ListFeed, seeded_faults, units
from vidproc.errors import ConfigError, RunAborted
from vidproc.runtime.events import AttemptFailed, Event, UnitStarted
from vidproc.runtime.executor import Executor, Limits, PoolSize
from vidproc.runtime.inline import InlineExecutor
from vidproc.runtime.ray.executor import RayExecutor
from vidproc.runtime.step import AnyStep, Resources
from vidproc.runtime.units import Unit, UnitEnd

QUICK = Limits(first_wait_s=0.01, max_quarantined_share=1.0, pools={"infer": PoolSize(1, 1)})


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for all tests of this file; an executor uses one that runs already, and leaves it."""
    executor = RayExecutor("local", num_workers=3)
    executor.start({})
    yield
    executor.close()


@pytest.fixture(params=["inline", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    made: Executor = InlineExecutor() if request.param == "inline" else RayExecutor("local")
    yield made
    made.close()


@pytest.fixture
def no_faults(tmp_path: Path) -> FaultTable:
    return FaultTable({}, tmp_path)


def two_steps(table: FaultTable) -> list[AnyStep]:
    return [Faulty("decode", table), Faulty("infer", table, stateful=True)]


ONCE = {
    "t1": ["error"],
    "t2": ["transient"],
    "t4": ["sysexit"],
    "t5": ["unpicklable"],
    "t6": ["memory"],
}


@pytest.mark.parametrize(
    ("faults", "lost"),
    [
        ({}, {}),
        ({f"infer:{unit}": kinds for unit, kinds in ONCE.items()}, {}),
        ({f"decode:{unit}": kinds for unit, kinds in ONCE.items()}, {}),
        (
            {"t1": ["error"] * 9, "t2": ["media"], "infer:t3": ["sysexit"] * 9, "t4": ["changed"]},
            {"t1": 3, "t2": 1, "t3": 3, "t4": 1},
        ),
        ({"t1": ["transient"] * 3 + ["error"] * 9}, {"t1": 6}),
    ],
    ids=["none", "once late", "once early", "always", "mixed"],
)
def test_each_unit_is_reported_exactly_once(
    executor: Executor, faults: dict[str, Sequence[str]], lost: dict[str, int], tmp_path: Path
) -> None:
    table = FaultTable(faults, tmp_path)
    heard: list[Event] = []
    feed = ListFeed(units(12), stutter=True)
    ends = {e.unit.id: e for e in executor.run(feed, {"task": two_steps(table)}, QUICK, [heard.append])}
    assert len(feed.taken) == len(ends) == 12
    assert {unit: e.attempts for unit, e in ends.items() if e.failure} == lost
    for unit, end in ends.items():
        if not end.failure:
            assert end.result == [unit, "decode", "infer"]
            assert end.seconds.keys() == {"decode", "infer"}
            assert end.attempts == 1 + sum(len(kinds) for cue, kinds in faults.items() if cue.endswith(unit))
    # each failed attempt was an event, and no unit ran more often than it failed
    failed = Counter(e.unit.id for e in heard if isinstance(e, AttemptFailed))
    assert failed == {u: e.attempts - (e.failure is None) for u, e in ends.items() if e.attempts > 1 or e.failure}
    attempts = Counter[str]()
    for cue, count in table.attempts().items():
        attempts[cue.split(":")[1]] += count
    assert attempts == {u: failed[u] + (2 if not e.failure else "infer:" + u in faults) for u, e in ends.items()}
    assert sum(isinstance(e, UnitStarted) for e in heard) == 12


def test_what_a_failed_attempt_says(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({"infer:t0": ["error"] * 3, "t1": ["media"]}, tmp_path)
    heard: list[Event] = []
    for _ in executor.run(ListFeed(units(2)), {"task": two_steps(table)}, QUICK, [heard.append]):
        pass
    failed = [e for e in heard if isinstance(e, AttemptFailed)]
    bug = [e for e in failed if e.unit.id == "t0"]
    assert [e.attempt for e in bug] == [1, 2, 3]
    assert [e.again_in_s for e in bug] == [0.0, 0.0, None]
    assert all(e.blamed and e.fault.stage == "infer" and e.fault.error_class == "internal" for e in bug)
    assert bug[0].fault.error == "ZeroDivisionError: a bug"
    assert "in strike" in (bug[0].fault.traceback or "")
    assert bug[0].fault.host
    (media,) = [e for e in failed if e.unit.id == "t1"]
    assert (media.fault.stage, media.fault.error_class, media.blamed) == ("decode", "decode", False)


def test_strikes_of_earlier_runs_count(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({"old": ["error"] * 9}, tmp_path)
    heard: list[Event] = []
    feed = ListFeed([Unit("old", ["old"], "task", attempts_before=2)])
    (end,) = executor.run(feed, {"task": [Faulty("decode", table)]}, QUICK, [heard.append])
    assert end.failure is not None and end.attempts == 1
    assert [e.attempt for e in heard if isinstance(e, AttemptFailed)] == [3]


class Counting(ListFeed):
    """Knows the most units, by route, and the most bytes that were ever out at once."""

    def __init__(self, due: list[Unit]) -> None:
        super().__init__(due)
        self.out: list[Unit] = []
        self.most: Counter[str] = Counter()
        self.most_bytes = 0

    def take(self, routes: frozenset[str]) -> Unit | None:
        unit = super().take(routes)
        if unit is not None:
            self.out.append(unit)
            self.most |= Counter(u.route for u in self.out)
        return unit

    def ended(self, end: UnitEnd) -> None:
        self.out.remove(end.unit)

    def started(self, event: Event) -> None:
        if isinstance(event, UnitStarted):
            self.admitted = [*getattr(self, "admitted", []), event.unit]
            self.most_bytes = max(self.most_bytes, sum(u.bytes for u in self.admitted if u in self.out))


def test_units_and_bytes_in_flight_are_bounded(executor: Executor, no_faults: FaultTable) -> None:
    feed = Counting(
        units(20, "decode", prefix="d", bytes=10)
        + units(20, "probe", prefix="q")
        + units(3, "decode", prefix="x", bytes=99)
    )
    routes = {"decode": [Faulty("decode", no_faults)], "probe": [Faulty("probe", no_faults)]}
    limits = Limits(max_units=6, route_units={"probe": 4}, max_bytes=35)
    ends = 0
    for end in executor.run(feed, routes, limits, [feed.started]):
        feed.ended(end)
        ends += 1
    assert ends == 43
    assert feed.most["decode"] <= 4 + 1, "three units of 10 bytes fit, and one waits"
    assert feed.most["probe"] == 4
    assert feed.most_bytes == 99, "a unit above the limit runs when no other has bytes"


def test_a_full_route_never_holds_up_another(executor: Executor, no_faults: FaultTable) -> None:
    feed = ListFeed(units(40, "slow", prefix="s") + units(5, "publish", prefix="p"))
    routes = {"slow": [Faulty("slow", no_faults, seconds=0.02)], "publish": [Faulty("publish", no_faults)]}
    started: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, UnitStarted):
            started.append(event.unit.route)

    limits = Limits(route_units={"slow": 4, "publish": 2})
    assert len(list(executor.run(feed, routes, limits, [note]))) == 45
    assert started[:6] == ["slow"] * 4 + ["publish"] * 2, "with 36 slow units due before them"


def test_units_may_follow_from_what_ended(executor: Executor, no_faults: FaultTable) -> None:
    """As publishing follows from the last task of a video: the feed has nothing for a while."""

    class Growing(ListFeed):
        exhausted = False

        def add(self, unit: Unit) -> None:
            self._due.append(unit)

    feed = Growing(units(3))
    routes = {"task": two_steps(no_faults), "publish": [Faulty("publish", no_faults)]}
    done = []
    for end in executor.run(feed, routes, QUICK):
        done.append(end.unit.id)
        if end.unit.route == "task":
            feed.add(Unit(f"p-{end.unit.id}", [end.unit.id], "publish"))
        feed.exhausted = sum(d.startswith("p-") for d in done) == 3
    assert sorted(done) == ["p-t0", "p-t1", "p-t2", "t0", "t1", "t2"]


def test_stop_takes_nothing_more_and_lets_the_running_finish(executor: Executor, no_faults: FaultTable) -> None:
    feed = ListFeed(units(500))
    ends: list[UnitEnd] = []
    stopped_at = taken = 0.0
    for end in executor.run(feed, {"task": [Faulty("decode", no_faults, seconds=0.02)]}, Limits(max_units=8)):
        ends.append(end)
        if len(ends) == 5:
            threading.Thread(target=executor.stop).start()
            time.sleep(0.05)
            stopped_at, taken = time.monotonic(), len(feed.taken)
    assert time.monotonic() - stopped_at < 30  # a stalled machine; what it waits for in vain never ends
    assert len(feed.taken) == taken < 30
    assert {e.unit.id for e in ends} == {u.id for u in feed.taken}


def test_stop_abandons_what_does_not_finish_in_time(executor: Executor, tmp_path: Path) -> None:
    if isinstance(executor, InlineExecutor):
        pytest.skip("in this process a step cannot be interrupted")
    table = FaultTable({"t0": ["hang"]}, tmp_path)
    limits = Limits(grace_s=1.0)
    run = executor.run(ListFeed(units(4)), {"task": [Faulty("decode", table)]}, limits)
    ends = []
    for end in run:
        ends.append(end.unit.id)
        if len(ends) == 3:
            executor.stop()
            stopped_at = time.monotonic()
    assert sorted(ends) == ["t1", "t2", "t3"], "t0 is not reported: it is due again"
    assert 0.5 < time.monotonic() - stopped_at < 30  # t0 hangs for an hour


def test_a_wait_before_a_retry_does_not_outlast_stop(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({"t0": ["transient"] * 9}, tmp_path)
    limits = Limits(first_wait_s=60, longest_wait_s=60)
    started = time.monotonic()

    def stop_at_failure(event: Event) -> None:
        if isinstance(event, AttemptFailed):
            executor.stop()

    ends = list(executor.run(ListFeed(units(1)), {"task": [Faulty("decode", table)]}, limits, [stop_at_failure]))
    assert ends == [] and time.monotonic() - started < 50  # the wait is 60 s


def test_a_wrong_configuration_stops_the_run(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({"t3": ["config"]}, tmp_path)
    with pytest.raises(ConfigError, match="credentials refused: set AWS_PROFILE"):
        list(executor.run(ListFeed(units(50)), {"task": two_steps(table)}, QUICK))


def test_too_many_quarantines_stop_the_run(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({f"t{i}": ["error"] * 3 for i in range(0, 60, 2)}, tmp_path)
    limits = Limits(max_units=4, max_quarantined_share=0.3, min_quarantined=5)
    ends = []
    with pytest.raises(RunAborted, match=r"\d+ of \d+ units were given up"):
        for end in executor.run(ListFeed(units(60)), {"task": [Faulty("decode", table)]}, limits):
            ends.append(end)
    assert 5 <= sum(e.failure is not None for e in ends) <= 9


def test_bad_media_is_no_reason_to_stop_the_run(executor: Executor, tmp_path: Path) -> None:
    table = FaultTable({f"t{i}": ["media"] for i in range(40)}, tmp_path)
    limits = Limits(max_quarantined_share=0.1, min_quarantined=5)
    ends = list(executor.run(ListFeed(units(40)), {"task": [Faulty("decode", table)]}, limits))
    assert len(ends) == 40 and all(e.failure and e.failure.kind == "media" for e in ends)


@pytest.mark.parametrize("stateful", [False, True], ids=["task", "actor"])
def test_a_step_that_cannot_be_set_up_stops_the_run(executor: Executor, stateful: bool, no_faults: FaultTable) -> None:
    broken = Faulty("infer", no_faults, stateful=stateful, setup_fault="config")
    with pytest.raises(ConfigError, match="set AWS_PROFILE"):
        list(executor.run(ListFeed(units(3)), {"task": [Faulty("decode", no_faults), broken]}, QUICK))


def test_a_model_that_never_comes_up_stops_the_run(executor: Executor, no_faults: FaultTable) -> None:
    broken = Faulty("infer", no_faults, stateful=True, setup_fault="error")
    with pytest.raises(RunAborted, match=r"'infer'.*ZeroDivisionError: a bug"):
        list(executor.run(ListFeed(units(3)), {"task": [Faulty("decode", no_faults), broken]}, QUICK))


def test_a_run_that_is_closed_early_leaves_the_executor_usable(executor: Executor, no_faults: FaultTable) -> None:
    run = executor.run(ListFeed(units(100)), {"task": [Faulty("decode", no_faults, seconds=0.01)]}, QUICK)
    next(run)
    run.close()  # type: ignore[attr-defined]
    again = list(executor.run(ListFeed(units(5)), {"task": [Faulty("decode", no_faults)]}, QUICK))
    assert len(again) == 5


class Sum:
    name = "sum"
    needs = Resources()
    stateful = True

    def setup(self) -> None:
        pass

    def __call__(self, item: np.ndarray) -> int:
        return int(item.sum())


class Ones:
    name = "ones"
    needs = Resources()
    stateful = False

    def setup(self) -> None:
        pass

    def __call__(self, item: int) -> np.ndarray:
        return np.ones(item, np.uint8)


def test_outputs_reach_the_next_step(executor: Executor) -> None:
    feed = ListFeed(Unit(f"n{i}", 1_000_000 + i, "task", 1_000_000) for i in range(8))
    ends = executor.run(feed, {"task": [Ones(), Sum()]}, Limits(max_bytes=4_000_000, pools={"sum": PoolSize(1, 1)}))
    assert {e.unit.id: e.result for e in ends} == {f"n{i}": 1_000_000 + i for i in range(8)}


@pytest.mark.parametrize("batch", [4, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_batches_change_nothing(executor: Executor, batch: int, seed: int, tmp_path: Path) -> None:
    due = units(40)
    faults = seeded_faults(seed, [u.id for u in due], ["error", "transient", "media"])
    table = FaultTable(faults, tmp_path)
    limits = Limits(
        first_wait_s=0.01, max_quarantined_share=1, batch={"decode": batch, "infer": batch}, pools=QUICK.pools
    )
    ends = list(executor.run(ListFeed(due), {"task": two_steps(table)}, limits))
    assert Counter(e.unit.id for e in ends) == Counter(u.id for u in due)
    doomed = {u for u, kinds in faults.items() if kinds[0] == "media" or kinds == ["error"] * 3}
    assert {e.unit.id for e in ends if e.failure} >= doomed
    assert all(e.result == [e.unit.id, "decode", "infer"] for e in ends if not e.failure)


def test_a_unit_of_an_unknown_route_is_a_bug(executor: Executor, no_faults: FaultTable) -> None:
    class Wrong(ListFeed):
        def take(self, routes: frozenset[str]) -> Unit | None:
            return Unit("u", ["u"], "nowhere")

    with pytest.raises(ValueError, match="nowhere"):
        list(executor.run(Wrong(units(1)), {"task": [Faulty("decode", no_faults)]}, QUICK))


def test_limits_under_which_nothing_would_run_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Limits(max_units=0)
    with pytest.raises(ConfigError, match="at least one actor"):
        PoolSize(0)
    with pytest.raises(ConfigError, match="no more than its maximum"):
        PoolSize(3, 2)
