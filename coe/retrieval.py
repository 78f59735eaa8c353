"""Whether passages go with a prompt: what they are expected to add against what they take."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from coe.core import ExpertSpec, Request
from coe.decision import Decision, Retrieval
from coe.errors.callers import InfeasibleError, RequestError
from coe.load import Load
from coe.routers.gate import decide
from coe.routers.passages import LEAST_PRICE, Quoted, quote, with_passages
from coe.routers.retrieve import Evidence, Index, Mode

_LONG_CHARS = 2000
_MANY_PASSAGES = 10_000
_STANDS = "nothing retrieved: nothing is computed"

Choose = Callable[[Request], Decision]
"""The decision on a request of this length, retrieval aside."""


@dataclass(frozen=True, slots=True, eq=False)
class Retriever:
    """An index, and how much of it goes with a prompt.

    Parameters
    ----------
    k : most passages.
    passage_tokens : longest message that holds them.
    mode : how the index is searched. Where `dense` finds nothing, words are searched: the embedder
        may not be there.
    new_nonce : a word that no document knows, for every request.
    """

    index: Index
    k: int = 4
    passage_tokens: int = 1024
    mode: Mode = "hybrid"
    new_nonce: Callable[[], str] = field(default=lambda: secrets.token_hex(8))

    def find(self, text: str) -> Quoted | None:
        """The passages for a prompt; ``None`` where none is found or has room."""
        hits = self.index.search(text, self.k, self.mode)
        if not hits and self.mode == "dense":
            hits = self.index.search(text, self.k, "bm25")
        return quote(hits, self.passage_tokens, self.new_nonce())

    def takes_long(self, text: str) -> bool:
        """Whether a search takes more than some 5 ms, so that an event loop should not wait."""
        return len(text) > _LONG_CHARS or len(self.index.passages) > _MANY_PASSAGES


@dataclass(frozen=True, slots=True)
class Scales:
    """What weighs passages for one request.

    Parameters
    ----------
    gain : points of quality that passages are expected to add to an expert's answer, given the
        evidence for them; ``None``: nobody has learned it.
    specs, loads : the experts by id, and how busy they are.
    """

    gain: Callable[[str, Evidence], float] | None
    specs: Mapping[str, ExpertSpec]
    loads: Mapping[str, Load]

    def price(self, decision: Decision, before: Request, after: Request) -> float:
        """What the longer prompt takes of the decided experts, in points of quality.

        At least `LEAST_PRICE`, however little the policy asks for time, joules and money.
        """
        prices, picked = before.policy.prices, decision.selection
        more_ms, more_j, more_usd = 0.0, 0.0, 0.0
        for name, alone in zip(picked.expert_ids, picked.alone, strict=True):
            without, with_them = (
                self.specs[name].estimate(
                    0.0, asked.prompt_tokens, alone.output_tokens, self.loads.get(name)
                )
                for asked in (before, after)
            )
            more_ms = max(more_ms, with_them.latency_ms - without.latency_ms)
            more_j += with_them.energy_j - without.energy_j
            more_usd += with_them.cost_usd - without.cost_usd
        return (
            LEAST_PRICE
            + prices.per_second * more_ms / 1000.0
            + prices.per_joule * more_j
            + prices.per_usd * more_usd
        )

    def has_room(self, decision: Decision, request: Request) -> bool:
        """Whether prompt and cautious answer fit the ceilings and the decided experts' contexts."""
        answer_tokens = decision.cautious.output_tokens / request.n_answers
        contexts = [self.specs[name].context_tokens for name in decision.selection.expert_ids]
        room = min(contexts) - request.prompt_tokens
        return answer_tokens <= room and min(decision.slack.values(), default=0.0) >= 0


def decided(
    request: Request, retriever: Retriever | None, scales: Scales, choose: Choose
) -> tuple[Decision, Request]:
    """The decision with its retrieval, and the request as the expert is to get it.

    Under ``auto`` the expert is chosen as without retrieval; it gets passages if their expected
    gain is worth more than their price, and if it fits every ceiling and its context with them and
    would be chosen still. ``always`` retrieves whatever is found, before the expert is chosen.

    Raises
    ------
    RequestError
        ``always``, and there is no index; or as ``choose``.
    """
    if request.retrieve == "always":
        return _always(request, retriever, scales, choose)
    plain = choose(request)
    if plain.expert_id in request.standing:
        return replace(plain, retrieval=Retrieval(False, _STANDS)), request
    if request.retrieve == "never":
        return replace(plain, retrieval=Retrieval(False, "not retrieved, as asked")), request
    if retriever is None:
        reason = "nothing retrieved: no index is configured"
        return replace(plain, retrieval=Retrieval(False, reason)), request
    if scales.gain is None:
        return _told(
            plain, Retrieval(False, "nothing retrieved: the artefact has no gate")
        ), request
    return _weighed(request, retriever, scales, choose, plain)


def _always(
    request: Request, retriever: Retriever | None, scales: Scales, choose: Choose
) -> tuple[Decision, Request]:
    if retriever is None:
        raise RequestError(
            "coe.retrieve is 'always', and no index is configured: "
            "give coe.yaml its section `retrieval`, or leave coe.retrieve out",
            "coe.retrieve",
        )
    quoted = retriever.find(request.text)
    if quoted is None:
        return _told(choose(request), Retrieval(False, "nothing retrieved: none found")), request
    longer = with_passages(request, quoted)
    decision = choose(longer)
    if decision.expert_id in longer.standing:
        return replace(decision, retrieval=Retrieval(False, _STANDS)), request
    gain = None
    if scales.gain is not None:
        gain = scales.gain(decision.expert_id, retriever.index.evidence(request.text))
    price = scales.price(decision, request, longer)
    said = f"{_counted(quoted)} retrieved, as asked"
    return _told(decision, Retrieval(True, said, gain, price, quoted.citations)), longer


def _weighed(
    request: Request, retriever: Retriever, scales: Scales, choose: Choose, plain: Decision
) -> tuple[Decision, Request]:
    assert scales.gain is not None
    name = plain.expert_id
    gain, price = scales.gain(name, retriever.index.evidence(request.text)), LEAST_PRICE

    def without(reason: str) -> tuple[Decision, Request]:
        return _told(plain, Retrieval(False, f"nothing retrieved: {reason}", gain, price)), request

    # most prompts end here, and are spared the search
    if not decide(gain, price):
        return without(f"gain {gain:+.3f} is not worth {price:.3f}")
    quoted = retriever.find(request.text)
    if quoted is None:
        return without("none found")
    longer = with_passages(request, quoted)
    price = scales.price(plain, request, longer)
    if not decide(gain, price):
        return without(f"gain {gain:+.3f} is not worth {price:.3f}")
    try:
        fuller = choose(longer)
    except InfeasibleError:
        return without(f"with {_counted(quoted)} no expert fits budget and context")
    mode = plain.selection.mode
    if fuller.selection.mode != mode:
        return without(f"with {_counted(quoted)} {mode.name} would not be chosen")
    if not scales.has_room(fuller, longer):
        return without(f"{mode.name} has no room for {_counted(quoted)}")
    said = f"{_counted(quoted)} retrieved: gain {gain:+.3f} is worth more than {price:.3f}"
    return _told(fuller, Retrieval(True, said, gain, price, quoted.citations)), longer


def _told(decision: Decision, retrieval: Retrieval) -> Decision:
    return replace(decision, retrieval=retrieval, why=f"{decision.why}; {retrieval.why}")


def _counted(quoted: Quoted) -> str:
    n = len(quoted.citations)
    return "1 passage" if n == 1 else f"{n} passages"
