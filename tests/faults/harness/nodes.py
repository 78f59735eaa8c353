"""A real Ray cluster of several nodes, which are processes of this machine."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_PROGRAM = Path(__file__).with_name("ray_nodes.py")


@dataclass
class Nodes:
    """The cluster's process, obeyed line by line."""

    process: subprocess.Popen[str]
    address: str

    def do(self, what: str, name: str, **more: object) -> None:
        """Have it done, and wait until it is."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": what, "name": name, **more}) + "\n")
        self.process.stdin.flush()
        assert json.loads(self.process.stdout.readline()) == name


@contextmanager
def fleet_secrets() -> Iterator[None]:
    """An environment in which nobody else's cluster and fleet are this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("COE_FLEET_TOKEN", secrets.token_hex(16))
        yield


@contextmanager
def ray_nodes(named: Mapping[str, Mapping[str, float]]) -> Iterator[Nodes]:
    """A cluster of nodes with these resources; it ends with the context."""
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        found = Nodes(process, json.loads(process.stdout.readline()))
        for name, resources in named.items():
            found.do("add", name, resources=resources)
        yield found
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
