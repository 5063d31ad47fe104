"""An archive that grows, and is replaced and deleted from, night after night."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.media import make_video
from vidproc.ask import connect
from vidproc.progress import Reporter
from vidproc.run.driver import index
from vidproc.run.summary import RunSummary
from vidproc.settings import Job, load_job
from vidproc.storage import LocalStorage


def job(archive: Path, lake: Path, **given: Any) -> Job:
    base: dict[str, Any] = {
        "detector": {"model": "tests.support.fakes:Numbers", "fps": 25},
        "actions": "none",
        "deleted": "remove",
        "verify": "100%",
        "execution": {"executor": "inline"},
    }
    return load_job(None, {"archive": str(archive), "lake": str(lake)} | base | given)


def uris(lake: Path, pipeline: str = "default") -> set[str]:
    with connect(str(lake)) as database:
        rows = database.sql("SELECT uri, pipeline FROM videos").read_all().to_pylist()
    return {Path(r["uri"]).name for r in rows if r["pipeline"] == pipeline}


# ---- What becomes of deleted videos -----------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mkv"):
        make_video(folder / name, seconds=0.4)
    return folder


class Heard(Reporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str, **fields: Any) -> None:
        self.said.append(message)


def test_rows_of_deleted_videos_are_kept_unless_the_job_removes_them(archive: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    index(job(archive, lake))
    (archive / "b.mp4").unlink()
    assert index(job(archive, lake, deleted="keep")).removed == 0
    assert uris(lake) == {"a.mp4", "b.mp4", "c.mkv"}
    heard = Heard()
    summary = index(job(archive, lake), reporter=heard)
    assert (summary.removed, summary.due, summary.exit_code) == (1, 0, 0)
    assert summary.reason == "0 of 0 videos failed, within 5%; 1 removed that the archive no longer lists"
    assert heard.said == ["1 video(s) that the archive no longer lists were removed"]
    assert uris(lake) == {"a.mp4", "c.mkv"}
    with connect(str(lake)) as database:
        assert database.sql("SELECT count(DISTINCT video_id) AS n FROM detections").read_all()["n"][0].as_py() == 2
    shutil.copy(archive / "a.mp4", archive / "b.mp4")
    assert index(job(archive, lake)).due == 1, "a video that comes back is new"
    assert uris(lake) == {"a.mp4", "b.mp4", "c.mkv"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"limit": 1}, "with a limit the archive is not listed to its end"),
        ({"filters": {"min_bytes": 1}}, "filters by size or date may hide them"),
        ({"filters": {"modified_since": "2020-01-01"}}, "filters by size or date may hide them"),
    ],
)
def test_in_doubt_nothing_is_removed_and_it_says_why(
    archive: Path, tmp_path: Path, given: dict[str, Any], why: str
) -> None:
    lake, heard = tmp_path / "lake", Heard()
    index(job(archive, lake))
    (archive / "b.mp4").unlink()
    assert index(job(archive, lake, **given), reporter=heard).removed == 0
    assert heard.said == [f"rows of videos that are no longer listed are kept: {why}"]
    assert uris(lake) == {"a.mp4", "b.mp4", "c.mkv"}


def test_an_empty_archive_or_a_folder_that_cannot_be_read_removes_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk is not mounted, or a permission was lost."""
    lake, heard = tmp_path / "lake", Heard()
    index(job(archive, lake))
    away = tmp_path / "away"
    archive.rename(away)
    archive.mkdir()
    assert index(job(archive, lake), reporter=heard).removed == 0
    assert heard.said[-1].endswith("the archive is empty: is its disk mounted?")
    (archive / "closed").mkdir()
    shutil.copy(away / "a.mp4", archive / "a.mp4")
    listed = LocalStorage.list

    def refused(self: LocalStorage, prefix: str = "", on_denied: Any = None, **more: Any) -> Any:
        if on_denied is not None and self.root == str(archive):
            on_denied("closed", "permission denied")
        return listed(self, prefix, on_denied, **more)

    monkeypatch.setattr(LocalStorage, "list", refused)
    assert index(job(archive, lake), reporter=heard).removed == 0
    assert heard.said[-1].endswith("closed could not be read")
    assert {"b.mp4", "c.mkv"} <= uris(lake)


def test_a_listing_that_fails_removes_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidproc.errors import TransientError

    lake = tmp_path / "lake"
    index(job(archive, lake))
    listed = LocalStorage.list

    def breaks(self: LocalStorage, prefix: str = "", on_denied: Any = None, **more: Any) -> Any:
        for n, item in enumerate(listed(self, prefix, on_denied, **more)):
            if n and self.root == str(archive):
                raise TransientError("the listing broke off")
            yield item

    monkeypatch.setattr(LocalStorage, "list", breaks)
    summary = index(job(archive, lake))
    assert (summary.outcome, summary.exit_code, summary.removed) == ("failed", 1, 0)
    monkeypatch.undo()
    assert uris(lake) == {"a.mp4", "b.mp4", "c.mkv"}


def test_only_this_archive_this_pipeline_and_what_the_globs_admit(archive: Path, tmp_path: Path) -> None:
    lake, other = tmp_path / "lake", tmp_path / "in2"
    shutil.copytree(archive, other)  # a neighbour whose name begins with the archive's
    index(job(archive, lake))
    index(job(archive, lake, name="second"))
    for path in other.iterdir():
        path.rename(other / f"other-{path.name}")
    index(job(other, lake))
    for path in (archive / "a.mp4", archive / "c.mkv"):
        path.unlink()
    assert index(job(archive, lake, filters={"include": ["*.mp4"]})).removed == 1, "c.mkv is hidden by the glob"
    assert uris(lake) == {"b.mp4", "c.mkv", "other-a.mp4", "other-b.mp4", "other-c.mkv"}
    assert uris(lake, "second") == {"a.mp4", "b.mp4", "c.mkv"}


# ---- Nights -----------------------------------------------------------------------------------------

KINDS = 6
FPS_BEFORE, FPS_AFTER = 25, 12.5


@dataclass
class World:
    """An archive whose files are copies of a few videos, and the truth about it."""

    folder: Path
    makes: list[Path]
    chance: random.Random
    truth: dict[str, int] = field(default_factory=dict)
    """Name -> which of `makes` it is."""
    made: int = 0

    def put(self, name: str) -> None:
        self.truth[name] = (self.truth.get(name, self.made) + 1) % KINDS
        self.made += 1
        shutil.copyfile(self.makes[self.truth[name]], self.folder / name)

    def night(self, new: int, replaced: int, deleted: int) -> int:
        """-> how many videos are to be done."""
        names = sorted(self.truth)
        for name in (chosen := self.chance.sample(names, replaced + deleted))[:replaced]:
            self.put(name)
        for name in chosen[replaced:]:
            del self.truth[name]
            (self.folder / name).unlink()
        for _ in range(new):
            self.put(f"v{self.made:05d}.mp4")
        return new + replaced

    def rows(self, fps: float) -> Counter[tuple[str, float, int]]:
        """(name, seconds, number of the frame on screen) of every detection that there should be."""
        return Counter(
            (name, k / fps, int(k * 25 / fps))
            for name, make in self.truth.items()
            for k in range(frames_of(make) if fps == 25 else -(-frames_of(make) // 2))
        )


def frames_of(make: int) -> int:
    return 4 + 2 * make


def found(lake: Path) -> Counter[tuple[str, float, int]]:
    with connect(str(lake)) as database:
        sql = "SELECT v.uri, d.time_s, d.x_min FROM detections d JOIN videos v USING (video_id)"
        rows = database.sql(sql).read_all().to_pylist()
    return Counter((Path(r["uri"]).name, r["time_s"], round(r["x_min"])) for r in rows)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the storage was asked for something."""
    asked: Counter[str] = Counter()
    for name in ("list", "get", "get_range", "put", "delete", "exists"):
        real = getattr(LocalStorage, name)

        def counted(self: LocalStorage, *args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            asked[_name] += 1
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(LocalStorage, name, counted)
    return asked


def months_work(
    tmp_path: Path, requests: Counter[str], *, videos: int, nights: int, new_model: int
) -> list[tuple[int, RunSummary, int]]:
    """Each night 3 % new, 1 % replaced, 2 % deleted. -> (to be done, summary, requests) of each, the first
    being the night on which the archive is new; at the end one in which nothing changes."""
    (tmp_path / "in").mkdir()
    makes = []
    for make in range(KINDS):
        makes.append(tmp_path / f"make{make}.mp4")
        make_video(makes[-1], seconds=frames_of(make) / 25, gop=4, bframes=0)
    world = World(tmp_path / "in", makes, random.Random(20261122))
    lake, history = tmp_path / "lake", []
    for night in range(nights + 2):
        if night == 0:
            due = world.night(videos, 0, 0)
        elif night == nights + 1:
            due = 0
        else:
            due = world.night(round(0.03 * videos), max(1, round(0.01 * videos)), round(0.02 * videos))
        fps = FPS_BEFORE if night < new_model else FPS_AFTER
        if night == new_model:
            due = len(world.truth)
        before = requests.total()
        detector = {"model": "tests.support.fakes:Numbers", "fps": fps}
        summary = index(job(world.folder, lake, detector=detector, execution={"executor": "inline"}))
        history.append((due, summary, requests.total() - before))
        assert (summary.exit_code, summary.due, summary.tasks_done) == (0, due, due), (night, summary)
        assert (summary.tasks_verified, summary.plain) == (due, 0), (night, summary)
        assert uris(lake) == set(world.truth), night
        assert found(lake) == world.rows(fps), night
    return history


def check_costs(history: list[tuple[int, RunSummary, int]]) -> None:
    """Proportional to what changed: a night of n videos costs what an idle one does, and n times what a
    video cost on the first night, with a fifth to spare, the few requests of a removal, and the tables' logs again."""
    first_due, _, first = history[0]
    _, last, idle = history[-1]
    assert (last.tasks_done, last.removed, last.frames_decoded) == (0, 0, 0)
    each = (first - idle) / first_due
    # Some fifty of them are the table logs, which are looked at before a library follows them.
    assert idle < 140, "nothing a video where nothing changed"
    for night, (due, _, asked) in enumerate(history):
        assert asked <= idle + 1.2 * each * due + 90, (night, due, asked, idle, each)


@pytest.mark.timeout(120)
def test_six_nights(tmp_path: Path, requests: Counter[str]) -> None:
    history = months_work(tmp_path, requests, videos=40, nights=6, new_model=4)
    check_costs(history)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_nights(tmp_path: Path, requests: Counter[str]) -> None:
    history = months_work(tmp_path, requests, videos=300, nights=30, new_model=20)
    check_costs(history)
    assert sum(s.removed for _, s, _ in history) == 30 * 6
