"""The adapter that asks an engine of ours, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from coe.config import EmbeddedSection, ReplaySection, VllmSection
from coe.experts.http import EmbeddedExpert, HostedExpert


def hosted(
    section: EmbeddedSection | VllmSection | ReplaySection,
    client: httpx.AsyncClient,
    address: Callable[[], str | None],
    key: str | None = None,
) -> EmbeddedExpert | HostedExpert:
    """The expert at the address of the moment.

    Parameters
    ----------
    address : the engine's, or ``None`` while there is none.
    key : bearer token that it asks for.
    """
    if isinstance(section, EmbeddedSection):
        return EmbeddedExpert(
            expert_id=section.id,
            client=client,
            address=address,
            first_token_timeout_s=section.first_token_timeout_s,
            idle_timeout_s=section.idle_timeout_s,
            api_key=key,
        )
    whole = (
        {"answer_timeout_s": section.answer_timeout_s} if isinstance(section, VllmSection) else {}
    )
    return HostedExpert(
        expert_id=section.id,
        client=client,
        address=address,
        first_token_timeout_s=section.first_token_timeout_s,
        idle_timeout_s=section.idle_timeout_s,
        api_key=key,
        **whole,
    )
