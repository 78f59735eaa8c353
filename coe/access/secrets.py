"""Secrets taken out of texts, by what they are and not by what they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

HIDDEN: Final = "[hidden]"
LEAST_CHARS: Final = 8
"""Shorter ones are words that texts may hold for other reasons."""

_KEY: Final = re.compile(r"(coe-[0-9a-f]{12}-)[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What no text may hold that leaves a gateway: these values, and the secret of any API key."""

    values: tuple[str, ...] = field(default=(), repr=False)

    def hidden(self, text: str) -> str:
        """The text without them. In proportion to its length, times the number of values."""
        for value in self.values:
            if value in text:
                text = text.replace(value, HIDDEN)
        return _KEY.sub(rf"\1{HIDDEN}", text) if "coe-" in text else text


NO_SECRETS: Final = Secrets()


def all_of(*values: str) -> Secrets:
    """These secrets, longest first, so that none is left over of one that holds another."""
    told = {value for value in values if len(value) >= LEAST_CHARS}
    return Secrets(tuple(sorted(told, key=lambda value: (-len(value), value))))
