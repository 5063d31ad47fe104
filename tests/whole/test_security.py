"""Media files, their names, model files and the network are hostile; credentials stay where they are.

What SQL may not do is in test_query.py, what single modules refuse in their own tests; here it is the
whole job that must hold."""

from __future__ import annotations

import io
import os
import pickle
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import Root, with_secrets
from tests.support.media import make_video
from tests.support.proxy import Rule, proxy
from tests.support.s3 import BUCKET, LIMITED_ACCESS_KEY, LIMITED_SECRET_KEY, SECRET_KEY, SeaweedFS
from tests.whole.test_end_to_end import job, statuses, tables, upload
from vidproc.ask import connect
from vidproc.errors import ConfigError
from vidproc.run.driver import index
from vidproc.storage import StorageOptions, open_storage

INLINE = {"executor": "inline", "device": "cpu"}


class Trap:
    """A listening socket and a named pipe: whoever connects to the one or opens the other is noticed."""

    def __init__(self, folder: Path) -> None:
        self.pipe = folder / "pipe.ts"
        os.mkfifo(self.pipe)
        self.visits: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.02)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/x.ts"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                self._socket.accept()[0].close()
                self.visits.append("network")
            except TimeoutError:
                pass
            try:
                os.close(os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK))
                self.visits.append("disk")
            except OSError:  # nobody has it open for reading
                pass

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    made = Trap(tmp_path)
    yield made
    made.close()


def hostile_texts(target: str) -> dict[str, str]:
    """Files that ask their reader to open something else."""
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"
    mpd = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
    return {
        "playlist.m3u8": f"{hls}#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
        "live.m3u8": f"{hls}#EXTINF:2,\n{target}\n",
        "key.m3u8": f'{hls}#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n',
        "map.m3u8": f'{hls}#EXT-X-MAP:URI="{target}"\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n',
        "master.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=avc1\n{target}\n",
        "prefixed.m3u8": f"{hls}#EXTINF:2,\nconcat:{target}|file:/etc/hostname\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{target}'\nfile '/etc/hostname'\n",
        "manifest.mpd": f'{mpd}profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static" '
        f'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL><SegmentBase indexRange="0-9"/></Representation></AdaptationSet>'
        "</Period></MPD>",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "stream.rtsp": f"rtsptext\n{target.replace('http', 'rtsp')}\n",
        "list.m3u": f"#EXTM3U\n#EXTINF:2,x\n{target}\n",
        "list.pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
        "list.asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "script.smil": f'<smil><body><video src="{target}"/></body></smil>',
        "filters.lavfi": f"movie={target}",
        "drawing.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
        "index.idx": f"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n{target}\n",
        "text.avs": f'AviSource("{target}")\n',
    }


def write_hostile(folder: Path, targets: list[str], endings: tuple[str, ...]) -> int:
    folder.mkdir()
    count = 0
    for n, target in enumerate(targets):
        for name, text in hostile_texts(target).items():
            for ending in endings:
                (folder / f"{n}-{name}{ending}").write_text(text)
                count += 1
    return count


def test_the_trap_springs(trap: Trap, tmp_path: Path) -> None:
    """With the demuxers and protocols that we shut out, these files do reach disk and network."""
    open_all = {"protocol_whitelist": "file,http,tcp", "allowed_extensions": "ALL", "extension_picky": "0"}
    for target, visit in ((trap.url, "network"), (str(trap.pipe), "disk")):
        (tmp_path / "x.m3u8").write_text(hostile_texts(target)["playlist.m3u8"])
        with pytest.raises(av.FFmpegError), av.open(str(tmp_path / "x.m3u8"), options=open_all, timeout=5) as found:
            next(found.demux())
        deadline = time.monotonic() + 60
        while visit not in trap.visits and time.monotonic() < deadline:
            time.sleep(0.02)
        assert visit in trap.visits


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_file_never_makes_us_open_another(
    place: str, trap: Trap, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    archive, lake = str(tmp_path / "in"), str(tmp_path / "lake")
    if place == "local":
        targets = [trap.url, str(trap.pipe), f"file:{trap.pipe}", "/etc/hostname"]
        count = write_hostile(tmp_path / "in", targets, ("", ".mp4", ".ts", ".mkv"))
    else:  # here the demuxer may speak HTTP, with the store
        count = write_hostile(tmp_path / "in", [trap.url, "/etc/hostname"], ("", ".mp4"))
        root: Root = request.getfixturevalue("s3_root")
        archive, lake = upload(tmp_path / "in", root.below("in")), root.below("lake").uri
    summary = index(job(archive, lake, execution=INLINE))
    assert summary.statuses == {"declined": count}
    time.sleep(0.1)
    assert trap.visits == []
    hostname = Path("/etc/hostname").read_text().strip()
    with connect(lake) as database:
        rows = database.sql("SELECT * EXCLUDE (host, traceback) FROM failures").read_all().to_pylist()
    assert len(rows) == count
    assert not [r for r in rows if hostname and hostname in str(r["error"])]


def giants(folder: Path) -> list[str]:
    """Small files whose headers claim pictures of 16,384 x 16,384 pixels and more."""
    folder.mkdir()
    size = (16_384).to_bytes(2, "big")
    # GIF: the size stands in the 10 bytes of its head, and again at its only picture.
    picture = b"\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0"
    (folder / "claims.gif").write_bytes(b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 6 + picture + b"\x3b")
    made = make_video(folder / "a.mp4", seconds=0.5, size=(64, 64)).path.read_bytes()
    at = made.index(b"avc1", made.index(b"stsd")) + 28
    (folder / "entry.mp4").write_bytes(made[:at] + size + size + made[at + 4 :])
    made = make_video(folder / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", seconds=0.5, size=(64, 64)).path.read_bytes()
    assert made.count(b"\xff\xc0\x00\x11\x08\x00\x40\x00\x40") > 5
    (folder / "frames.avi").write_bytes(
        made.replace(b"\xff\xc0\x00\x11\x08\x00\x40\x00\x40", b"\xff\xc0\x00\x11\x08" + size + size)
    )
    made = make_video(folder / "a.ivf", codec="libvpx", seconds=0.5, size=(64, 64)).path.read_bytes()
    key = b"\x9d\x01\x2a"
    assert key in made
    huge = (16_383).to_bytes(2, "little")
    (folder / "vp8.ivf").write_bytes(made.replace(key + b"\x40\0\x40\0", key + huge + huge))
    for path in folder.glob("a.*"):
        path.unlink()
    return sorted(p.name for p in folder.iterdir())


def many_streams(made: bytes, number: int) -> bytes:
    """An AVI file whose header lists its one stream so many times."""
    at = made.index(b"strl") - 8
    stream = made[at : at + 8 + int.from_bytes(made[at + 4 : at + 8], "little")]
    out = bytearray(made[:at] + stream * number + made[at + len(stream) :])
    headers = made.index(b"hdrl") - 4
    for place in (4, headers):  # the sizes of what lies around: the file, and the list of its headers
        grown = int.from_bytes(made[place : place + 4], "little") + (number - 1) * len(stream)
        out[place : place + 4] = grown.to_bytes(4, "little")
    return bytes(out)


def test_claims_of_size_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    names = giants(tmp_path / "in")
    with av.open(str(tmp_path / "in" / "many.mkv"), "w") as out:
        streams = [out.add_stream("mjpeg", rate=25) for _ in range(300)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"  # type: ignore[attr-defined]
        for stream in streams:
            frame = av.VideoFrame(32, 32, "yuvj420p")
            frame.pts = 0
            out.mux(stream.encode(frame))  # type: ignore[attr-defined]
            out.mux(stream.encode(None))  # type: ignore[attr-defined]
    short = make_video(tmp_path / "short.avi", codec="mpeg4", bframes=0, seconds=0.5).path.read_bytes()
    (tmp_path / "in" / "ten thousand.avi").write_bytes(many_streams(short, 10_000))
    make_video(tmp_path / "in" / "good.mp4", seconds=1)
    lake = str(tmp_path / "lake")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index(job(str(tmp_path / "in"), lake, execution=INLINE))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = statuses(lake, str(tmp_path / "in"))
    assert found.pop("good.mp4") == ("indexed", None)
    assert set(found) == {*names, "many.mkv", "ten thousand.avi"}
    # The picture inside is of an ordinary size where only the container lies about it.
    assert found.pop("entry.mp4") in {("declined", "limit"), ("indexed", None)}
    assert {status for status, _ in found.values()} == {"declined"}, found
    assert found["many.mkv"] == ("declined", "limit")
    assert found["ten thousand.avi"] == ("declined", "limit")
    assert grown < 400 << 10, f"{grown >> 10} MiB"


NAMES = [
    "-rf.mp4",
    "--lake=x.mp4",
    "a\nb.mp4",
    "\x1b[31mred\r.mp4",
    ".\x1b[31mred and hidden\r\n.mp4",
    "it's; DROP TABLE videos; --.mp4",
    '"quoted" $(touch pwned) `touch pwned`.mp4',
    "%00.mp4",
    "%2e%2e%2fup.mp4",
    "..%5c..%5cup.mp4",
    "..mp4..mp4",
    "a?b=c&X-Amz-Signature=x#d.mp4",
    "file:c.mp4",
    "http:%2f%2f127.0.0.1.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
    "v%03d.mp4",
    "[x],{y},*.mp4",
    "ünï ​ 動画.mp4",
    "back\\slash.mp4",
    "videos/_delta_log/00000000000000000000.json.mp4",
    "_staging/x.mp4",
    "<script>alert(1)</script>.mp4",
    "=cmd|' /C calc'!A0.mp4",
]
S3_NAMES = ["a../b.mp4", "a/b..c/d...mp4", "a//b.mp4"]
"""The server refuses keys with a part `..`; see the test below for stores that do not."""


@pytest.mark.parametrize("place", ["local", "s3"])
def test_names_are_names_and_nothing_else(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = make_video(tmp_path / "made.mp4", seconds=0.5).path.read_bytes()
    archive, lake = str(tmp_path / "in"), str(tmp_path / "below" / "lake")
    names = list(NAMES)
    if place == "s3":
        root: Root = request.getfixturevalue("s3_root")
        storage = root.below("in/below/here").storage
        archive, lake = storage.uri, root.below("lake").uri
        for name in [*NAMES, *S3_NAMES]:
            storage.put(name, data)
        names = [o.key for o in storage.list()]  # the server makes some of them its own way
        assert set(names) >= {n.replace("\\", "/") for n in NAMES}
    else:
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    before = sorted(str(p) for p in tmp_path.iterdir()), sorted(os.listdir())
    done = subprocess.run(
        [sys.executable, "-m", "vidproc", "index", archive, lake, "--detector", "tests.support.fakes:Numbers",
         "--actions", "none", "--executor", "inline", "--device", "cpu"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {n: ("declined", "hidden") if n.startswith(".") else ("indexed", None) for n in names}
    assert statuses(lake, archive) == expected
    with connect(lake) as database:
        counts = database.sql("SELECT video_id, count(*) AS n FROM detections GROUP BY 1").read_all().to_pylist()
    assert len(counts) == len([n for n in names if not n.startswith(".")]) and {r["n"] for r in counts} == {2}
    after = sorted(str(p) for p in tmp_path.iterdir() if p.name != "below"), sorted(os.listdir())
    assert after == before
    said = subprocess.run(
        [sys.executable, "-m", "vidproc", "failures", lake], capture_output=True, text=True, timeout=240
    )
    assert said.returncode == 0 and "red" in said.stdout
    for text in (said.stdout, said.stderr, done.stdout, done.stderr):
        assert "\x1b[31m" not in text and "\r" not in text


def test_a_listed_key_that_climbs_stays_below_its_archive(
    tmp_path: Path, s3_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 itself allows `a/../b` as a key; the test server does not, so the listing is made up."""
    from vidproc.storage import ObjectInfo, S3Storage

    climbing = ["../../outside.mp4", "a/../b.mp4", "./c.mp4", ".."]
    real = S3Storage.list

    def listed(self: S3Storage, prefix: str = "", on_denied: Any = None) -> Iterator[ObjectInfo]:
        yield from real(self, prefix, on_denied)
        if self.uri.endswith("/in"):
            for key in climbing:
                yield ObjectInfo(key, 1000, "etag", datetime.now(UTC))

    monkeypatch.setattr(S3Storage, "list", listed)
    archive, lake = s3_root.below("in"), str(tmp_path / "below" / "lake")
    archive.storage.put("good.mp4", make_video(tmp_path / "made.mp4", seconds=0.5).path.read_bytes())
    before = sorted(os.listdir(tmp_path))
    index(job(archive.uri, lake, execution=INLINE))
    found = statuses(lake, archive.uri)
    assert found.pop("good.mp4") == ("indexed", None)
    assert set(found) == {*climbing}
    assert not {status for status, _ in found.values()} & {"indexed", "partial"}
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "below"]) and os.listdir(tmp_path / "below") == ["lake"]
    with pytest.raises(ValueError, match="not a key"):
        open_storage(str(tmp_path)).get("../x")


class _Evil:
    def __init__(self, path: Path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["model", "weights"])
@pytest.mark.parametrize("ending", [".pt", ".pth", ".onnx", ".safetensors", ".pkl"])
def test_a_pickled_model_is_refused_and_not_executed(how: str, ending: str, tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    files = [tmp_path / f"plain{ending}", tmp_path / f"zip{ending}"]
    files[0].write_bytes(pickle.dumps(_Evil(proof), protocol=2))
    torch.save({"model": _Evil(proof)}, files[1])
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "v.mp4", seconds=0.2)
    for number, file in enumerate(files):
        detector = {"model": str(file)} if how == "model" else {"model": "ssdlite", "weights": str(file)}
        lake = str(tmp_path / f"lake-{number}")
        try:
            summary = index(job(str(tmp_path / "in"), lake, detector=detector, actions="none", execution=INLINE))
        except ConfigError:
            pass
        else:
            assert summary.exit_code == 1, summary.reason
        assert not proof.exists(), f"{file.name} was executed"
    assert os.system(_Evil(proof).command) == 0 and proof.exists(), "the proof would show it"


# Credentials ------------------------------------------------------------------------------------------

QUICK = """
import functools, vidproc.run.driver, vidproc.cli, vidproc.video.container
from vidproc.runtime.executor import Limits
vidproc.run.driver.Limits = functools.partial(Limits, first_wait_s=0.02, longest_wait_s=0.1, infra_strikes=2)
options = vidproc.video.container._http_options
vidproc.video.container._http_options = lambda *given: options(*given) | {"reconnect_delay_max": "1"}
vidproc.cli.main()
"""


def everything_in(lake: str) -> Iterator[tuple[str, str]]:
    """Every object of a lake as text, Parquet by its rows."""
    storage = open_storage(lake)
    for item in storage.list():
        data = storage.get(item.key)
        yield item.key, data.decode("utf-8", "replace")
        if item.key.endswith(".parquet"):
            yield item.key, str(pq.read_table(io.BytesIO(data)).to_pylist())


@pytest.mark.timeout(600)
def test_credentials_and_signatures_are_nowhere(s3_root: Root, s3_server: SeaweedFS, tmp_path: Path) -> None:
    """Least of all in what is said of reads that failed, whose URLs were signed."""
    folder = tmp_path / "in"
    folder.mkdir()
    faults = ("503", "denied", "cut", "short")
    for name in ("good", *faults):
        make_video(folder / f"{name}.mp4", seconds=0.5)
    (folder / "text.mp4").write_text("no video\n" * 50)
    archive, lake = upload(folder, s3_root.below("in")), s3_root.below("lake").uri
    said = ""
    rules = [Rule(fault, methods="GET", path=rf".*/in/{fault}\.mp4") for fault in faults]
    with proxy(s3_server.endpoint, *rules) as bad:
        options = ["--detector", "tests.support.fakes:Numbers", "--actions", "none", "--endpoint-url", bad.endpoint]
        inline = ["--executor", "inline", "--device", "cpu", "--log-format", "json", "--max-failures", "100%"]
        for arguments in (
            ["plan", archive, *options, "--calibrate", "0", "--executor", "inline", "--include", "[gs5]*",
             "--save", str(tmp_path / "plan")],
            ["index", archive, lake, *options, *inline],
            ["failures", lake, "--json"],
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", QUICK, *arguments], capture_output=True, text=True, timeout=300
            )
            said += done.stdout + done.stderr
            assert "Traceback (most recent call last)" not in done.stderr, done.stderr
        assert bad.hits > 0, said
    assert "503.mp4" in said
    found = dict(everything_in(lake)) | dict(everything_in(str(tmp_path / "plan")))
    assert len(found) > 20 and any("plan" in name for name in found)
    for name, text in {"output": said, **found}.items():
        for secret in (SECRET_KEY, "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token"):
            assert secret not in text, f"{secret} in {name}"


def test_the_search_of_the_whole_session_finds_what_it_looks_for() -> None:
    """In memory, for a planted secret in a file would be found at the end."""
    signed = f"https://host/a.mp4?X-Amz-Signature={'0a' * 32}"
    parquet = io.BytesIO()
    pq.write_table(pa.table({"error": [f"403 of {signed}"] * 9}), parquet, compression="zstd")
    files = {"a/run.log": SECRET_KEY.encode(), "b/failures/x.parquet": parquet.getvalue(), "c/run.log": b"***"}
    found = with_secrets((name, len(data), lambda data=data: data) for name, data in files.items())  # type: ignore[misc]
    assert found == ["a/run.log", "b/failures/x.parquet"]


def test_to_read_the_archive_and_write_the_lake_is_enough(
    s3_root: Root, s3_server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_video(folder / "a.mp4", seconds=1)
    make_video(folder / "b.mkv", seconds=1)
    bucket = "vidproc-archive"
    if bucket not in [b["Name"] for b in s3_server.client().list_buckets()["Buckets"]]:
        s3_server.client().create_bucket(Bucket=bucket)
    archive = f"s3://{bucket}/{s3_root.uri.rpartition('/')[2]}"
    for path in folder.iterdir():
        open_storage(archive).put(path.name, path.read_bytes())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LIMITED_ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", LIMITED_SECRET_KEY)
    # Clients are kept a process; another region name makes new ones, with the credentials of now.
    limited = StorageOptions(endpoint_url=s3_server.endpoint, region="eu-west-9")
    with pytest.raises(ConfigError, match="refused"):
        open_storage(archive, options=limited).put("x", b"x")
    lake = f"s3://{BUCKET}/limited/{s3_root.uri.rpartition('/')[2]}"
    with pytest.raises(ConfigError, match="refused"):
        open_storage(f"s3://{BUCKET}/elsewhere", options=limited).put("x", b"x")
    summary = index(job(archive, lake, execution=INLINE, storage={"region": "eu-west-9"}))
    assert (summary.exit_code, summary.statuses) == (0, {"indexed": 2})
    again = index(job(archive, lake, execution=INLINE, storage={"region": "eu-west-9"}))
    assert again.due == 0
    monkeypatch.undo()
    assert len(tables(lake)["videos"]) == 2
