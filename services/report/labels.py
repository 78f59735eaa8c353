"""Names as they can be shown: without control characters, and short."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

NAME_CHARS = 24
"""Of names along a heat map."""

EXPERT_CHARS, ARM_CHARS = 20, 28
"""Of names of points."""

_UNSEEN = "\N{REPLACEMENT CHARACTER}"


def clean(name: str) -> str:
    """``name`` on one line, a replacement character for each one that is not to be seen.

    Unseen are control and format characters (such as those that turn the direction of writing),
    lone surrogates, and what Unicode has not assigned: XML forbids some, and others deceive.
    """
    shown = " ".join(name.split())
    text = "".join(_UNSEEN if unicodedata.category(c).startswith("C") else c for c in shown)
    return text or "(no name)"


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Every name, cleaned; those of more than ``width`` characters lose their middle.

    All are cut at the same place, the one nearest to the middle that leaves most of them
    different. No two results are equal: a number is added to what would repeat.
    """
    full = [clean(name) for name in names]
    tails = sorted(range(1, width - 1), key=lambda tail: abs(2 * tail - width + 1))
    cuts = [[_without_middle(name, width, tail) for name in full] for tail in tails]
    taken: set[str] = set()
    shown = []
    for short in max(cuts, key=lambda shorts: len(set(shorts))):
        unique, n = short, 1
        while unique in taken:
            n += 1
            unique = f"{short} ({n})"
        taken.add(unique)
        shown.append(unique)
    return shown


def labels(names: Sequence[str], width: int) -> dict[str, str]:
    """What is written for each of ``names``, as `shortened` has it."""
    return dict(zip(names, shortened(names, width), strict=True))


def _without_middle(name: str, width: int, tail: int) -> str:
    if len(name) <= width:
        return name
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
