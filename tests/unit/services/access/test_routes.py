"""Every route of the gateway by every role; a route that nobody thought of fails here."""

import json

import pytest
from starlette.routing import Route

from coe.access.rights import PUBLIC

ROLES = ("none", "wrong", "user", "viewer", "admin", "operator")
EVERYBODY, USERS, VIEWERS, ADMINS = (
    {"user", "viewer", "admin", "operator"},
    {"user", "admin", "operator"},
    {"viewer", "admin", "operator"},
    {"admin", "operator"},
)
MATRIX = {
    ("POST", "/v1/chat/completions"): USERS,
    ("POST", "/v1/completions"): USERS,
    ("POST", "/v1/embeddings"): USERS,
    ("POST", "/v1/route"): USERS,
    ("GET", "/v1/models"): EVERYBODY,
    ("GET", "/v1/models/{name:path}"): EVERYBODY,
    ("GET", "/v1/decisions/{decision_id}"): EVERYBODY,
    ("GET", "/openapi.json"): EVERYBODY,
    ("GET", "/metrics"): VIEWERS,
    ("GET", "/admin/experts"): VIEWERS,
    ("GET", "/admin/status"): VIEWERS,
    ("GET", "/admin/shadow"): VIEWERS,
    ("GET", "/admin/decisions"): VIEWERS,
    ("PUT", "/admin/experts/{expert_id:path}"): ADMINS,
    ("POST", "/admin/reload"): ADMINS,
    ("GET", "/healthz"): {*ROLES},
    ("GET", "/readyz"): {*ROLES},
}
MESSAGES = [{"role": "user", "content": "hours"}]
BODIES = {
    "/v1/chat/completions": {"model": "auto", "messages": MESSAGES},
    "/v1/route": {"model": "auto", "messages": MESSAGES},
    "/v1/completions": {"model": "auto", "prompt": "hours"},
    "/admin/experts/smollm2-135m": {"switch": "on"},
}
NAMES = {
    "{name:path}": "smollm2-135m",
    "{expert_id:path}": "smollm2-135m",
    "{decision_id}": "dec-nobodys",
}


def served(house):
    return {
        (method, route.path)
        for route in house.gateway.app().routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }


def test_every_route_is_in_the_matrix(house):
    assert served(house) == MATRIX.keys()
    public = {path for (_, path), roles in MATRIX.items() if "none" in roles}
    assert public == PUBLIC


@pytest.fixture
def headers(house):
    keys = {role: house.key(role=role) for role in ("user", "viewer", "admin")}
    keys |= {"operator": "the operator's token", "wrong": "coe-" + "0" * 12 + "-" + "x" * 32}
    return {"none": {}} | {role: {"authorization": f"Bearer {key}"} for role, key in keys.items()}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), MATRIX)
async def test_a_role_does_what_it_may_and_nothing_else(house, headers, method, path, role):
    for pattern, name in NAMES.items():
        path = path.replace(pattern, name)
    body = BODIES.get(path, {"model": house.gateway.runtime.engine.router.embedder.name})
    if path == "/v1/embeddings":
        body["input"] = "hours"
    content = json.dumps(body).encode() if method in ("POST", "PUT") else b""
    given = headers[role] | {"content-type": "application/json"}
    answer = await house.client().request(method, path, content=content, headers=given)
    template = next(
        p for m, p in MATRIX if m == method and p.split("{")[0] in path and ("{" in p or p == path)
    )
    if role in MATRIX[method, template]:
        # what it then hears is the route's own business: there is no second router, say
        assert answer.status_code not in (401, 403, 405, 500), answer.text
    elif role in ("none", "wrong"):
        assert answer.status_code == 401
        code = "missing_api_key" if role == "none" else "invalid_api_key"
        assert answer.json()["error"]["code"] == code
        assert answer.headers["www-authenticate"].startswith('Bearer realm="coe"')
    else:
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "permission_error"
        assert answer.json()["error"]["code"] == "role_not_allowed"


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"]
)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/admin",
        "/admin/",
        "/healthz/",
        "/healthz/x",
        "/readyz?x",
        "//healthz",
        "/docs",
        "/v1/keys",
        "/metrics/",
        "/V1/models",
        "/v1/chat/completions/",
        "/healthzz",
        "/;/healthz",
        "/healthz;x",
    ],
)
async def test_without_a_key_no_other_path_says_whether_it_is_there(house, method, path):
    answer = await house.client().request(method, path)
    if path.startswith("/readyz") and method in ("GET", "HEAD"):
        assert answer.status_code == 200
        return
    assert answer.status_code == 401
    if method != "HEAD":
        assert answer.json()["error"]["code"] == "missing_api_key"


async def test_a_key_hears_what_is_not_there_and_what_is_asked_for_otherwise(house, headers):
    client = house.client()
    unknown = await client.get("/v1/keys", headers=headers["user"])
    other = await client.delete("/v1/models", headers=headers["user"])
    assert [unknown.status_code, other.status_code] == [404, 405]
    assert unknown.json()["error"]["code"] == "unknown_url"
    assert other.json()["error"]["code"] == "method_not_allowed"


async def test_who_may_not_know_does_not_hear_which_experts_there_are(house):
    assert (await house.client().get("/readyz")).json() == {"status": "ready"}
