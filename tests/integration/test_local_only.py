"""What a policy with ``local_only`` promises: its prompts reach no server that is not local."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from typer.testing import CliRunner

from coe.answer import completion, pieces_of
from coe.config import DATA, load_config
from coe.services.cli import app
from coe.services.sockets.server import listening, server

# the remote one is expected to be better at everything
NEAR, FAR = "smollm2-135m", "qwen2.5-coder-0.5b"
SHOWN = {"authorization": "Bearer operator"}
CONFIG = """
artefact: {data}/artefact
budgets: budgets.yaml
nodes: {{home: {{memory_gb: 4, local: true}}, rented: {{memory_gb: 4}}}}
devices: {{core: {{ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 1, decode_w: 1}}}}
experts:
  - {{id: {near}, kind: http, base_url: "{near_url}", device: core, node: home}}
  - {{id: {far}, kind: http, base_url: "{far_url}", device: core, node: rented}}
"""
BUDGETS = """
policies:
  default: {}
  private: {local_only: true}
  stingy: {local_only: true, on_infeasible: nearest, ceilings: {energy_j: 0.001}}
  forced: {local_only: true, experts: {force: [qwen2.5-coder-0.5b]}}
"""


class StubServer:
    """An OpenAI-compatible server that remembers what it was asked, and behaves as it is told."""

    def __init__(self, name: str) -> None:
        self.name, self.behaviour, self.elsewhere = name, "answer", ""
        self.bodies: list[bytes] = []

    async def answer(self, http: Request) -> Response:
        body = await http.body()
        self.bodies.append(body)
        if self.behaviour == "redirect":
            return RedirectResponse(f"{self.elsewhere}/chat/completions", 307)
        if self.behaviour != "answer" and self.behaviour != "break off":
            return Response("no", int(self.behaviour))
        if not json.loads(body).get("stream"):
            text = completion("id", self.name, f"I am {self.name}", 5, 3, "stop")
            return Response(text if self.behaviour == "answer" else text[:20])
        pieces = list(pieces_of("id", self.name, ["I", " am ", self.name]))
        return StreamingResponse(iter(pieces if self.behaviour == "answer" else pieces[:2]))

    @contextmanager
    def serving(self) -> Iterator[str]:
        with listening("127.0.0.1", 0) as listener:
            route = Route("/v1/chat/completions", self.answer, methods=["POST"])
            served = server(Starlette(routes=[route]))
            thread = threading.Thread(target=served.run, args=([listener],))
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            finally:
                served.should_exit = True
                thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def rig(folder, serve):
    """A gateway over a local and a remote server: a client of it, and both of them."""
    near, far = StubServer(NEAR), StubServer(FAR)
    with pytest.MonkeyPatch.context() as patch, near.serving() as here, far.serving() as there:
        patch.setenv("COE_ADMIN_TOKEN", "operator")
        near.elsewhere = there
        urls = {"near": NEAR, "far": FAR, "near_url": here, "far_url": there}
        (folder / "coe.yaml").write_text(CONFIG.format(data=DATA, **urls))
        (folder / "budgets.yaml").write_text(BUDGETS)
        with (
            serve(load_config(folder / "coe.yaml")) as gateway,
            httpx.Client(base_url=gateway.url, timeout=30) as client,
        ):
            yield client, near, far


def post(client, document, path="chat/completions"):
    return client.post(f"/v1/{path}", json=document)


def switch(client, near, far):
    for name, turned in ((NEAR, near), (FAR, far)):
        path, body = f"/admin/experts/{name}", {"switch": turned}
        assert client.put(path, json=body, headers=SHOWN).status_code == 200


SOME = st.lists(st.sampled_from([NEAR, FAR]), min_size=1, max_size=2, unique=True)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "experts": st.fixed_dictionaries({}, optional={"allow": SOME, "deny": SOME}),
        "budget": st.fixed_dictionaries({}, optional={"energy_j": st.sampled_from([1e-6, 1e6])}),
        "mode": st.sampled_from(["auto", "single", "vote", "rank", "cascade", "fuse", "mixture"]),
        "k": st.sampled_from([1, 2, 8]),
        "retrieve": st.just("never"),
        "explain": st.booleans(),
    },
)
PROMPTS = ("Write a Python function that adds two numbers.", "What is 17 * 6?", "Zarbon?")
BODIES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["auto:private", "auto:stingy", "auto:forced", NEAR]),
        "messages": st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=3).map(
            lambda texts: [{"role": "user", "content": text} for text in texts]
        ),
        "stream": st.booleans(),
    },
    optional={"coe": EXTRAS, "n": st.just(2), "max_tokens": st.just(9)},
)
SWITCH = st.sampled_from(["on", "on", "ban", "force"])
BEHAVIOUR = st.sampled_from(["answer", "redirect", "break off", "400", "404", "429", "500", "503"])


@settings(max_examples=300)
@given(body=BODIES, near_to=SWITCH, far_to=SWITCH, behaviour=BEHAVIOUR)
def test_no_prompt_leaves_whatever_is_asked_and_whatever_fails(
    rig, body, near_to, far_to, behaviour
):
    client, near, far = rig
    near.behaviour = behaviour
    far.bodies.clear()
    switch(client, near=near_to, far=far_to)
    answer = post(client, body)
    assert far.bodies == []
    if answer.status_code == 200:
        assert answer.headers["x-coe-experts"] == NEAR
    assert post(client, body, "route").status_code in (200, 400)
    assert far.bodies == []


def asked(text="What is 17 * 6?", model="auto:private", **extras):
    return {"model": model, "messages": [{"role": "user", "content": text}], "coe": extras}


@pytest.fixture
def quiet(rig):
    """The rig, everybody well, on, and without a memory."""
    client, near, far = rig
    near.behaviour = "answer"
    switch(client, near="on", far="on")
    near.bodies.clear()
    far.bodies.clear()
    return rig


def test_without_the_policy_the_same_prompt_goes_to_the_better_one(quiet):
    client, near, far = quiet
    assert post(client, asked(model="auto")).json()["model"] == FAR
    assert post(client, asked()).json()["model"] == NEAR
    assert (len(near.bodies), len(far.bodies)) == (1, 1)


def test_the_local_one_fails_and_nobody_else_takes_over(quiet):
    client, near, far = quiet
    near.behaviour = "503"
    assert post(client, asked()).status_code == 502
    assert (len(near.bodies), len(far.bodies)) == (1, 0)


def test_what_allows_remote_experts_only_is_refused_with_the_reason(quiet):
    client, _, far = quiet
    refused = post(client, asked(experts={"allow": [FAR]}))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "no_expert"
    assert "policy 'private' is local_only" in refused.json()["error"]["message"]
    assert far.bodies == []


def test_who_names_a_remote_expert_asks_it(quiet):
    client, _, far = quiet
    assert post(client, asked(model=FAR)).json()["model"] == FAR
    assert len(far.bodies) == 1


def coe(*arguments):
    """The command line with these arguments, in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_an_operator_switches_from_the_command_line(quiet, folder, monkeypatch):
    monkeypatch.setenv("COE_ADMIN_TOKEN", "operator")
    client, _, _ = quiet
    here = ("--config", folder / "coe.yaml", "--url", f"{client.base_url}/v1")
    done = coe("experts", "switch", FAR, "ban", *here)
    assert (done.exit_code, done.stdout) == (0, f"{FAR}: ban\n"), done.stderr
    assert post(client, asked(model="auto")).json()["model"] == NEAR
    listed = json.loads(coe("experts", "list", "--json", *here).stdout)
    assert {row["id"]: (row["switch"], row["local"]) for row in listed["data"]} == {
        NEAR: ("on", True),
        FAR: ("ban", False),
    }
    assert FAR in coe("experts", "list", *here).stdout
    unknown = coe("experts", "switch", "nobody", "on", *here)
    assert (unknown.exit_code, "no expert is called 'nobody'" in unknown.stderr) == (2, True)
    monkeypatch.setenv("COE_ADMIN_TOKEN", "guessed")
    assert "token is missing or wrong" in coe("experts", "list", *here).stderr
    monkeypatch.delenv("COE_ADMIN_TOKEN")
    assert "export COE_ADMIN_TOKEN" in coe("experts", "list", *here).stderr


def test_an_endpoint_that_is_not_said_to_be_local_gets_no_prompt(tmp_path, embedding_server, capfd):
    endpoint = {"kind": "endpoint", "base_url": embedding_server.url, "model": "words", "dim": 64}
    names = {"near": NEAR, "far": FAR}
    urls = {"near_url": "http://127.0.0.1:9/v1", "far_url": "http://127.0.0.1:9/v1"}
    text = CONFIG.format(data=DATA, **names, **urls)
    (tmp_path / "coe.yaml").write_text(f"{text}embedder: {json.dumps(endpoint)}\n")
    (tmp_path / "budgets.yaml").write_text(BUDGETS)
    for verb in (("route", "A secret."), ("serve", "--port", "0"), ("chat", "A secret.")):
        # on standard output and error that are files: `coe serve` writes its log there
        with pytest.raises(SystemExit) as ended:
            app([*verb, "--config", str(tmp_path / "coe.yaml")])
        said = capfd.readouterr().err
        assert ended.value.code == 2, said
        assert "embedder.local: policy 'private' has local_only" in said
    assert coe("doctor", "--config", tmp_path / "coe.yaml").exit_code == 1
    assert embedding_server.bodies == []
