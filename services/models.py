"""What ``model`` of a request may be, as OpenAI's interface lists it."""

from __future__ import annotations

from typing import Any

from coe.access.caller import Caller
from coe.personal import NOBODY
from coe.services.access.wishes import allowed
from coe.services.embeddings import embedding_model
from coe.services.runtime import Runtime
from coe.services.wire.chat import AUTO
from coe.tenants import visible


def model_rows(runtime: Runtime, caller: Caller | None) -> list[dict[str, Any]]:
    """Auto, the policies, the experts that the caller may ask by name, and the embedder.

    Parameters
    ----------
    caller : ``None``: nobody in particular.
    """
    names = [AUTO, *(f"{AUTO}:{name}" for name in runtime.policies)]
    about = {f"{AUTO}:{p.name}": p.description for p in runtime.policies.values()}
    rows = [_row(name, "coe", about.get(name, "")) for name in names]
    seen = visible(runtime.fleet.specs, runtime.own, caller.tenant if caller else NOBODY)
    mine = allowed(seen, caller)
    for name in seen:
        if name not in mine or (caller is not None and not caller.overrides):
            continue
        spec = runtime.fleet.specs[name]
        computes = spec.id not in runtime.fleet.stocks
        about_it = f"{spec.params_b:g} B parameters" if computes else "computes nothing"
        rows.append(_row(spec.id, spec.profile.name, about_it))
    return [*rows, _row(embedding_model(runtime), "coe", "gives vectors, and no answers")]


def _row(name: str, owner: str, description: str) -> dict[str, Any]:
    row = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    return row | {"description": description}
