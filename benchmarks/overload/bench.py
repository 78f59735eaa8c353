"""What a refusal costs a gateway beside an answer, and so what twice too many requests leave of it.

Processor time of the gateway's process, in one run: answers of a stub expert, refusals while all
places are taken, and what both would come to at twice the peak. Prints one JSON document.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from coe.config import DATA

STUB = Path(__file__).parents[1] / "gateway" / "stub.py"
N_CLIENTS, N_EACH, ROUNDS = 50, 40, 3
LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)
BODY = json.dumps(
    {"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 6?"}]}
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen]:
    """A server process that listens at a port, ended by its id."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *command], stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def configuration(folder: Path, stub_port: int, **gateway: int) -> Path:
    """A ``coe.yaml`` with the stub under the names of the shipped artefact's experts."""
    shipped = yaml.safe_load((DATA / "coe.yaml").read_text())
    url = f"http://127.0.0.1:{stub_port}/v1"
    document = {
        "gateway": gateway,
        "artefact": str(DATA / "artefact"),
        "budgets": str(DATA / "budgets.yaml"),
        "devices": shipped["devices"],
        "experts": [
            {"id": e["id"], "kind": "http", "device": e["device"], "base_url": url}
            for e in shipped["experts"]
        ],
    }
    path = folder / "coe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def cpu_s(process: subprocess.Popen) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def asked(port: int, n_each: int) -> Counter[int]:
    """How often each status came, of clients that ask again when they are answered."""
    statuses: Counter[int] = Counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(n_each):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            found = LENGTH.search(head)
            assert found is not None
            body = await reader.readexactly(int(found[1]))
            status = int(head.split()[1])
            assert status == 200 or json.loads(body)["error"]["code"] == "overloaded", body
            statuses[status] += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(N_CLIENTS)))
    return statuses


async def cost(process: subprocess.Popen, port: int, status: int, times: int) -> float:
    """Milliseconds of processor time per request; 99 in 100 at least have this status."""
    await asked(port, 4)
    before, n = cpu_s(process), 0
    for _ in range(ROUNDS):
        for _ in range(times):
            statuses = await asked(port, N_EACH // times)
            assert statuses[status] >= 0.99 * statuses.total(), statuses
            n += statuses.total()
    return (cpu_s(process) - before) / n * 1e3


async def full(process: subprocess.Popen, port: int) -> tuple[float, float]:
    """What a refusal costs on a connection that is kept, and on one of its own."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST[:-1])
    await asyncio.sleep(0.5)
    kept = await cost(process, port, 503, 1)
    new = await cost(process, port, 503, N_EACH)
    writer.close()
    return kept, new


def main() -> None:
    """Measure and print."""
    stub_port = free_port()
    found = {}
    with tempfile.TemporaryDirectory() as name, running([str(STUB), str(stub_port)], stub_port):
        for label, most in (("open", 512), ("full", 1)):
            port = free_port()
            path = configuration(Path(name), stub_port, port=port, max_in_flight=most)
            with running(["-m", "coe", "serve", "--config", str(path)], port) as process:
                if label == "open":
                    found["answer_cpu_ms"] = asyncio.run(cost(process, port, 200, 1))
                else:
                    kept, new = asyncio.run(full(process, port))
    answer = found["answer_cpu_ms"]
    found |= {"refusal_cpu_ms": kept, "refusal_on_new_connection_cpu_ms": new}
    for label, refusal in (("kept", kept), ("new", new)):
        # of twice as many as the processor answers, s are answered and the others refused
        found[f"goodput_at_twice_the_peak_{label}"] = (1 - 2 * refusal / answer) / (
            1 - refusal / answer
        )
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
