"""Whoever may write into a lake, or hands one over, leads no command out of it.

Each forgery points at a canary that lies beside the lake. Whatever the command, the canary's content is in no
output, its bytes stay, the command ends, and what it says is one sentence with exit code 2."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Root
from tests.support.lakes import RUN, contents, link, outcome
from vidproc import cli
from vidproc.ask import connect
from vidproc.errors import Forged, VidprocError
from vidproc.run.release import release
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake
from vidproc.tables.publish import publish, recover
from vidproc.tables.staging import Staging

SECRET = "canary-7f3a"
"""Stands in rows, in names and in texts of the canary; nothing may print it."""


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of four videos, and beside it another with the canary's rows."""
    place = tmp_path_factory.mktemp("forged")
    for name, videos in (("lake", "abcd"), ("outside", "x")):
        lake = Lake.create(str(place / name))
        named = [f"{SECRET}-{v}" if name == "outside" else v for v in videos]
        publish(lake, [outcome(v, storage=lake.storage) for v in named], link, RUN)
    (place / "outside" / "secret.txt").write_text(SECRET)
    return place


class Place:
    """A copy of the lake and of the canary: free to be forged."""

    def __init__(self, place: Path) -> None:
        self.lake, self.outside = place / "lake", place / "outside"
        self.canary = next(self.outside.glob("videos/*.parquet"))
        self.uri = str(self.lake)

    def log(self, table: str = "videos") -> Path:
        return self.lake / table / "_delta_log"

    def commit(self, *actions: dict[str, Any] | str, table: str = "videos") -> None:
        """As the table's next entry."""
        number = 1 + max(int(p.name[:20]) for p in self.log(table).glob("*.json"))
        lines = [a if isinstance(a, str) else json.dumps(a) for a in actions]
        (self.log(table) / f"{number:020d}.json").write_text("\n".join(lines) + "\n")

    def add(self, path: str, **more: Any) -> dict[str, Any]:
        body = {
            "path": path, "partitionValues": {}, "size": self.canary.stat().st_size, "modificationTime": 1,
            "dataChange": True, "stats": json.dumps({"numRecords": 1}),
        }  # fmt: skip
        return {"add": body | more}

    def outside_is_as_it_was(self) -> bool:
        return self._seen == self._look()

    def remember(self) -> None:
        self._seen = self._look()

    def _look(self) -> dict[str, bytes | str]:
        """Of all that lies outside of the lake: bytes, or where links lead."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.outside.rglob("*")):
            name = str(path.relative_to(self.outside))
            found[name] = "folder" if path.is_dir() else path.read_bytes()
        return found


@pytest.fixture
def place(pattern: Path, tmp_path: Path) -> Iterator[Place]:
    shutil.copytree(pattern, tmp_path / "p")
    made = Place(tmp_path / "p")
    made.remember()
    yield made
    shutil.rmtree(tmp_path)


# --- the commands ------------------------------------------------------------------------------------------


def python_calls(uri: str) -> list[str]:
    lake = Lake.open(uri)
    return [str(lake.status()), str(lake.videos().to_pylist()), str(contents(lake)), str(lake.committed("night"))]


COMMANDS: dict[str, list[str]] = {
    "status": ["status", "LAKE", "--json"],
    "failures": ["failures", "LAKE", "--json"],
    "runs": ["runs", "LAKE", "--json"],
    "retry": ["retry", "LAKE", "--no-run"],
    "query": ["query", "LAKE", "SELECT * FROM videos"],
    "search": ["search", "LAKE", "--label", "cat"],
    "compact": ["compact", "LAKE"],
    "vacuum": ["vacuum", "LAKE", "--now"],
    "forget": ["forget", "LAKE", "s3://archive/a.mp4"],
}


def command(name: str, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs it as a user does, in this process -> its exit code. No traceback, nothing of the canary."""
    arguments = [place.uri if a == "LAKE" else a for a in COMMANDS[name]]
    monkeypatch.setattr(sys, "argv", ["vidproc", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "Traceback" not in said.err
    code = ended.value.code
    assert isinstance(code, int)
    if code:
        assert len(said.err.strip().splitlines()) == 1, said.err
        assert place.uri in said.err
    return code


# --- the forgeries -----------------------------------------------------------------------------------------


PATHS = {
    "absolute": "{canary}",
    "file url": "file://{canary}",
    "file url of a host": "file://localhost{canary}",
    "upper case": "FILE://{canary}",
    "other bucket": "s3://other-bucket/x.parquet",
    "web": "http://127.0.0.1:9/x.parquet",
    "above": "../../outside/videos/{name}",
    "above, further in": "recorded_date=2026-03-02/../../../outside/videos/{name}",
    "percent": "%2e%2e/%2e%2e/outside/videos/{name}",
    "percent slash": "..%2F..%2Foutside%2Fvideos%2F{name}",
    "percent twice": "%252e%252e/%252e%252e/outside/videos/{name}",
    "backslashes": "..\\..\\outside\\videos\\{name}",
    "another table": "../runs/{name}",
    "the log": "_delta_log/00000000000000000000.json",
    "hidden": ".hidden.parquet",
    "NUL": "a\0b.parquet",
    "newline": "a.parquet\n",
    "empty": "",
    "a dot": "./a.parquet",
    "two slashes": "a//b.parquet",
    "two slashes before": "//outside/x.parquet",
    "too long": "a" * 5000,
}


def path_of(place: Place, kind: str) -> str:
    return PATHS[kind].format(canary=place.canary, name=place.canary.name)


def vector(storage: str, where: str) -> dict[str, Any]:
    return {"storageType": storage, "pathOrInlineDv": where, "offset": 1, "sizeInBytes": 36, "cardinality": 1}


def own_file(place: Place) -> str:
    return next(p.name for p in (place.lake / "videos").glob("*.parquet"))


def checkpoint(place: Place, change: Callable[[pa.Table], pa.Table], name: str = "") -> None:
    """Puts the table's checkpoint, as changed, in place of its entries."""
    DeltaTable(str(place.lake / "videos")).create_checkpoint()
    (path,) = place.log().glob("*.checkpoint.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    if name:
        path.rename(path.with_name(name))
        (place.log() / "_last_checkpoint").unlink()
    for entry in place.log().glob("*.json"):
        entry.unlink()


def replaced(table: pa.Table, column: str, new: Callable[[dict[str, Any]], dict[str, Any]]) -> pa.Table:
    """The checkpoint with another value in each row that has one in this column."""
    values = [None if v is None else new(v) for v in table[column].to_pylist()]
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def with_sidecar(path: str) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        kind = pa.struct([("path", pa.string()), ("sizeInBytes", pa.int64()), ("modificationTime", pa.int64())])
        values = [{"path": path, "sizeInBytes": 1, "modificationTime": 1}, *[None] * (table.num_rows - 1)]
        if "sidecar" in table.column_names:
            table = table.drop_columns(["sidecar"])
        return table.append_column("sidecar", pa.array(values, kind))

    return change


def protocol(reader: int, writer: int, *features: str) -> dict[str, Any]:
    return {"protocol": {"minReaderVersion": reader, "minWriterVersion": writer, "readerFeatures": list(features) or
                         None, "writerFeatures": list(features) or None}}  # fmt: skip


def configured(place: Place, **more: str) -> dict[str, Any]:
    for line in (place.log() / f"{0:020d}.json").read_text().splitlines():
        action = json.loads(line)
        if "metaData" in action:
            action["metaData"]["configuration"] |= {k.replace("__", "."): v for k, v in more.items()}
            found: dict[str, Any] = action
    return found


def moved_out(place: Place, what: str) -> None:
    """Puts a link in the place of a part of the lake, to the same outside."""
    inside = place.lake / what
    target = place.outside / "moved"
    shutil.move(inside, target)
    inside.symlink_to(target)
    place.remember()


def piped(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def replaced_log(place: Place) -> None:
    shutil.rmtree(place.log())
    shutil.copytree(place.log("runs"), place.log())


FORGERIES: dict[str, Callable[[Place], object]] = {
    **{
        f"add: {kind}": lambda p, kind=kind: p.commit(p.add(path_of(p, kind)))  # type: ignore[misc]
        for kind in PATHS
    },
    "remove": lambda p: p.commit({"remove": {"path": str(p.canary), "dataChange": True, "deletionTimestamp": 1}}),
    "cdc": lambda p: p.commit({"cdc": {"path": str(p.canary), "partitionValues": {}, "size": 1, "dataChange": False}}),
    "cdc inside": lambda p: p.commit({"cdc": {"path": own_file(p), "partitionValues": {}, "size": 1}}),
    "two in one line": lambda p: p.commit(json.dumps(p.add(own_file(p))) + json.dumps(p.add(str(p.canary)))),
    "two of a key": lambda p: p.commit(json.dumps(p.add(own_file(p)))[:-1] + "," + json.dumps(p.add("/x"))[1:]),
    "vector p": lambda p: p.commit(p.add(own_file(p), deletionVector=vector("p", f"file://{p.canary}"))),
    "vector u": lambda p: p.commit(p.add(own_file(p), deletionVector=vector("u", "ab^-aqEH.-t@S}K{vb[*k^"))),
    "vector i": lambda p: p.commit(
        p.add(own_file(p), deletionVector=vector("i", "wi5b=000010000siXQKl0rr91000f55c8Xg0@@"))
    ),
    "checkpoint": lambda p: checkpoint(p, lambda t: replaced(t, "add", lambda a: a | {"path": str(p.canary)})),
    "checkpoint, above": lambda p: checkpoint(
        p, lambda t: replaced(t, "add", lambda a: a | {"path": path_of(p, "above")})
    ),
    "checkpoint, vector": lambda p: checkpoint(
        p, lambda t: replaced(t, "add", lambda a: a | {"deletionVector": vector("p", f"file://{p.canary}")})
    ),
    "checkpoint, change": lambda p: checkpoint(p, lambda t: replaced(t, "txn", lambda a: a | {"version": 10**18})),
    "sidecar": lambda p: checkpoint(p, with_sidecar(f"file://{p.canary}")),
    "sidecar of a v2 checkpoint": lambda p: checkpoint(
        p, with_sidecar("../../../outside/x"), f"{1:020d}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet"
    ),
    "checkpoint in parts": lambda p: checkpoint(p, lambda t: t, f"{1:020d}.checkpoint.0000000001.0000000001.parquet"),
    "checkpoint of bytes": lambda p: checkpoint(p, lambda t: t.select(["txn"])) or (
        p.log() / f"{1:020d}.checkpoint.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1"),
    "compacted": lambda p: (p.log() / f"{0:020d}.{1:020d}.compacted.json").write_text(json.dumps(p.add(str(p.canary)))),
    "checksum": lambda p: (p.log() / f"{1:020d}.crc").write_text(
        json.dumps({"allFiles": [p.add(str(p.canary))["add"]], **protocol(1, 2)})
    ),
    "hint without end": lambda p: (p.log() / "_last_checkpoint").write_text(
        '{"version":10000000,"size":5,"parts":1000000000}'
    ),
    "feature unknown": lambda p: p.commit(protocol(3, 7, "teleport")),
    "feature of vectors": lambda p: p.commit(protocol(3, 7, "deletionVectors")),
    "feature of mapping": lambda p: p.commit(protocol(3, 7, "columnMapping")),
    "version of mapping": lambda p: p.commit(protocol(2, 5)),
    "version of the future": lambda p: p.commit(protocol(99, 99)),
    "append only": lambda p: p.commit(configured(p, delta__appendOnly="true")),
    "change feed": lambda p: p.commit(configured(p, delta__enableChangeDataFeed="true")),
    "constraint": lambda p: p.commit(configured(p, delta__constraints__c="1 = 0")),
    "change far ahead": lambda p: p.commit({"txn": {"appId": "vidproc", "version": 10**18}}),
    "change below zero": lambda p: p.commit({"txn": {"appId": "vidproc", "version": -1}}),
    "undone far ahead": lambda p: p.commit({"txn": {"appId": "vidproc-void", "version": 10**18}}),
    "a gap": lambda p: (p.log() / f"{10**9:020d}.json").write_text(json.dumps(p.add("a.parquet"))),
    "no JSON": lambda p: p.commit("garbage"),
    "a list": lambda p: p.commit("[]"),
    "depth": lambda p: p.commit('{"add":' + "[" * 5000 + "]" * 5000 + "}"),
    "wrong types": lambda p: p.commit({"add": {"path": ["x"]}}),
    "no path": lambda p: p.commit({"add": {}}),
    "log of another": replaced_log,
    "linked table": lambda p: moved_out(p, "videos"),
    "linked other table": lambda p: moved_out(p, "detections"),
    "linked log": lambda p: moved_out(p, "videos/_delta_log"),
    "linked entry": lambda p: moved_out(p, f"videos/_delta_log/{1:020d}.json"),
    "linked data": lambda p: moved_out(p, f"videos/{own_file(p)}"),
    "linked mark": lambda p: moved_out(p, "vidproc.json"),
    "pipe as entry": lambda p: piped(p.log() / f"{2:020d}.json"),
    "pipe as data": lambda p: piped(p.lake / "videos" / own_file(p)),
    "pipe as mark": lambda p: piped(p.lake / "vidproc.json"),
    "mark is a list": lambda p: (p.lake / "vidproc.json").write_text("[1]"),
    "mark of depth": lambda p: (p.lake / "vidproc.json").write_text("[" * 100_000),
    "mark without format": lambda p: (p.lake / "vidproc.json").write_text('{"format": "1"}'),
    "mark of a huge format": lambda p: (p.lake / "vidproc.json").write_text('{"format": ' + "9" * 60 + "}"),
    "mark of format true": lambda p: (p.lake / "vidproc.json").write_text('{"format": true}'),
}  # fmt: skip

DAMAGED = {
    "checkpoint of bytes", "hint without end", "a gap", "no JSON", "a list", "depth", "no path",
    "two in one line", "two of a key",
}  # fmt: skip
"""What cannot be told from a disk's error: exit code 1."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", FORGERIES)
def test_no_call_is_led_out_of_a_forged_lake(
    kind: str, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FORGERIES[kind](place)
    with pytest.raises(VidprocError) as refused:
        python_calls(place.uri)
    assert SECRET not in str(refused.value)
    turn = list(FORGERIES).index(kind) % len(COMMANDS)
    some = (*COMMANDS, *COMMANDS)[turn : turn + 3]  # each command meets a third of the forgeries
    for name in COMMANDS if kind in ("add: absolute", "linked data", "linked table") else some:
        assert command(name, place, capsys, monkeypatch) == (1 if kind in DAMAGED else 2), name
    assert place.outside_is_as_it_was()


def test_a_lake_that_nobody_forged_answers(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(Lake.open(place.uri))
    DeltaTable(str(place.lake / "videos")).create_checkpoint()
    for name in COMMANDS:
        if name != "forget":
            assert command(name, place, capsys, monkeypatch) == 0
    assert contents(Lake.open(place.uri)) == before
    assert command("forget", place, capsys, monkeypatch) == 0
    assert len(Lake.open(place.uri).videos()) == 3


def test_a_lake_may_itself_lie_behind_a_link(place: Place) -> None:
    before = contents(Lake.open(place.uri))
    behind = place.lake.parent / "behind"
    behind.symlink_to(place.lake)
    lake = Lake.open(str(behind))
    assert contents(lake) == before
    lake.vacuum(timedelta(0), exclusive=True)
    lake.compact()
    assert contents(lake) == before
    assert publish(lake, [outcome("more", storage=lake.storage)], link, RUN).published


# --- between opening and acting ------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["vacuum", "compact", "forget", "publish", "read"])
@pytest.mark.parametrize("how", ["new entry", "changed entry", "linked data"])
def test_what_is_forged_after_opening_is_found_before_acting(place: Place, act: str, how: str) -> None:
    lake = Lake.open(place.uri)
    new = outcome("new", storage=lake.storage)
    if how == "new entry":
        place.commit(place.add(str(place.canary)))
    elif how == "changed entry":
        entry = place.log() / f"{1:020d}.json"
        entry.write_text(entry.read_text() + "\n" + json.dumps(place.add(str(place.canary))))
    elif act in ("publish", "read"):
        pytest.skip("the entry was looked at when the lake was opened")
    else:
        moved_out(place, f"videos/{own_file(place)}")
    acts: dict[str, Callable[[], object]] = {
        "vacuum": lambda: lake.vacuum(timedelta(0), exclusive=True),
        "compact": lake.compact,
        "forget": lambda: lake.forget(["s3://archive/a.mp4"]),
        "publish": lambda: publish(lake, [new], link, RUN),
        "read": lake.videos,
    }
    with pytest.raises(Forged):
        acts[act]()
    assert place.outside_is_as_it_was()


def test_a_table_that_claims_changes_that_never_were_gets_no_more(place: Place) -> None:
    """Else it would pass over each change up to that number, and its rows would be missing in silence."""
    lake = Lake.open(place.uri)
    before = contents(lake)
    place.commit({"txn": {"appId": "vidproc", "version": 10**9}}, table="detections")
    new = outcome("new", storage=lake.storage)
    for act in (
        lambda: Lake.create(place.uri),
        lambda: lake.vacuum(timedelta(0), exclusive=True),
        lake.compact,
        lambda: lake.forget(["s3://archive/a.mp4"]),
        lambda: publish(lake, [new], link, RUN),
    ):
        with pytest.raises(Forged, match="detections"):
            act()
    assert contents(lake) == before | {"failures": contents(lake)["failures"]}


# --- links and deletions -------------------------------------------------------------------------------------


LINKED_FOLDERS = ["_staging", "_changes", "_clock", "_runs", "_released", "_staging/pid-1", "videos/old"]


@pytest.mark.parametrize("folder", LINKED_FOLDERS)
def test_nothing_is_deleted_or_written_through_a_linked_folder(place: Place, folder: str) -> None:
    old = place.outside / "kept" / "a" / "b"
    old.mkdir(parents=True)
    for name in ("x.parquet", "report.json", f"{1:012d}.json", ".vidproc-put-0"):
        (old / name).write_text(SECRET)
        os.utime(old / name, (1, 1))
        shutil.copy2(old / name, place.outside / "kept" / name)
    (place.lake / folder).parent.mkdir(exist_ok=True)
    (place.lake / folder).symlink_to(place.outside / "kept")
    place.remember()
    calls: list[Callable[[Lake], object]] = [
        lambda lake: lake.vacuum(timedelta(0), exclusive=True),
        lambda lake: lake.forget(["s3://archive/a.mp4"]),
        lambda lake: lake.status(),
        lambda lake: recover(lake),
        lambda lake: Staging(lake.storage, "pid-1").discard(["a", "b"]),
        lambda lake: publish(lake, [outcome("new", storage=lake.storage)], link, RUN),
        lambda lake: release(place.uri, StorageOptions()),
    ]
    for call in calls:
        try:
            call(Lake.open(place.uri))
        except VidprocError as e:
            assert isinstance(e, Forged) and folder.split("/")[0] in str(e)
        assert place.outside_is_as_it_was()


def test_a_hard_link_costs_nothing_but_its_name(place: Place) -> None:
    os.link(place.outside / "secret.txt", place.lake / "videos" / "part-x.parquet")
    os.link(place.outside / "secret.txt", place.lake / "_extra")
    os.utime(place.outside / "secret.txt", (1, 1))
    place.remember()
    report = Lake.open(place.uri).vacuum(timedelta(0), exclusive=True)
    assert report.files["videos"] == 1
    assert place.outside_is_as_it_was()


@pytest.mark.parametrize("at", ["beginning", "end"])
def test_vacuum_and_forget_pass_only_keys_of_the_lake_to_delete(
    at: str, lake_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order in which things lie there: each key that is deleted was listed below the lake, or is one that
    vidproc makes, and beside the lake everything stays."""
    lake = Lake.create(lake_root.below("lake").uri, lake_root.options)
    beside = ["lake.txt", "lake-2/x", "other/lake/x", "a/x"]
    for key in beside:
        lake_root.storage.put(key, b"beside")
    for generation in ("1", "2"):
        made = [outcome(n, content=generation, storage=lake.storage) for n in "ab"]
        publish(lake, made, link, RUN)
    strange = [
        "videos/x..y.parquet",
        "videos/a b/%2e%2e/c.parquet",
        "_staging/x",
        "_staging/pid-1/%2e%2e%2f/t/r.parquet",
    ]
    for key in strange if at == "end" else strange[::-1]:
        lake.storage.put(key, b"stray")
    deleted: list[str] = []
    kind = type(lake.storage)
    real = kind.delete

    def delete(self: Any, keys: Any) -> None:
        keys = list(keys)
        deleted.extend(self.uri_of(key) for key in keys)
        real(self, keys)

    monkeypatch.setattr(kind, "delete", delete)
    lake.forget(["s3://archive/a.mp4"])
    report = lake.vacuum(timedelta(0), exclusive=True)
    assert report.files["videos"] >= 2 and report.leftovers >= 2
    assert deleted
    for uri in deleted:
        below = uri.removeprefix(f"{lake.uri}/")
        assert below != uri and not {"", ".", ".."} & {*below.split("/")}
    assert sorted(k.key for k in lake_root.storage.list() if not k.key.startswith("lake/")) == sorted(beside)
    assert len(lake.videos()) == 1


# --- changes, reports and signs ------------------------------------------------------------------------------


CHANGE: dict[str, Any] = {
    "id": "a" * 32, "kind": "publish", "videos": ["f" * 24], "pipeline": "night", "pipeline_id": "pid-1", "run_id": "r",
    "tables": ["videos"], "tasks": [["f" * 24, "t"]], "with_failures": [],
}  # fmt: skip

CHANGES: dict[str, Any] = {
    "id above": CHANGE | {"id": "../../outside/kept"},
    "id absolute": CHANGE | {"id": "/tmp/x"},
    "id empty": CHANGE | {"id": ""},
    "id a number": CHANGE | {"id": 1},
    "pipeline_id above": CHANGE | {"pipeline_id": "../../outside"},
    "pipeline_id a dot": CHANGE | {"pipeline_id": ".."},
    "task above": CHANGE | {"tasks": [["..", "../../outside"]]},
    "task of three": CHANGE | {"tasks": [["a", "b", "c"]]},
    "task a text": CHANGE | {"tasks": "ab"},
    "video above": CHANGE | {"videos": ["../.."]},
    "video a number": CHANGE | {"videos": [1]},
    "videos a text": CHANGE | {"videos": "abc"},
    "videos a mapping": CHANGE | {"videos": {"a": 1}},
    "no videos": CHANGE | {"videos": []},
    "failures above": CHANGE | {"with_failures": ["../../../outside"]},
    "table above": CHANGE | {"tables": ["../videos"]},
    "table unknown": CHANGE | {"tables": ["runs"]},
    "forget with rows": CHANGE | {"kind": "forget"},
    "kind unknown": CHANGE | {"kind": "drop"},
    "kind a list": CHANGE | {"kind": ["publish"]},
    "no pipeline": CHANGE | {"pipeline": None},
    "pipeline a mapping": CHANGE | {"pipeline": {"a": 1}},
    "a list": [CHANGE],
    "nothing": {},
    "no JSON": "garbage",
    "depth": "[" * 100_000,
    "a number of digits": '{"id": ' + "9" * 100_000 + "}",
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_forged_change_is_refused_and_can_be_removed(
    kind: str, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = place.outside / "kept"
    kept.mkdir()
    for name in ("videos.parquet", "report.json", "secret.txt"):
        (kept / name).write_text(SECRET)
    place.remember()
    before = contents(Lake.open(place.uri))
    number = Lake.open(place.uri).tables.done("videos") + 1
    intent = place.lake / "_changes" / f"{number:012d}.json"
    intent.parent.mkdir(exist_ok=True)
    said = CHANGES[kind]
    intent.write_bytes(
        said if isinstance(said, bytes) else (said if isinstance(said, str) else json.dumps(said)).encode()
    )
    for name in ("status", "compact", "vacuum", "forget"):
        assert command(name, place, capsys, monkeypatch) == 2, name
    with pytest.raises(Forged, match=f"{number:012d}.json"):
        recover(Lake.open(place.uri))
    assert place.outside_is_as_it_was()
    assert contents(Lake.open(place.uri)) == before
    intent.unlink()  # as it says
    lake = Lake.open(place.uri)
    assert recover(lake) == []
    assert publish(lake, [outcome("more", storage=lake.storage)], link, RUN).number == number


ROWS: dict[str, Callable[[Place], bytes]] = {
    "of another table": lambda p: next(p.outside.glob("detections/*/*.parquet")).read_bytes(),
    "of other videos": lambda p: p.canary.read_bytes(),
    "no rows": lambda p: b"PAR1" + bytes(30) + b"PAR1",
    "a text": lambda p: SECRET.encode(),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_not_the_changes_come_into_no_table(kind: str, place: Place) -> None:
    lake = Lake.open(place.uri)
    before = contents(lake)
    number = lake.tables.done("videos") + 1
    lake.storage.put(f"_changes/{CHANGE['id']}/videos.parquet", ROWS[kind](place))
    lake.storage.put(f"_changes/{number:012d}.json", json.dumps(CHANGE).encode())
    with pytest.raises(Forged) as refused:
        recover(lake)
    assert SECRET not in str(refused.value) and f"{number:012d}.json" in str(refused.value)
    assert contents(lake) == before
    lake.storage.delete([f"_changes/{number:012d}.json"])
    assert publish(lake, [outcome("more", storage=lake.storage)], link, RUN).number == number


def test_a_change_whose_rows_are_not_there_is_undone(place: Place) -> None:
    lake = Lake.open(place.uri)
    before = contents(lake)
    number = lake.tables.done("videos") + 1
    lake.storage.put(f"_changes/{number:012d}.json", json.dumps(CHANGE).encode())
    lake.storage.put(f"_changes/{10**12 - 1:012d}.json", json.dumps(CHANGE).encode())
    lake.storage.put(f"_changes/{10**18}.json", json.dumps(CHANGE).encode())
    recover(lake)
    assert contents(lake) == before
    assert publish(lake, [outcome("more", storage=lake.storage)], link, RUN).number == number + 1


REPORTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "task above": lambda r: r | {"task_id": "../../../outside"},
    "video of another": lambda r: r | {"video_id": "0" * 24},
    "index a text": lambda r: r | {"index": "0"},
    "rows below zero": lambda r: r | {"rows": {"detections": -1}},
    "rows a list": lambda r: r | {"rows": []},
    "decode a text": lambda r: r | {"decode": "x"},
    "frames a text": lambda r: r | {"decode": r["decode"] | {"frames_decoded": "9"}},
    "a list": lambda r: [],
    "depth": lambda r: "[" * 100_000,
}


@pytest.mark.parametrize("kind", REPORTS)
def test_a_forged_report_makes_its_task_due_again(kind: str, place: Place) -> None:
    lake = Lake.open(place.uri)
    new = outcome("new", storage=lake.storage)
    (key, *_) = (o.key for o in lake.storage.list("_staging/") if o.key.endswith("report.json"))
    said = REPORTS[kind](json.loads(lake.storage.get(key)))
    lake.storage.put(key, (said if isinstance(said, str) else json.dumps(said)).encode())
    report = publish(lake, [new], link, RUN)
    assert report.missing == (new.video.video_id,) and report.published == ()
    new = outcome("new", storage=lake.storage)
    assert publish(lake, [new], link, RUN).published == (new.video.video_id,)


@pytest.mark.parametrize("said", ["[]", "{}", "[" * 100_000, '{"progress": 1}', "LIST"])
def test_a_forged_sign_of_a_run_is_none(
    said: str, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if said == "LIST":
        now = "2026-01-01T00:00:00"  # of no zone
        said = json.dumps({"run_id": "r", "pipeline": "p", "host": ["h"], "said": 1, "started_at": now, "at": now,
                           "progress": {"done": "x", "elapsed_s": "y"}})  # fmt: skip
    (place.lake / "_runs").mkdir()
    (place.lake / "_runs" / "r.json").write_text(said)
    assert command("status", place, capsys, monkeypatch) == 0


def test_retry_runs_a_recorded_job_on_this_lake_alone(place: Place) -> None:
    lake = Lake.open(place.uri)
    failed = outcome("bad", storage=lake.storage, status="failed", error="x")
    publish(lake, [failed], link, RUN)
    now = failed.video.modified_at
    row = {
        "run_id": "r", "pipeline": "night", "outcome": "ok", "started_at": now, "ended_at": now, "pipeline_id": "pid-1",
        "command": "vidproc index", "host": "h", "reason": "", "versions": "{}",
    }  # fmt: skip
    job = {"archive": "/archive", "lake": str(place.outside), "name": "night", "deleted": "remove"}
    lake.record_run(row | {"job": json.dumps(job)})
    found = release(place.uri, StorageOptions())
    assert found.job is not None and found.job.lake == place.uri
    lake.record_run(row | {"job": '{"archive": 1}'})
    with pytest.raises(VidprocError, match="--no-run"):
        release(place.uri, StorageOptions())


# --- drawn paths ---------------------------------------------------------------------------------------------


PIECES = st.sampled_from(
    ["..", ".", "", "/", "//", "\\", "%2e", "%2E%2E", "%252e%252e", "%2f", "%5c", "file:", "s3://b", "://", "\0", " ",
     "~",
     "a", "part-0.parquet", "recorded_date=2026-03-02", "_delta_log", "outside", "videos", "\u2025", "\uff0e\uff0e", 
     "C:",
     "?", "#", "*", "\n", "\u202e", "{canary}", "{name}", "é"]
)  # fmt: skip


def test_no_drawn_path_reaches_out(pattern: Path, tmp_path: Path) -> None:
    shutil.copytree(pattern, tmp_path / "p")
    place = Place(tmp_path / "p")
    place.remember()
    entry = place.log() / f"{2:020d}.json"

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(PIECES, min_size=1, max_size=9).map("".join), st.sampled_from(["", "/"]))
    def try_it(drawn: str, glue: str) -> None:
        path = (glue + drawn).replace("{canary}", str(place.canary)).replace("{name}", place.canary.name)
        entry.write_text(json.dumps(place.add(path)))
        try:
            said = str(Lake.open(place.uri).videos().to_pylist())
        except VidprocError as e:
            said = str(e)
        assert SECRET not in said.replace(str(place.canary), "")
        assert place.outside_is_as_it_was()

    try_it()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_damaged_log_ends_in_a_traceback(seed: int, place: Place) -> None:
    """Bytes of entries changed here and there: rows as before, or an error of ours."""
    chance = random.Random(seed)
    DeltaTable(str(place.lake / "videos")).create_checkpoint()
    originals = {p: p.read_bytes() for p in place.log().iterdir()}
    for _ in range(20):
        for path, data in originals.items():
            changed = bytearray(data)
            for _ in range(chance.randint(0, 3)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            path.write_bytes(changed)
        try:
            said = str(Lake.open(place.uri).videos().to_pylist())
        except VidprocError as e:
            said = str(e)
        assert SECRET not in said
        assert place.outside_is_as_it_was()


# --- S3 ------------------------------------------------------------------------------------------------------


ON_S3 = ["absolute", "percent", "own bucket"]
MORE_ON_S3 = ["above", "percent twice", "other bucket", "file url"]


@pytest.mark.parametrize("kind", [*ON_S3, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_ON_S3)])
def test_on_s3_no_call_is_led_out_of_the_prefix(kind: str, s3_root: Root) -> None:
    lake = Lake.create(s3_root.below("lake").uri, s3_root.options)
    publish(lake, [outcome("a", storage=lake.storage)], link, RUN)
    (data,) = (o.key for o in lake.storage.list("videos/part-"))
    other = Lake.create(s3_root.below("outside").uri, s3_root.options)
    publish(other, [outcome(f"{SECRET}-x", storage=other.storage)], link, RUN)
    (canary,) = (o for o in other.storage.list("videos/part-"))
    name = canary.key.rpartition("/")[2]
    path = {
        **{k: PATHS[k].format(canary="/etc/passwd", name=name) for k in PATHS},
        "absolute": f"/{s3_root.uri.split('/', 3)[3]}/outside/{canary.key}",
        "own bucket": other.storage.uri_of(canary.key),
    }[kind]
    before = {o.key: o.etag for o in other.storage.list()}
    body = {"path": path, "partitionValues": {}, "size": canary.size, "modificationTime": 1, "dataChange": True}
    lake.storage.put(f"videos/_delta_log/{2:020d}.json", json.dumps({"add": body}).encode())
    calls: list[Callable[[], object]] = [
        lambda: Lake.open(lake.uri, s3_root.options),
        lake.status,
        lake.videos,
        lambda: lake.vacuum(timedelta(0), exclusive=True),
        lake.compact,
        lambda: lake.forget(["s3://archive/a.mp4"]),
        lambda: connect(lake.uri, s3_root.options),
        lambda: release(lake.uri, s3_root.options),
    ]
    for call in calls:
        with pytest.raises(Forged) as refused:
            call()
        assert SECRET not in str(refused.value) and f"{2:020d}.json" in str(refused.value)
    assert {o.key: o.etag for o in other.storage.list()} == before
    assert lake.storage.exists(data)


def test_on_s3_keys_that_lead_above_the_lake_are_refused(s3_root: Root) -> None:
    lake = Lake.create(s3_root.below("lake").uri, s3_root.options)
    for key in ("../outside/x", "videos/../../x", "a/./b", "a\0b"):
        for call in (
            lake.storage.get,
            lake.storage.exists,
            lambda k: lake.storage.delete([k]),
            lambda k: lake.storage.put(k, b""),
        ):
            with pytest.raises(Forged):
                call(key)
