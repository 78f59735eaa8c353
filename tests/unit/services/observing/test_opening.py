"""What is opened to watch a gateway is closed with it."""

import asyncio
import json
import logging
import os
import sys

import pytest

from coe.errors.files import ConfigError
from coe.observing import LoggingSection, OtlpSection, TelemetrySection
from coe.services.observing.opening import observing

TRACED = TelemetrySection(otlp=OtlpSection(endpoint="http://127.0.0.1:9/v1/traces"))


async def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "coe.services.observing.otlp", None)
    with pytest.raises(ConfigError, match=r"coe-router\[otlp\]"):
        async with observing(TRACED):
            pass


async def test_nobody_is_told_where_nothing_is_configured():
    async with observing(TelemetrySection()) as observers:
        assert (observers.tell, observers.sample) == ((), None)


async def test_libraries_speak_to_the_log_as_long_as_it_is_open_and_lateness_is_watched():
    reading, writing = os.pipe()
    handlers = list(logging.getLogger().handlers)
    section = LoggingSection(format="json")
    async with observing(TelemetrySection(), (section, writing)) as observers:
        logging.getLogger("somebody").warning("a remark")
        observers.unread(400, "invalid_http")
        await asyncio.sleep(0.3)
        registry = observers.metrics.registry
        assert registry.get_sample_value("coe_loop_lag_seconds_count") >= 1
        named = {"route": "none", "status": "400"}
        assert registry.get_sample_value("coe_requests_total", named) == 1
    os.close(writing)
    with os.fdopen(reading) as log:
        remark, refused = (json.loads(line) for line in log)
    assert (remark["logger"], remark["message"]) == ("somebody", "a remark")
    assert (refused["status"], refused["code"]) == (400, "invalid_http")
    assert logging.getLogger().handlers == handlers


async def test_a_request_that_nobody_reads_is_told_of_whoever_fails(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        async with observing(TelemetrySection(), (LoggingSection(), log.fileno())) as observers:
            observers.metrics.requests = None
            observers.unread(400, "invalid_http")
    assert "code=invalid_http" in (tmp_path / "log").read_text()
