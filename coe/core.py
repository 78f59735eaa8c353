"""The nouns: frozen values without I/O. Units stand in names; ``None`` means "no ceiling"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from coe.capability import EVERYTHING, Capability
from coe.device import Amount, DeviceProfile
from coe.errors.callers import RequestError
from coe.frozen import quick
from coe.load import Load
from coe.mode import Kind
from coe.standing import Standing
from coe.steps import Steps

GENERAL = "general"
"""The category of prompts that the category router does not recognise (Robust-CoE)."""

MOST_EXPERTS = 8
"""That are asked for one answer."""

TurnRule = Literal["last", "all", "sticky"]
"""Which user turns a decision goes by; see `coe.routers.turns`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``text`` joins the text parts of the wire message.

    ``n_tokens`` is its estimated length.
    """

    role: str
    text: str
    n_tokens: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_tokens", estimated_tokens(self.text))


@dataclass(frozen=True, slots=True)
class Budget:
    """Ceilings of one request. Every ceiling is positive and finite, or absent.

    Raises
    ------
    RequestError
        A ceiling is zero, negative, infinite or not a number; ``param`` names it.
    """

    latency_ms: float | None = None
    ttft_ms: float | None = None
    energy_j: float | None = None
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        for axis, ceiling in self.ceilings().items():
            if not (math.isfinite(ceiling) and ceiling > 0):
                raise RequestError(
                    f"{axis} must be a positive finite number, not {ceiling!r}",
                    f"coe.budget.{axis}",
                )

    def ceilings(self) -> dict[str, float]:
        """Present ceilings by axis name, in the order of the fields."""
        given = zip(_AXES, _given(self), strict=True)
        return {axis: ceiling for axis, ceiling in given if ceiling is not None}

    def tightened(self, other: Budget) -> Budget:
        """The smaller ceiling of both on every axis."""
        mine, theirs = self.ceilings(), other.ceilings()
        if not theirs:
            return self
        if not mine:
            return other
        return Budget(
            **{a: min(mine.get(a, math.inf), theirs.get(a, math.inf)) for a in {*mine, *theirs}}
        )

    def after(self, elapsed_ms: float) -> Budget:
        """What is left of the time ceilings; at least a millisecond, so that it stays valid."""
        left = {
            axis: max(ceiling - elapsed_ms, 1.0)
            for axis, ceiling in self.ceilings().items()
            if axis in ("latency_ms", "ttft_ms")
        }
        return replace(self, **left)


_AXES = tuple(f.name for f in fields(Budget))
_given = attrgetter(*_AXES)


@dataclass(frozen=True, slots=True)
class Prices:
    """What a unit of each resource is worth in points of quality (quality lies in [0, 1])."""

    per_second: float = 0.0
    per_joule: float = 0.0
    per_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """A named budget policy: ceilings, prices, and what to do when nothing fits.

    Parameters
    ----------
    combine : whether several experts may make an answer: of those that are not streamed
        (``whole``), of all, or never. A stream of several begins when the last word is known.
    most_experts : that may be asked for one answer; ``None``: as many as were learned.
    local_only : a prompt goes to no expert, and to no embedder, that is not local.
    ban, force : experts that never take part, and that always do; where one expert alone may
        answer, it is one of the forced.
    """

    name: str
    budget: Budget = Budget()
    prices: Prices = Prices()
    on_infeasible: Literal["reject", "nearest"] = "reject"
    description: str = ""
    combine: Literal["never", "whole", "always"] = "whole"
    most_experts: int | None = None
    local_only: bool = False
    ban: frozenset[str] = frozenset()
    force: frozenset[str] = frozenset()


_IDLE = Load()


class Estimate(NamedTuple):
    """What an answer of ``output_tokens`` takes; ``quality``, in [0, 1], is expected of it.

    ``quality_se`` is the standard error of that expectation, 0 where none is known. A tuple, as
    there are two for every candidate of every request.
    """

    quality: float
    ttft_ms: float
    latency_ms: float
    energy_j: float
    cost_usd: float
    output_tokens: float
    quality_se: float = 0.0


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """What is known of an expert before it is asked.

    Parameters
    ----------
    id : its public name, also accepted as the ``model`` of a request.
    profile : its speed and power on the device it runs on.
    params_b : parameters, in billions; 0 when unknown.
    context_tokens : longest prompt plus answer.
    slots : requests it serves at full speed at once.
    answer_tokens : cap on an answer whose caller sets none; ``None``: the expert's own.
    usd_per_mtok_in, usd_per_mtok_out : price per million prompt and output tokens.
    local : a prompt that goes to it stays on machines labelled local.
    shared : a generalist that takes part whenever several experts do (DeepSeekMoE).
    stream_usage : of a stream it states its tokens if it is asked to.
    logprobs : it can say how likely each token that it writes was to it.
    vocabulary : experts of the same one can write an answer together, token by token; ``None``: it
        does not say what it expects next.
    capabilities : what it can do beyond text; by default everything.
    extras : fields of a request that it takes beyond those that OpenAI's interface has.
    """

    id: str
    profile: DeviceProfile
    params_b: float = 0.0
    context_tokens: int = 4096
    slots: int = 1
    answer_tokens: int | None = None
    usd_per_mtok_in: float = 0.0
    usd_per_mtok_out: float = 0.0
    local: bool = False
    shared: bool = False
    stream_usage: bool = False
    logprobs: bool = False
    vocabulary: str | None = None
    capabilities: frozenset[Capability] = EVERYTHING
    extras: frozenset[str] = frozenset()

    def estimate(
        self,
        quality: float,
        prompt_tokens: float,
        output_tokens: float,
        load: Load | None = None,
        quality_se: float = 0.0,
    ) -> Estimate:
        """The estimate of one answer of ``output_tokens`` under the present ``load``."""
        load = load or _IDLE
        stretch = load.slowdown * self.stretch(load)
        ttft_ms = load.delay_ms + self.profile.ttft_ms(prompt_tokens) * stretch
        return Estimate(
            quality=quality,
            ttft_ms=ttft_ms,
            latency_ms=ttft_ms + self.profile.decode_ms(output_tokens) * stretch,
            energy_j=self.profile.energy_j(prompt_tokens, output_tokens),
            cost_usd=self.cost_usd(prompt_tokens, output_tokens),
            output_tokens=output_tokens,
            quality_se=quality_se,
        )

    def stretch(self, load: Load) -> float:
        """By how much those that are being answered stretch the time of one more; at least 1."""
        return max(1.0, (load.n_in_flight + 1) / (self.slots * max(1, load.n_copies)))

    def cost_usd(self, prompt_tokens: Amount, output_tokens: Amount) -> Amount:
        """Price of the tokens of one answer, or of each of several."""
        cost = prompt_tokens * self.usd_per_mtok_in + output_tokens * self.usd_per_mtok_out
        return cost / 1_000_000


@quick
@dataclass(frozen=True, slots=True)
class Request:
    """One question, parsed and checked.

    ``payload`` is the wire body without ``model`` and ``coe``: what is handed to the expert.
    ``pinned`` names an expert to use without routing. ``allow`` (``None``: all) and ``deny``
    restrict the candidates. ``max_tokens`` is the caller's cap on the length of each of
    ``n_answers`` answers. ``passages_tokens`` counts what was retrieved for it: that stands in
    ``payload``, and never in ``messages``, which are the caller's own. ``mode`` asks for a way to
    combine answers (``None``: the best there is), of at most ``most_experts``. ``tenant`` is whose
    request it is, "" where nobody said. ``cache``: it may be answered by a copy of an earlier
    answer, and its own copied. ``needs`` holds, by what an expert must be capable of to answer it,
    the field that asks for that; ``extras`` the fields that only some experts take. ``read``: what
    it says is read even where nothing hangs on it. ``standing`` holds, by expert, the answers that
    stand ready for it; a router fills it in. ``insists``: nobody else can answer it, so it goes to
    an expert that is failing, too; ``n_attempts`` were made before this one, and it
    does not go to the copies that it is to ``avoid``. Where there are
    ``steps``, what is done for the request is noted there. ``traceparent`` goes with it to the
    experts that hear HTTP, unless it is "". ``key`` is the public id of the API key that it came
    with.
    """

    messages: tuple[Message, ...]
    policy: Policy = Policy("default")
    budget: Budget = Budget()
    pinned: str | None = None
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    max_tokens: int | None = None
    n_answers: int = 1
    stream: bool = False
    retrieve: Literal["auto", "always", "never"] = "auto"
    passages_tokens: int = 0
    mode: Kind | None = None
    most_experts: int | None = None
    tenant: str = ""
    key: str = ""
    cache: bool = True
    needs: Mapping[Capability, str] = field(default_factory=dict)
    extras: frozenset[str] = frozenset()
    read: bool = False
    standing: Mapping[str, Standing] = field(default_factory=dict)
    insists: bool = False
    avoid: frozenset[str] = frozenset()
    n_attempts: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict)
    steps: Steps | None = field(default=None, compare=False, repr=False)
    traceparent: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The user turns, oldest first: the only text that a router ever sees."""
        return "\n".join(m.text for m in self.messages if m.role == "user")

    @property
    def ceilings(self) -> Budget:
        """The caller's budget and the policy's, whichever is tighter on each axis."""
        return self.policy.budget.tightened(self.budget)

    @property
    def prompt_tokens(self) -> int:
        """Estimated prompt length, passages included."""
        return self.passages_tokens + sum([m.n_tokens for m in self.messages])


def estimated_tokens(text: str) -> int:
    """Length of a message: four bytes a token, eight tokens of template."""
    n_bytes = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return 8 + (n_bytes + 3) // 4
