"""What came of an attempt to serve another configuration, and whom to ask for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Parameters
    ----------
    status : ``swapped``; ``unchanged``: it is what serves already; ``refused``: what served stays.
    config : short name of what serves now.
    message : why it was refused; empty otherwise.
    left : settings that are others in the file, and stay as they are until a restart.
    """

    status: Literal["swapped", "unchanged", "refused"]
    config: str
    message: str = ""
    left: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "status": self.status,
            "config": self.config,
            "message": self.message or None,
            "needs_restart": list(self.left),
        }


class Reloading(Protocol):
    """Reads the files of a configuration again."""

    def tell(self, told: Callable[[Outcome], None]) -> None:
        """Have somebody told of every outcome."""
        ...

    async def reload(self) -> Outcome:
        """What comes of reading them now."""
        ...

    @property
    def last(self) -> Outcome:
        """What came of the last attempt."""
        ...
