"""Memory of a process and all that it started, from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def resident_bytes(process_id: int, proc: Path = Path("/proc")) -> int:
    """Resident memory of a process and its descendants; 0 when it is gone.

    Pages that several of them share count once for each. O(processes of the machine).
    """
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for found, parent, n_pages in _processes(proc):
        parents[found], resident[found] = parent, n_pages
    children: dict[int, list[int]] = {}
    for found, parent in parents.items():
        children.setdefault(parent, []).append(found)
    total, left = 0, [process_id]
    while left:
        member = left.pop()
        total += resident.get(member, 0)
        left.extend(children.get(member, ()))
    return total * os.sysconf("SC_PAGE_SIZE")


def _processes(proc: Path) -> Iterator[tuple[int, int, int]]:
    """Id, parent's id and resident pages of every process."""
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            try:
                status = (folder / "stat").read_text(errors="replace")
            except OSError:  # it has just ended
                continue
            # the name, in parentheses, may hold anything
            fields = status.rpartition(")")[2].split()
            yield int(folder.name), int(fields[1]), int(fields[21])
