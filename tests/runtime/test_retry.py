from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidproc.errors import ConfigError, Declined, DiskFull, SourceChanged, TransientError, Undecodable
from vidproc.runtime.retry import PASSING, Abort, GiveUp, Kind, Retry, RetryRules, Tally, understand, verdict

RULES = RetryRules(strikes=3, infra_strikes=12, first_wait_s=1.0, longest_wait_s=30.0)
STRIKES: tuple[Kind, ...] = ("crash", "hang", "memory", "exception")


def answers(kinds: list[Kind], rules: RetryRules = RULES, tally: Tally | None = None) -> list[Retry | GiveUp | Abort]:
    """One verdict a failure, up to the first that is not a retry."""
    tally, given = tally or Tally(), []
    for kind in kinds:
        tally = tally.add(kind)
        given.append(verdict(kind, tally, rules))
        if not isinstance(given[-1], Retry):
            break
    return given


@pytest.mark.parametrize("kind", STRIKES)
def test_the_third_strike_is_the_last(kind: Kind) -> None:
    assert answers([kind] * 9) == [Retry(0.0), Retry(0.0), GiveUp()]


@pytest.mark.parametrize("kind", sorted(PASSING))
def test_passing_faults_wait_longer_each_time_and_give_up_at_the_twelfth(kind: Kind) -> None:
    given = answers([kind] * 20)
    assert given == [*map(Retry, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0]), GiveUp()]


def test_a_full_disk_stops_the_run_within_a_minute() -> None:
    given = answers(["full"] * 9)
    assert given[-1] == Abort() and len(given) > 1
    assert sum(a.wait_s for a in given if isinstance(a, Retry)) < 60


def test_four_passing_faults_weigh_as_much_as_one_strike() -> None:
    assert answers(["infrastructure"] * 4 + ["crash", "crash"])[-1] == GiveUp()
    assert answers(["infrastructure"] * 3 + ["crash", "crash"])[-1] == Retry(0.0)


def test_bad_media_is_never_tried_again() -> None:
    assert answers(["media"]) == [GiveUp()]


def test_a_wrong_configuration_stops_the_run() -> None:
    assert answers(["crash", "config"]) == [Retry(0.0), Abort()]


def test_strikes_of_earlier_runs_count() -> None:
    assert answers(["crash"] * 3, tally=Tally(strikes=2)) == [GiveUp()]


@given(st.lists(st.sampled_from([*STRIKES, *PASSING]), min_size=40), st.integers(1, 5), st.integers(1, 20))
def test_every_unit_ends_whatever_befalls_it(kinds: list[Kind], strikes: int, infra: int) -> None:
    rules = RetryRules(strikes=strikes, infra_strikes=infra)
    given_up_after = answers(kinds, rules)
    assert given_up_after[-1] == GiveUp()
    assert min(strikes, infra) <= len(given_up_after) <= max(strikes, infra) + min(strikes, infra)
    assert all(0 <= a.wait_s <= rules.longest_wait_s for a in given_up_after if isinstance(a, Retry))


@pytest.mark.parametrize(
    ("error", "kind", "error_class", "text"),
    [
        (ConfigError("set AWS_PROFILE"), "config", "config", "set AWS_PROFILE"),
        (Undecodable("broken at 3 s"), "media", "decode", "broken at 3 s"),
        (Declined("only sound", "audio_only"), "media", "audio_only", "only sound"),
        (TransientError("timed out"), "transient", "transient", "timed out"),
        (DiskFull("/lake: no room"), "full", "transient", "/lake: no room"),
        (SourceChanged("replaced"), "changed", "source_changed", "replaced"),
        (MemoryError(), "memory", "memory", "MemoryError"),
        (ZeroDivisionError("division by zero"), "exception", "internal", "ZeroDivisionError: division by zero"),
        (SystemExit(3), "exception", "internal", "SystemExit: 3"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else None,
)
def test_what_an_exception_means(error: BaseException, kind: Kind, error_class: str, text: str) -> None:
    fault = understand(error, stage="decode", host="node-1")
    assert (fault.kind, fault.error_class, fault.error) == (kind, error_class, text)
    assert (fault.stage, fault.host) == ("decode", "node-1")
    assert fault.traceback is not None and type(error).__name__ in fault.traceback
