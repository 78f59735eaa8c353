"""An endpoint's vectors while serving: fetched before a decision, so that deciding never waits."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
import numpy as np
from numpy.typing import NDArray

from coe.errors.gateway import EmbeddingError, EmbeddingUnavailableError
from coe.routers.embed import VectorCache, stacked
from coe.services.embedding import HttpEmbedder

Say = Callable[[str], None]


class PrefetchedEmbedder:
    """An endpoint's vectors for a caller that must not wait: `warm` fetches, `embed` recalls.

    For one event loop.

    Parameters
    ----------
    inner : the endpoint.
    client : shared connection pool.
    say : told when vectors fail to come, once in ``pause_s``, and when they come again.
    pause_s : how long an endpoint that was not there is left alone; then one prompt tries it.
    now : monotonic seconds.
    n_entries : as `coe.routers.embed.VectorCache`.
    """

    def __init__(
        self,
        inner: HttpEmbedder,
        client: httpx.AsyncClient,
        say: Say = lambda line: None,
        pause_s: float = 5.0,
        now: Callable[[], float] = time.monotonic,
        n_entries: int = 4096,
    ) -> None:
        self._inner = inner
        self._client = client
        self._say = say
        self._pause_s = pause_s
        self._now = now
        self._kept = VectorCache(n_entries)
        self._asks_again = -math.inf
        self._quiet_until = -math.inf
        self._down = False

    @property
    def name(self) -> str:
        """Name of the endpoint's embedder: the vectors are its own."""
        return self._inner.name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._inner.dim

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of the texts, (n_texts, dim); zero for a text whose vector was not fetched."""
        return stacked(texts, self._kept.recall(texts), self.dim)

    async def warm(self, texts: Sequence[str]) -> None:
        """Fetch the vectors that are not here, or leave them out when they do not come.

        Never raises for the endpoint: a prompt that it cannot embed counts as unknown. While the
        endpoint is down only one prompt in ``pause_s`` waits for it.
        """
        known = self._kept.recall(texts)
        missing = [text for text in texts if text not in known]
        if not missing or self._now() < self._asks_again:
            return
        if self._down:
            # the others do not wait beside the one that tries
            self._asks_again = math.inf
        try:
            self._kept.remember(await self._inner.fetch(self._client, missing))
        except EmbeddingUnavailableError as error:
            self._down = True
            self._warn(error)
        except EmbeddingError as error:
            # the endpoint is there: it is this text, or every text, that it does not embed
            self._down = False
            self._warn(error)
        else:
            if self._down:
                self._say("embedder: the endpoint answers again")
            self._down = False
            self._quiet_until = -math.inf
        finally:
            self._asks_again = self._now() + self._pause_s if self._down else -math.inf

    def _warn(self, error: EmbeddingError) -> None:
        now = self._now()
        if now >= self._quiet_until:
            self._quiet_until = now + self._pause_s
            self._say(f"{error}; prompts count as unknown meanwhile")


@asynccontextmanager
async def prefetching(
    embedder: HttpEmbedder, say: Say = lambda line: None
) -> AsyncIterator[PrefetchedEmbedder]:
    """The endpoint's vectors for a gateway, over connections that end with the context."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield PrefetchedEmbedder(embedder, client, say)
