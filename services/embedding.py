"""The configured embedder, and embedders behind an OpenAI-compatible ``/embeddings``.

Training waits for an endpoint; how serving does without waiting is in `coe.services.prefetch`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from coe.config import api_key
from coe.core import Policy
from coe.embedders import EmbedderSection, EndpointSection
from coe.errors.files import ConfigError
from coe.errors.gateway import EmbeddingError, EmbeddingUnavailableError
from coe.routers.embed import REMOTE, Embedder, load_named, stacked
from coe.tenants import TenantSection

Vectors = NDArray[np.float32]

BATCH = 32
"""Most texts in one call to an endpoint."""

_CONNECT_TIMEOUT_S = 3.0
_KEPT_DETAIL = 200
_FIELDS = {
    400: "embedder.model or embedder.max_chars",
    401: "embedder.api_key_env",
    403: "embedder.api_key_env",
    404: "embedder.base_url or embedder.model",
    413: "embedder.max_chars",
    422: "embedder.model or embedder.max_chars",
    500: "embedder.base_url or embedder.max_chars",
}
_OVERLOADED = frozenset({429, 502, 503, 504, 529})
_MALFORMED = (
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How an endpoint that fails is tried again.

    Parameters
    ----------
    delays_s : waits before the second attempt and those after it.
    max_wait_s : an endpoint that asks for a longer wait is given up at once.
    """

    delays_s: tuple[float, ...]
    max_wait_s: float


TRAINING = Patience((0.5, 2.0, 8.0), 60.0)
SERVING = Patience((0.1,), 0.1)

# what came of one attempt, and the talk about one batch: yields the seconds to wait before the
# next attempt, is sent what came of it, returns the vectors
_Outcome = httpx.Response | httpx.HTTPError
_Talk = Generator[float, _Outcome, Vectors]


def configured(section: EmbedderSection | None) -> Embedder | None:
    """The embedder of a configuration; ``None`` when it names none.

    Raises
    ------
    ArtefactError
        A local one's file is absent or altered.
    ConfigError, EmbeddingError
        The endpoint's key is not set, or it has to be asked for its dimension and cannot.
    """
    if section is None:
        return None
    if isinstance(section, EndpointSection):
        return HttpEmbedder.connect(section)
    return load_named(section.kind)


def check_local(
    section: EmbedderSection | None,
    policies: Mapping[str, Policy],
    tenants: Mapping[str, TenantSection] = MappingProxyType({}),
) -> None:
    """Nothing, where the embedder of a configuration may see the prompts of all policies.

    A local one sees every prompt anyway; an endpoint those of policies and tenants with
    ``local_only`` only if it is said to be local.

    Raises
    ------
    ConfigError
        It may not; the message names the policy or the tenant.
    """
    if not isinstance(section, EndpointSection) or section.local:
        return
    for kind, wishes in (("policy", policies), ("tenant", tenants)):
        for name in (name for name, one in wishes.items() if one.local_only):
            raise ConfigError(
                f"embedder.local: {kind} {name!r} has local_only, but its prompts would be sent to "
                "the embeddings endpoint: set it to true if that is on a machine of yours, or "
                "train with a local embedder, or remove local_only"
            )


@dataclass(frozen=True, slots=True)
class HttpEmbedder:
    """An embedder behind ``POST {base_url}/embeddings``. Immutable, so threads may share one.

    Parameters
    ----------
    base_url : up to and including ``/v1``.
    model : the ``model`` that the endpoint expects; part of the embedder's name.
    dim : length of its vectors; 0 while it is not known, and then none is refused.
    key : sent as bearer token.
    timeout_s : longest wait for the vector of one text; a batch of n may take n times as long.
    max_chars : of a longer text only this many characters are sent, half of them of either end.
    sleep : waits between attempts of `embed`.
    """

    base_url: str
    model: str
    dim: int = 0
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0
    max_chars: int = 2000
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def connect(cls, section: EndpointSection) -> HttpEmbedder:
        """The embedder of a configuration; its dimension is asked for unless configured.

        Raises
        ------
        ConfigError
            The address cannot be one, or the key's environment variable is not set or wrong.
        EmbeddingError
            The endpoint was asked and gave no vector.
        """
        key = api_key(section)
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"embedder.api_key_env: {section.api_key_env} holds line breaks or characters "
                "that no HTTP header can carry: set it anew"
            )
        try:
            httpx.URL(section.base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"embedder.base_url: {error}: correct it") from error
        embedder = cls(
            base_url=section.base_url,
            model=section.model,
            dim=section.dim or 0,
            key=key,
            timeout_s=section.timeout_s,
            max_chars=section.max_chars,
        )
        if embedder.dim:
            return embedder
        return replace(embedder, dim=embedder.embed(["dimension"]).shape[1])

    @property
    def name(self) -> str:
        """Identity of the vector space: what computes it, not where."""
        return f"{REMOTE}{self.model}-{self.dim}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts, (n_texts, dim), of unit length; waits for the endpoint.

        A text of nothing but white space is not sent, and gets a zero row. Too many requests
        and server errors are retried, as is a connection that broke.

        Raises
        ------
        EmbeddingUnavailableError
            The endpoint is not there, overloaded or too slow.
        EmbeddingError
            It refused the texts, or answered with something else than vectors of this length.
        """
        asked = _worth_sending(texts)
        known: dict[str, Vectors] = {}
        with httpx.Client(trust_env=False) as client:
            for start in range(0, len(asked), BATCH):
                batch = asked[start : start + BATCH]
                known |= zip(batch, self._converse(client, batch), strict=True)
        dim = self.dim or next((len(vector) for vector in known.values()), 0)
        return stacked(texts, known, dim)

    async def fetch(self, client: httpx.AsyncClient, texts: Sequence[str]) -> dict[str, Vectors]:
        """As `embed`, without blocking the event loop: vectors by text, none for white space.

        One call for all texts, ``timeout_s`` for each, a second attempt included.

        Raises
        ------
        EmbeddingError
            As `embed`.
        """
        asked = _worth_sending(texts)
        if not asked:
            return {}
        try:
            async with asyncio.timeout(self.timeout_s * len(asked)):
                vectors = await self._converse_async(client, asked)
        except TimeoutError as error:
            raise self._too_slow(len(asked)) from error
        return dict(zip(asked, vectors, strict=True))

    def _converse(self, client: httpx.Client, texts: Sequence[str]) -> Vectors:
        talk, call = self._talk(len(texts), TRAINING), self._call(texts)
        wait_s = next(talk)
        while True:
            if wait_s:
                self.sleep(wait_s)
            outcome: _Outcome
            try:
                outcome = client.post(**call)
            except httpx.HTTPError as error:
                outcome = error
            try:
                wait_s = talk.send(outcome)
            except StopIteration as end:
                vectors: Vectors = end.value
                return vectors

    async def _converse_async(self, client: httpx.AsyncClient, texts: Sequence[str]) -> Vectors:
        talk, call = self._talk(len(texts), SERVING), self._call(texts)
        wait_s = next(talk)
        while True:
            if wait_s:
                await asyncio.sleep(wait_s)
            outcome: _Outcome
            try:
                outcome = await client.post(**call)
            except httpx.HTTPError as error:
                outcome = error
            try:
                wait_s = talk.send(outcome)
            except StopIteration as end:
                vectors: Vectors = end.value
                return vectors

    def _call(self, texts: Sequence[str]) -> dict[str, Any]:
        sent = [_ends(text, self.max_chars) for text in texts]
        bearer = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {
            "url": f"{self.base_url.rstrip('/')}/embeddings",
            "json": {"model": self.model, "input": sent},
            "headers": bearer,
            "timeout": httpx.Timeout(self.timeout_s * len(texts), connect=_CONNECT_TIMEOUT_S),
        }

    def _talk(self, n_texts: int, patience: Patience) -> _Talk:
        wait_s, delays_s = 0.0, iter(patience.delays_s)
        while True:
            outcome = yield wait_s
            wait_s = max(next(delays_s, math.inf), _asked_for(outcome))
            goes_on = wait_s <= patience.max_wait_s
            if isinstance(outcome, httpx.HTTPError):
                if not (goes_on and _broke(outcome)):
                    raise self._unreachable(outcome, n_texts) from outcome
            elif outcome.status_code == httpx.codes.OK:
                return self._vectors(outcome, n_texts)
            elif not (goes_on and outcome.status_code in _OVERLOADED | {500}):
                raise self._refused(outcome)

    def _vectors(self, response: httpx.Response, n_texts: int) -> Vectors:
        """The vectors of an answer in the order of the texts."""
        try:
            rows = response.json()["data"]
            order = [row.get("index", k) for k, row in enumerate(rows)]
            numbers = np.array([row["embedding"] for row in rows], dtype=np.float64)
            if sorted(order) != list(range(n_texts)):
                raise ValueError(f"{len(rows)} vectors for {n_texts} texts")
            if numbers.ndim != 2 or not numbers.size:
                raise ValueError("an embedding is no list of numbers")
        except _MALFORMED as error:
            raise EmbeddingError(
                f"embedder.base_url: {self._where} did not answer with vectors"
                f"{self._detail(str(error))}: is the address OpenAI-compatible?"
            ) from error
        if self.dim and numbers.shape[1] != self.dim:
            raise EmbeddingError(
                f"embedder.dim: {self.model!r} gives vectors of {numbers.shape[1]} numbers, "
                f"not {self.dim}: correct dim or model, and train again"
            )
        if not np.isfinite(numbers).all():
            raise EmbeddingError(
                f"embedder.model: {self.model!r} gives vectors that are no numbers"
            )
        return _unit(numbers[np.argsort(order)])

    @property
    def _where(self) -> str:
        """Host and port, without the user and password that an address may hold."""
        url = httpx.URL(self.base_url)
        return f"{url.host}:{url.port}" if url.port else url.host

    def _detail(self, text: str) -> str:
        """The beginning of what an endpoint said, on one line; nothing if it quotes the key."""
        said = " ".join(text.split())[:_KEPT_DETAIL]
        return f" ({said})" if said and not (self.key and self.key[:4] in text) else ""

    def _unreachable(self, error: httpx.HTTPError, n_texts: int) -> EmbeddingError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return self._too_slow(n_texts)
        return EmbeddingUnavailableError(
            f"embedder.base_url: no answer from {self._where} ({type(error).__name__}): "
            "start the endpoint, or correct the address"
        )

    def _too_slow(self, n_texts: int) -> EmbeddingUnavailableError:
        return EmbeddingUnavailableError(
            f"embedder.timeout_s: no vector from {self._where} within "
            f"{self.timeout_s * n_texts:g} s: raise it, lower max_chars, or use a faster endpoint"
        )

    def _refused(self, response: httpx.Response) -> EmbeddingError:
        status = response.status_code
        wrong = _FIELDS.get(status, "embedder.base_url")
        message = f"{wrong}: {self._where} answered HTTP {status}{self._detail(response.text)}"
        if status in _OVERLOADED:
            return EmbeddingUnavailableError(message)
        return EmbeddingError(message)


def _worth_sending(texts: Sequence[str]) -> list[str]:
    """Each text once, those of white space alone left out: endpoints refuse them."""
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _ends(text: str, max_chars: int) -> str:
    """At most ``max_chars`` characters, as valid Unicode: JSON can carry half of a character."""
    if len(text) > max_chars:
        head = (max_chars + 1) // 2
        text = text[:head] + text[len(text) - (max_chars - head) :]
    return text.encode(errors="replace").decode()


def _broke(error: httpx.HTTPError) -> bool:
    """Whether a connection that was there broke, such as one that was kept too long."""
    return isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)


def _asked_for(outcome: _Outcome) -> float:
    """Seconds of an answer's ``retry-after``; 0 without one."""
    if isinstance(outcome, httpx.HTTPError):
        return 0.0
    stated = outcome.headers.get("retry-after", "")
    return float(stated) if stated.isdecimal() else 0.0


def _unit(numbers: NDArray[np.float64]) -> Vectors:
    """Rows of unit length; zero rows stay zero."""
    # by the largest number first: squares of large numbers overflow
    largest = np.abs(numbers).max(axis=1, keepdims=True, initial=0.0)
    numbers = numbers / np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(numbers, axis=1, keepdims=True)
    return (numbers / np.where(norms > 0, norms, 1.0)).astype(np.float32)
