"""An embeddings endpoint against a real server on loopback: well, badly, or not there at all."""

import json
import socket
import threading

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from coe.core import Policy
from coe.embedders import EndpointSection, LocalEmbedderSection
from coe.errors.files import ConfigError
from coe.errors.gateway import EmbeddingError, EmbeddingUnavailableError
from coe.routers.embed import load_named
from coe.services.embedding import BATCH, TRAINING, HttpEmbedder, check_local, configured
from coe.tenants import TenantSection

TEXTS = ["write code", "solve maths", "a poem about the sea"]
KEY = "sk-very-secret"


@pytest.fixture
def waits():
    """Seconds that the embedder has slept."""
    return []


@pytest.fixture
def made(embedding_server, waits):
    """An embedder on the server, whose waits take no time."""

    def make(**fields):
        known = {"base_url": embedding_server.url, "model": "words", "dim": embedding_server.dim}
        return HttpEmbedder(**known | {"sleep": waits.append} | fields)

    return make


def section(url, **fields):
    return EndpointSection(kind="endpoint", base_url=url, model="words", **fields)


def unit(vectors):
    return np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)


def answer(*embeddings, **more):
    return json.dumps({"data": [{"embedding": e, **more} for e in embeddings]}).encode()


# ---- vectors


def test_vectors_are_the_servers_at_unit_length_in_the_order_of_the_texts(made, embedding_server):
    vectors = made().embed(TEXTS)
    assert vectors.dtype == np.float32
    expected = unit([embedding_server.vector(text) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert embedding_server.bodies == [{"model": "words", "input": TEXTS}]


async def test_fetched_vectors_are_the_embedded_ones(made):
    async with httpx.AsyncClient() as client:
        found = await made().fetch(client, TEXTS)
    assert list(found) == TEXTS
    np.testing.assert_array_equal(list(found.values()), made().embed(TEXTS))


def test_many_texts_go_in_batches_and_each_only_once(made, embedding_server):
    texts = [f"word{n}" for n in range(2 * BATCH + 1)]
    vectors = made().embed(texts + texts)
    assert [len(body["input"]) for body in embedding_server.bodies] == [BATCH, BATCH, 1]
    np.testing.assert_array_equal(vectors[: len(texts)], vectors[len(texts) :])
    np.testing.assert_allclose(vectors[0], unit([embedding_server.vector("word0")])[0], atol=1e-6)


def test_white_space_is_not_sent_and_is_the_zero_vector(made, embedding_server):
    vectors = made().embed(["", " \n", "code"])
    assert not vectors[:2].any()
    assert vectors[2].any()
    assert embedding_server.bodies[0]["input"] == ["code"]


async def test_nothing_is_asked_for_nothing(made, embedding_server):
    assert made().embed([]).shape == (0, embedding_server.dim)
    assert made().embed([""]).shape == (1, embedding_server.dim)
    async with httpx.AsyncClient() as client:
        assert await made().fetch(client, [" "]) == {}
    assert embedding_server.bodies == []


@pytest.mark.parametrize(
    ("max_chars", "sent"), [(9, "abcdefghi"), (5, "abchi"), (4, "abhi"), (1, "a")]
)
def test_of_a_long_text_both_ends_are_sent(made, embedding_server, max_chars, sent):
    made(max_chars=max_chars).embed(["abcdefghi"])
    assert embedding_server.bodies[0]["input"] == [sent]


def test_half_a_character_is_sent_as_a_question_mark(made, embedding_server):
    made().embed(["code \ud83d"])
    assert embedding_server.bodies[0]["input"] == ["code ?"]


def test_zeros_stay_zero_and_large_numbers_do_not_overflow(made, embedding_server):
    embedding_server.plan = [answer([0.0, 0.0], index=0), answer([3e300, 4e300])]
    assert not made(dim=2).embed(["nothing"]).any()
    np.testing.assert_allclose(made(dim=2).embed(["much"]), [[0.6, 0.8]], rtol=1e-6)


# ---- identity


def test_the_name_is_what_computes_not_where(embedding_server):
    embedder = HttpEmbedder.connect(section(embedding_server.url))
    elsewhere = HttpEmbedder.connect(section("http://127.0.0.1:9/v1", dim=embedding_server.dim))
    assert embedder.name == elsewhere.name == f"http-words-{embedding_server.dim}"
    assert embedder.dim == embedding_server.dim


def test_a_configured_dimension_needs_no_call_and_is_checked_at_every_answer(embedding_server):
    embedder = HttpEmbedder.connect(section(embedding_server.url, dim=3))
    assert embedding_server.bodies == []
    with pytest.raises(EmbeddingError, match=r"^embedder\.dim: 'words' gives vectors of 64 .* 3"):
        embedder.embed(TEXTS)


def test_the_configured_embedder(embedding_server):
    assert configured(None) is None
    for kind in ("default", "static", "lexical"):
        assert configured(LocalEmbedderSection(kind=kind)).name == load_named(kind).name
    assert configured(section(embedding_server.url)).name == "http-words-64"


def test_limits_of_the_configuration_reach_the_endpoint(embedding_server):
    embedder = HttpEmbedder.connect(section(embedding_server.url, max_chars=4, timeout_s=2.5))
    embedder.embed(["abcdefghi"])
    assert embedding_server.bodies[-1]["input"] == ["abhi"]
    assert embedder.timeout_s == 2.5


# ---- the key


def test_the_key_is_sent_and_never_shown(embedding_server, monkeypatch):
    monkeypatch.setenv("WORDS_KEY", KEY)
    asked = section(embedding_server.url, api_key_env="WORDS_KEY")
    embedder = HttpEmbedder.connect(asked)
    assert embedding_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(embedder)
    for status in (400, 401, 404):
        embedding_server.plan = [status]
        with pytest.raises(EmbeddingError) as refused:
            embedder.embed(TEXTS)
        # the server's answer quotes it
        assert KEY not in str(refused.value)


def test_without_a_key_none_is_sent(made, embedding_server):
    made().embed(TEXTS)
    assert "authorization" not in embedding_server.headers[0]


@pytest.mark.parametrize("key", ["", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_by_its_variable(embedding_server, monkeypatch, key):
    monkeypatch.setenv("WORDS_KEY", key)
    with pytest.raises(ConfigError, match=r"embedder.*WORDS_KEY") as refused:
        HttpEmbedder.connect(section(embedding_server.url, api_key_env="WORDS_KEY"))
    assert not key or key not in str(refused.value)


# ---- refusals, by the field to mend


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, "embedder.model or embedder.max_chars"),
        (401, "embedder.api_key_env"),
        (403, "embedder.api_key_env"),
        (404, "embedder.base_url or embedder.model"),
        (301, "embedder.base_url"),
    ],
)
def test_a_refusal_is_not_tried_again(made, embedding_server, waits, status, fields):
    embedding_server.plan = [status]
    with pytest.raises(EmbeddingError) as refused:
        made().embed(TEXTS)
    assert not isinstance(refused.value, EmbeddingUnavailableError)
    assert str(refused.value).startswith(f"{fields}: 127.0.0.1:")
    assert f"HTTP {status}" in str(refused.value)
    assert waits == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b"\xff",
        b"[]",
        b"{}",
        b'{"data": 3}',
        b'{"data": []}',
        b'{"data": [{"embedding": "AACAPw=="}, 1, 2]}',
        b'{"data": ' + b"[" * 100_000,
        answer(*[[1.0]] * 4),
        answer(*[[1.0]] * 2),
        answer(*[[1.0]] * 3, index=0),
        answer([1.0], [1.0, 2.0], [1.0]),
        answer([], [], []),
        answer(1.0, 2.0, 3.0),
        answer([[1.0]], [[2.0]], [[3.0]]),
        answer([10**400], [1], [1]),
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
def test_something_else_than_vectors_is_refused(made, embedding_server, body):
    embedding_server.plan = [body]
    with pytest.raises(EmbeddingError, match=r"^embedder\.base_url: .* did not answer with"):
        made(dim=0).embed(TEXTS)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
def test_vectors_that_are_no_numbers_are_refused(made, embedding_server, number):
    embedding_server.plan = [answer([1.0, number])]
    with pytest.raises(EmbeddingError, match=r"^embedder\.model: .* no numbers"):
        made(dim=2).embed(["code"])


def test_an_address_that_cannot_be_one_is_a_wrong_configuration():
    with pytest.raises(ConfigError, match=r"^embedder\.base_url"):
        HttpEmbedder.connect(section("http://127.0.0.1/v1\x00"))
    for url in ("http://127.0.0.1:port/v1", "http://169.254.169.254/", "http://me:key@127.0.0.1/"):
        with pytest.raises(ValidationError, match="ssrf_blocked"):
            section(url)


# ---- absence, overload, slowness


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_with_growing_waits(made, embedding_server, waits, status):
    embedding_server.plan = [status] * 3
    assert made().embed(TEXTS).any(axis=1).all()
    assert waits == list(TRAINING.delays_s)
    assert waits == sorted(waits)


@pytest.mark.parametrize("status", [429, 503])
def test_a_failure_that_does_not_pass_ends_after_the_last_wait(
    made, embedding_server, waits, status
):
    embedding_server.plan = [status] * 99
    with pytest.raises(EmbeddingUnavailableError, match=f"HTTP {status}"):
        made().embed(TEXTS)
    assert len(embedding_server.bodies) == len(TRAINING.delays_s) + 1


def test_the_wait_that_the_endpoint_asks_for_is_kept_within_reason(made, embedding_server, waits):
    embedding_server.plan, embedding_server.headers_out = [429], {"retry-after": "7"}
    made().embed(TEXTS)
    assert waits == [7.0]
    embedding_server.plan, embedding_server.headers_out = [429], {"retry-after": "86400"}
    with pytest.raises(EmbeddingUnavailableError):
        made().embed(TEXTS)
    assert waits == [7.0]


async def test_a_prompt_that_is_served_is_tried_twice_at_once_or_not_at_all(made, embedding_server):
    async with httpx.AsyncClient() as client:
        embedding_server.plan = [503]
        assert await made().fetch(client, ["code"])
        embedding_server.plan, embedding_server.headers_out = [429], {"retry-after": "7"}
        with pytest.raises(EmbeddingUnavailableError):
            await made().fetch(client, ["code"])
    assert len(embedding_server.bodies) == 3


async def test_silence_names_the_timeout(made, embedding_server, waits):
    embedding_server.plan = ["hang", "hang"]
    slow = made(timeout_s=0.2)
    with pytest.raises(EmbeddingUnavailableError, match=r"^embedder\.timeout_s: .*0\.2 s"):
        slow.embed(["code"])
    async with httpx.AsyncClient() as client:
        with pytest.raises(EmbeddingUnavailableError, match=r"^embedder\.timeout_s: .*0\.2 s"):
            await slow.fetch(client, ["code"])
    assert waits == []


def test_a_connection_that_breaks_is_tried_again(waits):
    body = answer([0.0, 2.0])
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for said in (b"", head.encode() + body):
                connection, _ = listener.accept()
                with connection:
                    heard = b""
                    while b"code" not in heard:
                        heard += connection.recv(65536)
                    connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert HttpEmbedder(url, "w", sleep=waits.append).embed(["code"]).tolist() == [[0.0, 1.0]]
        thread.join()
    assert waits == [TRAINING.delays_s[0]]


async def test_nobody_there_names_the_address_without_its_password(waits):
    nobody = HttpEmbedder("http://me:hidden@127.0.0.1:9/v1", "words", 3, sleep=waits.append)
    with pytest.raises(EmbeddingUnavailableError, match=r"base_url: no answer from 127\.0\.0\.1:9"):
        nobody.embed(["code"])
    async with httpx.AsyncClient() as client:
        with pytest.raises(EmbeddingUnavailableError) as refused:
            await nobody.fetch(client, ["code"])
    assert "hidden" not in str(refused.value)
    assert waits == []


# ---- policies whose prompts stay local

PRIVATE = {"default": Policy("default"), "private": Policy("private", local_only=True)}


def test_prompts_of_a_local_policy_go_to_no_endpoint_unless_it_is_local():
    with pytest.raises(ConfigError, match=r"^embedder\.local: policy 'private' has local_only"):
        check_local(section("http://h/v1"), PRIVATE)
    check_local(section("http://h/v1", local=True), PRIVATE)
    check_local(section("http://h/v1"), {"default": Policy("default")})
    check_local(LocalEmbedderSection(kind="default"), PRIVATE)
    check_local(None, PRIVATE)


def test_nor_do_those_of_a_tenant_that_keeps_its_requests_local():
    tenants = {
        "free": TenantSection(expert="a"),
        "acme": TenantSection(expert="b", local_only=True),
    }
    anybody = {"default": Policy("default")}
    with pytest.raises(ConfigError, match=r"^embedder\.local: tenant 'acme' has local_only"):
        check_local(section("http://h/v1"), anybody, tenants)
    check_local(section("http://h/v1", local=True), anybody, tenants)
    check_local(section("http://h/v1"), anybody, {"free": tenants["free"]})
