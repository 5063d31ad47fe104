"""The nightly CronJob's program: starts one RayJob and waits for its end.

    python night.py rayjob.yaml

The RayJob has the name of the Job which this pod belongs to (JOB_NAME), so a pod that replaces a lost one finds it,
and is owned by it (JOB_UID), so it goes when the night leaves the CronJob's history: `kubectl delete job NAME` ends a
night and its cluster.

Exit codes: 0 the run ended well; 1 it failed, or was deleted; 75 Kubernetes did not answer, try again.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
POLL_S = float(os.environ.get("POLL_SECONDS", "15"))
PATIENCE = 40
"""Answers in a row that may fail before this pod gives way to another: ten minutes."""

WELL, FAILED, UNANSWERED = 0, 1, 75


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the Kubernetes API as this pod's account. The token is read anew: it changes every hour."""
    api = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
    request = urllib.request.Request(
        f"{api}/apis/ray.io/v1/namespaces/{(ACCOUNT / 'namespace').read_text().strip()}{path}",
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt") if api.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return json.load(answer)


def start(manifest: dict[str, Any], name: str, uid: str) -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    manifest["metadata"] = {"name": name, "ownerReferences": [owner]}
    try:
        call("POST", "/rayjobs", manifest)
        print(f"started RayJob {name}", flush=True)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        print(f"RayJob {name} is there already: watching it", flush=True)


def watch(name: str) -> int:
    shown, unanswered = "", 0
    while True:
        try:
            status = call("GET", f"/rayjobs/{name}").get("status") or {}
            unanswered = 0
        except urllib.error.HTTPError as error:
            if error.code == 404:
                print(f"RayJob {name} was deleted", flush=True)
                return FAILED
            status, unanswered = {}, unanswered + 1
        except OSError:
            status, unanswered = {}, unanswered + 1
        if unanswered > PATIENCE:
            return UNANSWERED
        state = status.get("jobDeploymentStatus", "")
        if state and state != shown:
            shown = state
            print(f"{name}: {state} {status.get('reason', '')} {status.get('message', '')}".strip(), flush=True)
        if state in ("Complete", "Failed", "ValidationFailed"):
            return WELL if state == "Complete" else FAILED
        time.sleep(POLL_S)


def main() -> int:
    name = os.environ["JOB_NAME"]
    try:
        start(yaml.safe_load(Path(sys.argv[1]).read_text("utf-8")), name, os.environ["JOB_UID"])
    except urllib.error.HTTPError as error:
        print(f"Kubernetes refused RayJob {name}: {error.code} {error.read().decode()[:2000]}", flush=True)
        return FAILED if error.code < 500 else UNANSWERED
    except OSError as error:
        print(f"Kubernetes did not answer: {error}", flush=True)
        return UNANSWERED
    return watch(name)


if __name__ == "__main__":
    sys.exit(main())
