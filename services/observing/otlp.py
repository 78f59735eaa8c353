"""Traces of requests, made after the fact of their steps and sent to a collector."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from random import SystemRandom
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

import coe
from coe.observing import OtlpSection
from coe.services.observing.exchange import Exchange
from coe.services.observing.spans import OPERATION, of_request, of_step, said_of
from coe.services.observing.traceparent import Trace
from coe.steps import Step

_LAST_S = 2.0
_SCOPE = InstrumentationScope("coe", coe.__version__)
_RANDOM = SystemRandom()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Traces:
    """Spans on their way to a collector, sent by a thread; what finds no room is dropped.

    Headers for the collector, such as a key, are read from ``OTEL_EXPORTER_OTLP_HEADERS``.
    """

    def __init__(self, section: OtlpSection) -> None:
        session = requests.Session()
        session.trust_env = False
        self._exporter = OTLPSpanExporter(
            endpoint=section.endpoint, timeout=section.timeout_s, session=session
        )
        self._processor = BatchSpanProcessor(self._exporter)
        self._resource = Resource.create(
            {"service.name": section.service_name, "service.version": coe.__version__}
        )

    def tell(self, exchange: Exchange) -> None:
        """Send one span for the request, and one for each of its steps, if it is to be recorded."""
        trace = exchange.trace
        if trace is None or not trace.sampled:
            return
        root = _context(trace.trace_id, trace.span_id)
        for step in exchange.steps.done:
            self._processor.on_end(self._step(exchange, step, root))
        self._processor.on_end(self._request(exchange, trace, root))

    def close(self) -> None:
        """Send what waits, as far as that goes within two seconds."""
        late = threading.Timer(_LAST_S, self._exporter.shutdown)
        late.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        late.cancel()

    def _request(self, exchange: Exchange, trace: Trace, root: SpanContext) -> ReadableSpan:
        events = [
            Event("first piece", timestamp=_ns(exchange, step.ended_s))
            for step in exchange.steps.done
            if step.name == "dispatch" and not step.error
        ][:1]
        error = exchange.code or (str(exchange.status) if exchange.status >= 500 else "")
        return self._span(
            exchange, f"{exchange.method} {exchange.route}", root,
            None if trace.parent_id == 0 else _context(trace.trace_id, trace.parent_id, True),
            exchange.started_s, exchange.ended_s, of_request(exchange), SpanKind.SERVER,
            error if exchange.status >= 500 else "", events,
        )  # fmt: skip

    def _step(self, exchange: Exchange, step: Step, root: SpanContext) -> ReadableSpan:
        asked = step.name == "dispatch"
        attributes = of_step(step) | (said_of(exchange.decided) if step.name == "decide" else {})
        return self._span(
            exchange, f"{OPERATION} {step.of}" if asked else step.name,
            _context(root.trace_id, _RANDOM.randrange(1, 1 << 64)), root,
            step.started_s, step.ended_s, attributes,
            SpanKind.CLIENT if asked else SpanKind.INTERNAL, step.error, [],
        )  # fmt: skip

    def _span(
        self,
        exchange: Exchange,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        started_s: float,
        ended_s: float,
        attributes: Mapping[str, Any],
        kind: SpanKind,
        error: str,
        events: list[Event],
    ) -> ReadableSpan:
        return ReadableSpan(
            name, context, parent, self._resource, attributes, events, (), kind,
            status=Status(StatusCode.ERROR, error) if error else Status(),
            start_time=_ns(exchange, started_s),
            end_time=_ns(exchange, ended_s),
            instrumentation_scope=_SCOPE,
        )  # fmt: skip


def _context(trace_id: int, span_id: int, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote, _SAMPLED)


def _ns(exchange: Exchange, at_s: float) -> int:
    """Wall time, in ns, of a moment on the monotonic clock."""
    return int((exchange.at_s + at_s - exchange.started_s) * 1e9)
