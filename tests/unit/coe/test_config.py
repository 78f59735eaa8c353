"""Configuration files: what they turn into, and what is said of wrong ones."""

from pathlib import Path

import pytest

from coe.budgets import load_budgets, load_policies
from coe.capability import OF_KIND
from coe.config import (
    DATA,
    RetrievalSection,
    api_key,
    find_config,
    load_config,
)
from coe.core import Budget, ExpertSpec, Policy, Prices
from coe.device import DeviceProfile
from coe.embedders import EndpointSection, LocalEmbedderSection
from coe.environment import redis_url, state_home
from coe.errors.files import ConfigError
from coe.kinds import EmbeddedSection, HttpSection, ReplaySection
from coe.ledger.limits import Limit
from coe.optimizer.pacing import Allowance
from coe.store import RedisStoreSection, SqliteStoreSection

GOOD = """\
devices:
  board: {ttft_b_ms: 2.0, decode_tokens_per_s: 20, prefill_w: 8, decode_w: 4}
experts:
  - id: near
    kind: replay
    recording: answers.parquet
    device: board
  - id: far
    kind: http
    base_url: http://127.0.0.1:9/v1
    device: board
    slots: 3
    usd_per_mtok_in: 0.5
"""


@pytest.fixture
def complaint(tmp_path):
    """What is said of a ``coe.yaml``, its folder cut off."""

    def about(text, load=load_config):
        path = tmp_path / "coe.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            load(path)
        return str(refused.value).replace(f"{tmp_path}/", "")

    return about


def test_the_shipped_configuration_loads():
    config = load_config(DATA / "coe.yaml")
    assert config.artefact == DATA / "artefact"
    assert config.budgets == DATA / "budgets.yaml"
    assert config.experts
    assert all(isinstance(expert, EmbeddedSection) for expert in config.experts)
    assert list(config.specs) == [expert.id for expert in config.experts]


def test_the_shipped_policies_load():
    policies = load_policies(DATA / "budgets.yaml")
    assert "default" in policies
    assert {name: policy.name for name, policy in policies.items()} == {n: n for n in policies}


def test_an_expert_becomes_the_noun_that_the_deciding_layers_see(tmp_path):
    (tmp_path / "coe.yaml").write_text(GOOD)
    profile = DeviceProfile("board", 0.0, 2.0, 0.0, 20.0, 8.0, 4.0)
    assert load_config(tmp_path / "coe.yaml").specs == {
        "near": ExpertSpec("near", profile, local=True, capabilities=OF_KIND["replay"]),
        "far": ExpertSpec(
            "far",
            profile,
            slots=3,
            usd_per_mtok_in=0.5,
            stream_usage=True,
            capabilities=OF_KIND["http"],
        ),
    }


def test_an_experts_section_says_what_it_can_do_and_takes(tmp_path):
    more = "    capabilities: [images, stop]\n    extras: [top_k]\n"
    (tmp_path / "coe.yaml").write_text(GOOD + more)
    far = load_config(tmp_path / "coe.yaml").specs["far"]
    assert (far.capabilities, far.extras) == ({"images", "stop"}, {"top_k"})


def test_only_an_expert_that_says_what_it_expects_next_states_a_vocabulary(tmp_path, complaint):
    embedded = "  - {id: here, kind: embedded, weights: w, device: board, vocabulary: llama}\n"
    path = tmp_path / "coe.yaml"
    path.write_text(GOOD + embedded)
    vocabularies = {name: spec.vocabulary for name, spec in load_config(path).specs.items()}
    assert vocabularies == {"near": None, "far": None, "here": "llama"}
    said = complaint(GOOD.replace("slots: 3", "vocabulary: llama"))
    assert "vocabulary" in said


def test_embedded_experts_tell_of_their_tokens_and_others_where_it_is_said(tmp_path, complaint):
    embedded = "  - {id: here, kind: embedded, weights: w, device: board}\n"
    mute = embedded.replace("here", "mute").replace("board}", "board, logprobs: false}")
    path = tmp_path / "coe.yaml"
    path.write_text(GOOD.replace("slots: 3", "logprobs: true") + embedded + mute)
    telling = {name: spec.logprobs for name, spec in load_config(path).specs.items()}
    assert telling == {"near": False, "far": True, "here": True, "mute": False}
    recorded = "  - {id: old, kind: replay, recording: r, device: board, logprobs: true}\n"
    assert "logprobs" in complaint(GOOD + recorded)


def test_a_policy_becomes_a_noun(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "policies:\n"
        "  default: {}\n"
        "  eco:\n"
        "    description: few joules\n"
        "    ceilings: {energy_j: 60}\n"
        "    prices: {per_joule: 0.5}\n"
        "    on_infeasible: nearest\n"
    )
    assert load_policies(path) == {
        "default": Policy("default"),
        "eco": Policy("eco", Budget(energy_j=60), Prices(per_joule=0.5), "nearest", "few joules"),
    }


def test_a_policy_says_who_takes_part_and_how_many(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "policies:\n"
        "  default:\n"
        "    combine: always\n"
        "    most_experts: 3\n"
        "    local_only: true\n"
        "    experts: {ban: [far], force: [near, close]}\n"
    )
    expected = Policy(
        "default",
        combine="always",
        most_experts=3,
        local_only=True,
        ban=frozenset({"far"}),
        force=frozenset({"near", "close"}),
    )
    assert load_policies(path) == {"default": expected}
    assert load_policies(path, ["near", "close", "far"]) == {"default": expected}


@pytest.mark.parametrize("field", ["ban", "force"])
def test_a_policy_that_names_an_expert_that_is_not_there_is_refused(complaint, field):
    text = f"policies:\n  default:\n    experts:\n      {field}: [near, fra]\n"
    said = complaint(text, lambda path: load_policies(path, ["near", "far"]))
    assert f"coe.yaml:4: policies.default.experts.{field}: there is no expert 'fra'" in said
    assert "there are near, far" in said


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_are_kept(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    text = GOOD + "artefact: trained/one\nbudgets: /srv/budgets.yaml\n"
    (folder / "coe.yaml").write_text(text)
    config = load_config(folder / "coe.yaml")
    assert config.artefact == folder / "trained/one"
    assert config.budgets == Path("/srv/budgets.yaml")
    near = config.experts[0]
    assert isinstance(near, ReplaySection)
    assert near.recording == folder / "answers.parquet"


def test_artefact_and_budgets_are_the_shipped_ones_unless_named(tmp_path):
    (tmp_path / "coe.yaml").write_text(GOOD)
    config = load_config(tmp_path / "coe.yaml")
    assert (config.artefact, config.budgets) == (DATA / "artefact", DATA / "budgets.yaml")


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load_config(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "coe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "coe.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devices: [", "coe.yaml:2: not YAML: did not find expected node content (column 1)"),
        ("devices:\n\tboard: 1\n", "coe.yaml:2: not YAML: "),
        ("when: 2026-13-45\n", "coe.yaml: not YAML: "),
        ("", "coe.yaml: must hold a mapping of sections, not nothing"),
        ("- devices\n", "coe.yaml: must hold a mapping of sections, not ['devices']"),
    ],
)
def test_a_file_that_is_not_a_yaml_mapping_is_refused(complaint, text, said):
    assert said in complaint(text)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("    slots: 3\n", "    slots: 3\n    slots: 4\n", ":13: key 'slots' appears twice"),
        (
            "    slots: 3\n",
            "    slot: 3\n",
            "coe.yaml:12: experts.1.slot: there is no such field: is slots meant?",
        ),
        ("slots: 3", "slots: none", "coe.yaml:12: experts.1.slots: Input should be a valid int"),
        ("slots: 3", "slots: 0", "coe.yaml:12: experts.1.slots: Input should be greater than 0"),
        ("prefill_w: 8", "prefill_w: -8", "coe.yaml:2: devices.board.prefill_w: Input should be"),
        ("prefill_w: 8", "prefill_w: .nan", "devices.board.prefill_w: Input should be a finite"),
        ("prefill_w: 8, ", "", "coe.yaml:2: devices.board.prefill_w: is missing"),
        ("kind: http", "kind: smoke", "coe.yaml:9: experts.1.kind: must be one of 'embedded', "),
        (
            "http://127.0.0.1:9/v1",
            "http://0x7f.1/v1",
            "coe.yaml:10: experts.1.base_url: ssrf_blocked: '0x7f.1' is an address in disguise",
        ),
        (
            "http://127.0.0.1:9/v1",
            "http://169.254.169.254/v1",
            "coe.yaml:10: experts.1.base_url: ssrf_blocked: 169.254.169.254 is no address",
        ),
        (
            "http://127.0.0.1:9/v1",
            "http://127.0.0.1:9/v1\n    allow_loopback: false",
            "coe.yaml:10: experts.1.base_url: ssrf_blocked: 127.0.0.1 is loopback",
        ),
        (
            "http://127.0.0.1:9/v1",
            "http://127.0.0.1:9/v1\n    ca: ca.pem",
            "coe.yaml:11: experts.1.ca: is for https only",
        ),
        ("http://127", "ftp://127", "coe.yaml:10: experts.1.base_url: String should match"),
        ("id: far", "id: far away", "coe.yaml:8: experts.1.id: String should match"),
        ("http:", "file:", ", not 'file://127.0.0.1:9/v1'"),
        ("device: board", "device: bored", "coe.yaml:7: experts.0.device: expert 'near' runs on"),
        ("device: board", "device: bored", "unknown device 'bored': add it under devices"),
        ("device: board", "device: bored", "or use one of board"),
        (
            "id: far",
            "id: near",
            "coe.yaml:8: experts.1.id: expert id 'near' is used twice: ids must differ",
        ),
        ("id: far", "id: auto", "expert id 'auto' is reserved: choose another"),
    ],
)
def test_a_wrong_field_is_named_with_file_line_value_and_remedy(complaint, right, wrong, said):
    assert right in GOOD
    assert said in complaint(GOOD.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("gatway: {port: 1}", "gatway: there is no such field: is gateway meant?"),
        ("gateway: {tls: {key: k, cert: c}}", "gateway.tls.certificate: is missing"),
        ("access: []", "access: must be a mapping of fields, not []"),
        ("access:", "access: is blank, which switches nothing on: write {} or fields behind"),
        ("gateway: {tls: }", "gateway.tls: is blank, which switches nothing on"),
        ("gateway: {hosts: ['http://a.example']}", "hosts.0: is no name of a host, such as"),
        ("gateway: {trusted_proxies: [10.0.0.0/99]}", "trusted_proxies.0: '10.0.0.0/99' does not"),
    ],
)
def test_what_concerns_strangers_is_refused_where_it_would_let_them_in(complaint, more, said):
    (line,) = [line for line in complaint(f"{GOOD}{more}\n").splitlines() if said in line]
    assert line.startswith("coe.yaml:")


def test_a_field_of_another_kind_of_expert_is_not_what_was_meant(complaint):
    said = complaint(GOOD + "  - {id: again, kind: copy, device: board}\n")
    assert said.endswith("experts.2.device: there is no such field")


def test_every_wrong_field_gets_its_line(complaint):
    lines = complaint(GOOD.replace("slots: 3", "slots: x").replace("decode_w: 4", "decode_w: y"))
    assert [line.split(": ")[0] for line in lines.splitlines()] == ["coe.yaml:2", "coe.yaml:12"]


@pytest.mark.parametrize("device", ["http", "replay", "embedded"])
def test_a_device_may_be_called_like_a_kind_of_expert(complaint, device):
    text = GOOD.replace("board", device).replace("prefill_w: 8", "prefill_w: x")
    assert f"coe.yaml:2: devices.{device}.prefill_w: " in complaint(text)


def test_without_experts_nothing_can_be_served(complaint):
    said = complaint("devices: {}\nexperts: []\n")
    assert "coe.yaml:2: experts: must hold at least 1" in said


def test_budgets_without_a_default_policy_are_refused(complaint):
    said = complaint("policies:\n  eco: {}\n", load_policies)
    assert "there is no policy named 'default': add one" in said


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("ceilings: {energy_j: 0}", "policies.default.ceilings.energy_j: Input should be greater"),
        (
            "ceilings: {energy: 1}",
            "policies.default.ceilings.energy: there is no such field: is energy_j meant?",
        ),
        ("prices: {per_joule: -1}", "policies.default.prices.per_joule: Input should be greater"),
        ("on_infeasible: panic", "policies.default.on_infeasible: Input should be 'reject'"),
        ("combine: perhaps", "policies.default.combine: Input should be 'never', 'whole' or"),
        ("most_experts: 0", "policies.default.most_experts: Input should be greater"),
        ("most_experts: 9", "policies.default.most_experts: Input should be less"),
        ("experts: {ban: [a], force: [a]}", "policies.default.experts: 'a' is both banned and"),
    ],
)
def test_a_wrong_policy_is_named(complaint, field, said):
    assert f"coe.yaml:3: {said}" in complaint(
        f"policies:\n  default:\n    {field}\n", load_policies
    )


def test_a_period_becomes_an_allowance_of_each_of_its_resources(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "policies: {default: {}}\n"
        "periods:\n"
        "  day: {window_s: 86400, energy_j: 500, cost_usd: 2}\n"
        "  hour: {window_s: 3600, cost_usd: 0.5, may_decline: true}\n"
    )
    assert load_budgets(path).as_allowances() == (
        Allowance("energy_j", 500, 86400, name="day"),
        Allowance("cost_usd", 2, 86400, name="day"),
        Allowance("cost_usd", 0.5, 3600, name="hour", may_decline=True),
    )
    path.write_text("policies: {default: {}}\n")
    assert load_budgets(path).as_allowances() == ()


@pytest.mark.parametrize(
    ("period", "said"),
    [
        ("{window_s: 60}", "periods.day: this period limits nothing: give it energy_j"),
        ("{window_s: 0, energy_j: 1}", "periods.day.window_s: Input should be greater"),
        ("{energy_j: 1}", "periods.day.window_s: is missing"),
        ("{window_s: 60, cost_usd: -1}", "periods.day.cost_usd: Input should be greater"),
        ("{window_s: 60, energy_j: 1, scope: tenant}", "periods.day.scope: there is no such field"),
    ],
)
def test_a_wrong_period_is_named(complaint, period, said):
    text = f"policies: {{default: {{}}}}\nperiods:\n  day: {period}\n"
    assert f"coe.yaml:3: {said}" in complaint(text, load_policies)


def test_limits_are_whole_numbers_that_are_never_more_than_what_is_written(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "policies: {default: {}}\n"
        "limits:\n"
        "  house: {scope: global, window_s: 86400, energy_j: 0.1, cost_usd: 1.9999999}\n"
        "  trial: {scope: key, of: k7, window_s: 60, tokens: 9, requests: 2}\n"
    )
    assert load_budgets(path).as_limits() == (
        Limit("house", "global", 86400, energy_uj=100_000, cost_uusd=1_999_999),
        Limit("trial", "key", 60, tokens=9, requests=2, of="k7"),
    )
    path.write_text("policies: {default: {}}\n")
    assert load_budgets(path).as_limits() == ()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("{scope: global, window_s: 60}", "limits.day: this limit limits nothing: give it"),
        ("{scope: all, window_s: 60, tokens: 1}", "limits.day.scope: Input should be 'global'"),
        (
            "{scope: key, window_s: 1.5, tokens: 1}",
            "limits.day.window_s: Input should be a valid int",
        ),
        ("{scope: key, window_s: 0, tokens: 1}", "limits.day.window_s: Input should be greater"),
        (
            "{scope: key, window_s: 60, energy_j: 1.0e+10}",
            "limits.day.energy_j: Input should be less",
        ),
        ("{scope: key, window_s: 60, cost_usd: .inf}", "limits.day.cost_usd: Input should be"),
        ("{scope: key, window_s: 60, tokens: 0}", "limits.day.tokens: Input should be greater"),
        (
            "{scope: global, of: a, window_s: 60, tokens: 1}",
            "limits.day: a global limit is for all",
        ),
    ],
)
def test_a_wrong_limit_is_named(complaint, limit, said):
    text = f"policies: {{default: {{}}}}\nlimits:\n  day: {limit}\n"
    assert f"coe.yaml:3: {said}" in complaint(text, load_policies)


def test_the_ledger_is_kept_where_it_says(tmp_path, monkeypatch):
    path = tmp_path / "coe.yaml"
    path.write_text(GOOD)
    assert load_config(path).store is None
    path.write_text(GOOD + "store: {kind: sqlite, path: state/l.sqlite, fsync: true}\n")
    store = load_config(path).store
    assert store == SqliteStoreSection(kind="sqlite", path=tmp_path / "state/l.sqlite", fsync=True)
    assert store.journal(tmp_path) == tmp_path / "state/l.sqlite"
    path.write_text(GOOD + "store: {kind: redis, share: 0.5}\n")
    store = load_config(path).store
    assert store == RedisStoreSection(kind="redis", share=0.5)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert store.journal(state_home()) == tmp_path / "coe" / "ledger.sqlite"
    monkeypatch.setenv("COE_REDIS_URL", "redis://:secret@h/0")
    assert redis_url(store.url_env) == "redis://:secret@h/0"
    monkeypatch.delenv("COE_REDIS_URL")
    with pytest.raises(ConfigError, match="store: environment variable COE_REDIS_URL is not set"):
        redis_url(store.url_env)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("{kind: mysql}", "store.kind: must be one of 'sqlite', 'redis', not 'mysql'"),
        ("{kind: sqlite, url_env: X}", "store.url_env: there is no such field"),
        ("{kind: redis, share: 1.1}", "store.share: Input should be less"),
        ("{kind: redis, lease_s: 1}", "store.lease_s: Input should be greater"),
    ],
)
def test_a_wrong_store_is_named(complaint, store, said):
    assert said in complaint(GOOD + f"store: {store}\n")


def test_the_configuration_is_looked_for_where_it_is_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COE_CONFIG", raising=False)
    assert find_config(None) == DATA / "coe.yaml"
    Path("coe.yaml").touch()
    assert find_config(None) == Path("coe.yaml")
    monkeypatch.setenv("COE_CONFIG", "/etc/coe.yaml")
    assert find_config(None) == Path("/etc/coe.yaml")
    assert find_config(Path("mine.yaml")) == Path("mine.yaml")


ENDPOINT = "embedder: {kind: endpoint, base_url: 'http://h/v1', model: BAAI/bge-m3}\n"


@pytest.mark.parametrize("kind", ["default", "static", "lexical"])
def test_a_local_embedder_has_nothing_but_its_kind(tmp_path, complaint, kind):
    (tmp_path / "coe.yaml").write_text(GOOD + f"embedder: {{kind: {kind}}}\n")
    assert load_config(tmp_path / "coe.yaml").embedder == LocalEmbedderSection(kind=kind)
    said = complaint(GOOD + f"embedder:\n  kind: {kind}\n  model: m\n")
    assert said.startswith("coe.yaml:16: embedder.model: ")


def test_an_endpoint_needs_its_address_and_model_and_no_more(tmp_path):
    (tmp_path / "coe.yaml").write_text(GOOD + ENDPOINT)
    embedder = load_config(tmp_path / "coe.yaml").embedder
    assert isinstance(embedder, EndpointSection)
    assert (embedder.base_url, embedder.model) == ("http://h/v1", "BAAI/bge-m3")
    assert (embedder.dim, embedder.api_key_env) == (None, None)
    (tmp_path / "coe.yaml").write_text(GOOD)
    assert load_config(tmp_path / "coe.yaml").embedder is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{kind: torch}", "embedder.kind: must be one of "),
        ("{}", "embedder.kind: is missing"),
        ("{kind: endpoint, model: m}", "embedder.base_url: is missing"),
        ("{kind: endpoint, base_url: 'http://h/v1'}", "embedder.model: is missing"),
        ("{kind: endpoint, base_url: h, model: m}", "embedder.base_url: "),
        ("{kind: endpoint, base_url: 'http://h', model: m, dim: 0}", "embedder.dim: "),
        ("{kind: endpoint, base_url: 'http://h', model: ' '}", "embedder.model: "),
        ("{kind: endpoint, base_url: 'http://h', model: m, max_chars: 0}", "embedder.max_chars: "),
        ("{kind: endpoint, base_url: 'http://h', model: m, timeout_s: 0}", "embedder.timeout_s: "),
    ],
)
def test_a_wrong_embedder_is_named_by_its_field(complaint, section, said):
    assert f"coe.yaml:14: {said}" in complaint(GOOD + f"embedder: {section}\n")


def test_a_key_that_is_not_set_is_named_with_the_embedder(monkeypatch):
    monkeypatch.delenv("FAR_KEY", raising=False)
    section = EndpointSection(
        kind="endpoint", base_url="http://h/v1", model="m", api_key_env="FAR_KEY"
    )
    with pytest.raises(ConfigError, match=r"^embedder: .*FAR_KEY is not set: export it"):
        api_key(section)


def http_expert(**fields):
    return HttpSection(id="far", device="board", kind="http", base_url="http://x/v1", **fields)


def test_a_key_is_read_from_the_variable_that_the_expert_names(monkeypatch):
    monkeypatch.setenv("FAR_KEY", "s3cret")
    assert api_key(http_expert(api_key_env="FAR_KEY")) == "s3cret"
    assert api_key(http_expert()) is None


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_set_is_named_with_its_expert(monkeypatch, value):
    monkeypatch.delenv("FAR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("FAR_KEY", value)
    with pytest.raises(ConfigError, match=r"'far'.*FAR_KEY is not set: export it"):
        api_key(http_expert(api_key_env="FAR_KEY"))


@pytest.mark.parametrize("key", ["s3cret\n", "s3cret\r", "s\u0436cret"])
def test_a_key_that_no_request_can_carry_is_refused_before_it_is_used(monkeypatch, key):
    monkeypatch.setenv("FAR_KEY", key)
    with pytest.raises(ConfigError, match=r"'far'.*FAR_KEY holds no key") as raised:
        api_key(http_expert(api_key_env="FAR_KEY"))
    assert "cret" not in str(raised.value)


# ---- who is local, who is shared

PLACES = """\
nodes: {home: {memory_gb: 4, local: true}, rented: {memory_gb: 4}}
"""


@pytest.fixture
def local(tmp_path):
    """Who is local where both experts are on these nodes, or on none."""

    def ids(near="", far="", more=""):
        text = GOOD + PLACES + more
        for name, node in (("near", near), ("far", far)):
            if node:
                text = text.replace(f"id: {name}", f"id: {name}\n    node: {node}")
        (tmp_path / "coe.yaml").write_text(text)
        return {n for n, spec in load_config(tmp_path / "coe.yaml").specs.items() if spec.local}

    return ids


def test_a_process_of_this_machine_is_local_unless_its_node_says_otherwise(local):
    assert local() == {"near"}
    assert local(near="home") == {"near"}
    assert local(near="rented") == set()


def test_an_address_is_local_on_a_labelled_node_only(local):
    assert local(far="home") == {"near", "far"}
    assert local(far="rented") == {"near"}


def test_on_a_fleet_nothing_is_local_without_a_labelled_node(local):
    assert local(more="fleet: {}\n") == set()
    assert local(near="rented", more="fleet: {}\n") == set()
    assert local(near="home", far="home", more="fleet: {}\n") == {"near", "far"}


def test_one_expert_may_be_shared(tmp_path, complaint):
    one = GOOD.replace("kind: replay", "kind: replay\n    shared: true")
    (tmp_path / "coe.yaml").write_text(one)
    specs = load_config(tmp_path / "coe.yaml").specs
    assert [spec.shared for spec in specs.values()] == [True, False]
    said = complaint(one.replace("slots: 3", "shared: true"))
    assert "experts.1.shared: experts 'near' and 'far' are both shared" in said
    assert "choose one" in said


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{most_experts: 0}", "routing.most_experts: Input should be greater"),
        ("{most_experts: 9}", "routing.most_experts: Input should be less"),
        ("{top_p: 0}", "routing.top_p: Input should be greater"),
        ("{top_p: 1.5}", "routing.top_p: Input should be less"),
    ],
)
def test_a_wrong_width_is_named_by_its_field(complaint, section, said):
    assert said in complaint(f"{GOOD}routing: {section}\n")


# ---- retrieval


def test_an_index_is_relative_to_the_file(tmp_path):
    path = tmp_path / "coe.yaml"
    path.write_text(GOOD + "retrieval: {index: handbook.index}\n")
    retrieval = load_config(path).retrieval
    assert retrieval == RetrievalSection(index=tmp_path / "handbook.index")
    path.write_text(GOOD)
    assert load_config(path).retrieval is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{k: 3}", "retrieval.index"),
        ("{index: x, k: 0}", "retrieval.k"),
        ("{index: x, passage_tokens: 10}", "retrieval.passage_tokens"),
        ("{index: x, mode: fuzzy}", "retrieval.mode"),
        ("{index: x, price: 1}", "retrieval.price"),
    ],
)
def test_a_wrong_retrieval_section_is_named_by_its_field(complaint, section, said):
    assert said in complaint(f"{GOOD}retrieval: {section}\n")
