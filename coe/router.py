"""One decision: a request and a budget in, a selection and its reason out. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coe.candidates import candidates, cap
from coe.conversation import held, utility_of
from coe.core import Budget, ExpertSpec, Request, TurnRule
from coe.decision import Candidate, Decision, Selection
from coe.errors.callers import InfeasibleError
from coe.explain import alternatives, left_out, needed, taken, unable, why
from coe.load import Load
from coe.naming import new_name
from coe.offers import Offers, selection
from coe.optimizer.choice import Choice
from coe.optimizer.options import Options
from coe.optimizer.select import select_or_decline, slack
from coe.permitted import Circle, eligible, incapable, named_are_known, roomy
from coe.pinned import decided_unread, needs_no_reading
from coe.repertoire import Repertoire
from coe.retrieval import Retriever, Scales, decided
from coe.routers.artefact import Artefact
from coe.routers.embed import Embedder, load_for
from coe.routers.gate import gate_features
from coe.routers.quality import Expected
from coe.routers.reading import TextReading, read
from coe.routers.retrieve import Evidence
from coe.routers.turns import SWITCH_MARGIN, turns_read
from coe.slate import Slate
from coe.steps import Laps, untimed
from coe.stock import Stock, declining, stocked
from coe.wanted import ways


@dataclass(frozen=True, slots=True)
class Router:
    """Embed, categorise, expect, select.

    Parameters
    ----------
    embedder : must be the one the artefact was trained on; `Artefact.check_canaries` checks.
    artefact : category router and quality table.
    specs : experts that may answer. By name only, where artefact and stocks know none.
    now : monotonic seconds.
    retriever : where passages come from; ``None``: nothing is retrieved.
    turns : which turns of a conversation are read, as in `coe.routers.turns`.
    offers : what a plan leaves to choose from; ``None``: every expert alone.
    repertoire : modes of several experts that were learned; ``None``: none.
    stocks : of the experts that compute nothing, by id: candidates where an answer stands ready.
    read_pinned : requests that name their expert are read, too; else only where a ceiling, an index
        or a stock goes by what they say.
    tenants : the routers of those who have an expert of their own, and under "" that of everybody
        else, as `coe.personal.personal` makes them; empty: this one decides for all.
    most_experts, top_p : of a planned set answer at most so many, and the fewest whose gate
        weights make up more than this share.
    switch_margin : points of quality that another expert must add to take over under ``sticky``,
        beyond the price of what the present one need not read again; more if the turn is brief.
    config : short name of the configuration, for decisions.
    """

    embedder: Embedder
    artefact: Artefact
    specs: Mapping[str, ExpertSpec]
    retriever: Retriever | None = None
    now: Callable[[], float] = time.perf_counter
    new_id: Callable[[], str] = field(default=partial(new_name, "dec"))
    turns: TurnRule = "sticky"
    switch_margin: float = SWITCH_MARGIN
    offers: Offers | None = None
    repertoire: Repertoire | None = None
    stocks: Mapping[str, Stock] = field(default_factory=dict)
    most_experts: int = 1
    top_p: float = 1.0
    read_pinned: bool = False
    tenants: Mapping[str, Router] = field(default_factory=dict)
    config: str = ""

    @classmethod
    def load(
        cls,
        path: str | Path,
        specs: Sequence[ExpertSpec] | None = None,
        embedder: Embedder | None = None,
    ) -> Router:
        """The router of a trained artefact, its canary prompts answered.

        Parameters
        ----------
        path : the artefact's folder.
        specs : the experts of today; by default those recorded in the artefact.
        embedder : by default the local one that the artefact was trained on.

        Raises
        ------
        ArtefactError
            The artefact or the embedder is absent, altered, or fails a canary; or the artefact
            was trained on a remote embedder, and none is given.
        """
        artefact = Artefact.load(Path(path))
        if embedder is None:
            embedder = load_for(artefact.embedder)
        artefact.check_canaries(embedder)
        chosen, modes = artefact.experts if specs is None else specs, artefact.modes
        return cls(
            embedder,
            artefact,
            {spec.id: spec for spec in chosen},
            repertoire=None if modes is None else Repertoire.of(modes.table),
        )

    def under(self, offers: Offers | None) -> Router:
        """The router that keeps to a plan, or to none."""
        learned = self.repertoire
        if learned is not None:
            learned = learned.left_by(None if offers is None else offers.modes)
        return replace(self, offers=offers, repertoire=learned)

    def of_tenant(self, tenant: str) -> Router:
        """The router that decides for a tenant, with the experts that it may know of."""
        return self.tenants.get(tenant, self.tenants[""]) if self.tenants else self

    def decide(
        self,
        request: Request,
        budget: Budget | None = None,
        loads: Mapping[str, Load] | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> Decision:
        """The decision for ``request``.

        Parameters
        ----------
        budget : further ceilings beside the request's and its policy's.
        loads : how busy each expert is.
        excluded : experts that must not be chosen, such as those that have just failed.

        Raises
        ------
        UnknownExpertError
            A pinned, allowed or denied expert does not exist.
        RequestError
            The pinned expert has no answer ready; or as `coe.retrieval.decided`.
        InfeasibleError
            No candidate fits the ceilings and the policy rejects that, or none is left.
        """
        return self.dispatch(request, budget, loads, excluded)[0]

    def dispatch(
        self,
        request: Request,
        budget: Budget | None = None,
        loads: Mapping[str, Load] | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> tuple[Decision, Request]:
        """As `decide`, and the request as the chosen expert is to get it: with any passages."""
        mine = self.of_tenant(request.tenant)
        if mine is not self:
            return mine.dispatch(request, budget, loads, excluded)
        laps = Laps(self.now)
        named_are_known(request, self.specs)
        if self._needs_no_reading(request, budget):
            given = (self.specs, self.artefact.expectation, loads or {}, excluded)
            return decided_unread(request, *given, self.new_id(), self.config, laps), request
        self._check_room(request)
        ceilings = request.ceilings.tightened(budget) if budget else request.ceilings
        laps("check")
        reading = self._read(request, laps)
        laps("turns")
        request = stocked(request, reading.guess, self.stocks)

        def choose(asked: Request) -> Decision:
            if self.retriever is not None:
                laps("retrieve")
            found = self._choose(asked, reading, ceilings, loads or {}, excluded)
            laps("select")
            return found

        gain = None if self.artefact.gate is None else partial(self._gain, reading, laps)
        scales = Scales(gain, self.specs, loads or {})
        decision, outgoing = decided(request, self.retriever, scales, choose)
        laps("retrieve" if self.retriever is not None else "select")
        return replace(decision, decide_ms=laps.total_ms, steps_ms=laps.took_ms), outgoing

    def _choose(
        self,
        request: Request,
        reading: TextReading,
        ceilings: Budget,
        loads: Mapping[str, Load],
        excluded: frozenset[str],
    ) -> Decision:
        """The decision on a prompt of this length, retrieval aside."""
        named = self._named(request)
        ids = eligible(named, self.specs, request, excluded)
        lacks = incapable(set(named) - excluded, self.specs, request)
        missing = [name for name in named if name in excluded]
        slate = self._slate(ids, request, reading, ceilings, loads, missing)
        nearest = request.policy.on_infeasible == "nearest"
        choice, instead = select_or_decline(
            slate.options, slate.only_of(declining(request, ids)), nearest
        )
        index = taken(choice, request, ceilings)
        shown = slate.shown(index)
        offered = [slate.candidate(k) for k in shown]
        options, index = slate.options_of(shown), shown.index(index)
        chosen = offered[index]
        picked = selection(chosen, slate.alone)
        return Decision(
            decision_id=self.new_id(),
            policy=request.policy.name,
            status=_status(choice, request),
            category=reading.guess,
            selection=picked,
            predicted=chosen.predicted,
            cautious=chosen.cautious,
            alternatives=alternatives(offered, options, index)
            + unable(self._candidates([*lacks], reading.expected, request, loads), lacks, request),
            budget=ceilings,
            binding=choice.binding,
            slack=slack(options, index),
            max_tokens=self._cap(picked, request, ceilings, choice),
            why=why(offered, options, choice, index, reading.guess, request, instead)
            + left_out(lacks),
            decide_ms=0.0,
            declined=instead is not None,
            needed={} if instead is None else needed(instead),
            config=self.config,
        )

    def _slate(
        self,
        ids: Sequence[str],
        request: Request,
        reading: TextReading,
        ceilings: Budget,
        loads: Mapping[str, Load],
        missing: Sequence[str],
    ) -> Slate:
        """What the request may choose from: these experts, and what they may do together."""
        circle = Circle.of(request, [self.specs[name] for name in ids])
        alone = self._candidates(ids, reading.expected, request, loads)
        options = Options.of(
            [c.predicted for c in alone],
            [c.cautious for c in alone],
            ceilings,
            request.policy.prices,
        )
        sets, partners = np.eye(len(alone), dtype=bool), None
        if self.offers is not None and not request.pinned:
            most = min(self.most_experts, circle.most)
            sets, quality = self.offers.sets(reading.guess.name, alone, most, self.top_p)
            options = options.together(sets, quality)
            partners = self.offers.partners(reading.guess.name)
        several = ways(
            request,
            reading.guess.name,
            alone,
            circle,
            self.repertoire,
            partners,
            self.specs,
            loads,
            missing,
        )
        return Slate.of(
            alone, sets, options, several, circle, request.mode, declining(request, ids)
        )

    def _gain(self, reading: TextReading, lap: Laps, expert_id: str, evidence: Evidence) -> float:
        """What passages are expected to add to an expert's quality, in [-1, 1]."""
        lap("retrieve")
        gate, known = self.artefact.gate, self.artefact.expectation.expert_ids
        assert gate is not None
        features = gate_features(
            [reading.text], reading.vectors, [reading.guess.entropy], [evidence]
        )
        strength = np.nan
        if expert_id in known:
            strength = reading.expected.quality[0, known.index(expert_id)]
        gained = float(gate.gain(features, [strength])[0, 0])
        lap("gate")
        return gained

    def texts(self, request: Request) -> tuple[str, ...]:
        """The texts whose vectors `decide` asks for."""
        if self._needs_no_reading(request, None):
            return ()
        texts = [turn.text for turn in turns_read(request.messages, self.turns)]
        if self.retriever is not None and request.retrieve != "never":
            texts.append(request.text)
        return tuple(dict.fromkeys(texts))

    def _needs_no_reading(self, request: Request, budget: Budget | None) -> bool:
        if self.stocks or self.read_pinned or (budget is not None and budget.ceilings()):
            return False
        return needs_no_reading(request, self.retriever is not None)

    def _read(self, request: Request, lap: Callable[[str], None] = untimed) -> TextReading:
        """What is read of the turn that holds."""
        turns = turns_read(request.messages, self.turns)
        readings = read([turn.text for turn in turns], self.embedder, self.artefact, lap)
        if len(turns) == 1:
            return readings[0]
        ids = self._named(request)
        if not ids:
            return readings[-1]

        def utility(k: int) -> NDArray[np.float64]:
            then = replace(request, messages=request.messages[: turns[k].end])
            found = self._candidates(ids, readings[k].expected, then, {})
            return utility_of([candidate.predicted for candidate in found], request.policy.prices)

        specs = [self.specs[name] for name in ids]
        return held(turns, readings, request, specs, utility, self.switch_margin)

    @property
    def trained(self) -> list[str]:
        """Experts that there are and the artefact knows: `auto` chooses among no others."""
        return [name for name in self.artefact.expectation.expert_ids if name in self.specs]

    def _check_room(self, request: Request) -> None:
        """Refuse what no expert has room for before it is read: that takes time."""
        if self.specs and not self.stocks:
            roomy([request.pinned] if request.pinned else [*self.specs], self.specs, request)

    def _named(self, request: Request) -> list[str]:
        """Experts that the request leaves to choose from."""
        if request.pinned:
            return [request.pinned]
        trained = self.trained
        if not trained and not self.stocks:
            raise InfeasibleError(
                "the artefact knows none of the configured experts: train one with "
                "`coe train`, or name an expert as model",
                "model",
                "no_expert",
            )
        if self.offers is not None:
            trained = [name for name in trained if name in self.offers.experts]
        allowed = self.specs.keys() if request.allow is None else request.allow
        named = [*trained, *request.standing]
        return [name for name in named if name in allowed and name not in request.deny]

    def _candidates(
        self, ids: Sequence[str], expected: Expected, request: Request, loads: Mapping[str, Load]
    ) -> list[Candidate]:
        known = self.artefact.expectation.expert_ids
        return candidates([self.specs[name] for name in ids], known, expected, request, loads)

    def _cap(
        self, picked: Selection, request: Request, ceilings: Budget, choice: Choice
    ) -> int | None:
        """Longest answer; ceilings on joules and dollars are kept where one expert answers."""
        held = choice.status == "optimal" and len(picked.expert_ids) == 1
        return cap(self.specs[picked.expert_ids[0]], request, ceilings if held else None)


def _status(choice: Choice, request: Request) -> Literal["optimal", "nearest", "pinned"]:
    if request.pinned:
        return "pinned"
    return "optimal" if choice.status == "optimal" else "nearest"
