"""The experts of a fleet as a gateway asks them: guarded."""

from __future__ import annotations

from functools import partial

from coe.engine import Engine
from coe.experts.guarded import GuardedExpert, guarded
from coe.experts.protocol import Expert
from coe.free import FreeSection
from coe.resilience import ResilienceSection
from coe.services.cluster.experts import usual_first_s
from coe.services.fleet import Fleet


def guarded_experts(fleet: Fleet, section: ResilienceSection, before: Engine) -> dict[str, Expert]:
    """The fleet's experts by id, those at one address guarded; an engine's guards become theirs.

    Copies are guarded already, and an answer that stands ready needs none of it. What is known of
    an expert stays where the expert does.
    """
    computing = [one for one in fleet.sections.values() if not isinstance(one, FreeSection)]
    made, known_hedges = section.guards(computing), before.guards.hedges
    groups, experts = made.groups, dict(fleet.experts)
    for name, fresh in groups.items():
        known = before.experts.get(name)
        if name in fleet.away:
            groups[name] = before.guards.groups.get(name, fresh)
        elif isinstance(known, GuardedExpert) and known.inner is experts[name]:
            groups[name], experts[name] = known.group, known
        else:
            fresh.lag = before.guards.lag
            usual_s = partial(usual_first_s, fleet.specs[name])
            experts[name] = guarded(experts[name], fresh, usual_s, before.now)
    before.guards.groups = groups
    before.guards.hedges = {n: known_hedges.get(n, fresh) for n, fresh in made.hedges.items()}
    return experts
