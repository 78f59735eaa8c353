"""The adapter that asks an engine of ours, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable

from coe.experts.hosted import EmbeddedExpert, HostedExpert
from coe.http.pool import Pool
from coe.kinds import EmbeddedSection, ReplaySection, VllmSection


def hosted(
    section: EmbeddedSection | VllmSection | ReplaySection,
    client: Pool,
    address: Callable[[], str | None],
    key: str | None = None,
) -> EmbeddedExpert | HostedExpert:
    """The expert at the address of the moment.

    Parameters
    ----------
    address : the engine's, or ``None`` while there is none.
    key : bearer token that it asks for.
    """
    embedded = isinstance(section, EmbeddedSection)
    engine = HostedExpert(
        expert_id=section.id,
        client=client,
        address=address,
        first_token_timeout_s=section.first_token_timeout_s,
        idle_timeout_s=section.idle_timeout_s,
        answer_timeout_s=section.answer_timeout_s,
        api_key=key,
        keep_alive=not embedded,
    )
    return EmbeddedExpert(engine) if embedded else engine
