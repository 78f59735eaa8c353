"""Everything that is told of a gateway's requests, opened for as long as it serves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from coe.access.secrets import NO_SECRETS, Secrets
from coe.errors.files import ConfigError
from coe.observing import LoggingSection, OtlpSection, TelemetrySection
from coe.services.enduring import Enduring, alongside
from coe.services.observing.exchange import Exchange
from coe.services.observing.lag import watch_lag
from coe.services.observing.lines import Lines
from coe.services.observing.log import Log, LogHandler, line_of
from coe.services.observing.metrics import Metrics
from coe.services.observing.watch import Tell


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of requests; ``sample`` and ``propagate`` are as in `Watch`."""

    metrics: Metrics
    tell: tuple[Tell, ...] = ()
    sample: float | None = None
    propagate: bool = False
    _telling: Enduring = field(default_factory=lambda: Enduring("telling of a request"))

    def unread(self, status: int, code: str) -> None:
        """Tell of a request whose head was refused; nobody knows what it asked for."""
        refused = Exchange("", "", "", 0.0, time.time(), status=status, code=code)
        for tell in (self.metrics.tell, *self.tell):
            with self._telling:
                tell(refused)


@asynccontextmanager
async def observing(
    telemetry: TelemetrySection,
    logging_to: tuple[LoggingSection, int] | None = None,
    secrets: Secrets = NO_SECRETS,
) -> AsyncIterator[Observers]:
    """Metrics of their own, and whoever else the configuration wants told.

    Parameters
    ----------
    logging_to : what is logged, and the descriptor of an open file that takes it; ``None``:
        nothing is, and Python's own logging is left alone.
    secrets : what no line of a log may hold.

    Raises
    ------
    ConfigError
        Traces are wanted, and the packages that send them are not installed.
    """
    metrics, tell, otlp = Metrics(), list[Tell](), telemetry.otlp
    async with AsyncExitStack() as stack:
        if logging_to is not None:
            log = await stack.enter_async_context(_logging(*logging_to, metrics, secrets))
            tell.append(log.tell)
        if otlp is not None:
            tell.append(await stack.enter_async_context(_tracing(otlp)))
        lagging = partial(watch_lag, metrics.loop_lag.observe)
        await stack.enter_async_context(alongside(lagging, "lateness"))
        yield Observers(
            metrics,
            tuple(tell),
            None if otlp is None else otlp.sample,
            otlp is not None and otlp.propagate,
        )


@asynccontextmanager
async def _logging(
    section: LoggingSection, fd: int, metrics: Metrics, secrets: Secrets
) -> AsyncIterator[Log]:
    """A log on ``fd``, which what libraries say goes to as well."""

    def missing(n_lines: int) -> str:
        lost = {"n_lines": n_lines}
        return line_of(section.format, "warning", "log_lines_dropped", time.time(), lost)

    lines = Lines(fd, missing)
    for fate, count in (("written", lambda: lines.n_written), ("dropped", lambda: lines.n_dropped)):
        metrics.log_lines.labels(fate).set_function(count)

    def put(line: str) -> None:
        lines.put(secrets.hidden(line))

    log = Log(put, section.format, section.level, section.access)
    handler, root = LogHandler(log), logging.getLogger()
    root.addHandler(handler)
    lines.start()
    try:
        yield log
    finally:
        root.removeHandler(handler)
        await asyncio.to_thread(lines.close)


@asynccontextmanager
async def _tracing(section: OtlpSection) -> AsyncIterator[Tell]:
    try:
        from coe.services.observing.otlp import Traces
    except ImportError as error:
        raise ConfigError(
            "telemetry.otlp: what sends traces is not installed: pip install 'coe-router[otlp]'"
        ) from error
    traces = Traces(section)
    try:
        yield traces.tell
    finally:
        await asyncio.to_thread(traces.close)
