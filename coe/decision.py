"""What is decided on a request, and what its answer really took: frozen values without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coe.core import Budget, Estimate, Prices
from coe.frozen import quick
from coe.mode import Mode
from coe.standing import Origin

_NOTHING_ADDED = Prices()


@quick
@dataclass(frozen=True, slots=True)
class CategoryGuess:
    """What the category router makes of a prompt.

    ``name`` is `GENERAL` when ``uncertain``; ``likeliest`` is the class of the largest
    probability either way. ``entropy`` in nats; ``distance`` is the mean cosine distance to
    the nearest training prompts, in [0, 2]. All of it is said of the user turn ``turns_ago``.
    """

    name: str
    likeliest: str
    probability: float
    entropy: float
    distance: float
    uncertain: bool
    turns_ago: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Candidate:
    """Who may answer, with an answer of mean length and one of cautious length.

    Of a cascade the mean one is asked for as often as it was on training prompts, the cautious one
    at every stage.
    """

    mode: Mode
    predicted: Estimate
    cautious: Estimate

    @property
    def expert_id(self) -> str:
        """The mode in words; of one expert its id."""
        return self.mode.name


@quick
@dataclass(frozen=True, slots=True)
class Alternative:
    """An expert that was considered and not chosen, and why not.

    Parameters
    ----------
    behind : by how much its utility is below that of the chosen; negative: above, and ``violated``
        says which ceilings kept it out.
    able : whether it can do what the request asks for.
    """

    expert_id: str
    estimate: Estimate
    utility: float
    violated: tuple[str, ...]
    why_not: str
    cautious: Estimate
    behind: float = 0.0
    able: bool = True


@quick
@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen experts with their weights, which sum to 1, and how they make one answer.

    ``alone`` is what is expected of each expert's own answer, in the same order.
    """

    expert_ids: tuple[str, ...]
    weights: tuple[float, ...]
    mode: Mode
    alone: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Citation:
    """A retrieved passage: what an answer means by ``[n]``, and where it stands.

    ``page`` counts from 1, and is ``None`` where there are none. ``score`` is the search's.
    """

    n: int
    passage_id: str
    source: str
    title: str
    page: int | None
    score: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Whether passages go with the prompt, and why.

    ``gain`` is what they are expected to add to the chosen expert's quality, ``None`` where
    nobody asked the gate; ``price`` what they cost in the same points, ``None`` where none was
    worked out. ``citations`` is empty unless ``retrieve``.
    """

    retrieve: bool
    why: str
    gain: float | None = None
    price: float | None = None
    citations: tuple[Citation, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Decision:
    """Who answers a request, what is expected of the answer, and why.

    Parameters
    ----------
    status : ``optimal``; ``nearest`` when no expert fits and the policy takes the one that
        exceeds the budget least; ``pinned`` when the caller named the expert.
    alternatives : every candidate that was not chosen, best utility first.
    predicted, cautious : the answer of mean length, and one of a length that nine in ten do not
        exceed. Prices are paid on the first, ceilings must hold for the second.
    binding : the ceiling that keeps a better expert out; ``None`` when no ceiling does.
    slack : per present ceiling, what the cautious estimate leaves of it.
    max_tokens : cap on the answer's length; the caller's, or what the budget affords.
    decide_ms : time the decision took.
    steps_ms : the parts of that time by name, in the order in which they first ended: ``check``,
        ``embed``, ``category``, ``quality``, ``turns``, ``retrieve``, ``gate``, ``select``.
    retrieval : whether passages go with the prompt; estimates and slack include them.
    running : what budgets over time added to the policy's prices.
    declined : nobody answers, as the chosen expert says.
    needed : where it is declined for the ceilings, per present one the smallest value that alone
        would admit an expert, ``None`` where none would.
    config : short name of the configuration that it was made under; empty where nobody said.
    """

    decision_id: str
    policy: str
    status: Literal["optimal", "nearest", "pinned"]
    category: CategoryGuess
    selection: Selection
    predicted: Estimate
    cautious: Estimate
    alternatives: tuple[Alternative, ...]
    budget: Budget
    binding: str | None
    slack: Mapping[str, float]
    max_tokens: int | None
    why: str
    decide_ms: float
    retrieval: Retrieval | None = None
    running: Prices = _NOTHING_ADDED
    declined: bool = False
    needed: Mapping[str, float | None] = field(default_factory=dict)
    steps_ms: Mapping[str, float] = field(default_factory=dict, compare=False)
    config: str = ""

    @property
    def expert_id(self) -> str:
        """The expert of the largest weight."""
        heaviest = max(self.selection.weights)
        return self.selection.expert_ids[self.selection.weights.index(heaviest)]


Outcome = Literal["complete", "cancelled", "failed"]
"""How an answer ended; ``cancelled`` is the caller's doing, ``failed`` the expert's."""


Escalation = Literal["none", "asked", "declined", "late"]
"""Whether later stages were asked: ``none``: there are none, or no need; ``declined``: the tenant
has none left; ``late``: they would not have fitted into what was left of the latency ceiling."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one answer came of several.

    Parameters
    ----------
    share : of the weight of all answers that say something, of those that say what was delivered.
    tie : something else had the same weight.
    agreeing : experts that say what was delivered; empty where that cannot be told.
    cancelled : experts whose answers could not change anything any more.
    confidence : that the delivered answer is right, in [0, 1].
    n_stages : how many were asked.

    Of a fusion, share, tie, agreeing and confidence are those of the best answer it was written
    from, which is delivered where the writer fails.
    """

    share: float
    tie: bool
    agreeing: tuple[str, ...]
    cancelled: tuple[str, ...]
    confidence: float
    n_stages: int
    escalation: Escalation = "none"


@quick
@dataclass(frozen=True, slots=True)
class Receipt:
    """What an answer really took.

    ``energy_source`` says whether ``energy_j`` was read from a meter or computed from the
    device profile; ``tokens_source`` whether the expert stated its token counts or they were
    counted from the stream. ``failed_over`` lists experts that were tried before, in order.
    ``expert_id`` names whose answer was delivered, or the mode of a mixture. Where several were
    asked, ``parts`` are their own receipts, joules, dollars and tokens are sums, and ``agreement``
    says how their answers became one; ``None`` where none did. ``copied_from`` says whose answer
    it is where it was given before. ``config`` names the configuration that it was decided under.
    """

    decision_id: str
    expert_id: str
    outcome: Outcome
    ttft_ms: float
    latency_ms: float
    prompt_tokens: int
    output_tokens: int
    tokens_source: Literal["stated", "counted"]
    energy_j: float
    energy_source: Literal["measured", "modelled"]
    energy_scope: str
    cost_usd: float
    failed_over: tuple[str, ...] = ()
    parts: tuple[Receipt, ...] = ()
    agreement: Agreement | None = None
    copied_from: Origin | None = None
    config: str = ""
