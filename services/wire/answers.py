"""What an answer says of itself: its headers, and in a document its decision and its receipt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

from coe.answer import object_in
from coe.decision import Citation, Decision, Receipt
from coe.engine import AnyReply
from coe.services.wire.chat import decision_document, receipt_document
from coe.services.wire.refusals import as_json
from coe.shadow import Shade


def headers_of(reply: AnyReply, receipt: Receipt | None) -> dict[str, str]:
    """What every answer says of itself; a stream's head can only hold predictions."""
    predicted = reply.decision.predicted
    source = receipt or predicted
    return {
        "x-coe-decision-id": reply.decision.decision_id,
        "x-coe-experts": ",".join(_asked(reply, receipt)),
        "x-coe-category": _ascii(reply.decision.category.name),
        "x-coe-energy-j": f"{source.energy_j:.6g}",
        "x-coe-latency-ms": f"{source.latency_ms:.6g}",
        "x-coe-figures": "predicted" if receipt is None else receipt.energy_source,
        "x-coe-retrieved": str(len(_citations(reply))),
        "x-coe-declined": "true" if reply.decision.declined else "false",
        "x-coe-config": reply.decision.config,
    }


@lru_cache
def _ascii(category: str) -> str:
    """As a header may hold it; categories are named by the owner's outcome table."""
    return quote(category, safe=" /+.:_-")


def _asked(reply: AnyReply, receipt: Receipt | None) -> tuple[str, ...]:
    """Who was asked; as long as that is not known, who may be."""
    if receipt is None or not receipt.parts:
        return reply.decision.selection.expert_ids
    return tuple(part.expert_id for part in receipt.parts)


def _citations(reply: AnyReply) -> tuple[Citation, ...]:
    retrieval = reply.decision.retrieval
    return () if retrieval is None else retrieval.citations


def event_of_citations(reply: AnyReply) -> bytes:
    """The event of a stream that says what its answer may cite; empty where nothing is."""
    citations = _citations(reply)
    if not citations:
        return b""
    decision_id, mode = reply.decision.decision_id, reply.decision.selection.mode
    document = {
        "id": decision_id,
        "object": "chat.completion.chunk",
        "created": 0,
        "model": mode.name if mode.kind == "mixture" else reply.decision.expert_id,
        "choices": [],
        "coe": {"decision_id": decision_id, "citations": [asdict(c) for c in citations]},
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class _Written(Response):
    """A document whose head is written once: as Starlette has it, it takes three times as long."""

    def __init__(self, content: bytes, headers: Mapping[str, str]) -> None:
        self.status_code, self.body, self.background = 200, content, None
        self.raw_headers = [
            *[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
        ]


def as_answer(document: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """An answer's document as a response."""
    try:
        content = orjson.dumps(document)
    except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits: not for orjson
        return as_json(document, headers=headers)
    return _Written(content, headers)


def document_of(body: bytes, reply: AnyReply, explain: bool) -> dict[str, Any]:
    """The expert's document under the expert's public name, with the decision and the receipt."""
    document = object_in(body)
    assert document is not None
    assert reply.receipt is not None
    extras = decision_document(reply.decision, explain)
    extras["receipt"] = receipt_document(reply.receipt)
    return document | {"model": reply.receipt.expert_id, "coe": extras}


def kept_document(
    decision: Decision, receipt: Receipt | None, compared: tuple[Decision, Shade] | None
) -> dict[str, Any]:
    """A decision that is kept as JSON, with its receipt and what a second router made of it."""
    document = decision_document(decision)
    document["receipt"] = None if receipt is None else receipt_document(receipt)
    if compared is not None:
        live, shade = compared
        document["shadow"] = shade.beside(live)
    return document
