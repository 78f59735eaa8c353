"""A Ray cluster of several nodes on this machine, in a process of its own.

Reads one JSON command a line, answers each with one JSON line, and ends with its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

# read when Ray is imported; see coe.actors
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

import ray
from ray.cluster_utils import Cluster

# a killed node is noticed after 1.4 s, and not after 16 s
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
_STORE_BYTES = 80_000_000
# Ray has things to say too, on standard output
_ANSWERS = os.dup(1)


def main() -> None:
    """Obey until standard input ends."""
    os.dup2(2, 1)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_system_config": QUICK,
            "labels": {"coe-node": "head"},
        },
    )
    ray.init(address=cluster.address, namespace="coe", log_to_driver=False)
    nodes: dict[str, Any] = {}
    try:
        _say(cluster.address)
        for line in sys.stdin:
            _say(_obey(cluster, nodes, json.loads(line)))
    finally:
        ray.shutdown()
        cluster.shutdown()


def _obey(cluster: Cluster, nodes: dict[str, Any], command: dict[str, Any]) -> Any:
    name = command["name"]
    if command["do"] == "add":
        nodes[name] = cluster.add_node(
            num_cpus=1,
            resources=command["resources"],
            labels={"coe-node": name},
            object_store_memory=_STORE_BYTES,
        )
    elif command["do"] == "remove":
        cluster.remove_node(nodes.pop(name), allow_graceful=False)
    elif command["do"] == "kill":
        os.kill(_process_id(name), signal.SIGKILL)
    elif command["do"] == "behead":
        # what the head knows goes with it, so the actor does not come back
        process_id = _process_id(name)
        cluster.head_node.kill_gcs_server()
        os.kill(process_id, signal.SIGKILL)
    return name


def _process_id(actor: str) -> int:
    found: int = ray.get(ray.get_actor(actor).__ray_call__.remote(lambda it: os.getpid()))
    return found


def _say(what: Any) -> None:
    os.write(_ANSWERS, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
