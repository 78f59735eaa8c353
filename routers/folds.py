"""Cross-validation in which the same prompt never stands on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def content_folds(prompts: Sequence[str], n_folds: int, seed: int = 0) -> NDArray[np.int64]:
    """(n_prompts,) fold of each prompt, by a hash of its text.

    Equal texts get equal folds, whatever their number and order: duplicates do not leak. Folds
    are of equal size but for chance.
    """
    salt = seed.to_bytes(8, "big")
    digests = (
        hashlib.blake2b(p.encode(errors="surrogatepass"), digest_size=8, salt=salt).digest()
        for p in prompts
    )
    return np.array([int.from_bytes(d, "big") % n_folds for d in digests], dtype=np.int64)
