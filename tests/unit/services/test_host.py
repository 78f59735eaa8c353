import asyncio
import os
import signal
import sys

import pytest

from coe.errors.files import WeightsError
from coe.services.host.child import _address_in
from coe.services.host.probe import Probe
from coe.services.host.process import EngineHost
from coe.services.host.watched import Watch

ENGINE = """
import http.server, json, sys, threading
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("chatter before the address")
print(json.dumps({{"address": f"http://127.0.0.1:{{server.server_port}}"}}), flush=True)
sys.stdin.read()
"""
QUICK = Watch(
    start_timeout_s=20, health_period_s=0.05, health_timeout_s=2, first_delay_s=0.01, n_crashes=3
)


def command(program):
    return lambda: [sys.executable, "-c", program]


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is watched is another process
            await asyncio.sleep(0.02)


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_ready_engine_has_an_address_and_ends_on_stop():
    states = []
    host = EngineHost(
        "e",
        command(ENGINE.format(status=200)),
        watch=QUICK,
        on_change=lambda h: states.append(h.state),
    )
    assert host.address is None
    await host.start()
    assert await host.settled() == "ready"
    assert host.address.startswith("http://127.0.0.1:")
    process_id = host.process_id
    await host.stop()
    assert host.address is None
    assert not alive(process_id)
    assert states == ["starting", "ready", "stopped"]


async def test_a_killed_engine_comes_back_with_another_process():
    host = EngineHost("e", command(ENGINE.format(status=200)), watch=QUICK)
    await host.start()
    await host.settled()
    first = host.process_id
    os.kill(first, signal.SIGKILL)
    await until(lambda: host.state == "ready" and host.process_id not in (None, first))
    assert host.n_starts == 2
    await host.stop()


async def test_an_unhealthy_engine_is_restarted():
    host = EngineHost("e", command(ENGINE.format(status=500)), watch=QUICK)
    await host.start()
    await until(lambda: host.n_starts >= 2)
    await host.stop()


async def test_a_crash_loop_ends_in_failed_with_the_engines_last_words():
    program = "import sys; sys.stderr.write('no such file: weights'); sys.exit(3)"
    host = EngineHost("e", command(program), watch=QUICK)
    await host.start()
    assert await host.settled() == "starting" or host.state == "failed"
    await until(lambda: host.state == "failed")
    assert host.n_starts == QUICK.n_crashes
    assert "no such file: weights" in host.reason
    await host.stop()


async def test_a_long_start_that_fails_is_a_crash_like_any_other(clock):
    def prepare():
        clock.seconds += 10 * QUICK.settled_s
        return [sys.executable, "-c", "raise SystemExit(1)"]

    host = EngineHost("e", prepare, watch=QUICK, now=clock, sleep=clock.sleep)
    await host.start()
    await until(lambda: host.state == "failed")
    assert host.n_starts == QUICK.n_crashes
    await host.stop()


async def test_weights_that_cannot_be_verified_fail_at_once():
    def prepare():
        raise WeightsError("altered")

    host = EngineHost("e", prepare, watch=QUICK)
    await host.start()
    assert await host.settled() == "failed"
    assert (host.n_starts, host.reason) == (0, "altered")
    await host.stop()


async def test_what_nobody_foresaw_fails_instead_of_starting_for_ever():
    def prepare():
        raise RuntimeError("a surprise")

    host = EngineHost("e", prepare, watch=QUICK)
    await host.start()
    async with asyncio.timeout(5.0):
        assert await host.settled() == "failed"
    assert host.reason == "nobody foresaw RuntimeError; gave up after 3 crashes in a row"
    await host.stop()
    assert host.state == "stopped"


async def test_checks_that_fail_as_nobody_foresaw_are_a_crash(monkeypatch):
    checking = Probe.healthy

    async def healthy(probe):
        return 1 / 0 if host.n_starts == 1 else await checking(probe)

    monkeypatch.setattr(Probe, "healthy", healthy)
    reasons = []
    host = EngineHost(
        "e",
        command(ENGINE.format(status=200)),
        watch=QUICK,
        on_change=lambda h: reasons.append(h.reason),
    )
    await host.start()
    await until(lambda: host.n_starts >= 2 and host.state == "ready")
    assert "nobody foresaw ZeroDivisionError" in reasons
    await host.stop()


async def test_whoever_fails_to_be_told_changes_nothing():
    host = EngineHost("e", command(ENGINE.format(status=200)), watch=QUICK, on_change=None)
    await host.start()
    assert await host.settled() == "ready"
    await host.stop()
    assert host.state == "stopped"


async def test_an_engine_that_never_announces_itself_is_ended():
    watch = Watch(start_timeout_s=0.3, first_delay_s=0.01, n_crashes=1)
    host = EngineHost("e", command("import sys; sys.stdin.read()"), watch=watch)
    await host.start()
    await until(lambda: host.state == "failed")
    assert "did not start" in host.reason
    assert host.process_id is None
    await host.stop()


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""


async def test_an_engine_that_will_not_end_is_ended_though_stop_comes_meanwhile(tmp_path):
    kept = tmp_path / "pid"
    watch = Watch(start_timeout_s=2.0, first_delay_s=0.01)
    host = EngineHost("e", lambda: [sys.executable, "-c", STUBBORN, str(kept)], watch=watch)
    await host.start()
    await until(lambda: kept.exists() and kept.read_text() and host.process_id is None)
    process_id = int(kept.read_text())
    assert alive(process_id)
    await host.stop()
    assert not alive(process_id)


async def test_stopping_twice_or_unstarted_is_harmless():
    host = EngineHost("e", command(""), watch=QUICK)
    await host.stop()
    await host.stop()
    assert host.state == "stopped"


@pytest.mark.parametrize(("crashes", "delay_s"), [(1, 0.25), (2, 0.5), (4, 2.0), (20, 30.0)])
def test_backoff_doubles_up_to_its_limit(crashes, delay_s):
    assert Watch().delay_s(crashes) == delay_s


@pytest.mark.parametrize("line", ["{not json", "{}", '{"address": 1'])
async def test_an_engine_that_announces_nonsense_fails_instead_of_starting_for_ever(line):
    program = f"print({line!r}, flush=True); import sys; sys.stdin.read()"
    host = EngineHost("e", command(program), watch=QUICK)
    await host.start()
    await until(lambda: host.state == "failed")
    assert "address" in host.reason
    await host.stop()


async def test_a_chatty_engine_is_read_along():
    chatter = ENGINE.format(status=200).replace(
        "sys.stdin.read()", "sys.stdout.write('x' * 1_000_000); sys.exit(0)"
    )
    host = EngineHost("e", command(chatter), watch=QUICK)
    await host.start()
    # blocked in its write it would neither end nor be started again
    await until(lambda: host.n_starts >= 2)
    await host.stop()


async def test_a_proxy_of_the_environment_is_not_asked_for_health(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    host = EngineHost("e", command(ENGINE.format(status=200)), watch=QUICK)
    await host.start()
    await host.settled()
    await asyncio.sleep(QUICK.health_period_s * (QUICK.n_failed_checks + 3))
    assert (host.state, host.n_starts) == ("ready", 1)
    await host.stop()


def test_what_an_engine_says_first_may_be_anything():
    assert _address_in(b'{"address": ' * 5000) is None
