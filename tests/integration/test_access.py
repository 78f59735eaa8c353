"""Keys, their limits and TLS: a real gateway, the real command line, the real OpenAI client."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import httpx
import openai
import pytest
import trustme

from coe.config import DATA, load_config
from coe.routers.outcomes import Outcomes

OUTCOMES = DATA.resolve().parents[1] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: budgets.yaml
access: {{keys: keys.json}}
devices:
  h100: {{ttft_b_ms: 0.1, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}}
experts:
  - {{id: {SMALL}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
  - {{id: {LARGE}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
"""
PROMPTS = Outcomes.read(OUTCOMES).prompts[:10]
AGES_S = 10**9
# what a busy machine adds to a second
BUSY_S = 1.0


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """The path of a configuration that asks for keys, with more in it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COE_KEY_PEPPER", raising=False)

    def build(more="", limits=""):
        (tmp_path / "budgets.yaml").write_text(f"policies: {{default: {{}}}}\n{limits}")
        path = tmp_path / "coe.yaml"
        path.write_text(CONFIG + more)
        return path

    return build


def make(coe, path, *options):
    """A key made by the command line: its id and the key."""
    done = coe("keys", "create", "--config", path, "--json", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return document["id"], document["key"]


@pytest.fixture
def made(coe_here):
    """`make`, in this process."""
    return partial(make, coe_here)


def caller(gateway, key, **more):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, **more)


def ask(client, prompt=PROMPTS[0], model="auto", **more):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def test_a_key_holds_in_a_gateway_that_runs_until_it_is_revoked(serve, configured, coe, eventually):
    path = configured()
    with serve(load_config(path)) as gateway:
        key_id, key = make(coe, path, "--name", "jobs", "--models", SMALL, "--tenant", "acme")
        with caller(gateway, key) as client:
            eventually(lambda: _works(client), "the new key", 1.0 + BUSY_S)
            assert ask(client).model == SMALL
            with pytest.raises(openai.PermissionDeniedError) as forbidden:
                ask(client, model=LARGE)
            assert (forbidden.value.code, forbidden.value.param) == ("model_not_allowed", "model")
            assert "".join(
                c.choices[0].delta.content or "" for c in ask(client, stream=True) if c.choices
            )
            listed = coe("keys", "list", "--config", path)
            assert key_id in listed.stdout
            assert key not in listed.stdout + listed.stderr
            assert coe("keys", "revoke", key_id, "--config", path).returncode == 0
            eventually(lambda: not _works(client), "the end of the key", 1.0 + BUSY_S)
        rows = json.loads(coe("keys", "list", "--config", path, "--json").stdout)["keys"]
        assert [(row["id"], row["state"], row["models"]) for row in rows] == [
            (key_id, "revoked", [SMALL])
        ]


def _works(client):
    try:
        client.models.list()
    except openai.AuthenticationError:
        return False
    return True


def test_without_a_right_key_the_client_says_so(serve, configured):
    with serve(load_config(configured())) as gateway:
        for key in ("wrong", "coe-" + "0" * 12 + "-" + "x" * 32):
            with caller(gateway, key) as client, pytest.raises(openai.AuthenticationError) as no:
                ask(client)
            assert no.value.code == "invalid_api_key"
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        assert httpx.get(f"{gateway.url}/readyz").json() == {"status": "ready"}
        assert httpx.get(f"{gateway.url}/metrics").status_code == 401


def test_the_limit_of_a_key_holds_for_it_alone(serve, configured, made):
    limits = f"limits: {{each: {{scope: key, window_s: {AGES_S}, requests: 2}}}}\n"
    path = configured("store: {kind: sqlite, path: ledger.sqlite}\n", limits)
    one, other = made(path), made(path)
    with serve(load_config(path)) as gateway:
        for key_id, key in (one, other):
            with caller(gateway, key) as client:
                assert ask(client).choices
                assert list(ask(client, PROMPTS[1], stream=True))
                with pytest.raises(openai.RateLimitError) as refused:
                    ask(client, PROMPTS[2])
                assert refused.value.code == "budget_exhausted"
                assert refused.value.type == "insufficient_quota"
            holders = {a.holder: b for a, b in _accounts(gateway).items()}
            assert holders[key_id].spent.requests + holders[key_id].held.requests == 2
        assert set(holders) == {one[0], other[0]}


def test_a_limit_of_one_key_by_its_id_leaves_others_alone(serve, configured, made):
    path = configured()
    poor, rich = made(path), made(path)
    limits = (
        f"limits: {{trial: {{scope: key, of: {poor[0]!r}, window_s: {AGES_S}, requests: 1}}}}\n"
    )
    path = configured("store: {kind: sqlite, path: ledger.sqlite}\n", limits)
    with serve(load_config(path)) as gateway:
        with caller(gateway, poor[1]) as client:
            assert ask(client).choices
            with pytest.raises(openai.RateLimitError):
                ask(client, PROMPTS[1])
        with caller(gateway, rich[1]) as client:
            assert all(ask(client, prompt).choices for prompt in PROMPTS[:3])


def _accounts(gateway):
    return gateway.runtime.engine.store.books.ledger.accounts


def test_a_rate_is_told_to_the_client(serve, configured, made):
    path = configured()
    _, key = made(path, "--requests-per-minute", "1")
    with serve(load_config(path)) as gateway, caller(gateway, key) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": PROMPTS[0]}]
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as refused:
            ask(client)
        assert refused.value.code == "rate_limit_exceeded"
        assert 55 <= int(refused.value.response.headers["retry-after"]) <= 60


@pytest.fixture
def authority(tmp_path):
    """A certificate authority, its file, and a certificate of this machine."""
    found = trustme.CA()
    found.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = found.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    return found


TLS = "gateway: {tls: {certificate: server.pem, key: server.key%s}}\n"


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_https_with_the_openai_client(serve, configured, made, authority, coe_here, monkeypatch):
    path = configured(TLS % "")
    _, key = made(path)
    with serve(load_config(path)) as gateway:
        assert gateway.url.startswith("https://127.0.0.1:")
        with (
            httpx.Client(verify=trusting(authority)) as http,
            caller(gateway, key, http_client=http) as client,
        ):
            assert ask(client).choices
            assert list(ask(client, stream=True))
        with (
            caller(gateway, key) as client,
            pytest.raises(openai.APIConnectionError),
        ):
            ask(client)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(gateway.url.replace("https", "http") + "/healthz")
        monkeypatch.setenv("COE_API_KEY", key)
        monkeypatch.setenv("SSL_CERT_FILE", str(path.parent / "ca.pem"))
        chatted = coe_here("chat", PROMPTS[0], "--url", gateway.url, "--config", path, "--json")
        assert chatted.returncode == 0, chatted.stderr
        assert json.loads(chatted.stdout)["answer"]


@pytest.mark.parametrize(
    ("version", "agreed"),
    [("TLSv1", None), ("TLSv1_1", None), ("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_tls_is_refused(serve, configured, authority, version, agreed):
    context = trusting(authority)
    # this machine's OpenSSL would not even try
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with serve(load_config(configured(TLS % ""))) as gateway:
        address = ("127.0.0.1", httpx.URL(gateway.url).port)
        with socket.create_connection(address, timeout=10) as plain:
            if agreed is None:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(plain, server_hostname="127.0.0.1")
            else:
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as private:
                    assert private.version() == agreed


def test_with_a_client_ca_only_its_certificates_are_let_in(serve, configured, made, authority):
    path = configured(TLS % ", client_ca: ca.pem")
    _, key = made(path)
    with serve(load_config(path)) as gateway:
        with (
            httpx.Client(verify=trusting(authority)) as nobody,
            pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
        ):
            nobody.get(f"{gateway.url}/healthz")
        stranger = trusting(authority)
        trustme.CA().issue_cert("jobs").configure_cert(stranger)
        with (
            httpx.Client(verify=stranger) as http,
            pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
        ):
            http.get(f"{gateway.url}/healthz")
        known = trusting(authority)
        authority.issue_cert("jobs").configure_cert(known)
        with (
            httpx.Client(verify=known) as http,
            caller(gateway, key, http_client=http) as client,
        ):
            assert ask(client).choices


@pytest.mark.parametrize("spoilt", ["absent", "no certificate", "another's key"])
def test_a_certificate_that_will_not_do_keeps_it_from_starting(
    configured, authority, coe_here, tmp_path, spoilt
):
    if spoilt == "absent":
        (tmp_path / "server.pem").unlink()
    elif spoilt == "no certificate":
        (tmp_path / "server.pem").write_text("none")
    else:
        trustme.CA().issue_cert("other").private_key_pem.write_to_path(tmp_path / "server.key")
    done = coe_here("serve", "--config", configured(TLS % ""), "--port", "0")
    assert done.returncode == 2
    said = "server.pem: No such file" if spoilt == "absent" else "certificate and key"
    assert "error: gateway.tls: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


OPEN = CONFIG.replace("access: {keys: keys.json}\n", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_address_without_keys_is_refused(configured, coe_here, host):
    path = configured()
    path.write_text(OPEN)
    done = coe_here("serve", "--config", path, "--host", host, "--port", "0")
    assert done.returncode == 2
    assert "asks for no keys" in done.stderr
    assert "coe keys create" in done.stderr


@contextmanager
def running(path, *options, **environment):
    """A gateway process that answers: its address, and all that it has said when it has ended."""
    command = [sys.executable, "-m", "coe", "serve", "--port", "0", "--config", str(path), *options]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment
    ) as process:
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith(b"ready"):
                    break
            url = re.search(rb"listening on (http\S+)/v1", b"".join(said))[1].decode()
            yield url.replace("0.0.0.0", "127.0.0.1"), said
        finally:
            process.send_signal(signal.SIGINT)
            said.append(process.communicate(timeout=30)[0])
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "options", "remark", "status"),
    [
        (OPEN, ["--without-keys"], b"whoever reaches 0.0.0.0 may ask", 200),
        (CONFIG, [], b"keys come to 0.0.0.0 as they are", 401),
    ],
)
def test_an_open_address_is_told_of(configured, text, options, remark, status):
    path = configured()
    path.write_text(text)
    with running(path, "--host", "0.0.0.0", *options) as (url, said):
        assert remark in b"".join(said)
        assert httpx.get(f"{url}/v1/models").status_code == status
