"""The files of cluster/ and jobs/, each against the schema of the program that will read it.

The field names of KubeRay's and Compose's own kinds are written down here, as far as our files use them, from the
published schemas named beside them. A new field has to be looked up there, and added here, before it can be used.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.media import make_video
from tests.support.s3 import find_weed
from vidproc import __version__
from vidproc.run.driver import index
from vidproc.runtime.metrics import COUNTERS, GAUGES
from vidproc.settings import Job, load_job

ROOT = Path(__file__).parents[1]
CLUSTER, JOBS = ROOT / "cluster", ROOT / "jobs"
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))

# KubeRay v1.7.0, ray-operator/config/crd/bases/ray.io_{rayclusters,rayjobs,raycronjobs}.yaml, version v1.
# A name stands for any value, a mapping for an object, a list for a list of objects, POD for a pod template.
POD = "pod template"
RAY_CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token")},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": ("v1", "v2"),
        "idleTimeoutSeconds": int,
        "resources": {"requests": dict, "limits": dict},
        "securityContext": dict,
    },
    "headGroupSpec": {"rayStartParams": dict, "template": POD},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": dict,
            "template": POD,
        }
    ],
}
RAY_JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "submitterPodTemplate": POD,
    "rayClusterSpec": RAY_CLUSTER,
}
KUBERAY = {
    "RayCluster": RAY_CLUSTER,
    "RayJob": RAY_JOB,
    "RayCronJob": {"schedule": str, "timeZone": str, "jobTemplate": RAY_JOB},
}

# Compose specification, schema/compose-spec.json of June 2026 (170098b).
HEALTHCHECK = {"test": list, "interval": str, "timeout": str, "retries": int}
COMPOSE_SERVICE = {
    "image": str,
    "build": {"context": str, "dockerfile": str, "target": str},
    "command": list,
    "environment": dict,
    "hostname": str,
    "ports": list,
    "volumes": list,
    "configs": [{"source": str, "target": str}],
    "depends_on": dict,
    "healthcheck": HEALTHCHECK,
    "deploy": {"replicas": int},
    "shm_size": str,
    "mem_limit": str,
    "ulimits": dict,
    "cap_drop": list,
    "security_opt": list,
    "restart": ("no", "always", "on-failure", "unless-stopped"),
}


def unknown(value: Any, known: Any, where: str = "") -> list[str]:
    """What the schema does not have, by path."""
    if known is POD or known is None:
        return []
    if isinstance(known, dict):
        if not isinstance(value, dict):
            return [f"{where} is not an object"]
        return list(
            itertools.chain.from_iterable(
                unknown(v, known[k], f"{where}.{k}") if k in known else [f"{where}.{k} is unknown"]
                for k, v in value.items()
            )
        )
    if isinstance(known, list):
        return [p for n, v in enumerate(value) for p in unknown(v, known[0], f"{where}[{n}]")]
    if isinstance(known, tuple):
        return [] if value in known else [f"{where} is {value!r}, not one of {known}"]
    return [] if isinstance(value, known) else [f"{where} is {value!r}, not a {known.__name__}"]


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def every_document() -> Iterator[Any]:
    for path in MANIFESTS:
        yield from documents(path)


def find(value: Any, key: str) -> Iterator[Any]:
    """Every value below this key, at any depth."""
    if isinstance(value, dict):
        for k, v in value.items():
            if k == key:
                yield v
            yield from find(v, key)
    elif isinstance(value, list):
        for v in value:
            yield from find(v, key)


# --- commands


def ray_options(command: str) -> set[str]:
    from ray.scripts.scripts import cli

    return {name for parameter in cli.commands[command].params for name in parameter.opts}


def weed_options(command: str) -> set[str]:
    done = subprocess.run([find_weed(), command, "-h"], capture_output=True, text=True, check=False)
    return set(re.findall(r"^\s+(-[A-Za-z][\w.]*)", done.stdout + done.stderr, re.MULTILINE))


def vidproc_options(words: list[str]) -> set[str]:
    """The options of `vidproc WORDS`; fails where there is no such command."""
    import typer

    from vidproc.cli import app

    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"vidproc has no command {word!r}: {sorted(command.commands)}"
        command = command.commands[word]
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def check_command(words: list[str]) -> None:
    """That a command line of ours or of Ray's has the commands and options it uses."""
    words = words[words.index("vidproc") :] if words[:2] == ["python", "-m"] else words
    used = {word.split("=")[0] for word in words if word.startswith("-") and word != "--"}
    if words[0] == "vidproc":
        known = vidproc_options(words[1:])
    elif words[0] == "ray":
        known = ray_options(words[1])
    else:
        return
    assert used <= known, f"{shlex.join(words)}: {sorted(used - known)}"


# --- Ray's cluster file


@pytest.fixture(scope="module")
def aws() -> Any:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def test_ray_accepts_its_cluster_file(aws: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(aws | {"cluster_synced_files": []})
    validate_config(prepared)
    assert prepared["available_node_types"].keys() == {"head", "cpu", "gpu"}
    with pytest.raises(Exception, match="cluster_nmae"):
        validate_config(prepared | {"cluster_nmae": "typo"})


def test_ec2_accepts_the_nodes(aws: Any) -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    request = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in aws["available_node_types"].items():
        problems = ParamValidator().validate(kind["node_config"] | {"MinCount": 1, "MaxCount": 1}, request)
        assert not problems.has_errors(), f"{name}: {problems.generate_report()}"


def test_workers_are_on_spot_with_a_role_and_the_store_fits_its_memory(aws: Any) -> None:
    kinds = aws["available_node_types"]
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert kinds["head"]["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    assert all("IamInstanceProfile" in kind["node_config"] for kind in kinds.values())
    assert all(kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for kind in kinds.values())
    for name in ("cpu", "gpu"):
        assert kinds[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        options = " ".join(kinds[name]["docker"]["worker_run_options"])
        store = int(re.search(r"VIDPROC_OBJECT_STORE=(\d+)", options)[1])  # type: ignore[index]
        assert store < int(re.search(r"--shm-size=(\d+)g", options)[1]) << 30  # type: ignore[index]
    assert "RAY_AUTH_MODE=token" in " ".join(aws["docker"]["run_options"])
    (rule,) = aws["provider"]["security_group"]["IpPermissions"]
    assert rule["IpRanges"] != [{"CidrIp": "0.0.0.0/0"}]


def test_the_cluster_file_starts_ray_with_options_it_has(aws: Any) -> None:
    for line in aws["head_start_ray_commands"] + aws["worker_start_ray_commands"]:
        check_command(shlex.split(line.split(";")[-1]))


# --- Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_accepts_the_manifest(path: Path) -> None:
    import kubernetes_validate

    for document in documents(path):
        if document["apiVersion"].startswith("ray.io/"):
            continue
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kuberay_has_the_fields_that_are_used(path: Path) -> None:
    for document in documents(path):
        if not document["apiVersion"].startswith("ray.io/"):
            continue
        assert document["apiVersion"] == "ray.io/v1"
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        assert unknown(document["spec"], KUBERAY[document["kind"]], document["kind"]) == []


def test_an_unknown_field_of_kuberay_is_found() -> None:
    (job,) = documents(CLUSTER / "kubernetes/rayjob.yaml")
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["maxReplica"] = 3
    job["spec"]["backoffLimit"] = "2"
    assert unknown(job["spec"], RAY_JOB, "RayJob") == [
        "RayJob.backoffLimit is '2', not a int",
        "RayJob.rayClusterSpec.workerGroupSpecs[1].maxReplica is unknown",
    ]


def pod_templates() -> Iterator[Any]:
    for document in every_document():
        for key in ("template", "submitterPodTemplate"):
            yield from find(document, key)


def test_pod_templates_of_ray_are_pods() -> None:
    import kubernetes_validate

    templates = list(pod_templates())
    assert len(templates) == 12  # head, cpu and gpu three times, the submitter twice, the night's
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)


def test_every_container_is_limited_pinned_and_not_root() -> None:
    for template in pod_templates():
        for container in template["spec"]["containers"]:
            secure = container["securityContext"]
            assert secure["runAsNonRoot"]
            assert not secure["allowPrivilegeEscalation"]
            assert secure["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert re.fullmatch(r"\S+:\d+\.\d+\.\d+-(cpu|cuda)", container["image"])
            assert container["image"].endswith("cuda") == ("nvidia.com/gpu" in container["resources"]["limits"])


def test_the_cluster_is_the_same_wherever_it_is_written() -> None:
    (cluster,) = documents(CLUSTER / "kubernetes/raycluster.yaml")
    (job,) = documents(CLUSTER / "kubernetes/rayjob.yaml")
    (cron,) = documents(CLUSTER / "kubernetes/raycronjob.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert cron["spec"]["jobTemplate"] == job["spec"]
    (night,) = documents(CLUSTER / "kubernetes/nightly.yaml")
    assert night["spec"]["schedule"] == cron["spec"]["schedule"]
    import ray

    assert cluster["spec"]["rayVersion"] == ray.__version__
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


def test_manifests_name_only_what_exists() -> None:
    everything = list(every_document())
    named = {(d["kind"], d["metadata"].get("name")) for d in everything}
    for template in pod_templates():
        account = template["spec"].get("serviceAccountName")
        assert account is None or ("ServiceAccount", account) in named
    used = {m["name"] for d in everything for m in find(d, "configMap")}
    used |= {m["name"] for d in everything for m in find(d, "configMapRef")}
    readme = (CLUSTER / "README.md").read_text()
    made = {name for kind, name in named if kind == "ConfigMap"} | set(re.findall(r"create configmap (\S+)", readme))
    assert used == made
    assert {m["name"] for d in everything for m in find(d, "secretRef")} == {
        name for kind, name in named if kind == "Secret"
    }
    assert {d["metadata"].get("namespace") for d in everything if d["kind"] != "Namespace"} == {"vidproc"}


def test_manifests_start_ray_and_vidproc_with_options_they_have() -> None:
    known = ray_options("start")
    for document in every_document():
        for parameters in find(document, "rayStartParams"):
            assert {f"--{name}" for name in parameters} <= known
            assert all(isinstance(value, str) for value in parameters.values())
        for entrypoint in find(document, "entrypoint"):
            check_command(shlex.split(entrypoint))
            job_file = re.search(r"--job /etc/vidproc/jobs/(\S+)", entrypoint)
            assert job_file is not None
            assert (JOBS / job_file[1]).is_file()


def test_a_night_never_overtakes_another() -> None:
    (night,) = documents(CLUSTER / "kubernetes/nightly.yaml")
    (job,) = documents(CLUSTER / "kubernetes/rayjob.yaml")
    assert night["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["activeDeadlineSeconds"] < 24 * 3600


# --- the night's program, against a server that answers as Kubernetes does


@dataclass
class Kubernetes:
    """Keeps RayJobs, and answers the questions about them in the given order."""

    answers: list[Any]
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: int | None = None

    def handle(self, method: str, path: str, body: dict[str, Any] | None, token: str) -> tuple[int, dict[str, Any]]:
        self.tokens.add(token)
        assert path.startswith("/apis/ray.io/v1/namespaces/vidproc/rayjobs")
        if method == "POST":
            assert body is not None
            if self.refuse:
                return self.refuse, {"message": "no"}
            self.created.append(body)
            return 201, body
        assert path.endswith("/vidproc-nightly-29384723")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return (answer, {}) if isinstance(answer, int) else (200, {"status": answer})


@contextlib.contextmanager
def serving(kubernetes: Kubernetes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, answer = kubernetes.handle(self.command, self.path, body, self.headers["Authorization"])
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = _do

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def night(kubernetes: Kubernetes, tmp_path: Path) -> tuple[int, str]:
    (tmp_path / "token").write_text("account-token\n")
    (tmp_path / "namespace").write_text("vidproc")
    program, manifest = CLUSTER / "kubernetes/night.py", CLUSTER / "kubernetes/rayjob.yaml"
    with serving(kubernetes) as url:
        done = subprocess.run(
            [sys.executable, str(program), str(manifest)],
            env=os.environ
            | {"KUBERNETES_API": url, "SERVICE_ACCOUNT": str(tmp_path), "POLL_SECONDS": "0.01"}
            | {"JOB_NAME": "vidproc-nightly-29384723", "JOB_UID": "u-1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    return done.returncode, done.stdout + done.stderr


def test_the_night_starts_its_rayjob_and_waits_for_its_end(tmp_path: Path) -> None:
    kubernetes = Kubernetes([{}, {"jobDeploymentStatus": "Running"}, 503, {"jobDeploymentStatus": "Complete"}])
    code, log = night(kubernetes, tmp_path)
    assert code == 0, log
    (created,) = kubernetes.created
    (job,) = documents(CLUSTER / "kubernetes/rayjob.yaml")
    assert created["spec"] == job["spec"]
    assert created["metadata"]["name"] == "vidproc-nightly-29384723"
    assert created["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "vidproc-nightly-29384723", "uid": "u-1"}
    ]
    assert kubernetes.tokens == {"Bearer account-token"}
    assert "account-token" not in log


def test_a_pod_that_replaces_another_watches_the_same_rayjob(tmp_path: Path) -> None:
    kubernetes = Kubernetes([{"jobDeploymentStatus": "Complete"}], refuse=409)
    code, log = night(kubernetes, tmp_path)
    assert (code, kubernetes.created) == (0, [])
    assert "is there already" in log


@pytest.mark.parametrize(
    ("answers", "refuse", "code", "says"),
    [
        ([{"jobDeploymentStatus": "Failed", "message": "exit code 1"}], None, 1, "Failed  exit code 1"),
        ([{"jobDeploymentStatus": "ValidationFailed"}], None, 1, "ValidationFailed"),
        ([404], None, 1, "was deleted"),
        ([{}], 403, 1, "refused"),
        ([503], None, 75, "started"),
        ([{}], 500, 75, "refused"),
    ],
)
def test_a_night_that_fails_says_so(tmp_path: Path, answers: list[Any], refuse: int, code: int, says: str) -> None:
    got, log = night(Kubernetes(answers, refuse=refuse), tmp_path)
    assert got == code
    assert says in log


def test_only_the_nights_own_failure_ends_it() -> None:
    (cron,) = documents(CLUSTER / "kubernetes/nightly.yaml")
    (rule,) = cron["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [1]
    source = (CLUSTER / "kubernetes/night.py").read_text()
    assert "WELL, FAILED, UNANSWERED = 0, 1, 75" in source


# --- the image


def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}


def test_the_image_is_pinned_small_and_not_root() -> None:
    lines = dockerfile()
    assert {instruction for instruction, _ in lines} <= INSTRUCTIONS
    stages: dict[str, list[tuple[str, str]]] = {}
    parents: dict[str, str] = {}
    for instruction, rest in lines:
        if instruction == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert match is not None
            assert match[1] in stages or match[1] == "${PYTHON_IMAGE}"
            stages[match[2]], parents[match[2]] = [], match[1]
        elif stages:
            next(reversed(stages.values())).append((instruction, rest))
    for target in ("cpu", "cuda"):
        assert parents[target] == "runtime"
        assert ("USER", "1000:1000") in stages["runtime"]
        assert not any(instruction in ("USER", "RUN") for instruction, _ in stages[target])
    assert list(stages)[-1] == "cpu"  # what `docker build` makes without --target
    for instruction, rest in lines:
        if instruction == "RUN" and "pip install" in rest:
            assert re.search(r"--constraint (/src/)?constraints.txt", rest), rest
            assert "--no-cache-dir" in rest
        if instruction == "COPY":
            for source in shlex.split(rest)[:-1]:
                if match := re.fullmatch(r"--from=(\S+)", source):
                    assert match[1] in stages
                    break
                assert (ROOT / source).exists() or source == "LICENSE", source
        if instruction in ("ARG", "ENV"):
            assert not re.search("SECRET|TOKEN|PASSWORD|KEY", rest)
    (image,) = (rest for instruction, rest in lines if instruction == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm", image)


def test_the_build_sees_only_what_it_copies() -> None:
    ignored, *kept = [
        line for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored == "*"
    copied = {
        source
        for instruction, rest in dockerfile()
        if instruction == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    }
    assert {line[1:] for line in kept if line.startswith("!")} == copied


# --- compose


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((CLUSTER / "compose.yaml").read_text())


def test_compose_has_the_fields_that_are_used(compose: Any) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "configs", "volumes"}
    assert compose["services"].keys() == {"head", "worker", "store"}
    for name, service in compose["services"].items():
        assert unknown(service, COMPOSE_SERVICE, name) == []
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][other]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (CLUSTER / source).exists()
    assert unknown(compose["configs"], {"s3": {"content": str}}) == []
    build = compose["services"]["head"]["build"]
    assert (CLUSTER / build["context"] / build["dockerfile"]).is_file()
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2


def test_compose_starts_ray_and_weed_with_options_they_have(compose: Any) -> None:
    for name in ("head", "worker"):
        check_command(compose["services"][name]["command"])
    from ray.scripts.scripts import cli

    assert "health-check" in cli.commands
    mini, *flags = compose["services"]["store"]["command"]
    assert {flag.split("=")[0] for flag in flags} <= weed_options(mini)
    assert "-master.telemetry=false" in flags


def test_the_secrets_of_compose_are_named_by_the_readme(compose: Any) -> None:
    text = (CLUSTER / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    assert wanted == {"RAY_AUTH_TOKEN", "VIDPROC_S3_SECRET", "OWNER_S3_SECRET"}
    assert set(re.findall(r'"(\w+)=\$\(openssl', (CLUSTER / "README.md").read_text())) == wanted
    assert ".env" in (CLUSTER / ".gitignore").read_text().split()


@dataclass(frozen=True)
class Store:
    endpoint: str

    def client(self, service: str, key: str, secret: str) -> Any:
        import boto3

        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )


@pytest.fixture(scope="module")
def store(compose: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """SeaweedFS as compose starts it, on loopback and free ports, with its IAM interface writable besides."""
    folder = tmp_path_factory.mktemp("store")
    secrets = {"OWNER_S3_SECRET": "owner-secret", "VIDPROC_S3_SECRET": "vidproc-secret"}
    content = re.sub(r"\$\{(\w+)[^}]*\}", lambda match: secrets[match[1]], compose["configs"]["s3"]["content"])
    (folder / "s3.json").write_text(content)
    (folder / "data").mkdir()
    names = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    instead = {"-dir": folder / "data", "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1", "-s3.config": folder / "s3.json"}
    command = [find_weed(), "-logtostderr=true"]
    for word in compose["services"]["store"]["command"]:
        name = word.split("=")[0]
        if name != "-s3.port":
            command.append(f"{name}={instead[name]}" if name in instead else word)
    command += [f"-{name}={port}" for name, port in ports.items()] + ["-s3.iam.readOnly=false"]
    with (folder / "log").open("wb") as log:
        # The server takes keys from these variables too; those of another test's server would win.
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {"GOMEMLIMIT": "300MiB"}
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    found = Store(f"http://127.0.0.1:{ports['s3.port']}")
    try:
        deadline = time.monotonic() + 60
        buckets: set[str] = set()
        while time.monotonic() < deadline and server.poll() is None and buckets != {"archive", "lake"}:
            time.sleep(0.1)
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{found.endpoint}/healthz", timeout=5):
                listed = found.client("s3", "owner", "owner-secret").list_buckets()
                buckets = {bucket["Name"] for bucket in listed["Buckets"]}
        assert buckets == {"archive", "lake"}, (folder / "log").read_text()[-3000:]
        owner = found.client("s3", "owner", "owner-secret")
        owner.put_object(Bucket="archive", Key="cam 1/a.mp4", Body=b"video")
        owner.create_bucket(Bucket="other")
        yield found
    finally:
        server.kill()
        server.wait()


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def reads_the_archive_and_writes_the_lake(s3: Any) -> None:
    from botocore.exceptions import ClientError

    assert [item["Key"] for item in s3.list_objects_v2(Bucket="archive")["Contents"]] == ["cam 1/a.mp4"]
    assert s3.get_object(Bucket="archive", Key="cam 1/a.mp4", Range="bytes=1-2")["Body"].read() == b"id"
    s3.put_object(Bucket="lake", Key="tables/x", Body=b"1", IfNoneMatch="*")
    assert s3.get_object(Bucket="lake", Key="tables/x")["Body"].read() == b"1"
    assert s3.list_objects_v2(Bucket="lake", Prefix="tables/")["KeyCount"] == 1
    assert "Errors" not in s3.delete_objects(Bucket="lake", Delete={"Objects": [{"Key": "tables/x"}]})
    refused = [
        lambda: s3.put_object(Bucket="archive", Key="b", Body=b"x"),
        lambda: s3.delete_object(Bucket="archive", Key="cam 1/a.mp4"),
        lambda: s3.delete_bucket(Bucket="lake"),
        lambda: s3.create_bucket(Bucket="mine"),
        lambda: s3.list_objects_v2(Bucket="other"),
        lambda: s3.put_object(Bucket="other", Key="b", Body=b"x"),
    ]
    for attempt in refused:
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()


def test_composes_identity_reads_the_archive_and_writes_the_lake(store: Store) -> None:
    reads_the_archive_and_writes_the_lake(store.client("s3", "vidproc", "vidproc-secret"))


def test_the_iam_policy_allows_reading_the_archive_and_writing_the_lake_and_no_more(store: Store) -> None:
    policy = (
        (CLUSTER / "iam-policy.json").read_text().replace("ARCHIVE-BUCKET", "archive").replace("LAKE-BUCKET", "lake")
    )
    iam = store.client("iam", "owner", "owner-secret")
    iam.create_user(UserName="worker")
    key = iam.create_access_key(UserName="worker")["AccessKey"]
    iam.put_user_policy(UserName="worker", PolicyName="vidproc", PolicyDocument=policy)
    s3 = store.client("s3", key["AccessKeyId"], key["SecretAccessKey"])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the server takes a moment to learn of a new key
        with contextlib.suppress(Exception):
            s3.list_objects_v2(Bucket="archive")
            break
        time.sleep(0.2)
    reads_the_archive_and_writes_the_lake(s3)
    # And it is all that a night and its upkeep need.
    keys = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    place = ("s3://lake/tables", "--endpoint-url", store.endpoint)
    models = ("--detector", "tests.support.fakes:Numbers", "--actions", "none", "--executor", "inline", "--quiet")
    for arguments in (
        ("index", "s3://archive", *place, *models),
        ("compact", *place),
        ("forget", "s3://lake/tables", "s3://archive/cam 1/a.mp4", *place[1:]),
        ("vacuum", *place),
        ("index", "s3://archive", *place, *models),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vidproc", *arguments],
            cwd=ROOT,
            env=os.environ | keys | {"AWS_REGION": "us-east-1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout + done.stderr)
        assert "1 declined" in done.stdout or arguments[0] != "index"


@pytest.mark.parametrize("name", ["iam-policy.json", "iam-head-policy.json"])
def test_a_policy_is_one(name: str) -> None:
    policy = json.loads((CLUSTER / name).read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert "s3:*" not in statement["Action"]
        assert re.fullmatch("[A-Za-z0-9]+", statement["Sid"])


# --- job files

JOB_FILES = sorted(p for p in JOBS.glob("*.yaml") if not p.name.startswith("train_"))


def test_there_is_a_job_file_for_each_occasion() -> None:
    assert {path.name for path in JOB_FILES} == {"nightly.yaml", "backfill.yaml", "reindex.yaml", "one_video.yaml"}


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VIDPROC_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_a_job_file_needs_an_archive_and_a_lake_and_nothing_else(path: Path) -> None:
    job = load_job(path, {"archive": "/videos", "lake": "/lake"})
    assert (job.archive, job.lake) == ("/videos", "/lake")
    assert (job.detector.model, job.actions.model) == ("demo", "demo")
    assert job.execution.address is None  # here, until `--address` says otherwise
    assert load_job(path).archive == "./archive"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "2019").mkdir()
    make_video(folder / "2019/a.mp4", seconds=2)
    make_video(folder / "b.mp4", seconds=3)
    return folder


@pytest.mark.parametrize(("name", "videos"), [("nightly", 2), ("backfill", 1), ("reindex", 2), ("one_video", 1)])
def test_a_job_file_runs_as_it_stands(
    name: str, videos: int, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exact models in place of the trained, and in this process: tests/runtime/test_jobs.py has one on Ray."""
    for kind, model in {"DETECTOR": "tests.support.fakes:Numbers", "ACTIONS": "tests.support.fakes:Order"}.items():
        monkeypatch.setenv(f"VIDPROC_{kind}", model)
        monkeypatch.setenv(f"VIDPROC_NEW_{kind}", model)
    monkeypatch.setenv("VIDPROC_BACKFILL", "2019/*")
    monkeypatch.setenv("VIDPROC_VIDEO", "b.mp4")
    lake = str(tmp_path / "lake")
    job = load_job(JOBS / f"{name}.yaml", {"archive": str(archive), "lake": lake, "execution": {"executor": "inline"}})
    summary = index(job)
    assert (summary.exit_code, dict(summary.statuses)) == (0, {"indexed": videos}), summary.reason
    again = index(job)
    assert (again.exit_code, again.tasks_done) == (0, 0)


@pytest.mark.parametrize("name", ["backfill", "one_video"])
def test_a_job_that_helps_the_night_gives_the_nights_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDPROC_DETECTOR", "some_detector")
    monkeypatch.setenv("VIDPROC_ACTIONS", "none")
    nightly, other = load_job(JOBS / "nightly.yaml"), load_job(JOBS / f"{name}.yaml")
    for section in Job.model_fields.keys() - {"filters", "cut", "limits", "execution", "limit"}:
        assert getattr(nightly, section) == getattr(other, section), section


@pytest.mark.usefixtures("no_settings")
def test_a_new_model_gets_a_name_of_its_own() -> None:
    assert load_job(JOBS / "reindex.yaml").name != load_job(JOBS / "nightly.yaml").name


def test_the_cluster_sets_what_the_job_files_ask_for(compose: Any) -> None:
    asked = set(re.findall(r"\$\{(VIDPROC_\w+)", (JOBS / "nightly.yaml").read_text()))
    (config,) = [d for d in every_document() if d["kind"] == "ConfigMap"]
    assert asked <= config["data"].keys()
    assert asked <= compose["services"]["head"]["environment"].keys()


# --- the dashboard

METRICS = {name: set(tags) for name, (_, tags) in (COUNTERS | GAUGES).items()}


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((CLUSTER / "grafana.json").read_text())


def test_the_dashboard_asks_for_metrics_that_exist(dashboard: Any) -> None:
    from ray.dashboard.modules.reporter import reporter_agent

    of_ray = set(reporter_agent.METRICS_GAUGES) | {"object_store_used_memory"}
    asked = set()
    for expression in find(dashboard, "expr"):
        for name, labels in re.findall(r"ray_(\w+)\{([^}]*)\}", expression):
            asked.add(name)
            used = set(re.findall(r"(\w+)=", labels)) | set(
                itertools.chain.from_iterable(x.split(",") for x in re.findall(r"by \(([^)]*)\)", expression))
            )
            assert name in of_ray or used <= METRICS[name] | {"SessionName"}, expression
    assert asked - of_ray == METRICS.keys()
    table = re.findall(r"`(vidproc_\w+)(?:\{\w+\})?`", (CLUSTER / "README.md").read_text())
    assert set(table) == METRICS.keys()


def test_the_dashboard_is_one_that_grafana_can_import(dashboard: Any) -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} covers another"
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard)))
    assert used == variables


# --- what the README tells an operator to type


def readme_commands() -> list[list[str]]:
    text = (CLUSTER / "README.md").read_text()
    lines: list[str] = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    lines += [code.replace("URL", "x") for code in re.findall(r"`((?:vidproc|ray) [a-z][^`]*)`", text)]
    commands = []
    for line in lines:
        for part in re.split(r"\s\|\s|;\s|\$\(", line):
            words = shlex.split(part.rstrip(")"), posix=True) if part.count('"') % 2 == 0 else part.split()
            while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in ("export", "set", "umask")):
                words = words[1:]
            if "vidproc" in words and words[0] == "docker" and "exec" in words:
                words = words[words.index("vidproc") :]
            if words:
                commands.append(words)
    return commands


def test_the_readmes_commands_exist() -> None:
    ours = [words for words in readme_commands() if words[0] in ("vidproc", "ray")]
    assert {words[1] for words in ours if words[0] == "vidproc"} >= {"submit", "jobs", "plan", "status", "failures"}
    for words in ours:
        check_command(words[: words.index(">")] if ">" in words else words)


def test_the_readmes_files_exist() -> None:
    text = (CLUSTER / "README.md").read_text()
    for name in re.findall(r"(?:cluster|jobs)/[\w./-]+", text):
        assert (ROOT / name).exists() or name == "cluster/.env", name
    for path in paths_below(CLUSTER):
        assert path.name in text or path.name.startswith((".", "README", "Dockerfile.")), path


def paths_below(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def test_no_secret_is_written_down() -> None:
    for path in (*paths_below(CLUSTER), *JOB_FILES):
        text = path.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|eyJ[A-Za-z0-9_-]{20}", text), path
        for value in re.findall(r"(?:SECRET\w*|TOKEN|PASSWORD)\s*[:=]\s*(\S+)", text):
            assert re.match(r"""REPLACE|\$|"\$|\?write|\|""", value), (path, value)


def test_images_are_tagged_with_the_version_that_is_built() -> None:
    files = [path for path in CLUSTER.rglob("*") if path.is_file()]
    tags = {tag for path in files for tag in re.findall(r"/vidproc:([0-9.]+)-(?:cpu|cuda)", path.read_text())}
    assert tags == {__version__}
