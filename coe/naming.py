"""Names that nobody can guess, and that nothing else has."""

from __future__ import annotations

import os
from typing import Final

_BYTES: Final = 12
_AT_ONCE: Final = 64

_ready: list[str] = []
# a forked process would give the names that its parent gives
os.register_at_fork(after_in_child=_ready.clear)


def new_name(kind: str) -> str:
    """``kind``, a hyphen and 24 random hexadecimal digits: no process has ever given it before.

    The system is asked for the digits of many names at once: most of what that takes is the asking.
    """
    while True:
        try:
            # one step of the interpreter: no two threads get the same
            return f"{kind}-{_ready.pop()}"
        except IndexError:
            digits = os.urandom(_BYTES * _AT_ONCE).hex()
            _ready.extend(digits[at : at + 2 * _BYTES] for at in range(0, len(digits), 2 * _BYTES))
