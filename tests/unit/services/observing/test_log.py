"""Lines of a log: one for every request, and nothing in them that is not printable ASCII."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.services.observing.exchange import Exchange
from coe.services.observing.log import Log, LogHandler, line_of

FORGED = 'auto\n{"level":"info"}\x1b[2J\x7f\x9b\u2028'


def exchange(**fields):
    found = Exchange("req-1", "POST", "/v1/x", 10.0, 1_000_000_000.0, ended_s=10.25)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def log():
    lines = []
    found = Log(lines.append, "json")
    return found, lines


def test_a_request_is_one_line_of_json(log):
    to, lines = log
    to.tell(exchange(status=404, model=FORGED, path="/" + FORGED, code="unknown_url"))
    (line,) = lines
    document = json.loads(line)
    assert document["time"] == "2001-09-09T01:46:40.250Z"
    assert (document["level"], document["event"]) == ("warning", "request")
    assert (document["model"], document["path"]) == (FORGED, "/" + FORGED)
    assert (document["status"], document["duration_ms"]) == (404, 250.0)
    assert "expert" not in document


@given(st.text(), st.sampled_from(["text", "json"]))
def test_a_line_is_one_line_of_printable_ascii(text, form):
    line = line_of(form, "info", "request", 0.0, {"model": text, "n": 1})
    assert line.isascii()
    assert line.isprintable()


@given(st.text(max_size=256))
def test_json_gives_back_what_was_said(text):
    assert json.loads(line_of("json", "info", "request", 0.0, {"model": text}))["model"] == text


def test_text_is_for_people():
    fields = {"route": "/v1/models", "model": 'a "b"', "status": 200, "code": None}
    assert line_of("text", "info", "request", 0.0, fields) == (
        '1970-01-01T00:00:00.000Z info request route=/v1/models model="a \\"b\\"" status=200'
    )


def test_long_texts_are_cut():
    line = line_of("json", "info", "request", 0.0, {"model": "m" * 10_000})
    assert len(json.loads(line)["model"]) == 256


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (0, "warning"), (429, "warning"), (503, "error")]
)
def test_the_level_goes_by_the_status(log, status, level):
    to, lines = log
    to.tell(exchange(status=status))
    assert json.loads(lines[0])["level"] == level


def test_levels_and_the_lines_of_requests_can_be_left_out():
    lines = []
    Log(lines.append, "json", level="error").tell(exchange(status=404))
    Log(lines.append, "json", access=False).tell(exchange(status=500))
    assert lines == []


def test_of_an_exception_type_and_place_are_said_and_not_its_words(log):
    to, lines = log
    logger = logging.Logger("somebody")
    logger.addHandler(LogHandler(to))
    try:
        raise ValueError("my secret prompt")
    except ValueError:
        logger.exception("it failed\n")
    logger.warning("a %s", "remark")
    failed, remark = (json.loads(line) for line in lines)
    assert "secret" not in lines[0]
    assert (failed["level"], failed["logger"], failed["exception"]) == (
        "error",
        "somebody",
        "ValueError",
    )
    assert "test_log.py" in failed["at"][0]
    assert (remark["level"], remark["message"]) == ("warning", "a remark")


def test_whoever_logs_what_has_no_words_is_not_hurt_by_it(log):
    to, lines = log
    logger = logging.getLogger("test_log.wordless")
    logger.addHandler(LogHandler(to))
    logger.propagate = False
    logger.warning("%d of %d", "one")
    logger.warning("a remark")
    assert [json.loads(line)["message"] for line in lines] == ["a remark"]
