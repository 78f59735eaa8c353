"""How kernels are compiled: when their module is imported, and kept on disk for the next time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_LOOSE = {"reassoc", "contract", "arcp", "nsz"}


def compiled(signature: str, loose: bool = False) -> Callable[[Kernel], Kernel]:
    """A decorator that compiles a function for arguments of this signature, and no others.

    The signature makes the compiler run at import, not at the first call; the machine code is
    kept beside the source, or in the user's cache where that cannot be written.

    Parameters
    ----------
    signature : in Numba's notation.
    loose : sums and products in any order, which lets the machine do several at once. NaN and
        infinities keep their meaning.
    """
    fastmath = _LOOSE if loose else False
    decorate: Any = njit(signature, cache=True, error_model="numpy", fastmath=fastmath)
    return cast(Callable[[Kernel], Kernel], decorate)
