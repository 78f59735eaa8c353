"""A real vLLM engine behind the gateway, where there is one.

``COE_TEST_VLLM_PYTHON`` names the interpreter of an environment that holds vLLM; by default it is
looked for in this one. The weights are random and made here: what is tested is the engine's life.
"""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import openai
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from coe.config import DATA, load_config

PYTHON = os.environ.get("COE_TEST_VLLM_PYTHON") or (
    sys.executable if importlib.util.find_spec("vllm") else ""
)
pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="no vLLM here, and COE_TEST_VLLM_PYTHON names no interpreter that has one",
)
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
devices:
  here: {{ttft_b_ms: 1, decode_tokens_per_s: 30, prefill_w: 10, decode_w: 10}}
experts:
  - id: smollm2-135m
    kind: vllm
    weights: weights
    python: {Path(PYTHON).absolute()}
    device: here
    context_tokens: 512
    slots: 4
    arguments: [--enforce-eager, --load-format, dummy, --dtype, float32]
    environment: {{VLLM_CPU_KVCACHE_SPACE: "1", HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1"}}
"""
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "dtype": "float32",
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
ID = "smollm2-135m"


def random_llama(folder):
    """A tiny Llama without weights, whose tokens are bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", *sorted(alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    files = {"config.json": LLAMA, "tokenizer_config.json": {**kind, "chat_template": TEMPLATE}}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "weights").mkdir()
    random_llama(folder / "weights")
    (folder / "coe.yaml").write_text(CONFIG)
    with serve(load_config(folder / "coe.yaml"), start_timeout_s=600) as running:
        host = running.runtime.fleet.hosts[ID]
        assert host.state == "ready", host.reason
        yield running


def ask(gateway, model="auto", **more):
    return gateway.client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is 2 + 2?"}],
        max_tokens=16,
        extra_body={"ignore_eos": True},
        **more,
    )


def test_it_answers_whole(gateway):
    answer = ask(gateway)
    assert answer.model == ID
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")
    receipt = answer.model_extra["coe"]["receipt"]
    assert (receipt["outcome"], receipt["output_tokens"]) == ("complete", 16)


def test_it_streams(gateway):
    stream = ask(gateway, stream=True)
    decision_id = stream.response.headers["x-coe-decision-id"]
    finishes = [c.choices[0].finish_reason for c in stream if c.choices]
    assert finishes[-1] == "length"
    assert len(finishes) > 2
    receipt = gateway.receipt(decision_id)
    assert (receipt["outcome"], receipt["ttft_ms"] > 0) == ("complete", True)


def test_killed_it_comes_back(gateway, eventually):
    host = gateway.runtime.fleet.hosts[ID]
    starts = host.n_starts
    os.kill(host.process_id, signal.SIGKILL)
    eventually(lambda: host.state == "starting", "the end of the engine")
    with pytest.raises(openai.InternalServerError) as raised:
        ask(gateway, model=ID)
    assert raised.value.code == "expert_unavailable"
    eventually(lambda: host.state == "ready" and host.n_starts > starts, "a restart", 600)
    assert ask(gateway, model=ID).usage.completion_tokens == 16
