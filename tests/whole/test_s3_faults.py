"""The main job over a bad network: the rows of an undisturbed run, or a failure that says what happened."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import vidproc.storage
from tests.conftest import Root
from tests.support.media import make_video
from tests.support.proxy import Rule, proxy
from tests.support.s3 import BUCKET, SeaweedFS
from tests.whole.test_end_to_end import job, tables, upload
from vidproc.errors import ConfigError, TransientError
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.runtime.executor import Limits
from vidproc.storage import StorageOptions, open_block_reader, open_storage
from vidproc.tables.lake import Lake
from vidproc.video.container import Source

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


@pytest.fixture(scope="module")
def archive(videos: Path, s3_server: SeaweedFS) -> str:
    """Nobody may change it: it is the same for all tests, and so are its rows."""
    return upload(videos, Root(f"s3://{BUCKET}/s3-faults-{os.getpid()}/in", StorageOptions()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few attempts, and no long waits between them."""
    monkeypatch.setattr(
        "vidproc.run.driver.Limits", partial(Limits, first_wait_s=0.02, longest_wait_s=0.2, infra_strikes=3)
    )


def run(archive: str, lake: str, endpoint: str | None = None) -> RunSummary:
    execution = {"executor": "inline", "device": "cpu", "publish_videos": 2}
    return index(job(archive, lake, execution=execution, storage={"endpoint_url": endpoint}))


@cache
def undisturbed(archive: str) -> dict[str, list[dict[str, Any]]]:
    return undisturbed_of(archive, f"{archive}-undisturbed", 4)


def undisturbed_of(archive: str, lake: str, videos: int) -> dict[str, list[dict[str, Any]]]:
    assert run(archive, lake).statuses == {"indexed": videos}
    return tables(lake)


def the_next_run_completes(archive: str, lake: str) -> None:
    """Without the fault: it ends well, and every row is there once."""
    assert run(archive, lake).exit_code == 0
    assert tables(lake) == undisturbed(archive)


def failures(lake: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Lake.open(lake).failures().to_pylist()
    return found


@pytest.fixture(scope="module")
def seed() -> Iterator[int]:
    chosen = int(os.environ.get("VIDPROC_TEST_SEED") or random.randrange(1 << 32))
    print(f"{chosen = }")
    yield chosen


PASSING = {
    "unavailable": [Rule("503", share=0.05), Rule("slow_down", share=0.05)],
    "cut": [Rule("cut", share=0.08)],
    "answers lost": [Rule("lost", share=0.05)],
    "short bodies": [Rule("short", methods="GET", share=0.15)],
    "sockets that stall": [Rule("stall", path=IN, share=0.2, times=1, seconds=30.0)],
    "all of it": [
        Rule(fault, share=0.03) for fault in ("503", "slow_down", "cut", "lost", "short")
    ],
}  # fmt: skip
IN_SHORT = ("short bodies", "sockets that stall", "all of it")
"""The others are in the last of these, in small."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in IN_SHORT else pytest.mark.slow) for case in PASSING],
)
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
    assert tables(lake) == undisturbed(archive)


def test_an_object_that_always_comes_short_is_not_taken_for_whole(
    archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    storage = open_storage(archive)
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
    assert tables(lake) == undisturbed(archive)


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
    the_next_run_completes(archive, lake)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("skip", [150, 200])
def test_a_key_revoked_in_mid_run_is_a_run_that_failed(
    skip: int, archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    """And no bad job, although its end cannot be written down: it had begun."""
    lake = s3_root.below("lake").uri
    Lake.create(lake)
    with proxy(s3_server.endpoint, Rule("revoked", path=f"{IN}|{LAKE}", skip=skip)) as bad:
        summary = run(archive, lake, bad.endpoint)
        assert bad.hits >= 1
    assert (summary.outcome, summary.exit_code) == ("failed", 1)
    assert "access key" in summary.reason
    the_next_run_completes(archive, lake)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("skip", [0, 4])
@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_an_object_that_changes_during_the_run(
    what: str, skip: int, s3_root: Root, s3_server: SeaweedFS, videos: Path
) -> None:
    """Never a mixture of two contents: a row that says so, and the next run sees to it."""
    archive = upload(videos, s3_root.below("in"))
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
    assert bare(tables(lake)) == bare(undisturbed(archive))


def bare(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Without the time of the upload, which the same content may have twice."""
    return found | {"videos": [{k: v for k, v in r.items() if k != "modified_at"} for r in found["videos"]]}


def test_a_signature_that_expires_between_two_requests_is_made_anew(
    archive: str, s3_root: Root, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidproc.run.pipeline.Source", partial(Source, url_seconds=2))
    lake = s3_root.below("lake").uri
    with proxy(s3_server.endpoint, Rule("slow", path=LARGE, methods="GET", times=2, seconds=3.3)) as bad:
        summary = run(archive, lake, bad.endpoint)
        assert bad.hits == 2
    assert (summary.exit_code, summary.statuses) == (0, {"indexed": 4})
    found = failures(lake)
    # FFmpeg may come back with a plain read error from the request that it repeats by itself.
    assert {f["error_class"] for f in found} == {"transient"}
    assert any("signature may have expired" in f["error"] for f in found)
    assert tables(lake) == undisturbed(archive)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("skip", [0, 30])
def test_a_full_disk_is_said_and_what_was_done_is_kept(
    skip: int, archive: str, s3_root: Root, s3_server: SeaweedFS
) -> None:
    lake = s3_root.below("lake").uri
    with proxy(s3_server.endpoint, Rule("full", path=LAKE, methods="PUT|POST", skip=skip)) as bad:
        try:
            summary = run(archive, lake, bad.endpoint)
        except TransientError as error:
            said = str(error)
        else:
            assert summary.exit_code == 1
            said = summary.reason
        assert bad.hits >= 1
    assert "s3://" in said
    the_next_run_completes(archive, lake)


@pytest.mark.usefixtures("quick")
def test_a_listing_that_changes_between_its_pages(s3_root: Root, s3_server: SeaweedFS, videos: Path) -> None:
    """In a bucket of its own, by pages of two: what stays is indexed tonight, what came and went is right
    after the next run."""
    bucket = "vidproc-listing"
    s3_server.client().create_bucket(Bucket=bucket)
    archive, lake = f"s3://{bucket}", s3_root.below("lake").uri
    storage, data = open_storage(archive), (videos / "a.mp4").read_bytes()
    for name in "bdfhjl":
        storage.put(f"{name}.mp4", data)
    listing = partial(Rule, "put", path=f"/{bucket}/?", methods="GET", skip=1, times=1)
    came, went = str(videos / "b.mkv"), ""
    changes = [("a.mp4", came), ("z.mp4", came), ("l.mp4", went), ("j.mp4", str(videos / "large.mp4"))]
    with proxy(s3_server.endpoint, *(listing(uri=f"{archive}/{n}", content=c) for n, c in changes)) as bad:
        options = StorageOptions(endpoint_url=bad.endpoint)
        two = lambda params, **_: params.update(MaxKeys=2)  # noqa: E731
        vidproc.storage.credentials.client(options).meta.events.register("before-parameter-build.s3.ListObjectsV2", two)
        seen = [o.key for o in open_storage(archive, options=options).list()]
        assert bad.hits >= 2, "the listing did not change"
        assert {f"{n}.mp4" for n in "bdfhj"} <= set(seen) and len(seen) == len(set(seen))
        bad.rules(*(listing(uri=f"{archive}/{n}", content=c) for n, c in [("b.mp4", went), ("y.mp4", came)]))
        summary = run(archive, lake, bad.endpoint)
        assert bad.hits >= 4
    assert not set(summary.statuses) - {"indexed", "failed"} and not set(summary.errors) - {"source_changed"}
    run(archive, lake)
    left = {o.key for o in storage.list()}
    assert left == {f"{n}.mp4" for n in "adfhjyz"}

    def of_those_left(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        ids = {v["video_id"] for v in found["videos"] if v["uri"].rpartition("/")[2] in left}
        return {name: [r for r in rows if r["video_id"] in ids] for name, rows in found.items()}

    assert of_those_left(tables(lake)) == undisturbed_of(archive, s3_root.below("calm").uri, len(left))
