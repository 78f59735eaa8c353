"""An answer that stands ready: nothing is computed for it, and nothing is spent on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The decision that an answer was first given on, and the expert that gave it."""

    decision_id: str
    expert_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What an expert that computes nothing would say to one request.

    Parameters
    ----------
    text : the whole answer.
    n_tokens : its length.
    quality, quality_se : expected score of it in [0, 1], and the standard error of that.
    why : what makes it an answer to this request, in words.
    declines : it says that nobody answers.
    origin : where it was copied from.
    """

    text: str
    n_tokens: int
    quality: float
    why: str
    quality_se: float = 0.0
    declines: bool = False
    origin: Origin | None = None


def text_tokens(text: str) -> int:
    """Length of an answer that nobody counted: four bytes a token."""
    return (len(text.encode(errors="replace")) + 3) // 4
