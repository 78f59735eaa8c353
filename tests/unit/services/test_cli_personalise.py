"""``coe personalise``, and what the other verbs make of the gate that it writes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from coe.config import DATA, load_config
from coe.errors.files import ArtefactError, ConfigError
from coe.routers.personal import PersonalGate
from coe.services.cli import app
from coe.services.personal import ensure_kept_together, tenants_of
from coe.services.runtime import serving

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
SECRET = "confidential"
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
nodes: {{desk: {{memory_gb: 8}}, shed: {{memory_gb: 8}}}}
devices: {{here: {{ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 9, decode_w: 9}}}}
experts:
  - {{id: {SMALL}, kind: http, base_url: "http://127.0.0.1:9/v1", device: here}}
  - {{id: {LARGE}, kind: http, base_url: "http://127.0.0.1:9/v1", device: here}}
  - {{id: own, kind: http, base_url: "http://127.0.0.1:9/v1", device: here, node: desk}}
"""
TENANTS = "tenants: {acme: {expert: own, gate: acme.gate}}\n"
CODE = "Write a Python function that returns the sum of the even numbers in a list."


def outcome(k):
    """The own expert is right about contracts and wrong about code, the global one never."""
    on_code = k % 2 == 0
    word = f"Write a Python function that adds {k}" if on_code else f"Read {SECRET} contract {k}"
    return {
        "prompt_id": f"p{k}",
        "prompt": word,
        "split": "test" if k % 10 >= 8 else "train",
        "score__own": float(not on_code),
        f"score__{SMALL}": float(on_code),
        f"score__{LARGE}": float(on_code),
        "tokens__own": 30.0,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist([outcome(k) for k in range(80)]), tmp_path / "own.parquet")
    (tmp_path / "coe.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def personalise(*arguments, tenant="acme", expert="own"):
    return run(
        *("personalise", "--tenant", tenant, "--outcomes", "own.parquet", "--expert", expert),
        *arguments,
    )


def test_it_writes_a_gate_that_route_and_doctor_use(folder):
    result = personalise("--json", "--node", "desk")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["out"] == "acme.gate"
    assert (said["tenant"], said["expert"], said["declined"]) == ("acme", "own", False)
    assert (said["training"]["n_prompts"], said["training"]["test"]["n_prompts"]) == (64, 16)
    assert said["training"]["test"]["score_gate"] > said["training"]["test"]["score_never"]
    (folder / "coe.yaml").write_text(CONFIG + TENANTS)

    def chosen(prompt, *more):
        decision = json.loads(run("route", prompt, "--budget", "best", "--json", *more).stdout)
        ids = {decision["experts"][0]["id"], *(other["id"] for other in decision["alternatives"])}
        return decision["experts"][0]["id"], ids

    contract = f"Read {SECRET} contract 99"
    assert chosen(contract, "--tenant", "acme")[0] == "own"
    assert chosen(CODE, "--tenant", "acme")[0] != "own"
    assert chosen(contract, "--mode", "single")[1] == {SMALL, LARGE}
    assert not any("own" in name for name in chosen(contract)[1])
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    assert {
        "subject": "tenants",
        "status": "ok",
        "detail": "acme has own",
        "remedy": "",
    } in findings


def test_nothing_of_the_prompts_is_in_the_gate(folder):
    assert personalise().exit_code == 0
    gate = folder / "acme.gate"
    assert {path.name for path in gate.iterdir()} == {"manifest.json", "arrays.safetensors"}
    assert all(SECRET.encode() not in path.read_bytes() for path in gate.iterdir())
    (coef,) = load_file(gate / "arrays.safetensors").values()
    assert coef.ndim == 1


def test_people_are_told_what_was_gained_and_what_to_configure(folder):
    result = personalise("--out", "gates/acme")
    assert result.exit_code == 0, result.output
    assert "gain over the global router on held-out prompts: +" in result.stdout
    assert "16 prompts of split test" in result.stdout
    assert "wrote gates/acme" in result.stdout
    assert "tenants: {acme: {expert: own, gate: gates/acme}}" in result.stderr


def test_the_configured_place_is_the_default(folder):
    (folder / "coe.yaml").write_text(CONFIG + TENANTS.replace("acme.gate", "kept/there"))
    assert personalise().exit_code == 0
    assert PersonalGate.load(folder / "kept" / "there").premise.node is None


def test_one_that_declined_says_so(folder):
    table = [outcome(k) | {"score__own": 0.0} for k in range(80)] + [
        outcome(99) | {"score__own": 1.0, "split": "test"}
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "own.parquet")
    result = personalise()
    assert result.exit_code == 0, result.output
    assert "not beyond noise: own is expected to beat it on no prompt" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tenant": "a b"}, "--tenant 'a b'"),
        ({"expert": "nobody"}, "no expert is called 'nobody'; there are"),
        (
            {"node": "moon"},
            "no node is called 'moon'; under nodes of coe.yaml there are: desk, shed",
        ),
        ({"node": "shed"}, "expert 'own' is neither on node 'shed' nor local"),
    ],
)
def test_what_the_user_can_correct_exits_with_2(folder, arguments, message):
    node = arguments.pop("node", None)
    result = personalise(*(("--node", node) if node else ()), **arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_folder_that_is_something_else_is_left_alone(folder):
    (folder / "notes").mkdir()
    result = personalise("--out", "notes")
    assert result.exit_code == 1
    assert "is not a personal gate: it is left alone" in result.stderr


# ---- what serving makes of it


@pytest.fixture
def trained(folder):
    assert personalise("--node", "desk").exit_code == 0
    (folder / "coe.yaml").write_text(CONFIG + TENANTS)
    return folder


async def test_serving_reads_the_gates(trained):
    async with serving(load_config(trained / "coe.yaml")) as runtime:
        assert runtime.tenants["acme"].gate.premise.node == "desk"
        assert "own" in runtime.engine.router.of_tenant("acme").specs
        assert "own" not in runtime.engine.router.of_tenant("").specs
        assert "own" in runtime.engine.router.specs


@pytest.mark.parametrize(
    ("right", "wrong", "error", "said"),
    [
        ("expert: own", f"expert: {SMALL}", ArtefactError, "trained with expert 'own'"),
        ("acme:", "evil:", ArtefactError, "trained with tenant 'acme', not 'evil'"),
        ("acme.gate", "absent", ArtefactError, "absent: no readable manifest"),
        ("node: desk", "node: shed", ConfigError, "neither on node 'desk' nor local"),
    ],
)
async def test_a_gate_in_the_wrong_place_ends_the_start(trained, right, wrong, error, said):
    text = (trained / "coe.yaml").read_text()
    (trained / "coe.yaml").write_text(text.replace(right, wrong))
    with pytest.raises(error, match=said):
        async with serving(load_config(trained / "coe.yaml")):
            pass


def test_a_gate_of_another_artefact_or_embedder_is_refused(trained, word_embedder, make_artefact):
    config = load_config(trained / "coe.yaml")
    with pytest.raises(ArtefactError, match="trained with embedder"):
        tenants_of(config, word_embedder())
    other = trained / "other"
    make_artefact([config.specs["own"]], [[0.5]] * 3).save(other)
    gate = PersonalGate.load(trained / "acme.gate")
    same = word_embedder(name=gate.premise.embedder, words=("word",) * (gate.coef.size - 2))
    with pytest.raises(ArtefactError, match="trained with artefact"):
        tenants_of(config.model_copy(update={"artefact": other}), same)
    assert tenants_of(config, same)["acme"].expert_id == "own"


def test_a_tenant_needs_an_expert_that_exists(folder):
    (folder / "coe.yaml").write_text(CONFIG + TENANTS.replace("own", "nobody"))
    with pytest.raises(ConfigError, match=r"coe.yaml:10: tenants.acme.expert: .*'nobody': use one"):
        load_config(folder / "coe.yaml")


def test_where_no_node_was_named_any_will_do(folder):
    ensure_kept_together(load_config(folder / "coe.yaml"), "own", None)
