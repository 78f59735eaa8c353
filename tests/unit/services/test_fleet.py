"""What happens when experts cannot run here."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from coe.config import DATA, load_config
from coe.errors.files import ConfigError
from coe.load import Presence
from coe.replica import HostReport, Replica, Snapshot
from coe.services.cli import app
from coe.services.fleet import Fleet, running
from coe.services.runnable import Gap, missing
from coe.services.sockets.server import listening, server

ONE_ABSENT = """
devices:
  here: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 10, decode_w: 10}
experts:
  - {id: smollm2-135m, kind: http, base_url: "http://127.0.0.1:9/v1", device: here}
  - {id: qwen2.5-coder-0.5b, kind: embedded, device: here,
     weights: qwen2.5-coder-0.5b-instruct-q4_k_m}
"""
TWO_MORE = """
  - {id: r, kind: replay, recording: gone.parquet, device: here}
  - {id: k, kind: http, base_url: "http://h/v1", api_key_env: ABSENT_KEY, device: here}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two experts, the weights of the second one absent."""
    monkeypatch.setenv("COE_WEIGHTS", str(tmp_path / "none"))
    path = tmp_path / "coe.yaml"
    paths = f"artefact: {DATA / 'artefact'}\nbudgets: {DATA / 'budgets.yaml'}\n"
    path.write_text(paths + ONE_ABSENT)
    return path


async def test_an_absent_expert_is_one_clear_line_and_the_other_serves(config):
    said = []
    async with running(load_config(config), said.append) as fleet:
        assert list(fleet.experts) == ["smollm2-135m"]
    assert said == [
        "expert qwen2.5-coder-0.5b is left out: weights 'qwen2.5-coder-0.5b-instruct-q4_k_m' "
        "are not here: coe weights fetch"
    ]


async def test_none_at_all_is_an_error_that_says_what_to_do(config):
    with pytest.raises(ConfigError, match="coe doctor"):
        async with running(load_config(config), only=["qwen2.5-coder-0.5b"]):
            raise AssertionError("it must not start")


async def test_an_unknown_name_is_refused(config):
    with pytest.raises(ConfigError, match="no expert is called nobody"):
        async with running(load_config(config), only=["nobody"]):
            raise AssertionError("it must not start")


def test_each_kind_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    path = tmp_path / "coe.yaml"
    path.write_text(ONE_ABSENT.rstrip() + TWO_MORE)
    _, _, replay, keyed = load_config(path).experts
    assert isinstance(missing(replay), Gap)
    assert missing(replay).remedy == "correct its path"
    assert "ABSENT_KEY is not set" in str(missing(keyed))


def test_route_and_doctor_go_on_with_what_is_here(config):
    routed = CliRunner().invoke(app, ["route", "What is 2 + 2?", "--config", str(config)])
    assert routed.exit_code == 0
    assert "smollm2-135m is the only candidate" in routed.stdout
    assert "qwen2.5-coder-0.5b is left out" in routed.stderr
    examined = CliRunner().invoke(app, ["doctor", "--config", str(config)])
    assert "mend it: coe weights fetch" in examined.stdout


def test_experts_that_the_artefact_does_not_know_need_training(config):
    text = config.read_text().replace("id: smollm2-135m", "id: mine")
    config.write_text(text)
    refused = CliRunner().invoke(app, ["route", "Hi", "--config", str(config)])
    assert refused.exit_code == 2
    assert "train one with `coe train`" in refused.stderr


ON_FLEET = """
fleet: {{port: {port}}}
nodes: {{home: {{memory_gb: 4, local: true}}, rented: {{memory_gb: 4}}}}
devices: {{here: {{ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 10, decode_w: 10}}}}
experts:
  - {{id: kept, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: here, node: home}}
  - {{id: free, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: here, node: rented}}
"""


@asynccontextmanager
async def supervisor(node):
    """The port of a supervisor whose copies of both experts are ready on this node."""
    report = HostReport("ready", address="http://127.0.0.1:9")
    copies = {name: Replica(name, name, node, report) for name in ("kept", "free")}
    answer = JSONResponse(Snapshot("e", 1, copies).document())
    with listening("127.0.0.1", 0) as listener:
        served = server(Starlette(routes=[Route("/v1/fleet", lambda http: answer)]))
        task = asyncio.create_task(served.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        served.should_exit = True
        await task


@pytest.mark.parametrize("node", ["home", "rented"])
async def test_a_gateway_trusts_no_fleet_that_runs_a_local_expert_elsewhere(
    tmp_path, monkeypatch, node
):
    monkeypatch.setenv("COE_FLEET_TOKEN", "token")
    async with supervisor(node) as port:
        (tmp_path / "coe.yaml").write_text(ON_FLEET.format(port=port))
        async with running(load_config(tmp_path / "coe.yaml")) as fleet:
            assert fleet.specs["kept"].local
            assert not fleet.specs["free"].local
            there = fleet.presence()
            assert there["kept"].n_copies == (node == "home")
            assert there["free"].n_copies == 1, "whoever is not local may be anywhere"


def test_an_engine_of_this_machine_is_absent_while_it_cannot_be_asked():
    hosts = {state: SimpleNamespace(state=state) for state in ("ready", "starting", "failed")}
    fleet = Fleet({}, {}, hosts)
    assert fleet.presence() == {"starting": Presence(0, 0), "failed": Presence(0, 0)}
    hosts["starting"].state = "ready"
    assert fleet.presence().keys() == {"failed"}
