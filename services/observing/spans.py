"""What spans say: names of OpenTelemetry's conventions where there are, else ``coe.*``.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and .../http/http-spans/.
"""

from __future__ import annotations

from typing import Any, Final

from coe.decision import Decision
from coe.services.observing.exchange import Exchange
from coe.steps import Step

OPERATION: Final = "chat"
"""As the conventions call it."""

_LONGEST_MODEL: Final = 128


def of_request(exchange: Exchange) -> dict[str, Any]:
    """What is said of a whole request; no word of its prompt or its answer."""
    said: dict[str, Any] = {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "coe.request_id": exchange.request_id,
    }
    if exchange.code:
        said["error.type"] = exchange.code
    if (request := exchange.request) is None:
        return said
    said["gen_ai.operation.name"] = OPERATION
    said["gen_ai.request.model"] = exchange.model[:_LONGEST_MODEL]
    said["gen_ai.request.stream"] = request.stream
    if request.max_tokens is not None:
        said["gen_ai.request.max_tokens"] = request.max_tokens
    if request.tenant:
        said["coe.tenant"] = request.tenant
    if (decision := exchange.decided) is not None:
        said["coe.decision_id"] = decision.decision_id
    if (receipt := exchange.receipt) is not None:
        said["gen_ai.response.model"] = receipt.expert_id
        said["gen_ai.usage.input_tokens"] = receipt.prompt_tokens
        said["gen_ai.usage.output_tokens"] = receipt.output_tokens
        said["coe.outcome"] = receipt.outcome
        said["coe.ttft_ms"] = receipt.ttft_ms
        said["coe.energy_j"] = receipt.energy_j
        said["coe.energy_source"] = receipt.energy_source
        said["coe.cost_usd"] = receipt.cost_usd
    return said


def of_step(step: Step) -> dict[str, Any]:
    """What is said of a step."""
    said: dict[str, Any] = {"coe.step": step.name}
    if step.of:
        said["gen_ai.operation.name"] = OPERATION
        said["gen_ai.request.model"] = step.of
    if step.error:
        said["error.type"] = step.error
    return said


def said_of(decision: Decision | None) -> dict[str, Any]:
    """What is said of the step of a decision: what was decided, and what its parts took."""
    if decision is None:
        return {}
    said: dict[str, Any] = {
        "coe.policy": decision.policy,
        "coe.category": decision.category.name,
        "coe.experts": list(decision.selection.expert_ids),
        "coe.mode": decision.selection.mode.kind,
        "coe.status": decision.status,
    }
    return said | {f"coe.{name}_ms": took_ms for name, took_ms in decision.steps_ms.items()}
