"""What the command line says of a gateway that is not there, and of one that refuses."""

import socket

import httpx
import pytest
from typer.testing import CliRunner

from coe.errors.callers import RequestError
from coe.errors.gateway import GatewayError
from coe.services.cli import app
from coe.services.cli.connection import reached, refusal


def test_where_nobody_listens_it_says_what_to_start(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("COE_ADMIN_TOKEN", "a-token-of-nobody")
    for words in (["chat", "hello"], ["experts", "list"]):
        done = CliRunner().invoke(app, [*words, "--url", url])
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: no gateway answers at {url}: start one with `coe se")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ReadTimeout("timed out"), "http://a: timed out"),
        (httpx.UnsupportedProtocol("no protocol"), "http://a: no protocol"),
        (KeyError("x-coe-decision-id"), "http://a is not a coe gateway"),
        (TypeError("a text"), "http://a is not a coe gateway"),
    ],
)
def test_whoever_is_no_gateway_is_called_so(error, said):
    with pytest.raises(GatewayError) as raised, reached("http://a"):
        raise error
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("kind", "code", "tree", "said"),
    [
        ("invalid_request_error", "invalid_value", RequestError, "no"),
        ("permission_error", "role_not_allowed", RequestError, "no"),
        ("insufficient_quota", "budget_exhausted", GatewayError, "no"),
        ("server_error", None, GatewayError, "no"),
        ("invalid_request_error", "missing_api_key", RequestError, "export COE_API_KEY"),
    ],
)
def test_a_refusal_is_no_word_of_an_expert(kind, code, tree, said):
    error = refusal({"error": {"message": "no", "type": kind, "param": None, "code": code}})
    assert isinstance(error, tree)
    assert said in str(error)
    assert "expert" not in str(error)
