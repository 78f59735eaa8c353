"""The OpenAI wire format: requests parsed and checked, decisions and errors rendered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coe.core import MOST_EXPERTS, Budget, Message, Policy, Prices, Request
from coe.decision import Decision, Receipt, Retrieval
from coe.errors import RequestError, UnknownExpertError
from coe.mode import Kind, Mode
from coe.tenants import TENANT, visible

AUTO: Final = "auto"

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10_000_000)]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: str
    text: str | None = None


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None

    def as_message(self) -> Message:
        if isinstance(self.content, list):
            text = "\n".join(part.text for part in self.content if part.text)
            return Message(self.role, text)
        return Message(self.role, self.content or "")


class _Budget(_Wire):
    latency_ms: _Positive | None = None
    ttft_ms: _Positive | None = None
    energy_j: _Positive | None = None
    cost_usd: _Positive | None = None


class _Experts(_Wire):
    allow: Annotated[list[str], Field(min_length=1)] | None = None
    deny: list[str] = []


class _Extras(_Wire):
    """The ``coe`` object of a request."""

    budget: _Budget = _Budget()
    experts: _Experts = _Experts()
    k: Annotated[int, Field(ge=1, le=MOST_EXPERTS)] | None = None
    mode: Literal["auto", Kind] = "auto"
    tenant: Annotated[str, Field(pattern=TENANT)] = ""
    retrieve: Literal["auto", "always", "never"] = "auto"
    explain: bool = False
    cache: bool = True


class ChatBody(BaseModel):
    """Body of ``POST /v1/chat/completions``; what is not named here goes to the expert as it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1024)]
    stream: bool | None = False
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    coe: _Extras = _Extras()

    @model_validator(mode="after")
    def _asks_something(self) -> ChatBody:
        if not any(m.role == "user" for m in self.messages):
            raise ValueError("there is no message of role 'user'")
        return self


def parse_chat(
    body: bytes,
    policies: Mapping[str, Policy],
    expert_ids: frozenset[str],
    own: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Request, bool]:
    """The request in a body, and whether it asks for an explanation.

    Parameters
    ----------
    own : by tenant, the expert that it keeps to itself: to others there is none of that name.

    Raises
    ------
    RequestError
        Not JSON, not an object, or a field is wrong; ``param`` names it.
    UnknownExpertError
        ``model`` is neither ``auto``, a policy, nor an expert.
    """
    document = _document(body)
    try:
        chat = ChatBody.model_validate(document)
    except ValidationError as error:
        raise _complaint(error) from error
    known = frozenset(visible(expert_ids, own, chat.coe.tenant))
    policy, pinned = _addressee(chat.model, policies, known)
    caps = [c for c in (chat.max_tokens, chat.max_completion_tokens) if c is not None]
    extras = chat.coe
    allow = extras.experts.allow
    request = Request(
        messages=tuple(message.as_message() for message in chat.messages),
        policy=policy,
        budget=Budget(**extras.budget.model_dump()),
        pinned=pinned,
        allow=None if allow is None else frozenset(allow),
        deny=frozenset(extras.experts.deny),
        max_tokens=min(caps) if caps else None,
        n_answers=chat.n or 1,
        stream=bool(chat.stream),
        retrieve=extras.retrieve,
        mode=None if extras.mode == AUTO else extras.mode,
        most_experts=extras.k,
        tenant=extras.tenant,
        cache=extras.cache,
        payload={k: v for k, v in document.items() if k not in ("model", "coe")},
    )
    return request, extras.explain


def decision_document(decision: Decision, explain: bool = True) -> dict[str, Any]:
    """A decision as JSON. Without ``explain`` the alternatives are left out."""
    guess = decision.category
    selected = zip(decision.selection.expert_ids, decision.selection.weights, strict=True)
    document: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "policy": decision.policy,
        "status": decision.status,
        "category": guess.name,
        "category_probability": _short(guess.probability),
        "category_likeliest": guess.likeliest,
        "uncertain": guess.uncertain,
        "category_turns_ago": guess.turns_ago,
        "experts": [{"id": name, "weight": weight} for name, weight in selected],
        **_mode(decision.selection.mode),
        "predicted": _figures(asdict(decision.predicted)),
        "cautious": _figures(asdict(decision.cautious)),
        "budget": decision.budget.ceilings(),
        "binding": decision.binding,
        "slack": _figures(decision.slack),
        "max_tokens": decision.max_tokens,
        "why": decision.why,
        "retrieval": retrieval_document(decision.retrieval),
    }
    if decision.running != Prices():
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
        document["decide_ms"] = _short(decision.decide_ms)
        document["alternatives"] = [
            {
                "id": other.expert_id,
                "predicted": _figures(asdict(other.estimate)),
                "cautious": _figures(asdict(other.cautious)),
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
    gain, price = (None if p is None else _short(p) for p in (retrieval.gain, retrieval.price))
    said = {"retrieve": retrieval.retrieve, "gain": gain, "price": price}
    return {**said, "why": retrieval.why}


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    document: dict[str, Any] = _rounded(asdict(receipt))
    return document


def error_document(
    message: str, kind: str, code: str | None = None, param: str | None = None, **more: Any
) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"the body is not JSON: {reason}", None, "invalid_json") from error
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object", None, "invalid_json")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _addressee(
    model: str, policies: Mapping[str, Policy], expert_ids: frozenset[str]
) -> tuple[Policy, str | None]:
    """The policy and the pinned expert that a ``model`` stands for."""
    if model in expert_ids:
        return Policy("pinned"), model
    prefix, _, name = model.partition(":")
    if prefix == AUTO and (name or "default") in policies and not model.endswith(":"):
        return policies[name or "default"], None
    known = [AUTO, *(f"{AUTO}:{p}" for p in policies if p != "default"), *sorted(expert_ids)]
    raise UnknownExpertError(f"there is no model {model!r}; there are {', '.join(known)}")


def _complaint(error: ValidationError) -> RequestError:
    """The first wrong field."""
    row = error.errors(include_url=False, include_input=False)[0]
    # the branches of a union are pydantic's, not the caller's
    loc = [str(p) for p in row["loc"] if p not in ("str", "list[_Part]")]
    message = row["msg"].removeprefix("Value error, ")
    param = ".".join(loc) or "messages"
    code = "missing_required_parameter" if row["type"] == "missing" else "invalid_value"
    return RequestError(f"{param}: {message}", param, code)


def _mode(mode: Mode) -> dict[str, Any]:
    """How the experts make one answer; a threshold only where there is one."""
    said = {"mode": mode.kind, "mode_name": mode.name, "stages": [list(s) for s in mode.stages]}
    return {**said, "threshold": mode.threshold} if mode.kind == "cascade" else said


def _figures(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in values.items()}


def _rounded(value: Any) -> Any:
    """The same with short figures, however deep, and lists for tuples."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return _short(value) if isinstance(value, float) else value


def _short(value: float) -> float:
    """Six significant digits: figures for people, not for arithmetic."""
    return float(f"{value:.6g}")
