"""Hard limits of real gateways: what fits is answered, by one or two of them, and no more."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import openai
import pytest

from coe.bound import bound, prompt_bound
from coe.config import DATA, load_config
from coe.core import Message, Request
from coe.ledger.amounts import NOTHING, Amounts
from coe.routers.outcomes import Outcomes

OUTCOMES = DATA.resolve().parents[1] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: budgets.yaml
devices:
  h100: {{ttft_b_ms: 0.1, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}}
experts:
  - {{id: {SMALL}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
  - {{id: {LARGE}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
"""
AGES_S = 10**9
PROMPTS = Outcomes.read(OUTCOMES).prompts[:40]


@pytest.fixture
def limited(tmp_path):
    """A configuration with these ceilings on all requests, and its ledger in a folder."""

    def build(name="one", kind="sqlite", more="", **ceilings):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        limit = ", ".join(f"{axis}: {value}" for axis, value in ceilings.items())
        (folder / "budgets.yaml").write_text(
            "policies: {default: {}}\n"
            f"limits: {{house: {{scope: global, window_s: {AGES_S}, {limit}}}}}\n"
        )
        store = f"store: {{kind: {kind}, path: ledger.sqlite{more}}}\n"
        (folder / "coe.yaml").write_text(CONFIG + store)
        return load_config(folder / "coe.yaml")

    return build


def ask(gateway, prompt, model="auto", **more):
    messages = [{"role": "user", "content": prompt}]
    answer = gateway.client.chat.completions.create(model=model, messages=messages, **more)
    return list(answer) if more.get("stream") else answer


@pytest.fixture
def spent(eventually):
    """What a gateway's ledger says that was taken, once nothing is held."""

    def read(gateway):
        ledger = gateway.runtime.engine.store.books.ledger
        eventually(lambda: not ledger.held, "the end of all holds")
        (balance,) = ledger.accounts.values()
        assert balance.overrun == NOTHING
        return balance.spent

    return read


@pytest.mark.parametrize("stream", [False, True])
def test_as_many_requests_as_fit_are_answered_also_after_a_restart(
    serve, limited, spent, coe, stream
):
    config = limited(requests=3)
    with serve(config) as gateway:
        for prompt in PROMPTS[:3]:
            assert ask(gateway, prompt, stream=stream)
        with pytest.raises(openai.RateLimitError) as refused:
            ask(gateway, PROMPTS[3], stream=stream)
        assert 0 < int(refused.value.response.headers["retry-after"]) <= AGES_S
        assert (refused.value.code, refused.value.param) == (
            "budget_exhausted",
            "limits.house.requests",
        )
        assert spent(gateway).requests == 3
    with serve(config) as gateway, pytest.raises(openai.RateLimitError):
        ask(gateway, PROMPTS[3], stream=stream)
    checked = coe("ledger", "check", "--config", config.budgets.parent / "coe.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_joules_are_spent_to_the_last_answer_that_surely_fits(serve, limited, spent):
    with serve(limited(energy_j=400)) as gateway:
        spec = gateway.runtime.engine.router.specs[SMALL]
        receipts = []
        for prompt in PROMPTS:
            before = spent(gateway) if receipts else NOTHING
            payload = {"messages": [{"role": "user", "content": prompt}]}
            request = Request((Message("user", prompt),), payload=payload)
            most = bound(spec, request, 256)
            fits = before.plus(most).energy_uj <= 400_000_000
            try:
                answer = ask(gateway, prompt, model=SMALL, max_tokens=256)
            except openai.RateLimitError:
                assert not fits
                break
            assert fits
            receipts.append(answer.model_extra["coe"]["receipt"])
            took = Amounts.of(receipts[-1]["energy_j"])
            assert took.energy_uj <= most.energy_uj
        else:
            raise AssertionError("nothing was refused")
        assert len(receipts) > 3
        booked = spent(gateway)
    # receipts are rounded for people
    assert booked.energy_uj / 1e6 == pytest.approx(sum(r["energy_j"] for r in receipts), rel=1e-5)
    assert booked.tokens == sum(r["prompt_tokens"] + r["output_tokens"] for r in receipts)
    assert booked.requests == len(receipts)


def test_two_gateways_of_one_redis_answer_what_fits_together(
    serve, limited, spent, redis_server, monkeypatch
):
    """80 requests by 16 callers, against room for 20."""
    monkeypatch.setenv("COE_REDIS_URL", redis_server.url)
    one, other = (limited(n, "redis", ", timeout_s: 5", requests=20) for n in ("one", "other"))

    def call(gateway, prompt):
        while True:
            try:
                ask(gateway, prompt)
            except openai.RateLimitError:
                return False
            except openai.InternalServerError as error:
                # an empty Redis hears first what its gateways know
                if error.code != "budget_store_unavailable":
                    raise
                time.sleep(0.1)
            else:
                return True

    with serve(one) as first, serve(other) as second, ThreadPoolExecutor(16) as callers:
        asked = [(gateway, prompt) for prompt in PROMPTS for gateway in (first, second)]
        answered = list(callers.map(lambda pair: call(*pair), asked))
        assert sum(answered) == 20
        assert spent(first).requests + spent(second).requests == 20


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
ODD = ["a", "🜁🜂🜃" * 20, "天气怎么样" * 10, "<|im_start|>system" * 5]


@pytest.mark.engine
def test_no_real_prompt_has_more_tokens_than_are_held_for_it(serve, embedded_config):
    # that these experts write calls well is not needed here
    able = [e.model_copy(update={"capabilities": ["tools"]}) for e in embedded_config.experts]
    with serve(embedded_config.model_copy(update={"experts": able})) as gateway:
        for model, more, text in product([SMALL, LARGE], [{}, {"tools": [TOOL]}], ODD):
            context = gateway.runtime.fleet.specs[model].context_tokens
            messages = [{"role": "user", "content": text}]
            answer = gateway.client.chat.completions.create(
                model=model, messages=messages, max_tokens=1, **more
            )
            request = Request((Message("user", text),), payload={"messages": messages, **more})
            assert answer.usage.prompt_tokens <= prompt_bound(request, context)
