"""A fake expert as a program that looks like vLLM's server, and what it attests in a file.

Where it is killed nobody asks it any more: what it was about to write, it has written down before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from harness.expert import Attested, FakeExpert

LOGS = "FAULTS_LOGS"
"""Environment variable that names the folder of the files."""

_PACKAGE = ("vllm", "entrypoints", "openai")


def packaged(folder: Path) -> dict[str, str]:
    """Variables with which an interpreter finds this where it looks for vLLM.

    Parameters
    ----------
    folder : where the package and the files of what is attested are put.
    """
    package, logs = folder.joinpath("site", *_PACKAGE), folder / "logs"
    package.mkdir(parents=True)
    logs.mkdir()
    (package / "api_server.py").write_text("from harness.engine import main\n\nmain()\n")
    found = (folder / "site", Path(__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join(map(str, found)), LOGS: str(logs)}


def attested(folder: Path) -> list[Attested]:
    """What the engines of `packaged` attest by now, in the order that they were asked in.

    An answer that is on its way, or was when its engine was killed, is ``killed``; all that the
    engine has made of it may have been written.
    """
    entries = [entry for path in (folder / "logs").iterdir() for entry in _read(path)]
    return sorted(entries, key=lambda entry: entry.at_s)


def _read(path: Path) -> Iterator[Attested]:
    last: dict[int, Attested] = {}
    for line in path.read_text().splitlines():
        n, said = json.loads(line)
        last[n] = Attested(**said)
    for entry in last.values():
        if entry.end == "open":
            entry.end, entry.written = "killed", entry.generated
        # what asks without a tag is the engine's own host
        if entry.tag:
            yield entry


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    options, _ = parser.parse_known_args()
    log = Path(os.environ[LOGS]) / f"{options.served_model_name}-{os.getpid()}"
    asyncio.run(_serve(options.host, options.port, options.served_model_name, log))


async def _serve(host: str, port: int, name: str, log: Path) -> None:
    numbers: dict[int, int] = {}
    with log.open("a", buffering=1) as file:

        def note(entry: Attested) -> None:
            n = numbers.setdefault(id(entry), len(numbers))
            file.write(json.dumps([n, asdict(entry)]) + "\n")

        expert = FakeExpert(name, host=host, note=note)
        expert.port = port
        await expert.start()
        await asyncio.Event().wait()
