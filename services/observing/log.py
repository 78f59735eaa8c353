"""Log lines: one for every request, and what the libraries say; escaped, and without prompts."""

from __future__ import annotations

import json
import logging
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from coe.services.enduring import Enduring
from coe.services.observing.exchange import Exchange

Format = Literal["text", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")
_LONGEST: Final = 256
_is_plain = re.compile(r"[!#-<>-~]+").fullmatch  # no space, no quotation mark, no "="


@dataclass(frozen=True, slots=True)
class Log:
    """Where log lines go, and which.

    Parameters
    ----------
    put : takes a line without its end, and does not wait.
    level : the least that is written.
    access : whether there is a line for every request.
    """

    put: Callable[[str], None]
    form: Format = "text"
    level: str = "info"
    access: bool = True

    def say(self, level: str, event: str, at_s: float, fields: Mapping[str, Any]) -> None:
        """One line, if the level is high enough."""
        if LEVELS.index(level) >= LEVELS.index(self.level):
            self.put(line_of(self.form, level, event, at_s, fields))

    def tell(self, exchange: Exchange) -> None:
        """One line for a request that has ended."""
        if self.access:
            status = exchange.status
            level = "info" if 0 < status < 400 else "warning" if status < 500 else "error"
            took_s = exchange.ended_s - exchange.started_s
            self.say(level, "request", exchange.at_s + took_s, request_fields(exchange))


class LogHandler(logging.Handler):
    """Passes on what libraries log. Of an exception it says type and place, never its text."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._telling = Enduring("logging")

    def emit(self, record: logging.LogRecord) -> None:
        """One line for a record; of one without words none, and nobody is the worse for it."""
        with self._telling:
            level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
            fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info is not None and record.exc_info[0] is not None:
                kind, _, trace = record.exc_info
                fields["message"] = str(record.msg).splitlines()[0] if record.msg else ""
                fields["exception"] = kind.__name__
                frames = traceback.extract_tb(trace)
                fields["at"] = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
            self._log.say(level if level in LEVELS else "info", "log", record.created, fields)


def line_of(form: Format, level: str, event: str, at_s: float, fields: Mapping[str, Any]) -> str:
    """One line of printable ASCII.

    Parameters
    ----------
    at_s : seconds since 1970-01-01 UTC.
    fields : JSON values; texts beyond 256 characters are cut, ``None`` is left out, and figures
        have six digits.
    """
    at = f"{_second(int(at_s))}.{int(at_s % 1 * 1000):03d}Z"
    if form == "json":
        said: dict[str, Any] = {"time": at, "level": level, "event": event}
        for name, value in fields.items():
            if isinstance(value, str):
                said[name] = value[:_LONGEST]
            elif value is not None:
                said[name] = _short(value) if isinstance(value, float) else value
        return json.dumps(said)
    words = [f"{name}={_word(value)}" for name, value in fields.items() if value is not None]
    return " ".join([at, level, event, *words])


def request_fields(exchange: Exchange) -> dict[str, Any]:
    """What a line says of a request: ids, figures and names; ``None`` where there is nothing."""
    request, decision, receipt = exchange.request, exchange.decided, exchange.receipt
    fields: dict[str, Any] = {
        "request_id": exchange.request_id or None,
        "trace_id": None if exchange.trace is None else f"{exchange.trace.trace_id:032x}",
        "method": exchange.method or None,
        "route": exchange.route,
        "path": (exchange.path or None) if exchange.route == "none" else None,
        "status": exchange.status,
        "code": exchange.code or None,
        "duration_ms": (exchange.ended_s - exchange.started_s) * 1000.0,
        "client": exchange.client or None,
        "key": exchange.key_id or None,
        "tenant": (request.tenant or None) if request is not None else None,
        "model": exchange.model or None,
    }
    if decision is not None:
        fields["decision_id"] = decision.decision_id
        fields["expert"] = decision.expert_id if receipt is None else receipt.expert_id
        fields["category"] = decision.category.name
        fields["policy"] = decision.policy
        fields["decide_ms"] = decision.decide_ms
    if receipt is not None:
        fields["outcome"] = receipt.outcome
        fields["ttft_ms"] = receipt.ttft_ms
        fields["latency_ms"] = receipt.latency_ms
        fields["prompt_tokens"] = receipt.prompt_tokens
        fields["output_tokens"] = receipt.output_tokens
        fields["energy_j"] = receipt.energy_j
        fields["energy_source"] = receipt.energy_source
        fields["cost_usd"] = receipt.cost_usd
        fields["failed_over"] = list(receipt.failed_over) or None
    return fields


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _word(value: Any) -> str:
    """A value in a line of text: as it is where that is one plain word, else as JSON."""
    kind = value.__class__
    if kind is str:
        cut = value[:_LONGEST]
        return cut if _is_plain(cut) else json.dumps(cut)
    if kind is float:
        return _figure(value)
    return repr(value) if kind is int else json.dumps(value)


def _figure(value: float) -> str:
    digits = f"{value:.6g}"
    # 12.5 is written as JSON has it; 12, 1e+09 and inf are not
    if "." in digits and "e" not in digits:
        return digits
    return repr(float(digits)) if math.isfinite(value) else json.dumps(value)
