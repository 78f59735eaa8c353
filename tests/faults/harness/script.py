"""What a fake expert does with one request, and how a prompt says so."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

End = Literal["done", "fin", "rst", "stall", "beat"]
"""After its tokens: the end mark; end of the connection, reset; silence; comments for ever."""

_TOKEN = re.compile(r" (\d{5})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Script:
    """One answer.

    Parameters
    ----------
    tokens : so many, unless the caller's cap is less and is kept to.
    ttft_s, pace_s : before the first token, and between two.
    status, headers, body : other than 200: an error; ``body`` is sent instead of any answer.
    length : stated ``content-length`` of ``body``; ``None``: the true one.
    end : what comes after ``after`` tokens (``None``: all of them).
    split : bytes to a write; 0: an event.
    usage : figures stated at the end; ``"true"``: as they are, ``None``: none.
    caps : whether the caller's cap is kept to.
    """

    tokens: int = 8
    ttft_s: float = 0.0
    pace_s: float = 0.0
    status: int = 200
    headers: list[list[str]] = field(default_factory=list)
    body: str | None = None
    length: int | None = None
    end: End = "done"
    after: int | None = None
    split: int = 0
    usage: dict[str, Any] | Literal["true"] | None = "true"
    caps: bool = True

    def prompt(self, tag: str) -> str:
        """A user's message that has an expert do this; ``tag`` names the request in every log."""
        mine, usual = asdict(self), asdict(Script())
        told = {name: value for name, value in mine.items() if value != usual[name]}
        return json.dumps({"tag": tag} | told) + "\nWrite numbers."


def told(prompt: str, usual: Script) -> tuple[str, Script]:
    """Tag and script of a prompt; what it does not say is as ``usual``."""
    try:
        said = json.loads(prompt.partition("\n")[0])
        tag = said.pop("tag")
    except (ValueError, KeyError, AttributeError):
        return "", usual
    return tag, replace(usual, **said)


def token(tag: str, n: int) -> str:
    """The n-th token of an answer: its number, and a sum that no other token has."""
    return f" {n:05d}-{zlib.crc32(f'{tag}:{n}'.encode()):08x}"


def numbered(tag: str, text: str) -> list[int]:
    """Numbers of the tokens that a text consists of.

    Raises
    ------
    ValueError
        It holds something else, or a token of another request.
    """
    if _TOKEN.sub("", text):
        raise ValueError(f"{tag}: not made of tokens: {text[:80]!r}")
    numbers = [int(n) for n, _ in _TOKEN.findall(text)]
    if text != "".join(token(tag, n) for n in numbers):
        raise ValueError(f"{tag}: tokens of another answer: {text[:80]!r}")
    return numbers
