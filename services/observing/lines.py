"""Lines for a log that may be blocked, full or gone: whoever has something to say never waits."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from coe.services.enduring import Enduring

_MOST_AT_ONCE: Final = 1024
_MOST_BYTES: Final = 256 * 1024
_GATHERS_S: Final = 0.02
_PATIENCE_S: Final = 1.0


class Lines:
    """Lines on their way into a file, written by a thread of their own.

    After lines are written the thread lets others gather for a moment: to be woken for each of them
    would cost whoever puts them more than all else.

    What finds no room is dropped and counted; so is what cannot be written. Once writing goes
    well again, a line says how many are missing.

    Parameters
    ----------
    fd : descriptor of an open file, pipe or terminal; not closed here.
    missing : the line about so many that are.
    most : lines that may wait.
    """

    def __init__(self, fd: int, missing: Callable[[int], str], most: int = 4096) -> None:
        self.n_dropped = 0
        self.n_written = 0
        self._fd = fd
        self._missing = missing
        self._most = most
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._n_unsaid = 0
        self._mid_line = False
        self._writing = Enduring("writing the log")
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, line: str) -> None:
        """Have a line written, in its turn; takes a few microseconds and raises nothing."""
        if self._queue.qsize() >= self._most:
            self._drop(1)
        else:
            self._queue.put(line.encode(errors="replace") + b"\n")

    def close(self, within_s: float = 1.0) -> None:
        """Write what waits, as far as that goes within this time."""
        self._queue.put(None)
        self._thread.join(within_s)

    def _drop(self, n_lines: int) -> None:
        self.n_dropped += n_lines
        self._n_unsaid += n_lines

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            lines, last = [first], False
            while len(lines) < _MOST_AT_ONCE and not last:
                try:
                    line = self._queue.get_nowait()
                except Empty:
                    break
                if line is None:
                    last = True
                else:
                    lines.append(line)
            self._pass_on(lines)
            if last:
                return
            time.sleep(_GATHERS_S)

    def _pass_on(self, lines: list[bytes]) -> None:
        for together in _together(lines, _whole_bytes(self._fd)):
            self._pass_on_at_once(len(together), b"".join(together))

    def _pass_on_at_once(self, n_lines: int, text: bytes) -> None:
        n_left = n_lines
        with self._writing, suppress(OSError):
            self._write(text)
            self.n_written, n_left = self.n_written + n_lines, 0
            if unsaid := self._n_unsaid:
                self._write(self._missing(unsaid).encode() + b"\n")
                self._n_unsaid -= unsaid
        self._drop(n_left)

    def _write(self, text: bytes) -> None:
        """Write it all; after what broke off in a line, on a new one."""
        left = memoryview(b"\n" + text if self._mid_line else text)
        while left:
            try:
                n_bytes = os.write(self._fd, left)
            except BlockingIOError:
                select.select([], [self._fd], [], _PATIENCE_S)
                continue
            left = left[n_bytes:]
            self._mid_line = bool(left)


def _whole_bytes(fd: int) -> int:
    """How many bytes stay together when they are written at once.

    What is longer would be torn apart where other processes write into the same pipe. To write is
    to leave the interpreter to whoever serves, and to come back: a file is better written seldom.
    """
    try:
        kind = os.fstat(fd).st_mode
    except OSError:  # it is closed, as whoever writes will find
        return select.PIPE_BUF
    shared = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
    return select.PIPE_BUF if shared else _MOST_BYTES


def _together(lines: Sequence[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """The lines in order, as many at a time as have so many bytes, and one at least."""
    n_bytes, found = 0, list[bytes]()
    for line in lines:
        if found and n_bytes + len(line) > most_bytes:
            yield found
            n_bytes, found = 0, []
        n_bytes += len(line)
        found.append(line)
    yield found
