"""Whether the arrays of an artefact can be what they are called: their shapes, types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sound:
    """What an array must be.

    Parameters
    ----------
    shape : a length for every dimension: a number, or a word for a length that all arrays with
        the word share; ``"+1"`` behind the word is one more.
    least, most : bounds of its numbers, which are finite in any case.
    whole : its numbers are integers.
    """

    shape: tuple[str | int, ...]
    least: float = -np.inf
    most: float = np.inf
    whole: bool = False


_TABLE, _EACH = ("categories", "experts"), ("experts",)
_OF_EMBEDDINGS = ("experts", "dim+1")
SOUND: Mapping[str, Sound] = {
    "category.coef": Sound(("classes", "dim")),
    "category.intercept": Sound(("classes",)),
    "category.points": Sound(("points", "leading")),
    "category.codes": Sound(("points",), 0, whole=True),
    "quality.quality": Sound(_TABLE, 0.0, 1.0),
    "quality.quality_se": Sound(_TABLE, 0.0),
    "quality.mean_tokens": Sound(_TABLE, 0.0),
    "quality.cautious_tokens": Sound(_TABLE, 0.0),
    "residual.coef": Sound(_OF_EMBEDDINGS),
    "residual.noise": Sound(_EACH, 0.0),
    "residual.axes": Sound(("axes", "dim+1")),
    "residual.spectrum": Sound(("axes",), 0.0),
    "residual.penalty": Sound((1,), np.finfo(float).tiny),
    "lengths.coef": Sound(_OF_EMBEDDINGS),
    "lengths.mean_scale": Sound(_EACH, 0.0),
    "lengths.cautious_scale": Sound(_EACH, 0.0),
}
"""By name in `coe.routers.artefact.Artefact`, what has no check of its own."""


def check_sound(tensors: Mapping[str, NDArray[Any]], lengths: Mapping[str, int]) -> None:
    """Nothing, where every array is what `SOUND` says of it.

    Parameters
    ----------
    lengths : by word, those that are known; the others are learned from the arrays.

    Raises
    ------
    ValueError
        An array is unknown, of another type or shape, or has a number outside its range.
    """
    learned = dict(lengths)
    for name, array in tensors.items():
        if name not in SOUND:
            raise ValueError(f"{name} is no array of an artefact")
        sound = SOUND[name]
        if not np.issubdtype(array.dtype, np.integer if sound.whole else np.floating):
            raise ValueError(f"{name} is of type {array.dtype}")
        if not _fits(array.shape, sound.shape, learned):
            raise ValueError(f"{name} has shape {array.shape}")
        if not np.isfinite(array).all() or not _within(array, sound):
            raise ValueError(f"{name} has a number outside its range")


def _fits(found: tuple[int, ...], wanted: tuple[str | int, ...], learned: dict[str, int]) -> bool:
    """Whether a shape is the wanted one; a length that nobody knew is known from then on."""
    if len(found) != len(wanted):
        return False
    for length, want in zip(found, wanted, strict=True):
        if isinstance(want, int):
            fits = length == want
        else:
            word = want.removesuffix("+1")
            actual = length - (word != want)
            fits = actual == learned.setdefault(word, actual)
        if not fits:
            return False
    return True


def _within(array: NDArray[Any], sound: Sound) -> bool:
    return not array.size or bool(sound.least <= array.min() and array.max() <= sound.most)
