"""The files of a configuration, looked at from outside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Never

from coe.config import Config
from coe.services.enduring import for_ever

Look = Mapping[Path, tuple[int, ...]]
"""By file, what changes with it: inode, size, and time of the last change in ns; none: absent."""


LOOK_EVERY_S = 0.5
"""How often files are looked at. One that was written is read when it stood still for so long."""


async def watched(
    paths: Callable[[], list[Path]], asked: asyncio.Event, read: Callable[[], Awaitable[object]]
) -> Never:
    """Have files read whenever they have changed and stand still again, until cancelled.

    Parameters
    ----------
    paths : those that are looked at now.
    asked : set: they are to be read anyway.
    """
    # what serves was read some time ago: the first looks find what has changed since
    known: Look = {}
    before: Look = {}

    async def turn() -> None:
        nonlocal known, before
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await asked.wait()
        now = await asyncio.to_thread(look, paths())
        still, before = now == before, now
        if asked.is_set() or (now != known and still):
            asked.clear()
            # what changes while it is read differs from this at the next look
            known = now
            await read()

    await for_ever("watching the files", turn, LOOK_EVERY_S)


def files_of(path: Path, config: Config) -> list[Path]:
    """The files and folders that a configuration was read from.

    Parameters
    ----------
    path : of its ``coe.yaml``.
    """
    found = [path, config.budgets, config.artefact]
    if config.plan is not None:
        found.append(config.plan)
    if config.shadow is not None:
        found += [config.shadow.artefact, *filter(None, [config.shadow.plan])]
    if config.retrieval is not None:
        found.append(config.retrieval.index)
    return found + [one.gate for one in config.tenants.values() if one.gate is not None]


def look(paths: list[Path]) -> Look:
    """How files are now; of a folder, those in it."""
    there = [inner for path in paths for inner in _inside(path)]
    return {path: _stat(path) for path in (*paths, *there)}


def _inside(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:  # a file, or a folder that is just being replaced
        return []


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
