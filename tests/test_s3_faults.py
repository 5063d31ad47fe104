"""The main job over a bad network: the rows of an undisturbed run, or a failure that says what happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.media import make_video
from tests.proxy import Rule, proxy
from tests.s3 import SeaweedFS
from tests.test_end_to_end import job, tables, upload
from vidproc.container import Source
from vidproc.errors import ConfigError, TransientError
from vidproc.query import connect
from vidproc.run import RunSummary, index
from vidproc.runtime.executor import Limits
from vidproc.storage import open_block_reader, open_storage

pytestmark = pytest.mark.slow  # part of `make soak` until each has passed on a quiet machine

IN = r"/[^/]+/[^/]+/in/.+"
LARGE = r"/[^/]+/[^/]+/in/large\.mp4"
LAKE = r"/[^/]+/[^/]+/lake.*"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3-faults")
    make_video(folder / "a.mp4", seconds=2, gop=6)
    make_video(folder / "b.mkv", seconds=2, gop=6)
    make_video(folder / "c.ts", seconds=2, gop=6, format="mpegts")
    make_video(folder / "large.mp4", seconds=3, gop=6, size=(512, 384))
    return folder


@pytest.fixture
def archive(videos: Path, s3_root: Root) -> str:
    return upload(videos, s3_root.below("in"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few attempts, and no long waits between them."""
    monkeypatch.setattr("vidproc.run.Limits", partial(Limits, first_wait_s=0.02, longest_wait_s=0.2, infra_strikes=3))


def run(archive: str, lake: str, endpoint: str | None = None) -> RunSummary:
    execution = {"executor": "inline", "device": "cpu", "publish_videos": 2}
    return index(job(archive, lake, execution=execution, storage={"endpoint_url": endpoint}))


def undisturbed(archive: str, s3_root: Root) -> dict[str, list[dict[str, Any]]]:
    lake = s3_root.below("undisturbed").uri
    assert run(archive, lake).statuses == {"indexed": 4}
    return tables(lake)


def failures(lake: str) -> list[dict[str, Any]]:
    with connect(lake) as database:
        return database.sql("SELECT * FROM failures ORDER BY at").read_all().to_pylist()


@pytest.fixture(scope="module")
def seed() -> Iterator[int]:
    import os
    import random

    chosen = int(os.environ.get("VIDPROC_TEST_SEED") or random.randrange(1 << 32))
    print(f"{chosen = }")
    yield chosen


PASSING = {
    "unavailable": [Rule("503", share=0.05), Rule("slow_down", share=0.05)],
    "cut": [Rule("cut", share=0.08)],
    "answers lost": [Rule("lost", share=0.05)],
    "short bodies": [Rule("short", methods="GET", share=0.15)],
    "sockets that stall": [Rule("stall", path=IN, share=0.2, times=2, seconds=30.0)],
    "all of it": [
        Rule(fault, share=0.02) for fault in ("503", "slow_down", "cut", "lost", "short")
    ],
}  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", PASSING)
def test_what_passes_costs_no_row(case: str, archive: str, s3_root: Root, s3_server: SeaweedFS, seed: int) -> None:
    lake = s3_root.below("lake").uri
    said: list[str] = []
    with proxy(s3_server.endpoint, *PASSING[case], seed=seed) as bad:
        while len(said) < 10:
            try:
                summary = run(archive, lake, bad.endpoint)
            except TransientError as error:  # before work starts, or after it ended
                said.append(str(error))
                continue
            if summary.exit_code == 0:
                break
            said.append(summary.reason)
        print(f"{bad.hits} of {len(bad.requests)} requests failed; {len(said)} runs ended early: {said}")
        assert bad.hits >= 1, "nothing went wrong, so nothing was tested"
    assert all("s3://" in text for text in said)
    assert run(archive, lake).due == 0
    assert tables(lake) == undisturbed(archive, s3_root)


def test_an_object_that_always_comes_short_is_not_taken_for_whole(
    archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    storage = s3_root.below("in").storage
    whole = storage.get("a.mp4")
    with proxy(s3_server.endpoint, Rule("short", methods="GET", times=3)) as bad:
        options = replace(s3_root.options, endpoint_url=bad.endpoint)
        assert open_storage(archive, options=options).get("a.mp4") == whole
        bad.rules(Rule("short", methods="GET"))
        with pytest.raises(TransientError):
            open_storage(archive, options=options).get("a.mp4")
        with pytest.raises(TransientError), open_block_reader(f"{archive}/a.mp4", options, None) as reader:
            reader.read()


@pytest.mark.usefixtures("quick")
def test_a_video_that_never_comes_whole_is_a_failure_and_due_again(
    archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    lake = s3_root.below("lake").uri
    with proxy(s3_server.endpoint, Rule("503", path=IN.replace(".+", "a.mp4"))) as bad:
        summary = run(archive, lake, bad.endpoint)
    assert summary.statuses == {"indexed": 3, "failed": 1} and summary.exit_code == 1
    assert {(f["uri"].rpartition("/")[2], f["error_class"]) for f in failures(lake)} == {("a.mp4", "transient")}
    assert run(archive, lake).due == 1
    assert tables(lake) == undisturbed(archive, s3_root)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("path", "methods", "skip"), [(IN, "GET", 5), (LAKE, "PUT|POST|DELETE", 40), (LAKE, "GET", 60)]
)
def test_a_permission_lost_halfway_is_said_and_costs_nothing(
    path: str, methods: str, skip: int, archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    lake = s3_root.below("lake").uri
    with proxy(s3_server.endpoint, Rule("denied", path=path, methods=methods, skip=skip)) as bad:
        try:
            summary = run(archive, lake, bad.endpoint)
        except ConfigError as error:
            said = str(error)
        else:
            assert summary.exit_code == 1
            said = " ".join([summary.reason, *summary.examples.values()])
        assert bad.hits >= 1
    assert "refused" in said
    assert run(archive, lake).exit_code == 0
    assert tables(lake) == undisturbed(archive, s3_root)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("skip", [0, 2, 5])
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_an_object_that_changes_during_the_run(
    what: str, skip: int, archive: str, s3_root: Root, s3_server: SeaweedFS, videos: Path
) -> None:
    """Never a mixture of two contents: a row that says so, and the next run sees to it."""
    lake, inside = s3_root.below("lake").uri, s3_root.below("in").storage
    content = str(videos / "a.mp4") if what == "replaced" else ""
    uri = inside.uri_of("large.mp4")
    change = Rule("put", path=LARGE, methods="GET", skip=skip, times=1, uri=uri, content=content)
    with proxy(s3_server.endpoint, change) as bad:
        summary = run(archive, lake, bad.endpoint)
        assert bad.hits == 1
    if "failed" in summary.statuses or "partial" in summary.statuses:
        assert summary.errors == {"source_changed": 1}, summary.examples
        assert {f["error_class"] for f in failures(lake)} == {"source_changed"}
    else:  # all was read before
        assert summary.statuses == {"indexed": 4}
    if what == "deleted":
        assert run(archive, lake).due == 0
        inside.put("large.mp4", (videos / "large.mp4").read_bytes())
    assert run(archive, lake).exit_code == 0
    assert bare(tables(lake)) == bare(undisturbed(archive, s3_root))


def bare(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Without the time of the upload, which the same content may have twice."""
    return found | {"videos": [{k: v for k, v in r.items() if k != "modified_at"} for r in found["videos"]]}


def test_a_signature_that_expires_between_two_requests_is_made_anew(
    archive: str, s3_root: Root, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidproc.pipeline.Source", partial(Source, url_seconds=1))
    lake = s3_root.below("lake").uri
    with proxy(s3_server.endpoint, Rule("slow", path=LARGE, methods="GET", times=2, seconds=2.2)) as bad:
        summary = run(archive, lake, bad.endpoint)
        assert bad.hits == 2
    assert (summary.exit_code, summary.statuses) == (0, {"indexed": 4})
    errors = [f["error"] for f in failures(lake)]
    assert errors and all("signature may have expired" in e for e in errors)
    assert tables(lake) == undisturbed(archive, s3_root)
