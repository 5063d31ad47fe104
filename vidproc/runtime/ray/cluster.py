"""A Ray cluster that we were asked to join: found, joined, and asked whether it is still there.

A cluster is joined only when somebody asks: by an address, or by RAY_ADDRESS in the environment. The file in which Ray
leaves the address of a cluster on this machine is read only for the address "auto", and only if it is this user's own
or root's: any user of the machine could have written it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time

import ray
import ray.exceptions as rx

from vidproc.errors import ConfigError
from vidproc.runtime.ray.messages import in_short, quietly

log = logging.getLogger(__name__)

JOIN_LIMIT_S = 45.0
"""A cluster that has not answered by then is not joined; Ray by itself would wait for ever."""


def find(address: str | None) -> str | None:
    """Return host and port of the cluster to join; None: start a Ray of our own.

    Without an address RAY_ADDRESS decides, and without that it is one of our own, as for "local". "auto" asks for
    a cluster, that of RAY_ADDRESS or the one on this machine. Raises ConfigError where the one that is asked for does
    not answer: its port is asked first, for Ray itself waits minutes for a cluster that is not there."""
    known = os.environ.get("RAY_ADDRESS") if address in (None, "", "auto") else address
    if known == "local" or (not known and not address):
        return None
    if known in (None, "", "auto"):
        known = _left_on_this_machine()
        if known is None:
            raise ConfigError(
                "no Ray cluster is known here: give the host and port of its head (--address head:6379) or set "
                "RAY_ADDRESS; without an address the work runs on a Ray of its own on this machine"
            )
    if error := _answers(known):
        raise _no_cluster(known, error)
    return known


def _left_on_this_machine() -> str | None:
    """Return the address that `ray start` of this user, or of root, left on this machine."""
    path = ray._common.utils.get_ray_address_file(None)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            if os.fstat(file.fileno()).st_uid in (os.getuid(), 0):
                return file.read(300).strip() or None
    except OSError:
        return None
    log.warning("%s is not taken: it is another user's", path)
    return None


def _answers(address: str) -> Exception | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        return error
    return None


def _no_cluster(address: str, error: object) -> ConfigError:
    return ConfigError(
        f"no Ray cluster answers at {address!r} ({error}): give the host and port of its head, as in "
        "head:6379, set RAY_AUTH_TOKEN where it asks for one, or use the address 'local'"
    )


ASK = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=float(sys.argv[2]))
"""


def join(address: str) -> str:
    """Join the cluster at this address, as `find` gave it. Return what travels to it, in words. Raises ConfigError."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:  # in another process: nothing ends this call where something listens there that never answers
        ask = [sys.executable, "-c", ASK, address, str(JOIN_LIMIT_S)]
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=JOIN_LIMIT_S, errors="replace")
    except subprocess.TimeoutExpired:
        raise _no_cluster(address, f"nothing for {JOIN_LIMIT_S:g} s") from None
    if asked.returncode:
        raise _no_cluster(address, (asked.stderr.strip().splitlines() or ["it does not say why"])[-1][:500])
    try:
        travels = _what_travels()
        with quietly():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, rx.RayError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, in_short(error)) from error
    return travels


class Head:
    """The head of a cluster that we joined, asked now and then whether it is still there."""

    EVERY_S = 5.0
    SILENT_S = 30.0
    """Ray ends this process itself, without a word to us, when its head is gone for a minute."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._asked = self._answered = time.monotonic()

    def silent(self) -> str | None:
        """Say so when it has not answered for a while."""
        now = time.monotonic()
        if now - self._asked >= self.EVERY_S:
            self._asked = now
            if _answers(self._address) is None:
                self._answered = time.monotonic()
        if now - self._answered > self.SILENT_S:
            return f"its head {self._address} has not answered for {now - self._answered:.0f} s"
        return None


def _what_travels() -> str:
    """Say what Ray is about to send to the nodes of a cluster: what the environment of this process asks for."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    asked = ray._private.worker._maybe_modify_runtime_env(dict(job.get("runtime_env") or {}), False) or {}
    parts = []
    for name, value in sorted(asked.items()):
        if name == "env_vars":
            parts.append(f"the variables {', '.join(sorted(value))}")
        elif name in ("working_dir", "py_modules"):
            parts.append(f"{name} {value} (with all files in it)" if "://" not in str(value) else f"{name} {value}")
        elif not name.startswith("_"):
            parts.append(f"{name} {value}")
    return "; ".join(parts) or "nothing: its workers use what is installed on its nodes"
