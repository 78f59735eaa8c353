"""What an operator has switched while a gateway runs: who must not answer, and who always must."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from coe.core import Request
from coe.errors.callers import InfeasibleError

Switch = Literal["on", "ban", "force"]
"""``ban``: it is asked for nothing. ``force``: it takes part in every answer. ``on``: neither."""


@dataclass(frozen=True, slots=True)
class Switches:
    """Switches by expert id, as of MoTE's operators; who is in neither set is on."""

    banned: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()

    def of(self, expert_id: str) -> Switch:
        """How an expert is switched."""
        if expert_id in self.banned:
            return "ban"
        return "force" if expert_id in self.forced else "on"

    def turned(self, expert_id: str, switch: Switch) -> Switches:
        """These with one expert switched otherwise."""
        one = frozenset({expert_id})
        return Switches(
            self.banned | one if switch == "ban" else self.banned - one,
            self.forced | one if switch == "force" else self.forced - one,
        )

    def among(self, expert_ids: Iterable[str]) -> Switches:
        """These for whoever knows of no other experts."""
        if not (self.banned or self.forced):
            return self
        known = frozenset(expert_ids)
        return Switches(self.banned & known, self.forced & known)

    def applied(self, request: Request) -> Request:
        """The request as these leave it: banned experts denied, forced ones forced by its policy.

        A ban wins over whoever forces. A request for an expert by name gets that one alone.

        Raises
        ------
        InfeasibleError
            It asks for a banned expert by name.
        """
        if request.pinned in self.banned:
            raise InfeasibleError(
                f"expert {request.pinned!r} is switched off: ask for another, or for auto",
                "model",
                "expert_banned",
            )
        if request.pinned or not (self.banned or self.forced):
            return request
        policy = request.policy
        force = (policy.force | self.forced) - self.banned - policy.ban
        deny = request.deny | self.banned
        return replace(request, deny=deny, policy=replace(policy, force=force))
