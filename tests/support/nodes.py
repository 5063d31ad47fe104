"""A cluster of several real Ray nodes on this machine, each a raylet and a store of its own, which can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAD = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
add = lambda: cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
nodes = [add(), add()]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        cluster.remove_node(nodes.pop(0), allow_graceful=False)  # SIGKILL to its raylet and workers
    else:
        nodes.append(add())
    print("done", flush=True)
cluster.shutdown()
"""

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
"""What a driver needs in its environment to join."""


class Nodes:
    """A head and two workers; their processes inherit the environment of now."""

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD],
            cwd=Path(__file__).parents[2],
            env=os.environ | TOKEN | {"TMPDIR": folder, "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._heard()

    def _heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _do(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._heard() == "done"

    def kill_one(self) -> None:
        self._do("kill")

    def add_one(self) -> None:
        """Another machine in the place of a lost one."""
        self._do("add")

    def close(self) -> None:
        self.process.communicate(timeout=60)
