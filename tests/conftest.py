"""What the tests of several layers share: a clock that obeys, experts and a router made by hand."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from coe.core import DeviceProfile, ExpertSpec
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.head import CategoryHead
from coe.routers.quality import QualityTable

settings.register_profile("coe", max_examples=100, deadline=None)
settings.load_profile("coe")

WORDS = ("code", "maths", "poem")


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
        quality=QualityTable(
            ("code", "maths", "general"),
            tuple(spec.id for spec in specs),
            table,
            np.zeros_like(table),
            np.full_like(table, tokens),
            np.full_like(table, tokens if cautious_tokens is None else cautious_tokens),
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
def word_embedder() -> type[WordEmbedder]:
    return WordEmbedder
