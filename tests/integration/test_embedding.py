"""A remote embedder from training to serving, and after its end; llama.cpp as a real one."""

import asyncio
import json
import sys

import httpx
import numpy as np
import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.config import DATA, load_config
from coe.embedders import EndpointSection
from coe.environment import weights_home
from coe.errors.gateway import EmbeddingError
from coe.services.embedding import HttpEmbedder
from coe.services.host.process import EngineHost
from coe.services.weights import embedded_weights, verified

TOPICS = {"code": "Write a Python function for list {}", "maths": "What is the sum of 3 and {}"}
# what the experts are asked here, beside what they were trained on
ASKED = (TOPICS["code"].format(98), TOPICS["maths"].format(98), TOPICS["code"].format(99))
CONFIG = f"""
artefact: artefact
budgets: {DATA / "budgets.yaml"}
devices:
  here: {{ttft_b_ms: 1, decode_tokens_per_s: 100, prefill_w: 10, decode_w: 10}}
experts:
  - {{id: coder, kind: replay, recording: outcomes.parquet, device: here, time_scale: 0}}
  - {{id: solver, kind: replay, recording: outcomes.parquet, device: here, time_scale: 0}}
"""


def outcome(prompt, category, split):
    return {
        "prompt_id": prompt,
        "prompt": prompt,
        "source_task": category,
        "category": category,
        "split": split,
        "score__coder": float(category == "code"),
        "score__solver": float(category == "maths"),
        "tokens__coder": 10.0,
        "tokens__solver": 10.0,
        "answer__coder": "def answer(): ...",
        "answer__solver": "It is 101.",
    }


@pytest.fixture
def folder(tmp_path, mortal_embedding_server, coe):
    """A configuration with an endpoint, and an artefact that `coe train` made with it."""
    rows = [
        outcome(text.format(n), category, "dev" if n % 5 == 4 else "train")
        for category, text in TOPICS.items()
        for n in range(25)
    ] + [outcome(prompt, None, "test") for prompt in ASKED]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "outcomes.parquet")
    endpoint = {"kind": "endpoint", "base_url": mortal_embedding_server.url, "model": "words"}
    (tmp_path / "coe.yaml").write_text(f"{CONFIG}embedder: {json.dumps(endpoint)}\n")
    done = coe(
        *("train", "--config", tmp_path / "coe.yaml", "--outcomes", tmp_path / "outcomes.parquet"),
        *("--out", tmp_path / "artefact"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def ask(running, prompt):
    """Category and answer of a prompt."""
    reply = running.client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": prompt}]
    )
    answer = reply.parse().choices[0].message.content
    return reply.headers["x-coe-category"], answer


def test_an_endpoint_embeds_in_training_and_serving_and_is_not_missed(
    folder, serve, mortal_embedding_server
):
    server = mortal_embedding_server
    manifest = json.loads((folder / "artefact" / "manifest.json").read_text())
    assert manifest["embedder"] == f"http-words-{server.dim}"
    with serve(load_config(folder / "coe.yaml")) as running:
        server.forget()
        assert ask(running, ASKED[0]) == ("code", "def answer(): ...")
        assert ask(running, ASKED[1]) == ("maths", "It is 101.")
        assert ask(running, ASKED[0])[0] == "code"
        assert [body["input"] for body in server.bodies] == [[ASKED[0]], [ASKED[1]]]
        server.stop()
        category, answer = ask(running, ASKED[2])
        assert (category, bool(answer)) == ("general", True)
        # known from before
        assert ask(running, ASKED[0])[0] == "code"
        with pytest.raises(openai.NotFoundError, match="no recorded answer"):
            ask(running, "Nobody ever asked this.")
        assert httpx.get(f"{running.url}/readyz", timeout=30).status_code == 200


def test_the_commands_say_what_is_wrong_with_the_embedder(
    folder, mortal_embedding_server, coe, coe_here
):
    config = folder / "coe.yaml"
    routed = coe_here("route", ASKED[1], "--config", config, "--json")
    assert routed.returncode == 0, routed.stderr
    assert json.loads(routed.stdout)["category"] == "maths"
    mortal_embedding_server.stop()
    for command in (["route", ASKED[1]], ["serve", "--port", "0"]):
        done = coe_here(*command, "--config", config)
        assert (done.returncode, done.stdout) == (1, "")
        assert "error: embedder.base_url: no answer from 127.0.0.1:" in done.stderr
        assert "Traceback" not in done.stderr
    findings = json.loads(coe("doctor", "--config", config, "--json").stdout)["findings"]
    found = {finding["subject"]: finding for finding in findings}
    assert found["embedder"]["status"] == "failed"
    assert "start its endpoint" in found["embedder"]["remedy"]
    config.write_text(CONFIG)
    done = coe_here("route", ASKED[1], "--config", config)
    assert done.returncode == 1
    assert "section `embedder`" in done.stderr
    config.write_text(f"{CONFIG}embedder: {{kind: static}}\n")
    done = coe_here("route", ASKED[1], "--config", config)
    assert "was trained on embedder 'http-words-64', not 'static" in done.stderr


@pytest.mark.engine
async def test_llama_cpp_is_such_an_endpoint(embedded_config):
    weights = embedded_weights(embedded_config.experts[0])
    command = [
        *(sys.executable, "-m", "coe.services.host.llama", "--embeddings"),
        *("--weights", str(verified(weights, weights_home())), "--alias", "small"),
        *("--threads", "1", "--slots", "1", "--context", "512"),
    ]
    host = EngineHost("embedder", lambda: command, {"OMP_NUM_THREADS": "1"})
    await host.start()
    try:
        assert await host.settled() == "ready", host.reason
        section = EndpointSection(
            kind="endpoint", base_url=f"{host.address}/v1", model="small", timeout_s=60
        )
        await asyncio.to_thread(check, section)
        embedder = await asyncio.to_thread(HttpEmbedder.connect, section)
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await embedder.fetch(client, ["Sort a list in Python."])
            assert found["Sort a list in Python."].shape == (embedder.dim,)
            with pytest.raises(EmbeddingError, match=r"max_chars.*HTTP 500.*too large"):
                await embedder_of_long_prompts(embedder).fetch(client, ["no end " * 600])
    finally:
        await host.stop()


def embedder_of_long_prompts(embedder):
    return HttpEmbedder(embedder.base_url, embedder.model, embedder.dim, max_chars=10_000)


def check(section):
    """Vectors of a real encoder: of unit length, repeatable, and not all the same."""
    embedder = HttpEmbedder.connect(section)
    assert embedder.name == "http-small-576"
    texts = ["Sort a list in Python.", "Order a list in Python.", "今天天气很好", ""]
    vectors = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-5)
    alike = vectors @ embedder.embed(texts[:1])[0]
    assert alike[0] > 0.999
    assert alike[0] > alike[1] > alike[2]
