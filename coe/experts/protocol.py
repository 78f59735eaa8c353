"""What the engine asks of an expert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from coe.core import Request


class Expert(Protocol):
    """Something that answers requests.

    One verb. The pieces it yields, joined, are the body of an OpenAI chat completion: server-sent
    events that end with ``data: [DONE]`` when ``request.stream``, one JSON document otherwise.
    Of a whole answer an empty piece may tell that another token has come. Closing the iterator
    early stops the generation.
    """

    def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """The answer's body in pieces, as they come.

        Parameters
        ----------
        max_tokens : cap on the answer's length; ``None``: the expert's own.

        Raises
        ------
        ExpertUnavailableError
            The expert is not there.
        ExpertTimeoutError
            No piece came for too long.
        ExpertRejectedError
            The expert answered with an HTTP error.
        """
        ...


async def close(pieces: AsyncIterator[bytes]) -> None:
    """Close an iterator that has a way to be closed."""
    closing = getattr(pieces, "aclose", None)
    if closing is not None:
        await closing()


def was_sent(pieces: AsyncIterator[bytes]) -> bool:
    """Whether a request has gone to whoever is to answer it, or still waits for room there.

    Pieces that say nothing of it were sent.
    """
    return bool(getattr(pieces, "sent", True))
