"""The tenants in ``coe.yaml``: whose requests may see which expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from coe.yamlfile import Name, Section, wrong_field

TENANT = r"^[A-Za-z0-9._-]{1,64}$"
"""What a tenant may be called."""

TenantName = Annotated[str, Field(pattern=TENANT)]


class TenantSection(Section):
    """An expert that is one tenant's own, and the gate between it and everybody's.

    Without a ``gate`` it only answers when the tenant asks for it by name.
    """

    expert: Name
    gate: Path | None = None
    local_only: bool = False


def check_experts(tenants: Mapping[str, TenantSection], expert_ids: Iterable[str]) -> None:
    """Nothing, where every tenant's expert is one of these.

    Raises
    ------
    PydanticCustomError
        One is not; the path of the field is in it.
    """
    known = sorted(expert_ids)
    for name, tenant in tenants.items():
        if tenant.expert not in known:
            raise wrong_field(
                f"tenant {name!r} has unknown expert {tenant.expert!r}: use one of "
                + ", ".join(known),
                ("tenants", name, "expert"),
            )


def visible(expert_ids: Iterable[str], own: Mapping[str, str], tenant: str) -> tuple[str, ...]:
    """The experts that a tenant may know of, in their order: all but those of other tenants.

    Parameters
    ----------
    own : by tenant, the expert that it keeps to itself. Two may keep the same one.
    tenant : whoever is not in ``own`` sees everybody's experts only.
    """
    if not own:
        return tuple(expert_ids)
    mine, private = own.get(tenant), set(own.values())
    return tuple(name for name in expert_ids if name == mine or name not in private)
