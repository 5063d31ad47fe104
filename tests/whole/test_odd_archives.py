"""Archives with odd entries: each costs itself, is a row with its reason, and nobody else notices."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Root
from tests.support.console import Run
from tests.support.media import make_video
from tests.support.odd_store import Odd, odd_store
from tests.support.unprivileged import as_nobody, open_folder
from tests.whole.test_end_to_end import job, statuses
from vidproc.errors import ConfigError
from vidproc.run.driver import index
from vidproc.run.forecast import forecast
from vidproc.settings import json_schema, load_job
from vidproc.storage import StorageOptions
from vidproc.tables.lake import Lake
from vidproc.video.archive import Skipped, list_videos


def found_in(uri: str, options: StorageOptions | None = None) -> dict[str, str]:
    """By name below the archive: the error class, empty for a video."""
    return {
        item.uri.removeprefix(f"{uri}/"): item.error_class if isinstance(item, Skipped) else ""
        for item in list_videos(uri, options)
    }


def on_s3(options: StorageOptions, archive: str, lake: Path, **given: Any) -> Any:
    storage = {"endpoint_url": options.endpoint_url, "anonymous": True}
    return job(archive, str(lake), storage=storage, actions="none", **given)


# ---- Listings of S3 ---------------------------------------------------------------------------------


ODD = {
    "after.mp4": {"modified": "10000-01-01T00:00:00.000Z"},
    "last.mp4": {"modified": "9999-12-31T23:59:59.000-05:00"},
    "zero.mp4": {"modified": "0000-00-00T00:00:00Z"},
    "words.mp4": {"modified": "the day before yesterday"},
    "blank.mp4": {"modified": ""},
    "none.mp4": {"modified": None},
    "etag.mp4": {"etag": None},
    "size.mp4": {"size": None},
}


def test_an_odd_entry_of_a_listing_costs_itself(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", seconds=0.4).path.read_bytes()
    objects = {"in/a.mp4": Odd(video), "in/z.mp4": Odd(video)}
    objects |= {f"in/{name}": Odd(video, **how) for name, how in ODD.items()}
    with odd_store(objects) as options:
        planned = forecast(on_s3(options, "s3://odd/in", tmp_path / "lake"), calibrate_s=0)
        index(on_s3(options, "s3://odd/in", tmp_path / "lake"))
    assert (planned.listed, planned.plan.videos, dict(planned.plan.declined)) == (10, 2, {"unreadable": 8})
    found = statuses(str(tmp_path / "lake"), "s3://odd/in")
    assert (found["a.mp4"], found["z.mp4"]) == (("indexed", None), ("indexed", None))
    assert {name for name, (_, error_class) in found.items() if error_class == "unreadable"} == {*ODD}
    for row in Lake.open(str(tmp_path / "lake")).failures(error_class="unreadable").to_pylist():
        assert "the store lists it without a" in row["error"]


def test_markers_of_folders_are_no_videos(tmp_path: Path) -> None:
    objects = {"in/": Odd(), "in/sub/": Odd(), "in/sub/empty.mp4": Odd(), "in/full/": Odd(b"x"), "in/a.mp4": Odd(b"x")}
    with odd_store(objects) as options:
        assert found_in("s3://odd/in", options) == {"sub/empty.mp4": "empty", "full/": "", "a.mp4": ""}
        assert found_in("s3://odd", options) == {"in/sub/empty.mp4": "empty", "in/full/": "", "in/a.mp4": ""}
        assert [v.uri for v in list_videos("s3://odd/in/full", options)] == ["s3://odd/in/full/"], "its own key"


def test_a_folder_that_is_nothing_but_its_marker_is_an_empty_archive(s3_root: Root, tmp_path: Path) -> None:
    """And a place for a lake."""
    s3_root.storage._client.put_object(Bucket=s3_root.storage.bucket, Key=f"{s3_root.storage.prefix}/in/", Body=b"")  # type: ignore[attr-defined]
    s3_root.storage._client.put_object(Bucket=s3_root.storage.bucket, Key=f"{s3_root.storage.prefix}/lake/", Body=b"")  # type: ignore[attr-defined]
    summary = index(job(s3_root.below("in").uri, s3_root.below("lake").uri))
    assert (summary.listed, summary.exit_code) == (0, 0)


def test_two_slashes_are_not_one(tmp_path: Path) -> None:
    objects = {key: Odd(b"x") for key in ("cams/a.mp4", "/cams/b.mp4", "cams//c.mp4", "other/d.mp4")}
    with odd_store(objects) as options:
        assert found_in("s3://odd/cams", options) == {"a.mp4": "", "/c.mp4": ""}
        assert {v.uri for v in list_videos("s3://odd/cams/", options)} == {
            "s3://odd/cams/a.mp4",
            "s3://odd/cams//c.mp4",
        }
        assert [v.uri for v in list_videos("s3://odd/cams//", options)] == ["s3://odd/cams//c.mp4"]
        assert found_in("s3://odd//cams", options) == {"b.mp4": ""}
        with pytest.raises(ConfigError, match="without a name"):
            list(list_videos("s3://odd//", options))
        with pytest.raises(ConfigError, match="several slashes for one"):
            Lake.create("s3://odd//lake", options)


def test_a_store_that_takes_two_slashes_for_one_is_not_believed(s3_root: Root) -> None:
    s3_root.storage.put("cams/a.mp4", b"x")
    bucket, _, prefix = s3_root.uri.removeprefix("s3://").partition("/")
    for odd in (f"s3://{bucket}//{prefix}/cams", f"{s3_root.uri}/cams//"):
        with pytest.raises(ConfigError, match=f"several slashes for one; give {s3_root.uri}/cams$"):
            list(list_videos(odd, s3_root.options))
    with pytest.raises(ConfigError, match="there is nothing at"):
        index(job(f"{s3_root.uri}//cams", s3_root.below("lake").uri))


# ---- Links, pipes and the kernel's folders ----------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A good video, and beside it links that lead far away, in circles and nowhere, and what is no file."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "sub").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    make_video(inside / "sub" / "good.mp4", seconds=0.4)
    make_video(outside / "deep" / "far.mp4", seconds=0.4)
    for name, target in {
        "proc": "/proc",
        "sys": "/sys",
        "dev": "/dev",
        "root of a process": "/proc/self/root",
        "proc of a process": "/proc/self/root/proc",
        "environment.mp4": "/proc/self/environ",
        "zeros.mp4": "/dev/zero",
        "top": "/",
        "above": "..",
        "two above": "../..",
        "round": ".",
        "sub/round": "../sub",
        "itself": "itself",
        "nowhere.mp4": "nowhere",
        "far": "../out",
        "far.mp4": "../out/deep/far.mp4",
        "to a pipe.mp4": "pipe.mp4",
    }.items():
        (inside / name).symlink_to(target)
    (outside / "back").symlink_to(inside)
    (outside / "round").symlink_to(outside)
    (outside / "kernel").symlink_to("/proc/self")
    (outside / "top").symlink_to("/")
    os.mkfifo(inside / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(inside)  # the name of a socket may not be long
        bound.bind("socket.mp4")
        os.chdir(here)
    return inside


ROWS = {
    "sub/good.mp4": "",
    "far.mp4": "",
    **dict.fromkeys(["proc", "sys", "dev", "proc of a process", "environment.mp4", "zeros.mp4"], "link"),
    **dict.fromkeys(["root of a process", "top", "above", "two above", "far"], "link"),
    **dict.fromkeys(["itself", "nowhere.mp4"], "broken_link"),
    **dict.fromkeys(["pipe.mp4", "to a pipe.mp4", "socket.mp4"], "special_file"),
}
FOLLOWED = {"far/deep/far.mp4": "", "far/kernel": "link", "far/top": "link"}


@pytest.mark.timeout(60)
def test_links_that_leave_the_archive_are_rows(archive: Path) -> None:
    assert found_in(str(archive)) == ROWS
    why = {os.path.basename(v.uri): v.reason for v in list_videos(str(archive)) if isinstance(v, Skipped)}
    assert "--follow-links" in why["far"] and "--follow-links" not in why["proc"] + why["top"]
    assert "pipe" in why["pipe.mp4"] and "socket" in why["socket.mp4"]


@pytest.mark.timeout(60)
def test_links_that_leave_the_archive_are_followed_where_that_is_asked_for(archive: Path, tmp_path: Path) -> None:
    def found(**given: Any) -> dict[str, str]:
        listed = list_videos(str(archive), follow_links=True)
        return {v.uri.removeprefix(f"{archive}/"): v.error_class if isinstance(v, Skipped) else "" for v in listed}

    rows = {name: error_class for name, error_class in ROWS.items() if name != "far"} | FOLLOWED
    assert found() == rows
    (archive / "zzz").symlink_to(tmp_path / "out" / "deep")
    assert found() == rows, "a folder that two links lead to is entered through the first"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("follow", [False, True])
def test_a_night_over_odd_links(follow: bool, archive: Path, tmp_path: Path, vidproc: Run) -> None:
    rows = ROWS if not follow else {n: c for n, c in ROWS.items() if n != "far"} | FOLLOWED
    given = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]
    given += ["--follow-links"] if follow else []
    code, _, err = vidproc("plan", archive, *given, "--calibrate", 0, "--save", tmp_path / "plan")
    assert code == 0, err
    for lake, more in (("lake", []), ("lake of a plan", ["--plan", tmp_path / "plan"])):
        code, _, err = vidproc("index", archive, tmp_path / lake, *given, *more)
        assert code == 0, err
        found = statuses(str(tmp_path / lake), str(archive))
        assert {name: error_class or "" for name, (_, error_class) in found.items()} == rows
        assert {status for status, error_class in found.values() if error_class} == {"declined"}
    other = [g for g in given if g != "--follow-links"] + ([] if follow else ["--follow-links"])
    code, _, err = vidproc("index", archive, tmp_path / "x", *other, "--plan", tmp_path / "plan")
    assert code == 2 and "follow_links" in err, "a plan is of the folders that it was made of"


def test_a_job_file_may_ask_for_links(archive: Path, tmp_path: Path) -> None:
    text = f"archive: {archive}\nlake: {tmp_path / 'lake'}\nfollow_links: true\n"
    (tmp_path / "job.yaml").write_text(text)
    assert load_job(tmp_path / "job.yaml").follow_links
    assert not load_job(tmp_path / "job.yaml", {"follow_links": False}).follow_links
    assert not job(str(archive), "/lake").follow_links
    assert json_schema()["properties"]["follow_links"]["type"] == "boolean"


@pytest.mark.parametrize("place", ["/proc", "/sys", "/dev", "/proc/self/root/proc", "/dev/null"])
def test_an_archive_is_no_folder_of_the_kernel(place: str) -> None:
    if not os.path.exists(place):
        pytest.skip("not there")
    with pytest.raises(ConfigError, match="no folder of files"):
        index(job(place, "/nowhere/lake"))  # a folder of the test's own may lie in /dev/shm


def test_the_kernels_folders_are_not_entered_by_another_path(tmp_path: Path) -> None:
    """Mounted into the archive, as in the folder of a container."""
    for name in ("in/proc", "in/dev"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in" / "a.mp4").write_bytes(b"x")
    mount = (
        f"mount --rbind /proc {tmp_path}/in/proc && mount --rbind /dev {tmp_path}/in/dev && touch {tmp_path}/mounted"
    )
    code = f"from vidproc.video.archive import list_videos; print(sorted(v.uri for v in list_videos('{tmp_path}/in')))"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && exec {sys.executable} -c \"{code}\""],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if not (tmp_path / "mounted").exists():
        pytest.skip("nothing may be mounted here")
    assert done.stdout == f"{[f'{tmp_path}/in/{name}' for name in ('a.mp4', 'dev', 'proc')]}\n", done.stderr


# ---- Errors of the system ---------------------------------------------------------------------------


class Failing:
    """What `os.scandir` gives, of which one entry cannot be looked at."""

    def __init__(self, entry: os.DirEntry[str], error: OSError) -> None:
        self._entry, self._error, self.name, self.path = entry, error, entry.name, entry.path

    def is_symlink(self) -> bool:
        return self._entry.is_symlink()

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        raise self._error


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENOTCONN, errno.EOVERFLOW])
@pytest.mark.parametrize("what", ["entry", "folder"])
def test_whatever_the_system_answers_costs_one_entry(
    what: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "odd").mkdir(parents=True)
    for name in ("a.mp4", "odd.mp4", "z.mp4", "odd/b.mp4"):
        (tmp_path / "in" / name).write_bytes(b"x")
    scandir, error = os.scandir, OSError(number, os.strerror(number))

    class Folder:
        def __init__(self, path: Any) -> None:
            if what == "folder" and str(path).endswith("/odd"):
                raise error
            self._entries = scandir(path)

        def __enter__(self) -> Any:
            return (Failing(e, error) if what == "entry" and e.name == "odd.mp4" else e for e in self._entries)

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Folder)
    listed = [*list_videos(str(tmp_path / "in"))]
    monkeypatch.undo()
    (odd,) = [v for v in listed if isinstance(v, Skipped)]
    assert os.strerror(number) in odd.reason and odd.error_class == "unreadable"
    assert os.path.basename(odd.uri) == ("odd.mp4" if what == "entry" else "odd")
    assert len(listed) == 4


def test_a_folder_that_lies_too_deep_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "good.mp4", seconds=0.4)
    here, part = os.open(tmp_path / "in", os.O_RDONLY), "d" * 200
    for _ in range(25):
        os.mkdir(part, dir_fd=here)
        above, here = here, os.open(part, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(os.open("lost.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    given = job(str(tmp_path / "in"), str(tmp_path / "lake"), actions="none")
    try:
        planned = forecast(given, calibrate_s=0)
        index(given)
    finally:
        shutil.rmtree(tmp_path / "in")  # whose paths nobody else can take either
    assert (planned.plan.videos, dict(planned.plan.declined)) == (1, {"unreadable": 1})
    found = statuses(str(tmp_path / "lake"), str(tmp_path / "in"))
    assert found.pop("good.mp4") == ("indexed", None)
    ((name, (_, error_class)),) = found.items()
    assert name.startswith(f"{part}/{part}/") and error_class == "unreadable"


DATES = {
    "after.mp4": 253402300800,
    "far after.mp4": 10**15,
    "last day.mp4": 253402300799,
    "before.mp4": -62135596801,
    "first day.mp4": -62135596800,
    "old.mp4": -1_000_000_000,
    "of the next century.mp4": 11_000_000_000,
}


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a file system that keeps such dates")
def test_a_date_that_cannot_be_kept_costs_its_file(tmp_path: Path, vidproc: Run) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        archive = Path(name)
        make_video(archive / "good.mp4", seconds=0.4)
        for file, seconds in DATES.items():
            shutil.copy(archive / "good.mp4", archive / file)
            os.utime(archive / file, (seconds, seconds))
        kept = {file for file, seconds in DATES.items() if os.stat(archive / file).st_mtime == seconds}
        if kept != {*DATES}:
            pytest.skip("the memory disk does not keep such dates")
        given = job(str(archive), str(tmp_path / "lake"), actions="none")
        planned = forecast(given, calibrate_s=0)
        assert (planned.plan.videos, dict(planned.plan.declined)) == (3, {"unreadable": 5})
        index(given)
        found = statuses(str(tmp_path / "lake"), str(archive))
    odd = {file for file, (_, error_class) in found.items() if error_class == "unreadable"}
    assert odd == {"after.mp4", "far after.mp4", "last day.mp4", "before.mp4", "first day.mp4"}
    assert {file for file, (status, _) in found.items() if status == "indexed"} == {*found} - odd
    code, out, err = vidproc("query", tmp_path / "lake", "SELECT uri, modified_at FROM videos", "--format", "json")
    assert code == 0 and "good.mp4" in out, err


def test_folders_that_may_be_listed_and_not_looked_into(tmp_path: Path) -> None:
    """Mode r--: names without anything about them. And mode ---, and a link through either."""
    with open_folder() as folder:
        warm, archive = folder / "warm", folder / "in"
        for name in ("listed", "closed"):
            (archive / name).mkdir(parents=True)
        warm.mkdir()
        make_video(warm / "a.mp4", seconds=0.4)
        for path in ("good.mp4", "listed/a.mp4", "closed/b.mp4"):
            shutil.copy(warm / "a.mp4", archive / path)
        (archive / "link.mp4").symlink_to(archive / "closed" / "b.mp4")
        os.chmod(archive / "listed", 0o744 if os.getuid() == 0 else 0o444)
        os.chmod(archive / "closed", 0o700 if os.getuid() == 0 else 0)
        given = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline"]
        plan = ["plan", str(archive), *given, "--calibrate", "0", "--json"]
        run = ["index", str(archive), str(folder / "lake"), *given]
        warm_up = [["plan", str(warm), *given, "--calibrate", "0"], ["index", str(warm), str(folder / "other"), *given]]
        planned, indexed = as_nobody(plan, run, warm_up=warm_up)
        for name in ("listed", "closed"):
            os.chmod(archive / name, 0o755)
        assert planned[0] == 0, planned
        assert json.loads(planned[1])["plan"]["declined"] == {"unreadable": 3}
        assert indexed[0] in (0, 1), indexed
        found = {name: error_class for name, (_, error_class) in statuses(str(folder / "lake"), str(archive)).items()}
    assert found == {"good.mp4": None, "listed/a.mp4": "unreadable", "closed": "unreadable", "link.mp4": "unreadable"}


# ---- Locales ----------------------------------------------------------------------------------------

NOT_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": os.getcwd()}


def test_a_locale_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    archive, lake = tmp_path / "in", tmp_path / "lake"
    archive.mkdir()
    (archive / "ünï.mp4").write_bytes(b"x")
    for command in (["index", str(archive), str(lake)], ["plan", str(archive)], ["status", str(lake)]):
        done = subprocess.run(
            [sys.executable, "-m", "vidproc", *command], env=os.environ | NOT_UTF8, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "UTF-8" in done.stderr and "PYTHONUTF8=1" in done.stderr and "Traceback" not in done.stderr
    assert not lake.exists()
    listing = f"from vidproc.video.archive import list_videos; print(len(list(list_videos({str(archive)!r}))))"
    done = subprocess.run([sys.executable, "-c", listing], env=os.environ | NOT_UTF8, capture_output=True, text=True)
    assert done.returncode and "ConfigError" in done.stderr, "the Python calls too"
    for way_out in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C.UTF-8"}):
        done = subprocess.run(
            [sys.executable, "-c", listing], env=os.environ | NOT_UTF8 | way_out, capture_output=True, text=True
        )
        assert done.stdout == "1\n", done.stderr
