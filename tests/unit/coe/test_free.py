"""Experts that compute nothing, in coe.yaml."""

from types import SimpleNamespace

import pytest

from coe.cache import AnswerCache
from coe.config import DATA, load_config
from coe.errors.files import ConfigError
from coe.free import free_spec, stock_of
from coe.services.fleet import Fleet, running
from coe.stock import Constants, Declination

HERE = f"artefact: {DATA / 'artefact'}\nbudgets: {DATA / 'budgets.yaml'}\nexperts:\n"
FREE = """
  - id: faq
    kind: constant
    answers:
      - {text: Nine to five., patterns: ['(?i)opening\\s+hours']}
      - {text: Use a calculator., categories: [maths], quality: 0.2}
  - {id: nobody, kind: null, text: 'Sorry, no.'}
  - {id: again, kind: copy, ttl_s: 60, max_entries: 10, max_bytes: 100000}
"""
FAR = """
  - {id: far, kind: http, base_url: "http://127.0.0.1:9/v1",
     device: rtx-4090/llama-3-8b-q4_k_m-llama.cpp}
"""


@pytest.fixture
def load(tmp_path):
    def read(experts):
        path = tmp_path / "coe.yaml"
        path.write_text(HERE + experts)
        return load_config(path)

    return read


def test_each_kind_has_a_stock_and_takes_nothing(load):
    sections = load(FREE).experts
    stocks = [stock_of(section) for section in sections]
    assert [type(stock) for stock in stocks] == [Constants, Declination, AnswerCache]
    assert [canned.quality for canned in stocks[0].answers] == [0.9, 0.2]
    for section in sections:
        estimate = free_spec(section).estimate(0.5, 1e6, 1e6)
        taken = (estimate.ttft_ms, estimate.latency_ms, estimate.energy_j, estimate.cost_usd)
        assert taken == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{id: a, kind: constant, answers: [{text: x}]}", "fits no prompt"),
        ("{id: a, kind: constant, answers: []}", "experts.0.answers"),
        (
            "{id: a, kind: constant, answers: [{text: x, patterns: [ok, '(']}]}",
            "experts.0.answers.0.patterns.1: '(': not a pattern: unclosed group",
        ),
        (
            "{id: a, kind: constant, answers: [{text: x, patterns: ['(a{1,99}){9}']}]}",
            "multiply out to more than",
        ),
        ("{id: a, kind: 'null', quality: 1.5}", "experts.0.quality"),
        ("{id: a, kind: null, device: x}", "experts.0.device"),
        ("{id: a, kind: ~, device: x}", "experts.0.device"),
        ("{id: a}", "experts.0"),
        ("x", "experts.0"),
        ("{id: a, kind: copy, ttl_s: 0}", "experts.0.ttl_s"),
        ("{id: a, kind: copy}\n  - {id: b, kind: copy}", "experts.1.kind: keep one"),
        ("{id: a, kind: copy}\n  - {id: a, kind: 'null'}", "experts.1.id"),
    ],
)
def test_what_is_wrong_is_named(load, wrong, said):
    with pytest.raises(ConfigError) as refused:
        load(f"  - {wrong}\n")
    assert said in str(refused.value)


async def test_a_fleet_of_nothing_else_is_ready(load):
    config = load(FREE)
    assert config.computing == []
    async with running(config) as fleet:
        await fleet.settled()
        assert fleet.states() == {"faq": "ready", "nobody": "ready", "again": "ready"}
        assert (fleet.can_answer, fleet.has_failed) == (True, False)
        assert fleet.specs.keys() == fleet.stocks.keys() == fleet.experts.keys()


@pytest.mark.parametrize(
    ("state", "can_answer", "has_failed"),
    [("starting", False, False), ("failed", False, True), ("ready", True, False)],
)
def test_they_make_no_fleet_ready_whose_experts_are_not(state, can_answer, has_failed):
    experts = dict.fromkeys(("engine", "nobody"))
    hosts = {"engine": SimpleNamespace(state=state)}
    fleet = Fleet({}, experts, hosts, stocks={"nobody": Declination("No.")})
    assert (fleet.can_answer, fleet.has_failed) == (can_answer, has_failed)


async def test_only_those_that_are_wanted_are_there(load):
    async with running(load(FREE + FAR), only=["far", "faq"]) as fleet:
        assert fleet.experts.keys() == {"far", "faq"}
        assert fleet.stocks.keys() == {"faq"}


async def test_they_do_not_stand_in_for_experts_that_cannot_run(load, monkeypatch, tmp_path):
    monkeypatch.setenv("COE_WEIGHTS", str(tmp_path / "none"))
    absent = FAR.replace("kind: http", "kind: replay").replace(
        'base_url: "http://127.0.0.1:9/v1"', "recording: gone.parquet"
    )
    with pytest.raises(ConfigError, match="no expert can run"):
        async with running(load(FREE + absent)):
            raise AssertionError("it must not start")
