"""Frozen dataclasses, made about as fast as others."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

_T = TypeVar("_T")


def quick(kind: type[_T]) -> type[_T]:
    """The same frozen dataclass, whose instances are made in a third of the time.

    What `dataclasses` writes sets every field of a frozen instance by a call. Here an instance is
    of a class that forbids nothing until its fields are set, which assignments do.

    Parameters
    ----------
    kind : a frozen dataclass with slots. Nothing is derived from it, all of its fields are
        arguments that need no name, and it has no ``__post_init__``.
    """
    slow: Any = kind.__init__
    given = {name: one.default for name, one in signature(kind).parameters.items()}
    # with both its own, it is the interpreter that sets an attribute, without a call
    free = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    thawed = type(kind.__name__, (kind,), {"__slots__": (), **free})
    known: dict[str, Any] = {"_kind": kind, "_thawed": thawed, "_set": object.__setattr__}
    lines = [f"def _made(self, {', '.join(given)}):", "_set(self, '__class__', _thawed)"]
    for one in fields(kind):  # type: ignore[arg-type]
        name, value = one.name, one.name
        if one.default_factory is not MISSING:
            known |= {f"_make_{name}": one.default_factory, f"_no_{name}": given[name]}
            value = f"_make_{name}() if {name} is _no_{name} else {name}"
        lines.append(f"self.{name} = {value}")
    exec("\n ".join([*lines, "self.__class__ = _kind"]), known)  # noqa: S102
    known["_made"].__defaults__ = slow.__defaults__
    kind.__init__ = wraps(slow)(known["_made"])  # type: ignore[method-assign]
    return kind
