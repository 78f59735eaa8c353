"""The keys that a running gateway goes by: those of the file, as it is now."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coe.access.keys import Ring
from coe.errors.files import ConfigError
from coe.services.access.keyfile import KeyFile
from coe.services.enduring import Enduring
from coe.services.runnable import Say

_Signature = tuple[int, int, int]


@dataclass(slots=True)
class Keyring:
    """The file's keys; whether it has changed is looked at when somebody asks, and seldom.

    A file that is gone has no keys. One that is damaged is told of, and the keys before it hold.

    Parameters
    ----------
    every_s : seconds between two looks at the file, which is then read in a thread.
    now : monotonic seconds.
    """

    file: KeyFile
    say: Say = lambda line: None
    every_s: float = 0.5
    now: Callable[[], float] = time.monotonic
    ring: Ring = field(default_factory=lambda: Ring(b""), repr=False)
    _looked_s: float = 0.0
    _seen: _Signature | None = None
    _reading: Enduring = field(default_factory=lambda: Enduring("reading the keys"))

    def open(self) -> None:
        """Read the file.

        Raises
        ------
        ConfigError
            As `KeyFile.records`.
        """
        self._looked_s, self._seen = self.now(), self._signature()
        self.ring = self.file.ring()

    async def current(self) -> Ring:
        """The keys that hold now. Others who ask while the file is read get those before it."""
        now_s = self.now()
        if now_s - self._looked_s < self.every_s:
            return self.ring
        self._looked_s = now_s
        signature = self._signature()
        if signature != self._seen:
            with self._reading:
                try:
                    self.ring = await asyncio.to_thread(self.file.ring)
                    if signature is None:
                        self.say(f"no key holds any more: {self.file.path} is gone")
                except ConfigError as error:
                    self.say(f"the keys stay as they were: {error}")
                # what was not read to its end is read again
                self._seen = signature
        return self.ring

    def _signature(self) -> _Signature | None:
        """What differs between two states of the file; ``None``: there is none."""
        try:
            found = os.stat(self.file.path)
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)
