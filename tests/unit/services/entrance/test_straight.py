"""The way past the routes answers as the routes do."""

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from coe.errors.callers import RequestError
from coe.services.entrance.straight import Straight

PATH = "/v1/chat/completions"


async def status_of(endpoint, path=PATH, method="POST"):
    """The status of the answer; "route" where the routes are asked."""
    sent = []

    async def routes(scope, receive, send):
        sent.append({"status": "route"})

    async def refuse(http, error):
        return Response(status_code=400)

    async def gone(http, error):
        return Response(status_code=499)

    async def send(message):
        sent.append(message)

    app = Straight(routes, PATH, endpoint, refuse, gone)
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    await app(scope, None, send)
    assert scope.get("endpoint") is (endpoint if sent[0]["status"] != "route" else None)
    return sent[0]["status"]


def raising(error):
    async def endpoint(http):
        raise error

    return endpoint


def answering_with(error):
    class Failing(Response):
        async def __call__(self, scope, receive, send):
            raise error

    async def endpoint(http):
        return Failing()

    return endpoint


async def fine(http):
    return Response()


async def test_an_answer_is_sent():
    assert await status_of(fine) == 200


@pytest.mark.parametrize("fails", [raising, answering_with])
async def test_errors_are_answered_whoever_raises_them(fails):
    assert await status_of(fails(RequestError("no", "n"))) == 400
    assert await status_of(fails(ClientDisconnect())) == 499


@pytest.mark.parametrize(
    ("path", "method"), [(PATH, "GET"), (PATH + "/", "POST"), ("/v1/completions", "POST")]
)
async def test_everything_else_is_a_matter_of_routes(path, method):
    assert await status_of(fine, path, method) == "route"
