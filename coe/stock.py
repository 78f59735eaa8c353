"""Who has an answer ready for a request: experts that compute nothing.

Zero-computation experts as in MoE++ and AdaMoE, of whole experts instead of layers
(reconstruction, rules ours): a constant says what an operator wrote, a null says that nobody
answers. What was answered before is `coe.cache`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from coe.core import Request
from coe.decision import CategoryGuess
from coe.errors.callers import RequestError
from coe.pattern import Pattern
from coe.standing import Standing, text_tokens

# parts of a message that patterns do not read
_SEEN = frozenset({"images", "audio", "files"})

MATCHED_CHARS = 2000
"""So many characters of a user turn are looked at by patterns."""


class Stock(Protocol):
    """What an expert that computes nothing can say. One verb, asked once a request."""

    def ready(self, request: Request, guess: CategoryGuess) -> Standing | None:
        """The answer that stands ready for the request; ``None``: it is no candidate."""
        ...


@dataclass(frozen=True, slots=True)
class Canned:
    """One answer that an operator wrote, and the prompts that it is an answer to."""

    text: str
    quality: float
    categories: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()

    def why(self, turn: str, guess: CategoryGuess) -> str:
        """What makes it an answer to this turn, in words; empty where nothing does."""
        if not guess.uncertain and guess.name in self.categories:
            return f"for {guess.name}"
        found = next((p for p in self.patterns if p.found_in(turn)), None)
        return "" if found is None else f"for {found.source!r}"


@dataclass(frozen=True, slots=True)
class Constants:
    """The answers of one operator; of those that fit a request, the first of the best quality."""

    answers: tuple[Canned, ...]

    def ready(self, request: Request, guess: CategoryGuess) -> Standing | None:
        """The answer to the last user turn, which nothing has followed.

        ``None`` too where a text is not what was asked for: several answers, calls of tools, a
        format, passages, several experts, or fewer tokens than it has; or where more than texts is
        to be looked at.
        """
        last = request.messages[-1]
        if last.role != "user" or not _wants_text(request):
            return None
        turn, best = last.text[:MATCHED_CHARS], None
        for canned in self.answers:
            n_tokens = text_tokens(canned.text)
            fits = request.max_tokens is None or n_tokens <= request.max_tokens
            better = best is None or canned.quality > best.quality
            if fits and better and (why := canned.why(turn, guess)):
                best = Standing(canned.text, n_tokens, canned.quality, f"a canned answer {why}")
        return best


@dataclass(frozen=True, slots=True)
class Declination:
    """Says that nobody answers: always there, and worth ``quality``."""

    text: str
    quality: float = 0.0

    def ready(self, request: Request, guess: CategoryGuess) -> Standing:
        """The same whatever is asked."""
        return Standing(self.text, text_tokens(self.text), self.quality, "", declines=True)


def stocked(request: Request, guess: CategoryGuess, stocks: Mapping[str, Stock]) -> Request:
    """The request with the answers that stand ready for it.

    Raises
    ------
    RequestError
        The pinned expert has a stock, and nothing in it for this request.
    """
    if not (stocks or request.standing):
        return request
    found = {name: stock.ready(request, guess) for name, stock in stocks.items()}
    ready = {name: answer for name, answer in found.items() if answer is not None}
    if request.pinned in stocks and request.pinned not in ready:
        raise RequestError(
            f"{request.pinned} has no answer ready for this: ask another expert, or auto",
            "model",
            "no_answer_ready",
        )
    return replace(request, standing=ready)


def declining(request: Request, names: Sequence[str]) -> list[str]:
    """Those of these experts that would say to the request that nobody answers it."""
    ready = request.standing
    return [name for name in names if name in ready and ready[name].declines]


def single_text(request: Request) -> bool:
    """Whether one plain text by one expert answers the request, without tools or log odds."""
    payload = request.payload
    asked = ("tools", "functions", "logprobs", "top_logprobs")
    together = request.mode not in (None, "single")
    return request.n_answers == 1 and not together and not any(payload.get(name) for name in asked)


def _wants_text(request: Request) -> bool:
    form = request.payload.get("response_format")
    plain = form is None or (isinstance(form, dict) and form.get("type") == "text")
    looks = bool(request.needs.keys() & _SEEN)
    return plain and not looks and single_text(request) and request.retrieve != "always"
