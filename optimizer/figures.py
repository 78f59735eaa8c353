"""Arrays of figures: how they are checked, and by how much a total may miss its ceiling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.intp]

ROUNDING = 1e-9
"""The share of a ceiling by which a total may lie above it: what adding floats can cost."""


def check(
    name: str, figures: NDArray[Any], shape: tuple[int, ...], most: float = np.finfo(float).max
) -> None:
    """Refuse figures of another shape, or that are NaN, negative or above ``most``.

    Raises
    ------
    ValueError
        They are; the message has ``name``.
    """
    if figures.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {figures.shape}")
    # written so that NaN fails too
    wrong = figures[~((figures >= 0) & (figures <= most))]
    if wrong.size:
        raise ValueError(f"{name} must lie in [0, {most:.6g}], {wrong.flat[0]} does not")


def check_pairs(name: str, figures: NDArray[Any]) -> None:
    """Refuse figures that are not one for each category and expert, of which there are some.

    Raises
    ------
    ValueError
        They are not; the message has ``name``.
    """
    if figures.ndim != 2 or figures.size == 0:
        raise ValueError(
            f"{name} must have shape (n_categories, n_experts), neither of them 0, "
            f"not {figures.shape}"
        )


def check_shares(shares: Floats, n_categories: int) -> None:
    """Refuse shares that are not those of each category in the whole traffic.

    Raises
    ------
    ValueError
        They are not (n_categories,) and non-negative, or do not sum to 1.
    """
    check("shares", shares, (n_categories,))
    if abs(float(shares.sum()) - 1.0) > 1e-6:
        raise ValueError(f"shares must sum to 1, not {float(shares.sum())!r}")


def check_flags(name: str, flags: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse flags that are not booleans of this shape.

    Raises
    ------
    ValueError
        They are not; the message has ``name``.
    """
    if flags.shape != shape or flags.dtype != bool:
        raise ValueError(
            f"{name} must be boolean and have shape {shape}, not {flags.dtype}, {flags.shape}"
        )


def check_indices(name: str, indices: NDArray[Any], n_indices: int, n_things: int) -> None:
    """Refuse anything but ``n_indices`` whole numbers below ``n_things``.

    Raises
    ------
    ValueError
        They are something else; the message has ``name``.
    """
    check(name, indices, (n_indices,), n_things - 1)
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{name} must be whole numbers, not {indices.dtype}")
