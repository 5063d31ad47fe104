"""Whatever sleeps, and whenever it wakes up: no row is lost, and the lake can be written."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import Root
from tests.lakes import RUN, contents, failure, link, outcome
from tests.sleepers import Sleeper, asleep, clock, later
from vidproc.storage import LocalStorage
from vidproc.tables.lake import Lake
from vidproc.tables.publish import RunInfo, publish, recover
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
    number = check_nights(local_root, range(100), lambda effect: a_few(effect, 1))
    print(f"{number} moments tried")
    assert number > 20
