"""Objects that a store or a system refuses: each costs itself, says why, and is due again once it can be read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.media import make_video
from tests.support.odd_store import Odd, odd_store
from tests.support.proxy import Rule, proxy
from tests.support.s3 import SeaweedFS
from tests.whole.test_end_to_end import job, statuses
from vidproc.errors import ConfigError
from vidproc.run.driver import index
from vidproc.run.forecast import forecast
from vidproc.run.release import release
from vidproc.settings import Job
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake
from vidproc.video.archive import Skipped, list_videos

READS = "GET|HEAD"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("refused") / "v.mp4", seconds=0.4).path.read_bytes()


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Which the demuxer reads by itself, over a URL."""
    folder = tmp_path_factory.mktemp("refused")
    return make_video(folder / "v.ts", seconds=2, gop=6, format="mpegts").path.read_bytes()


def night(archive: str, lake: Path, endpoint: str | None = None, **given: Any) -> Job:
    return job(archive, str(lake), actions="none", storage={"endpoint_url": endpoint}, **given)


def failed(lake: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Lake.open(str(lake)).failures().to_pylist()
    return found


# ---- One object is refused --------------------------------------------------------------------------


def test_eighty_denied_objects_before_two_good_ones(
    video: bytes, s3_root: Root, s3_server: SeaweedFS, tmp_path: Path
) -> None:
    inside, lake = s3_root.below("in"), tmp_path / "lake"
    for name in (*(f"a{i:02}" for i in range(80)), "y", "z"):
        inside.storage.put(f"{name}.mp4", video)
    with proxy(s3_server.endpoint, Rule("denied", methods=READS, path=r".*/in/a.+")) as bad:
        summary = index(night(inside.uri, lake, bad.endpoint))
        asked = Counter(path for method, path in bad.requests if "/in/a" in path)
        assert (summary.statuses, summary.errors) == ({"indexed": 2, "failed": 80}, {"denied": 80})
        assert (summary.exit_code, summary.outcome) == (1, "failed") and "80 of 82 videos failed" in summary.reason
        assert len(asked) == 80 and max(asked.values()) <= 2
        rows = failed(lake)
        assert {(r["error_class"], r["attempt"], r["stage"]) for r in rows} == {("denied", 1, "probe")}
        assert len(rows) == 80 and all("AccessDenied" in r["error"] and "credentials" in r["error"] for r in rows)
        found = statuses(str(lake), inside.uri)
        assert Counter(found.values()) == {("failed", "denied"): 80, ("indexed", None): 2}

        bad.rules(Rule("denied", methods=READS, path=r".*/in/a[1-7].+"))
        again = index(night(inside.uri, lake, bad.endpoint))
    assert (again.due, again.current) == (80, 2)
    assert (again.statuses, again.exit_code) == ({"indexed": 10, "failed": 70}, 1)


ONE = {
    "denied": ("failed", "denied", "credentials"),
    "kms": ("failed", "kms", "key that encrypts the object"),
    "kms_gone": ("failed", "kms", "key that encrypts the object"),
    "own_key": ("failed", "kms", "customer's own key"),
    "archived": ("declined", "archived", "restore it"),
}


@pytest.mark.parametrize("skip", [0, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_what_is_refused_of_one_object_costs_that_object(
    skip: int, video: bytes, stream: bytes, s3_root: Root, s3_server: SeaweedFS, tmp_path: Path
) -> None:
    """Whichever of its reads is refused, by whomever it is read."""
    inside, lake = s3_root.below("in"), tmp_path / "lake"
    inside.storage.put("z.mp4", video)
    for answer in ONE:
        inside.storage.put(f"{answer}.mp4", video)
        inside.storage.put(f"{answer}.ts", stream)
    kinds = ("mp4", "ts") if skip < 2 else ("ts",)
    rules = [Rule(answer, methods=READS, path=rf".*/in/{answer}.{kind}", skip=skip) for answer in ONE for kind in kinds]
    with proxy(s3_server.endpoint, *rules) as bad:
        summary = index(night(inside.uri, lake, bad.endpoint))
        found = statuses(str(lake), inside.uri)
        assert found["z.mp4"] == ("indexed", None)
        for name in (f"{answer}.{kind}" for answer in ONE for kind in kinds):
            status, error_class, way_out = ONE[name.partition(".")[0]]
            assert found[name] in ((status, error_class), ("failed", error_class)), name
            (row,) = [r for r in failed(lake) if r["uri"] == f"{inside.uri}/{name}"]
            assert (row["error_class"], row["attempt"]) == (error_class, 1)
            assert way_out in row["error"] and row["error"].startswith(row["uri"])
        assert summary.errors == {"denied": len(kinds), "kms": 3 * len(kinds), "archived": len(kinds)}
        bad.rules()
        assert index(night(inside.uri, lake, bad.endpoint)).statuses == {"indexed": 5 * len(kinds)}


# ---- Nothing may be read ----------------------------------------------------------------------------

ALL = {
    "expired": ("expired_token", "renew it"),
    "clock": ("wrong_clock", "set it"),
    "region": ("wrong_region", "--region"),
    "moved": ("wrong_region", "--region"),
    "revoked": ("unknown_key", "check the credentials"),
    "signature": ("wrong_signature", "check the credentials"),
}


ALIKE = ("moved", "revoked", "signature")
"""In the others' way."""


@pytest.mark.parametrize("answer", [pytest.param(a, marks=pytest.mark.slow) if a in ALIKE else a for a in ALL])
def test_what_is_refused_of_all_objects_stops_the_run_and_is_named(
    answer: str, video: bytes, stream: bytes, s3_root: Root, s3_server: SeaweedFS, tmp_path: Path
) -> None:
    inside, (error_class, way_out), lake = s3_root.below("in"), ALL[answer], tmp_path / "lake"
    for name, data in (("a.ts", stream), ("b.mp4", video)):
        inside.storage.put(name, data)
    given: dict[str, Any] = {"execution": {"publish_videos": 1}}
    with proxy(s3_server.endpoint, Rule(answer, methods=READS, path=r"/[^/]+/?")) as bad:
        with pytest.raises(ConfigError, match=way_out) as refused:
            index(night(inside.uri, lake, bad.endpoint, **given))
        assert refused.value.error_class == error_class and not lake.exists()
        for path, skip in ((r".*/in/a\.ts", 2), (r".*/in/b\.mp4", 0)):
            bad.rules(Rule(answer, methods=READS, path=path, skip=skip))
            before = len(bad.requests)
            try:
                summary = index(night(inside.uri, lake, bad.endpoint, **given))
            except ConfigError as error:
                assert error.error_class == error_class
                said = str(error)
            else:
                assert (summary.exit_code, summary.outcome) == (1, "failed")
                said = summary.reason
            assert way_out in said
            row = failed(lake)[0]
            assert (row["error_class"], row["attempt"]) == (error_class, 1) and way_out in row["error"]
            assert Lake.open(str(lake)).runs().to_pylist()[0]["outcome"] == "failed"
            reads = [p for _, p in bad.requests[before:] if p.endswith((".ts", ".mp4"))]
            assert len(reads) < 20, "nothing was tried again"
        bad.rules()
        assert index(night(inside.uri, lake, bad.endpoint)).exit_code == 0


# ---- Archive tiers ----------------------------------------------------------------------------------


def on_odd(options: StorageOptions, lake: Path, **given: Any) -> Job:
    storage = {"endpoint_url": options.endpoint_url, "anonymous": True}
    return job("s3://odd/in", str(lake), storage=storage, actions="none", **given)


@pytest.mark.parametrize("tier", ["GLACIER", pytest.param("DEEP_ARCHIVE", marks=pytest.mark.slow)])
def test_an_archived_object_is_declined_without_a_read_and_due_once_it_is_restored(
    tier: str, video: bytes, tmp_path: Path
) -> None:
    asked: list[str] = []
    objects = {"in/a.mp4": Odd(video, tier=tier, refused="InvalidObjectState"), "in/z.mp4": Odd(video)}
    with odd_store(objects, asked_for=asked) as options:
        night = on_odd(options, tmp_path / "lake")
        planned = forecast(night.model_copy(update={"lake": None}), calibrate_s=0)
        assert (planned.plan.videos, dict(planned.plan.declined)) == (1, {"archived": 1})
        first = index(night)
        assert (first.exit_code, first.statuses) == (0, {"indexed": 1, "declined": 1})
        row = Lake.open(night.lake).videos(error_class="archived").to_pylist()[0]
        assert (row["status"], row["size_bytes"]) == ("declined", len(video)) and tier in row["error"]
        for state in (None, "true"):
            objects["in/a.mp4"] = Odd(video, tier=tier, restored=state, refused="InvalidObjectState")
            second = index(night)
            assert (second.exit_code, second.due, second.current) == (0, 0, 2)
        assert forecast(night, calibrate_s=0).plan.known == 2
        assert "in/a.mp4" not in asked
        objects["in/a.mp4"] = Odd(video, tier=tier, restored="false")
        assert forecast(night, calibrate_s=0).plan.videos == 1
        third = index(night)
        assert (third.exit_code, third.due, third.statuses) == (0, 1, {"indexed": 1})
        objects["in/a.mp4"] = Odd(video, tier=tier, refused="InvalidObjectState")
        back = index(night)
        assert (back.exit_code, back.due, back.current) == (0, 0, 2), "the answer is of this very content"
    assert statuses(night.lake, "s3://odd/in") == dict.fromkeys(("a.mp4", "z.mp4"), ("indexed", None))


def test_tiers_that_can_be_read_are_read(video: bytes, tmp_path: Path) -> None:
    tiers = ("STANDARD", "STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING", "ARCHIVE", None)
    asked: list[str] = []
    with odd_store({f"in/{tier}.mp4": Odd(video, tier=tier) for tier in tiers}, asked_for=asked) as options:
        assert index(on_odd(options, tmp_path / "lake")).statuses == {"indexed": len(tiers)}


def test_an_intelligent_tier_that_sleeps_is_found_out_by_reading(video: bytes, tmp_path: Path) -> None:
    asked: list[str] = []
    sleeps = Odd(video, tier="INTELLIGENT_TIERING", refused="InvalidObjectState")
    objects = {"in/a.mp4": sleeps, "in/z.mp4": Odd(video)}
    with odd_store(objects, asked_for=asked) as options:
        for due in (2, 1):
            summary = index(on_odd(options, tmp_path / "lake"))
            assert (summary.exit_code, summary.due, summary.errors) == (0, due, {"archived": 1})
        assert asked.count("in/a.mp4") <= 4
        objects["in/a.mp4"] = Odd(video, tier="INTELLIGENT_TIERING", restored="true", refused="InvalidObjectState")
        before = asked.count("in/a.mp4")
        index(on_odd(options, tmp_path / "lake"))
        assert asked.count("in/a.mp4") == before, "the listing says that it is being restored"
        objects["in/a.mp4"] = Odd(video, tier="INTELLIGENT_TIERING")
        assert index(on_odd(options, tmp_path / "lake")).statuses == {"indexed": 1}


def test_a_store_that_does_not_know_of_restoring_is_listed_all_the_same(video: bytes, tmp_path: Path) -> None:
    objects = {"in/a.mp4": Odd(video, tier="GLACIER"), "in/z.mp4": Odd(video)}
    with odd_store(objects, knows_restores=False) as options:
        night = on_odd(options, tmp_path / "lake")
        assert index(night).statuses == {"indexed": 1, "declined": 1}
        assert index(night).due == 0
        assert release(night.lake, options, ("archived",)).videos == {"default": 1}
        assert index(night).statuses == {"indexed": 1}, "who releases it knows that it can be read"
        assert index(night).due == 0


def test_a_plan_knows_what_is_archived(video: bytes, tmp_path: Path) -> None:
    objects = {"in/a.mp4": Odd(video, tier="GLACIER"), "in/z.mp4": Odd(video)}
    with odd_store(objects) as options:
        night = on_odd(options, tmp_path / "lake")
        forecast(night, calibrate_s=0, save=str(tmp_path / "plan"))
        planned = index(night.model_copy(update={"plan": str(tmp_path / "plan")}))
        assert planned.statuses == {"indexed": 1, "declined": 1}
        assert index(night).due == 0


def test_filters_hold_for_what_is_archived(video: bytes) -> None:
    from vidproc.video.archive import Filters

    objects = {"in/a.mp4": Odd(video, tier="GLACIER"), "in/z.mp4": Odd(video)}
    with odd_store(objects) as options:
        assert not [*list_videos("s3://odd/in", options, Filters(min_bytes=len(video) + 1))]
        (archived,) = list_videos("s3://odd/in", options, Filters(include=("a.*",)))
    assert isinstance(archived, Skipped) and archived.video is not None
    assert (archived.video.content_id, archived.video.size_bytes) == (f"1:{len(video)}", len(video))
