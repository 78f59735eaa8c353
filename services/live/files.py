"""The files of a configuration, looked at from outside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from coe.config import Config

Look = Mapping[Path, tuple[int, ...]]
"""By file, what changes with it: inode, size, and time of the last change in ns; none: absent."""


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
    there = [inner for path in paths if path.is_dir() for inner in sorted(path.iterdir())]
    return {path: _stat(path) for path in (*paths, *there)}


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
