"""What `coe serve` says of how to ask it can be asked so."""

from pathlib import Path

import pytest

from coe.access.section import TlsSection
from coe.config import DATA, load_config
from coe.services.cli.serve import _announce, how_to_ask, own_address

CONFIG = load_config(DATA / "coe.yaml")
KEY = '-H "authorization: Bearer $COE_API_KEY" '


def test_a_gateway_that_asks_for_nothing_is_asked_without():
    told = how_to_ask(CONFIG, own_address(CONFIG))
    assert "COE_API_KEY" not in told
    assert "--url" not in told
    assert "--cacert" not in told


@pytest.mark.parametrize("tls", [None, TlsSection(certificate=Path("c.pem"), key=Path("k.pem"))])
def test_one_that_asks_for_keys_says_so(tls):
    asking = CONFIG.model_validate(CONFIG.model_dump() | {"access": {}})
    asking = asking.model_copy(update={"gateway": asking.gateway.model_copy(update={"tls": tls})})
    told = how_to_ask(asking, own_address(asking))
    assert KEY in told
    assert ("--cacert c.pem" in told) == (tls is not None)


def test_one_at_another_port_is_asked_there():
    told = how_to_ask(CONFIG, "http://127.0.0.1:9")
    assert "chat --url http://127.0.0.1:9 " in told
    assert "curl http://127.0.0.1:9/v1/chat/completions -H" in told


async def test_a_remark_that_fails_as_nobody_foresaw_is_told(caplog):
    await _announce(None, "http://gateway")
    assert [record.exc_info[0] for record in caplog.records] == [AttributeError]


def test_where_the_router_knows_nobody_an_expert_is_asked_by_name():
    told = how_to_ask(CONFIG, own_address(CONFIG), "mine")
    assert "chat --model mine 'What is" in told
    assert '"model": "mine"' in told
    assert '"model": "auto"' in how_to_ask(CONFIG, own_address(CONFIG))
