"""Text out of tokens: how one is drawn, and how it is written down."""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self, TypeVar

from coe.errors.callers import RequestError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a token is drawn.

    Parameters
    ----------
    temperature : 0 takes the likeliest; 1 leaves probabilities as they are.
    top_p : drawn from the fewest likeliest tokens of at least this probability together.
    rng : who draws.
    """

    temperature: float
    top_p: float
    rng: Random

    @classmethod
    def asked(cls, payload: Mapping[str, Any], rng: Random) -> Self:
        """As a request has it; without a temperature the likeliest.

        Parameters
        ----------
        rng : draws where the request has no ``seed``.

        Raises
        ------
        RequestError
            A field is no number, or out of its range.
        """
        seed = payload.get("seed")
        return cls(
            temperature=_number(payload, "temperature", 0.0),
            top_p=_number(payload, "top_p", 1.0, most=1.0),
            rng=rng if seed is None else Random(_number(payload, "seed", 0.0, least=-math.inf)),
        )

    def draw(self, probabilities: Mapping[_T, float]) -> _T:
        """A token out of ``probabilities``, which are sorted, the likeliest first."""
        tokens = list(probabilities)
        if self.temperature == 0:
            return tokens[0]
        most = probabilities[tokens[0]]
        # relative to the likeliest, so that no power of it can vanish
        shares = [(probabilities[t] / most) ** (1.0 / self.temperature) for t in tokens]
        n_kept, kept, enough = 0, 0.0, self.top_p * math.fsum(shares)
        while n_kept == 0 or (n_kept < len(tokens) and kept < enough):
            kept += shares[n_kept]
            n_kept += 1
        return self.rng.choices(tokens[:n_kept], shares[:n_kept])[0]


@dataclass(slots=True)
class Writing:
    """Turns bytes into text, as much of it as is certain.

    Parameters
    ----------
    stops : texts that end the answer, and are no part of it.
    stopped : whether one has come.
    """

    stops: Sequence[str] = ()
    stopped: bool = False
    _held: str = ""
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def write(self, piece: bytes, final: bool = False) -> str:
        """What can be said with ``piece``; held back is what may begin a character or a stop.

        Bytes that are no text become U+FFFD.

        Parameters
        ----------
        final : nothing follows, so nothing is held back.
        """
        self._held += self._decoder.decode(piece, final)
        found = [at for at in (self._held.find(stop) for stop in self.stops) if at >= 0]
        if found:
            said, self._held, self.stopped = self._held[: min(found)], "", True
            return said
        n_held = 0 if final else max((_begun(self._held, stop) for stop in self.stops), default=0)
        cut = len(self._held) - n_held
        said, self._held = self._held[:cut], self._held[cut:]
        return said


def asked_stops(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """The stop texts of a request, blank ones left out.

    Raises
    ------
    RequestError
        ``stop`` is neither a text nor a list of texts.
    """
    stop = payload.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise RequestError("stop must be a text or a list of texts", "stop")
    return tuple(one for one in stops if one)


def _begun(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _number(
    payload: Mapping[str, Any],
    name: str,
    default: float,
    least: float = 0.0,
    most: float = math.inf,
) -> float:
    value = payload.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(f"{name} must be a number from {least:g} to {most:g}", name)
    return value
