"""Server processes on a core of their own, and what they take."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_READY_S = 120.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], port: int, core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The id of a server process that listens at the port; ended by that id.

    Raises
    ------
    TimeoutError
        It does not within two minutes, or ended before; its last words are in the error.
    """
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*pinned_to(core), *command],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads, **(env or {})},
        )
        try:
            _wait_for(port, process, log)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def pinned_to(core: int) -> list[str]:
    """What a command is started with so that it stays on a core."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its descendants have had, of the threads that live."""
    total_ns = 0
    for member in _tree(pid):
        for thread in Path(f"/proc/{member}/task").iterdir():
            with contextlib.suppress(OSError):
                total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def rss_mb(pid: int) -> float:
    """Memory of a process and its descendants."""
    pages = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
    return pages * _PAGE / 1e6


def _tree(pid: int) -> list[int]:
    found, at = [pid], 0
    while at < len(found):
        for thread in Path(f"/proc/{found[at]}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in thread.read_text().split()]
        at += 1
    return found


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _READY_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise TimeoutError(log.read_text(errors="replace")[-600:])
