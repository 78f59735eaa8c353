"""The OpenAI wire format: requests parsed and checked, decisions and errors rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from coe.core import Budget, Estimate, Policy, Prices, Request
from coe.counterfactual import counterfactuals
from coe.decision import Decision, Receipt, Retrieval
from coe.errors.callers import UnknownExpertError
from coe.mode import Mode
from coe.services.wire.bodies import NOTHING_ASKED, ChatBody
from coe.services.wire.fields import complaint, unknown
from coe.services.wire.needs import needs_of
from coe.services.wire.strict_json import document_of
from coe.steps import Steps
from coe.tenants import visible

AUTO: Final = "auto"
UNSUPPORTED: Final = frozenset({"best_of", "echo", "suffix", "prompt_logprobs"})
"""Fields of other interfaces whose cost is more than it looks, or that no chat has."""


_FIELDS: Final = frozenset(ChatBody.model_fields)
_AS_IT_IS: Final = frozenset({str, int, bool, type(None)})
_PINNED: Final = Policy("pinned")
_NO_BUDGET: Final = Budget()
_NOTHING_ADDED: Final = Prices()


def parse_chat(
    body: bytes,
    policies: Mapping[str, Policy],
    expert_ids: frozenset[str],
    own: Mapping[str, str] = MappingProxyType({}),
    extras: frozenset[str] = frozenset(),
) -> tuple[Request, bool]:
    """The request in a body, and whether it asks for an explanation.

    Parameters
    ----------
    own : by tenant, the expert that it keeps to itself: to others there is none of that name.
    extras : fields beyond those of OpenAI's interface that some expert takes.

    Raises
    ------
    RequestError
        As `coe.services.wire.strict_json.document_of`, or a field is wrong; ``param`` names it.
    UnknownExpertError
        ``model`` is neither ``auto``, a policy, nor an expert.
    """
    return chat_request(document_of(body), policies, expert_ids, own, extras)


def chat_request(
    document: Mapping[str, Any],
    policies: Mapping[str, Policy],
    expert_ids: frozenset[str],
    own: Mapping[str, str] = MappingProxyType({}),
    extras: frozenset[str] = frozenset(),
    steps: Steps | None = None,
    traceparent: str = "",
) -> tuple[Request, bool]:
    """As `parse_chat`, of a body that has been read.

    Parameters
    ----------
    steps, traceparent : go with the request, see `Request`.
    """
    chat, more = _checked(document, extras)
    known = frozenset(visible(expert_ids, own, chat.coe.tenant)) if own else expert_ids
    policy, pinned = _addressee(chat.model, policies, known)
    caps = [c for c in (chat.max_tokens, chat.max_completion_tokens) if c is not None]
    asked = chat.coe
    allow = asked.experts.allow
    request = Request(
        messages=tuple(message.as_message() for message in chat.messages),
        policy=policy,
        budget=_NO_BUDGET if asked is NOTHING_ASKED else Budget(**asked.budget.model_dump()),
        pinned=pinned,
        allow=None if allow is None else frozenset(allow),
        deny=frozenset(asked.experts.deny),
        max_tokens=min(caps) if caps else None,
        n_answers=chat.n or 1,
        stream=bool(chat.stream),
        retrieve=asked.retrieve,
        mode=None if asked.mode == AUTO else asked.mode,
        most_experts=asked.k,
        tenant=asked.tenant,
        cache=asked.cache,
        read=asked.explain,
        needs=needs_of(chat),
        extras=more,
        payload={k: v for k, v in document.items() if k not in ("model", "coe")},
        steps=steps,
        traceparent=traceparent,
    )
    return request, asked.explain


def decision_document(decision: Decision, explain: bool = True) -> dict[str, Any]:
    """A decision as JSON. Without ``explain`` the alternatives are left out."""
    guess, predicted = decision.category, _figured(decision.predicted)
    same = decision.cautious is decision.predicted
    selected = zip(decision.selection.expert_ids, decision.selection.weights, strict=True)
    document: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "config": decision.config,
        "policy": decision.policy,
        "status": decision.status,
        "category": guess.name,
        "category_probability": _short(guess.probability),
        "category_likeliest": guess.likeliest,
        "uncertain": guess.uncertain,
        "category_turns_ago": guess.turns_ago,
        "experts": [{"id": name, "weight": weight} for name, weight in selected],
        **_mode(decision.selection.mode),
        "predicted": predicted,
        "cautious": predicted if same else _figured(decision.cautious),
        "budget": decision.budget.ceilings(),
        "binding": decision.binding,
        "slack": _figures(decision.slack),
        "max_tokens": decision.max_tokens,
        "why": decision.why,
        "retrieval": retrieval_document(decision.retrieval),
    }
    if decision.running != _NOTHING_ADDED:
        running = {"per_joule": decision.running.per_joule, "per_usd": decision.running.per_usd}
        document["running_prices"] = _figures(running)
    if decision.declined:
        document["declined"] = True
        document["needed"] = dict(decision.needed)
    if decision.retrieval is not None and decision.retrieval.retrieve:
        document["citations"] = [asdict(cited) for cited in decision.retrieval.citations]
    if explain:
        document["category_entropy"] = _short(guess.entropy)
        document["category_distance"] = _short(guess.distance)
        document["counterfactual"] = counterfactuals(decision)
        document["decide_ms"] = _short(decision.decide_ms)
        document["decide_steps_ms"] = _figures(decision.steps_ms)
        document["alternatives"] = [
            {
                "id": other.expert_id,
                "predicted": _figured(other.estimate),
                "cautious": _figured(other.cautious),
                "utility": _short(other.utility),
                "violated": list(other.violated),
                "why_not": other.why_not,
            }
            for other in decision.alternatives
        ]
    return document


def retrieval_document(retrieval: Retrieval | None) -> dict[str, Any] | None:
    """Whether passages went with the prompt, as JSON."""
    if retrieval is None:
        return None
    return {
        "retrieve": retrieval.retrieve,
        "gain": _rounded(retrieval.gain),
        "price": _rounded(retrieval.price),
        "why": retrieval.why,
    }


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    return {
        "decision_id": receipt.decision_id,
        "expert_id": receipt.expert_id,
        "outcome": receipt.outcome,
        "ttft_ms": _rounded(receipt.ttft_ms),
        "latency_ms": _rounded(receipt.latency_ms),
        "prompt_tokens": receipt.prompt_tokens,
        "output_tokens": receipt.output_tokens,
        "tokens_source": receipt.tokens_source,
        "energy_j": _rounded(receipt.energy_j),
        "energy_source": receipt.energy_source,
        "energy_scope": receipt.energy_scope,
        "cost_usd": _rounded(receipt.cost_usd),
        "failed_over": list(receipt.failed_over),
        "parts": [receipt_document(part) for part in receipt.parts],
        "agreement": _rounded(receipt.agreement),
        "copied_from": _rounded(receipt.copied_from),
        "config": receipt.config,
    }


def _checked(
    document: Mapping[str, Any], extras: frozenset[str]
) -> tuple[ChatBody, frozenset[str]]:
    """The body as a model, and the fields beyond it that some expert takes."""
    more = frozenset(document) - _FIELDS
    if strange := more - extras:
        raise unknown([name for name in document if name in strange], UNSUPPORTED)
    try:
        named = {k: v for k, v in document.items() if k not in more} if more else document
        return ChatBody.model_validate(named), more
    except ValidationError as error:
        raise complaint(error) from error


def _addressee(
    model: str, policies: Mapping[str, Policy], expert_ids: frozenset[str]
) -> tuple[Policy, str | None]:
    """The policy and the pinned expert that a ``model`` stands for."""
    if model in expert_ids:
        return _PINNED, model
    prefix, _, name = model.partition(":")
    if prefix == AUTO and (name or "default") in policies and not model.endswith(":"):
        return policies[name or "default"], None
    known = [AUTO, *(f"{AUTO}:{p}" for p in policies if p != "default"), *sorted(expert_ids)]
    raise UnknownExpertError(f"there is no model {model!r}; there are {', '.join(known)}")


def _mode(mode: Mode) -> dict[str, Any]:
    """How the experts make one answer; a threshold only where there is one."""
    said = {"mode": mode.kind, "mode_name": mode.name, "stages": [list(s) for s in mode.stages]}
    return {**said, "threshold": mode.threshold} if mode.kind == "cascade" else said


def _figures(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in values.items()}


def _figured(estimate: Estimate) -> dict[str, float]:
    """An estimate as JSON, with short figures."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in zip(Estimate._fields, estimate, strict=True)
    }


def _rounded(value: Any) -> Any:
    """As JSON has it: short figures, however deep, lists for tuples, objects for dataclasses."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if value.__class__ in _AS_IT_IS:
        return value
    if isinstance(value, tuple):
        return [_rounded(inner) for inner in value]
    return {one.name: _rounded(getattr(value, one.name)) for one in fields(value)}


def _short(value: float) -> float:
    """Six significant digits: figures for people, not for arithmetic."""
    return float(f"{value:.6g}")
