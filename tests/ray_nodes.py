"""A Ray cluster on this machine: a head and nodes as processes of their own, on loopback."""

import importlib.util
import os
import secrets
import subprocess
import sys
from typing import Any

import pytest

if importlib.util.find_spec("ray") is None:
    if os.environ.get("HPO_REQUIRE_RAY") == "1":
        pytest.fail("Ray is required but not installed", pytrace=False)
    pytest.skip("needs Ray: pip install -e '.[ray]'", allow_module_level=True)

STORE = 100 * 2**20  # bytes of each node's object store
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's switch for systems without clusters: all addresses are 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class Nodes:
    """Starts nodes, kills them, and asks the cluster what it has."""

    def __init__(self) -> None:
        # A process reads these when it imports Ray, and Ray's processes inherit them.
        os.environ.update(SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.head = self.add(0, include_dashboard=False)
        self.env = {**SETTINGS, "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, cpus: int, **more: Any) -> Any:
        return self.cluster.add_node(num_cpus=cpus, object_store_memory=STORE, wait=False, **more)

    def kill(self, node: Any) -> None:
        """Kills a node at once, with its workers."""
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any) -> None:
        """Asks the cluster to place nothing more on a node, as before it is taken away."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
        command += ["--address", self.address, "--node-id", node._node_id]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        command += ["--deadline-remaining-seconds", "5"]
        subprocess.run(command, env=os.environ, check=True, capture_output=True)

    def actors(self) -> list[int]:
        """The processes of actors on the nodes, which train or wait for a task."""
        raylets = {
            node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()
        }
        command = ["ps", "-eo", "pid,ppid,args"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
        named = "ray::RayWorker"
        return [int(p) for p, parent, a in lines if int(parent) in raylets and a.startswith(named)]

    def end(self) -> None:
        self.cluster.shutdown()


def on(nodes: Nodes) -> tuple[str, ...]:
    """The options of a run on the cluster."""
    return ("--pool", "ray", "--ray-address", nodes.address)
