"""What an expert expects next in a text, token by token: the seam of a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from coe.core import Request


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A token of a vocabulary: its number there, and the bytes that it writes.

    One that writes nothing ends the answer. A character may need several.
    """

    token_id: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What tells one vocabulary from another: its size, and its numbers for a telling text."""

    n_tokens: int
    sample: tuple[int, ...]


class Continuation(Protocol):
    """An expert's view of one answer that is being written.

    ``prompt_tokens`` is the length of the prompt as this expert reads it, in its own template;
    ``room_tokens`` how long the answer may become.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that tokens are of."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def room_tokens(self) -> int:
        """What its context leaves for the answer."""
        ...

    async def expected(self, said: Sequence[Token]) -> Mapping[Token, float]:
        """Natural logarithms of the likeliest tokens' probabilities after ``said``, never empty.

        Raises
        ------
        ExpertError
            As `Expert.stream`.
        """
        ...


@runtime_checkable
class Continuing(Protocol):
    """An expert that says what it expects next, and leaves it to others to choose."""

    async def continuation(self, request: Request) -> Continuation:
        """The answer to ``request``, of which nothing is written yet.

        Raises
        ------
        ExpertError
            As `Expert.stream`.
        """
        ...
