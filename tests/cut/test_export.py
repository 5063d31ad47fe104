"""`vidproc export`: what is asked for is what lies there, whole, described, and never made twice."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from math import ceil, floor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import Root
from tests.look.conftest import job, make_archive
from tests.support.console import Run
from tests.support.media import Made, decode_whole, read_number
from vidproc.cut.manifest import as_csv, harmless
from vidproc.run.driver import index

KINDS: dict[str, dict[str, Any]] = {
    "gate/gate_20260301_220000.mp4": {"gop": 20, "audio": True},
    "yard/-rf $(reboot);`x`.mkv": {"codec": "libx265", "gop": 25, "size": (128, 96), "fps": 20},
    "yard/b.mp4": {"gop": 12},
}
GATE, ODD, YARD = KINDS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Made]]]:
    """An archive and its lake, to be read only."""
    root = tmp_path_factory.mktemp("export")
    made = make_archive(root / "archive", KINDS)
    assert index(job(root / "archive", root / "lake")).statuses == {"indexed": 3}
    yield root, {Path(uri).relative_to(root / "archive").as_posix(): m for uri, m in made.items()}


@pytest.fixture
def rows(world: tuple[Path, dict[str, Made]], tmp_path: Path) -> Path:
    """Answers: two that overlap, and one in each other video."""
    root, _ = world
    asked = [(GATE, 2.0, 2.5, "person"), (GATE, 2.2, 3.0, "=car"), (ODD, 1.5, 2.0, "../../x"), (YARD, 4.0, 4.5, "")]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([
        {"uri": str(root / "archive" / name), "start_s": start, "end_s": end, "label": label}
        for name, start, end, label in asked
    ]))  # fmt: skip
    return path


def manifest(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "manifest.json").read_text())["clips"]
    with (out / "manifest.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [clip["file"] for clip in found]
    return found


def numbers(path: Path) -> list[int]:
    return [read_number(frame.to_ndarray(format="rgb24")) for frame in decode_whole(path)]


HERE = ("--executor", "inline", "-q", "--before", 0.5, "--after", 0.5)


def test_each_answer_is_shown_by_its_frames_and_described(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    out = tmp_path / "out"
    code, said, _ = vidproc("export", root / "lake", out, "--rows", rows, *HERE, "--dry-run", "--json")
    forecast = json.loads(said)
    assert code == 0 and not out.exists(), "a dry run makes nothing"
    code, said, err = vidproc("export", root / "lake", out, "--rows", rows, *HERE, "--json")
    summary = json.loads(said)
    assert code == 0, err
    assert summary["made"] == forecast["clips"] == 3 and summary["modes"] == {"exact": 3}
    clips = manifest(out)
    assert [c["file"].rpartition(".")[0] for c in clips] == sorted(forecast["names"])
    assert sum(c["asked_end_s"] - c["asked_start_s"] for c in clips) == pytest.approx(forecast["seconds"])
    for clip in clips:
        name = Path(clip["source"]).relative_to(root / "archive").as_posix()
        fps = KINDS[name].get("fps", 25)
        first, last = (round(clip[key] * fps) for key in ("source_start_s", "source_end_s"))
        assert numbers(out / clip["file"]) == list(range(first, last)), name
        assert (first, last) == (floor(clip["asked_start_s"] * fps), ceil(clip["asked_end_s"] * fps))
        data = (out / clip["file"]).read_bytes()
        assert (clip["bytes"], clip["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert clip["frames_copied"] + clip["frames_encoded"] == last - first and clip["encoder_license"] == "GPL"
    [gate] = [c for c in clips if c["source"].endswith(GATE)]
    assert gate["label"] == "person + =car" and gate["recorded_at"] == "2026-03-01T22:00:01.480000+00:00"
    assert [(a["clip_start_s"], a["clip_end_s"]) for a in gate["answers"]] == [(0.52, 1.02), (0.72, 1.52)]
    assert {p.name for p in out.iterdir()} == {c["file"] for c in clips} | {"manifest.csv", "manifest.json", ".vidproc"}
    assert {p.suffix for p in (out / ".vidproc").iterdir()} == {".json"}, "nothing half made is left"


def test_finished_clips_are_not_made_again_and_others_files_stay(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    out, command = tmp_path / "out", ("export", root / "lake", tmp_path / "out", "--rows", rows, *HERE, "--json")
    assert vidproc(*command)[0] == 0
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir() if p.is_file()}
    code, said, _ = vidproc(*command)
    assert code == 0 and (json.loads(said)["made"], json.loads(said)["kept"]) == (0, 3)
    after = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir() if p.is_file()}
    assert {n: v[1] for n, v in after.items()} == {n: v[1] for n, v in before.items()}
    clips = [name for name in before if not name.startswith("manifest")]
    assert all(after[name] == before[name] for name in clips)

    code, said, _ = vidproc(*command, "--mode", "copy")
    assert code == 0 and json.loads(said)["modes"] == {"copy": 3}, "our own clips give way to other settings"
    assert all("longer than asked" in clip["why"] for clip in manifest(out))
    (out / clips[0]).write_bytes(b"edited by hand")
    code, _, err = vidproc(*command)
    assert code == 2 and clips[0] in err and "--force" in err
    assert (out / clips[0]).read_bytes() == b"edited by hand"
    assert vidproc(*command, "--force")[0] == 0 and len((out / clips[0]).read_bytes()) > 1000


KILLED = """
import os, sys
from vidproc.cli import main
from vidproc.storage import LocalStorage
put, count, when = LocalStorage.put_file, 0, sys.argv.pop()
def put_file(self, key, path):
    global count
    count += 1
    if (count, when) == (2, "before"):
        os._exit(9)
    put(self, key, path)
    if count == 2:
        os._exit(9)
LocalStorage.put_file = put_file
main()
"""
"""The command line, killed when it puts its second clip in its place."""


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_killed_run_goes_on(
    when: str, vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    command = [str(a) for a in ("export", root / "lake", tmp_path / "out", "--rows", rows, *HERE)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command, when], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    out = tmp_path / "out"
    there = {p: p.stat().st_mtime_ns for p in out.iterdir() if p.is_file()}
    assert len(there) == (1 if when == "before" else 2) and not (out / "manifest.json").exists()
    for path in there:
        assert numbers(path), "what has a clip's name is whole"
    code, said, err = vidproc(*command, "--json")
    assert code == 0 and (json.loads(said)["kept"], json.loads(said)["made"]) == (1, 2), err
    assert there[min(there)] == min(there).stat().st_mtime_ns
    assert [clip["status"] for clip in manifest(out)] == ["made"] * 3
    assert {p.suffix for p in (out / ".vidproc").iterdir()} == {".json"}, "what the killed run left is removed"
    assert all(numbers(out / clip["file"]) for clip in manifest(out))


def test_a_source_that_is_gone_or_changed_costs_its_clip_only(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    shutil.copytree(root / "archive", tmp_path / "moved")  # copies keep their dates: the content is the same
    command = ("export", root / "lake", tmp_path / "out", "--rows", rows, *HERE, "--archive", tmp_path / "moved")
    (tmp_path / "moved" / ODD).unlink()
    os.utime(tmp_path / "moved" / YARD)
    code, said, err = vidproc(*command)
    assert code == 1 and "2 of 3 clips could not be made, above the budget of 5%" in said, err
    clips = {Path(c["source"]).name: c for c in manifest(tmp_path / "out")}
    assert clips[Path(GATE).name]["status"] == "made" and numbers(tmp_path / "out" / clips[Path(GATE).name]["file"])
    gone, changed = clips[Path(ODD).name], clips[Path(YARD).name]
    assert (gone["status"], gone["file"], gone["error_class"]) == ("failed", "", "not_found")
    assert changed["status"] == "failed" and "changed since it was indexed" in changed["reason"]
    shutil.copy2(root / "archive" / ODD, tmp_path / "moved" / ODD)
    code, said, _ = vidproc(*command, "--max-failures", "50%", "--json")
    assert code == 0 and (json.loads(said)["kept"], json.loads(said)["made"]) == (1, 1)


def test_a_full_disk_is_told_for_the_clips_that_it_costs(
    world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    root, _ = world
    (tmp_path / "out").mkdir()
    arguments = " ".join(map(str, ("export", root / "lake", "out", "--rows", rows, *HERE, "--mode encode")))
    script = f"""
        mount -t tmpfs -o size=64k tmpfs out || exit 77
        head -c 40k /dev/zero >out/filler
        "{sys.executable}" -m vidproc {arguments} >first 2>&1; echo $? >first.code
        mount -o remount,size=10m out
        "{sys.executable}" -m vidproc {arguments} >second 2>&1; echo $? >second.code
        ls out >listed
    """
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]), "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    if done.returncode == 77:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert (tmp_path / "first.code").read_text().strip() == "1" and "the disk is full" in first, first
    assert "Traceback" not in first
    assert (tmp_path / "second.code").read_text().strip() == "0" and "0 failed" in second, second
    assert len((tmp_path / "listed").read_text().split()) == 3 + 3, "clips, filler, manifests"


def test_clips_go_to_s3_and_are_kept_there(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, s3_root: Root, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vidproc.storage.s3.PART_BYTES", 5 << 20)
    root, _ = world
    where = ("--endpoint-url", s3_root.options.endpoint_url, "--region", "us-east-1")
    command = ("export", root / "lake", s3_root.uri, "--rows", rows, *HERE, "--reel", "--json", *where)
    code, said, err = vidproc(*command)
    assert code == 0 and json.loads(said)["made"] == 3, err
    place = s3_root.storage
    clips = json.loads(place.get("manifest.json"))["clips"]
    for clip in clips:
        data = place.get(clip["file"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (clip["bytes"], clip["sha256"])
    code, said, err = vidproc(*command)
    assert code == 0 and (json.loads(said)["kept"], json.loads(said)["made"]) == (3, 0), err
    (large := tmp_path / "large").write_bytes(os.urandom(11 << 20))
    place.put_file("large", str(large))
    assert place.get("large") == large.read_bytes()


def test_a_reel_fits_sizes_and_rates_and_has_a_chapter_an_answer(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    out = tmp_path / "out"
    code, _, err = vidproc("export", root / "lake", out, "--rows", rows, *HERE, "--reel", "--codec", "mpeg4")
    assert code == 0, err
    with av.open(str(out / "reel.mp4")) as reel:
        video, sound = reel.streams.video[0], reel.streams.audio[0]
        assert (video.width, video.height, video.average_rate, video.codec_context.name) == (128, 96, 25, "mpeg4")
        chapters = [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in reel.chapters()]
        seconds = float(video.duration * video.time_base)
        assert float(sound.duration * sound.time_base) == pytest.approx(seconds, abs=0.05)
        frames = [f.to_ndarray(format="rgb24") for f in reel.decode(video=0)]
    clips = {Path(c["source"]).name: c for c in manifest(out)}
    gate, odd, yard = (clips[Path(name).name] for name in (GATE, ODD, YARD))
    assert len(chapters) == 4 and [t for t, _ in chapters[:2]] == [0.0, pytest.approx(0.72, abs=0.001)]
    assert chapters[0][1] == "gate/gate_20260301_220000 · 2026-03-01 22:00:02 UTC · person"
    assert chapters[1][1].endswith("=car") and "at 0:" in chapters[2][1]
    assert len(frames) == pytest.approx(25 * sum(c["seconds"] for c in (gate, odd, yard)), abs=2)
    whole = decode_whole(out / gate["file"])[5].to_image().resize((128, 84))
    assert np.abs(frames[5][6:90].astype(int) - np.asarray(whole)).mean() < 12 and frames[5][:4].max() < 30


def test_boxes_are_drawn_where_the_rows_say(vidproc: Run, world: tuple[Path, dict[str, Made]], tmp_path: Path) -> None:
    root, made = world
    out = tmp_path / "out"
    where = f"uri LIKE '%{YARD}' AND time_s = 2.0"
    code, said, err = vidproc(
        "export", root / "lake", out, "--where", where, "--table", "detections", "--boxes", *HERE, "--json"
    )
    assert code == 0 and json.loads(said)["modes"] == {"encode": 1}, err
    [clip] = manifest(out)
    at = round((2.0 - clip["source_start_s"]) * 25)
    drawn = decode_whole(out / clip["file"])[at].to_ndarray(format="rgb24").astype(int)
    plain = decode_whole(made[YARD].path)[50].to_ndarray(format="rgb24").astype(int)
    changed = np.abs(drawn - plain).max(axis=2) > 60
    x = 50 % 64  # where tests.support.fakes.Numbers sees frame 50: x to x + 24, 0 to 32
    assert changed[31:34, x + 2 : x + 22].mean() > 0.3 and changed[40:].mean() < 0.02


def test_subtitles_lie_beside_each_clip_on_its_clock(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    out = tmp_path / "out"
    command = ("export", root / "lake", out, "--rows", rows, *HERE, "--mode", "copy", "--subtitles", "srt")
    assert vidproc(*command, "--subtitles", "vtt")[0] == 0
    clips = manifest(out)
    for clip in clips:
        with av.open(str(out / clip["file"].replace(Path(clip["file"]).suffix, ".srt"))) as file:
            shown = [(p.pts, p.pts + p.duration, bytes(p).decode()) for p in file.demux() if p.size]
        assert shown and shown[-1][1] <= clip["seconds"] * 1000 + 1, "on the clip's clock, in milliseconds"
        assert all({"rises", "person", "car"} >= set(text.split("\n")) for _, _, text in shown)
    assert len(list(out.glob("*.vtt"))) == 3 and vidproc(*command)[0] == 0, "subtitles are no foreign clips"
    next(p for p in out.glob(".vidproc/*.json") if p.name != "place.json").unlink()
    code, _, err = vidproc(*command)
    assert code == 2 and ".srt" in err


def test_the_same_rows_from_csv_json_and_parquet(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, _ = world
    asked = json.loads(rows.read_text())
    pq.write_table(pa.Table.from_pylist(asked), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, asked[0])
        writer.writeheader()
        writer.writerows(asked)
    found = [
        vidproc("export", root / "lake", tmp_path / "out", "--rows", path, "--dry-run", "--json")[:2]
        for path in (rows, tmp_path / "rows.csv", tmp_path / "rows.parquet")
    ]
    assert found[0][0] == 0 and found[1] == found[0] and found[2] == found[0]
    (tmp_path / "bad.csv").write_text("uri,start_s,end_s\n/x,soon,2\n")
    code, _, err = vidproc("export", root / "lake", tmp_path / "out", "--rows", tmp_path / "bad.csv")
    assert code == 2 and "row 1: start_s is a number, not 'soon'" in err


def test_refusals_come_before_work(
    vidproc: Run, world: tuple[Path, dict[str, Made]], rows: Path, tmp_path: Path
) -> None:
    root, _ = world
    for arguments, why in {
        ("--rows", rows, "--label", "person"): "different ways to ask",
        ("--mode", "copy", "--boxes"): "leave one out",
        ("--codec", "wmv"): "--codec is one of h264, hevc, vp9, av1, mpeg4",
        ("--before", "-1"): "--before is a number of seconds",
        ("--subtitles", "ass"): "--subtitles is srt or vtt",
        ("--max-failures", "many"): "--max-failures is a share",
    }.items():
        code, _, err = vidproc("export", root / "lake", root / "never", *arguments)
        assert code == 2 and why in err, err
    assert vidproc("export", root / "lake", root / "lake/clips", "--rows", rows)[0] == 2
    code, _, err = vidproc("export", root / "lake", root / "archive/yard", "--rows", rows)
    assert code == 2 and "holds videos of the archive" in err
    assert not (root / "never").exists()
    (tmp_path / "file").write_text("mine")
    for place, why in {tmp_path / "file": "is no folder", tmp_path / "file/x": "no folder can be made"}.items():
        code, _, err = vidproc("export", root / "lake", place, "--rows", rows, *HERE)
        assert code == 2 and why in err, err


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "\r=1", "\0=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert harmless(text).startswith("'") and harmless("person") == "person" and harmless(-1.5) == -1.5
    assert "\n" in as_csv([])
