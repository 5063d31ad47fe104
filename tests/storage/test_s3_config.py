"""How S3 is reached is resolved once: boto3, the Delta library, DuckDB and the demuxer ask one place with one key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.recorder import ROLE_KEY, ROLE_TOKEN, recorder

FILE, ENV = ("AKIAFILE", "file-secret-key-1"), ("AKIAENV", "env-secret-key-12")
ENV_KEYS = {"AWS_ACCESS_KEY_ID": ENV[0], "AWS_SECRET_ACCESS_KEY": ENV[1]}
PROFILE = f"aws_access_key_id = {FILE[0]}\naws_secret_access_key = {FILE[1]}\nregion = eu-file-1\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An environment, a configuration file and options; and whom all must ask, as whom."""

    config: str = ""
    env: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    host: str
    """Without the bucket."""
    virtual: bool = False
    """The bucket is a part of the host's name."""
    key: str | None = ENV[0]
    region: str | None = "us-east-1"
    token: str | None = None
    bucket_end: str = ""


SERVICES = """[profile lab]
services = lab-services
endpoint_url = http://global.test
[services lab-services]
s3 =
    endpoint_url = http://service.test:9000
"""

CASES = {
    "option": Case(env=ENV_KEYS, options={"endpoint_url": "http://option.test:9000"}, host="option.test:9000"),
    "option over environment": Case(
        env=ENV_KEYS | {"AWS_ENDPOINT_URL": "http://env.test"},
        options={"endpoint_url": "http://option.test", "region": "eu-option-1"},
        host="option.test", region="eu-option-1",
    ),
    "environment": Case(
        env=ENV_KEYS | {"AWS_ENDPOINT_URL": "http://env.test", "AWS_DEFAULT_REGION": "eu-env-1"}
        | {"AWS_SESSION_TOKEN": "token-1"},
        host="env.test", region="eu-env-1", token="token-1",
    ),
    "two variables for the region": Case(
        # The SDKs of other languages read AWS_REGION, and the same command line is for them.
        env=ENV_KEYS | {"AWS_REGION": "eu-env-1", "AWS_DEFAULT_REGION": "eu-env-2"},
        options={"endpoint_url": "http://option.test"}, host="option.test", region="eu-env-1",
    ),
    "environment of the service over the general one": Case(
        env=ENV_KEYS | {"AWS_ENDPOINT_URL": "http://env.test", "AWS_ENDPOINT_URL_S3": "http://env-s3.test:81"},
        host="env-s3.test:81",
    ),
    "environment over profile": Case(
        config=f"[profile lab]\n{PROFILE}endpoint_url = http://file.test\n",
        env={"AWS_PROFILE": "lab", "AWS_ENDPOINT_URL": "http://env.test", "AWS_DEFAULT_REGION": "eu-env-1"},
        host="env.test", key=FILE[0], region="eu-env-1",
    ),
    "profile by option": Case(
        # The token of other keys in the environment is nobody's.
        config=f"[profile lab]\n{PROFILE}endpoint_url = http://file.test:82\n",
        env=ENV_KEYS | {"AWS_SESSION_TOKEN": "token-of-others"}, options={"profile": "lab"},
        host="file.test:82", key=FILE[0], region="eu-file-1",
    ),
    "profile by variable": Case(
        config=f"[profile lab]\n{PROFILE}endpoint_url = http://file.test\n", env={"AWS_PROFILE": "lab"},
        host="file.test", key=FILE[0], region="eu-file-1",
    ),
    "services section": Case(
        config=SERVICES.replace("[profile lab]\n", f"[profile lab]\n{PROFILE}"), options={"profile": "lab"},
        host="service.test:9000", key=FILE[0], region="eu-file-1",
    ),
    "configured endpoints ignored": Case(
        config=SERVICES,
        env=ENV_KEYS | {"AWS_PROFILE": "lab", "AWS_ENDPOINT_URL": "http://env.test", "AWS_DEFAULT_REGION": "eu-west-1"}
        | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        host="s3.eu-west-1.amazonaws.com:443", virtual=True, region="eu-west-1",
    ),
    "configured endpoints ignored, by profile": Case(
        config=SERVICES.replace("[profile lab]\n", "[profile lab]\nignore_configured_endpoint_urls = true\n"),
        env=ENV_KEYS | {"AWS_PROFILE": "lab", "AWS_ENDPOINT_URL": "http://env.test", "AWS_DEFAULT_REGION": "eu-west-1"},
        host="s3.eu-west-1.amazonaws.com:443", virtual=True, region="eu-west-1",
    ),
    "virtual by profile": Case(
        config=f"[profile lab]\n{PROFILE}endpoint_url = http://file.test:83/sub\ns3 =\n  addressing_style = virtual\n",
        env={"AWS_PROFILE": "lab"}, host="file.test:83/sub", virtual=True, key=FILE[0], region="eu-file-1",
    ),
    "path by profile, on AWS": Case(
        config="[profile lab]\ns3 =\n  addressing_style = path\n",
        env=ENV_KEYS | {"AWS_PROFILE": "lab", "AWS_DEFAULT_REGION": "eu-west-1"},
        host="s3.eu-west-1.amazonaws.com:443", region="eu-west-1",
    ),
    "virtual by option": Case(
        env=ENV_KEYS, options={"endpoint_url": "http://option.test:84", "path_style": False},
        host="option.test:84", virtual=True,
    ),
    "a bucket with dots on AWS": Case(
        env=ENV_KEYS | {"AWS_DEFAULT_REGION": "eu-west-1"}, bucket_end=".with.dots",
        host="s3.eu-west-1.amazonaws.com:443", region="eu-west-1",
    ),
    "anonymous": Case(
        env=ENV_KEYS, options={"endpoint_url": "http://option.test", "anonymous": True},
        host="option.test", key=None, region=None,
    ),
    "keys of a process": Case(
        config="[profile lab]\ncredential_process = cat KEYS\nendpoint_url = http://file.test\n",
        options={"profile": "lab"}, host="file.test", key="AKIAPROCESS", token="process-token-1",
    ),
    "an assumed role": Case(
        config=f"[profile base]\n{PROFILE}[profile lab]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\n"
        "endpoint_url = http://file.test\nservices = sts\n[services sts]\nsts =\n  endpoint_url = http://sts.test\n",
        env={"AWS_PROFILE": "lab"}, host="file.test", key=ROLE_KEY, token=ROLE_TOKEN,
    ),
}  # fmt: skip

READERS = r"""
import json, os, sys, time, urllib.error, urllib.request
import boto3, botocore.config, deltalake, duckdb
import vidproc.ask.engine, vidproc.storage
from vidproc.storage import StorageOptions, open_storage, readable_url

def boto(uri, options, over_tls):
    open_storage(uri, options=options).get("by-vidproc-boto3")

def delta(uri, options, over_tls):
    storage = open_storage(uri, options=options)
    retries = {"max_retries": "0"}
    deltalake.DeltaTable(storage.delta_uri("by-delta"), storage_options=storage.delta_options() | retries)

def duck(uri, options, over_tls):
    con = duckdb.connect()
    con.execute(f"LOAD {vidproc.ask.engine._literal(vidproc.ask.engine._extension('delta'))}")
    vidproc.ask.engine._reach_s3(con, open_storage(uri, options=options))
    con.execute("SET http_retries = 0")
    kernel = [] if over_tls else [f"FROM delta_scan('{uri}/videos')"]  # it cannot be kept from trying for long
    for sql in (f"FROM read_blob('{uri}/videos/part-by-duckdb')", *kernel):
        try:
            con.execute(sql)
        except duckdb.Error:
            pass

def sdk(uri, options, over_tls):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, signature_version="s3v4")
    session = boto3.session.Session(profile_name=options.profile)
    session.client("s3", config=config).list_objects_v2(Bucket=uri.split("/")[2], Prefix="by-sdk")

time.sleep = lambda s: None  # between two attempts of the SDK
clean = dict(os.environ)
for number, case in enumerate(json.load(sys.stdin)):
    for name in set(os.environ) - set(clean):
        del os.environ[name]
    os.environ.update(case["env"])
    for module in [m for name, m in sys.modules.items() if name.startswith("vidproc")]:
        for kept in ("_reaches", "_clients", "_places", "_sessions"):
            getattr(module, kept, {}).clear()  # a process has one environment
    uri, options = f"s3://case-{number}{case['bucket_end']}/prefix", StorageOptions(**case["options"])
    try:
        urllib.request.urlopen(f"http://mark.test/{number}")
    except urllib.error.HTTPError as e:
        e.close()
    for reader in [boto, delta, duck] + ([] if set(case["options"]) - {"profile"} else [sdk]):
        try:
            reader(uri, options, ":443" in case["host"])
        except Exception as e:
            print(number, reader.__name__, repr(e)[:300], file=sys.stderr)
    print(json.dumps([number, readable_url(f"{uri}/by-demuxer", options, 60)]), flush=True)
"""

MARKS = {
    "by-vidproc-boto3": "boto3",
    "by-delta": "delta",
    "part-by-duckdb": "duckdb",
    "videos/_delta_log": "kernel",
    "by-sdk": "sdk",
}


@dataclass(frozen=True)
class Asked:
    host: str
    virtual: bool
    key: str | None
    region: str | None
    token: str | None


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[Asked]]]:
    """By case, and by who asked: whom, and as whom."""
    folder = tmp_path_factory.mktemp("s3-config")
    (folder / "keys").write_text(
        json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "process-secret"}
                   | {"SessionToken": "process-token-1", "Expiration": "2099-01-01T00:00:00Z"})
    )  # fmt: skip
    with recorder(folder / "log") as recorded:
        proxies = {name: recorded.url for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
        sent = []
        for number, case in enumerate(CASES.values()):
            config = folder / f"config-{number}"
            config.write_text(case.config.replace("KEYS", str(folder / "keys")))
            sent.append(asdict(case) | {"env": case.env | proxies | {"AWS_CONFIG_FILE": str(config)}})
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k.lower() != "no_proxy"}
        env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        done = subprocess.run(
            [sys.executable, "-c", READERS], input=json.dumps(sent), env=env, capture_output=True, text=True, check=True
        )
        print(done.stderr)
        requests = recorded.requests()
    found: list[dict[str, set[Asked]]] = [{} for _ in CASES]
    urls = [line for line in done.stdout.splitlines() if line.startswith("[")]  # DuckDB draws bars between them
    for number, url in map(json.loads, urls):
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
        key, _, region, *_ = query.get("X-Amz-Credential", ["//"])[0].split("/")
        seen = {"key": key or None, "region": region or None, "token": query.get("X-Amz-Security-Token", [None])[0]}
        seen |= {"host": parts.netloc + (":443" if parts.scheme == "https" else ""), "path": parts.path}
        note(found[number], "demuxer", number, seen)
    number = 0
    for seen in requests:
        if seen["host"] == "mark.test":
            number = int(seen["path"].strip("/"))
        elif seen["method"] == "CONNECT":  # no more is seen of these than the host
            note(found[number], "tls", number, seen)
        elif who := next((who for mark, who in MARKS.items() if mark in unquote(seen["path"] + seen["query"])), ""):
            note(found[number], who, number, seen)
    return dict(zip(CASES, found, strict=True))


def note(found: dict[str, set[Asked]], who: str, number: int, seen: dict[str, Any]) -> None:
    bucket = f"case-{number}{list(CASES.values())[number].bucket_end}"
    virtual = seen["host"].startswith(f"{bucket}.")
    before = re.match(r"/sub(?=/|$)", seen["path"])
    host = seen["host"].removeprefix(f"{bucket}.") + (before[0] if before else "")
    found.setdefault(who, set()).add(Asked(host, virtual, seen["key"], seen["region"], seen["token"]))


@pytest.mark.parametrize("name", CASES)
def test_all_readers_ask_one_place_as_one(name: str, asked: dict[str, dict[str, set[Asked]]]) -> None:
    case, found = CASES[name], asked[name]
    expected = Asked(case.host, case.virtual, case.key, case.region, case.token)
    by_itself = found.pop("sdk", None)
    if ":443" in case.host:
        assert found == {"demuxer": {expected}, "tls": {replace(expected, key=None, region=None, token=None)}}
        return
    assert found == {who: {expected} for who in ("boto3", "delta", "duckdb", "kernel", "demuxer")}
    if by_itself is not None:  # what the SDK makes of the same environment; it has no rule of ours about paths
        assert {(a.host, a.key, a.region, a.token) for a in by_itself} == {
            (case.host, case.key, case.region, case.token)
        }
