"""Settings that a gateway cannot change while it runs."""

from __future__ import annotations

from pydantic import ValidationError

from coe.config import Config
from coe.errors.files import ConfigError

CHANGEABLE = frozenset(
    {
        "artefact",
        "budgets",
        "plan",
        "routing",
        "shadow",
        "retrieval",
        "devices",
        "tenants",
        "experts",
    }
)
"""Sections of ``coe.yaml`` that are swapped; all others stay until a restart."""


def staying(present: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """What of a configuration can take the place of the present one, and what it leaves.

    The second names every setting that was asked for in vain, in the order of the model.

    Raises
    ------
    ConfigError
        What can be changed does not go with what cannot.
    """
    left = tuple(
        name
        for name in Config.model_fields
        if name not in CHANGEABLE and getattr(present, name) != getattr(wanted, name)
    )
    kept = {name: getattr(present, name) for name in left}
    merged = wanted.model_copy(update=kept)
    try:
        Config.model_validate({name: getattr(merged, name) for name in Config.model_fields})
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(
            f"{reason}; {', '.join(left)} cannot change before a restart: restart the gateway"
        ) from error
    return merged, left
