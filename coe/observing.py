"""What ``coe.yaml`` says of log lines and traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coe.yamlfile import Positive, Section, Url


class LoggingSection(Section):
    """Which lines a gateway writes to standard output, and how."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = True


class OtlpSection(Section):
    """The collector that spans are sent to, over HTTP.

    ``sample`` is the share of the traces that begin at the gateway; of others their beginner says
    whether they are recorded. ``propagate``: experts get a ``traceparent``.
    """

    endpoint: Url
    service_name: Annotated[str, Field(min_length=1)] = "coe"
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    timeout_s: Positive = 10.0
    propagate: bool = False


class TelemetrySection(Section):
    """Who is told of every request beside the log."""

    otlp: OtlpSection | None = None
