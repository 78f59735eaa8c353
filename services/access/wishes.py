"""What a caller may ask for in a body: whose request it is, and who answers it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from coe.access.caller import Caller
from coe.core import Request
from coe.errors.callers import ForbiddenError

_CHOOSING: Final = ("experts", "mode", "k")


def signed(document: Mapping[str, Any], caller: Caller | None) -> dict[str, Any]:
    """The body with the caller's tenant in it; ``None`` for a caller: as it is.

    What is malformed in it is left to whoever checks bodies.

    Raises
    ------
    ForbiddenError
        It names another tenant, and the caller is no admin: ``tenant_not_allowed``. Or it chooses
        experts or a mode, and the caller may not: ``override_not_allowed``.
    """
    extras = document.get("coe", {})
    if caller is None or not isinstance(extras, dict):
        return dict(document)
    named = extras.get("tenant", caller.tenant)
    if named != caller.tenant and caller.role != "admin" and isinstance(named, str):
        raise ForbiddenError("this key is another tenant's", "coe.tenant", "tenant_not_allowed")
    if not caller.overrides:
        for name in _CHOOSING:
            if name in extras:
                raise _no_override(f"coe.{name}")
    if not named:
        return dict(document)
    return {**document, "coe": {**extras, "tenant": named}}


def tenant_of(document: Mapping[str, Any]) -> str:
    """Whose request a body says to be, if it says it as it must; else ""."""
    extras = document.get("coe")
    named = extras.get("tenant") if isinstance(extras, dict) else None
    return named if isinstance(named, str) else ""


def may_name(model: Any, caller: Caller | None, known: frozenset[str]) -> frozenset[str]:
    """The experts of ``known`` that the caller may ask for by name, ``model`` being permitted.

    Raises
    ------
    ForbiddenError
        It is one of the others: ``model_not_allowed``; or the caller may name none:
        ``override_not_allowed``.
    """
    if caller is None:
        return known
    if isinstance(model, str) and model in known:
        if not caller.overrides:
            raise _no_override("model")
        if caller.models is not None and model not in caller.models:
            raise _not_allowed("model")
    return allowed(known, caller)


def allowed(known: Collection[str], caller: Caller | None) -> frozenset[str]:
    """The experts of ``known`` that the caller may ask at all."""
    if caller is None or caller.models is None:
        return frozenset(known)
    return frozenset(known) & caller.models


def confined(request: Request, caller: Caller | None, known: Collection[str]) -> Request:
    """The request under the caller's key, with the experts that it may ask as candidates.

    Parameters
    ----------
    known : the experts that its tenant may know of.

    Raises
    ------
    ForbiddenError
        Its ``allow`` names one that the caller may not ask: ``model_not_allowed``.
    """
    if caller is None:
        return request
    request = replace(request, key=caller.key_id)
    if caller.models is None or request.pinned:
        return request
    if request.allow is not None and request.allow - caller.models:
        raise _not_allowed("coe.experts.allow")
    mine = allowed(known, caller)
    return replace(request, allow=mine if request.allow is None else request.allow)


def _not_allowed(param: str) -> ForbiddenError:
    return ForbiddenError("this key may not ask that expert", param, "model_not_allowed")


def _no_override(param: str) -> ForbiddenError:
    return ForbiddenError(
        "with this key the router chooses: ask for auto, or a policy",
        param,
        "override_not_allowed",
    )
