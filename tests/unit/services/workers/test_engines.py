"""Engines that somebody else runs: as they were told of, and no others."""

import pytest

from coe.errors.files import ConfigError
from coe.kinds import EmbeddedSection
from coe.services.workers.engines import Engines

SECTION = EmbeddedSection(id="small", kind="embedded", weights="w", device="here")


async def test_an_engine_is_as_it_was_told(make_spec):
    engines, said = Engines(), []
    engines.hear("small", "starting", "", None, 1)
    host = engines.open_host(SECTION, make_spec(), on_change=said.append)
    assert (host.state, host.address) == ("starting", None)
    for _ in range(2):
        engines.hear("small", "ready", "", "http://127.0.0.1:9", 1)
    await host.start()
    assert (await host.settled(), host.address) == ("ready", "http://127.0.0.1:9")
    engines.hear("small", "starting", "crashed", None, 2)
    assert (host.state, host.address) == ("starting", None)
    # who runs it has said so: nobody hears of it twice
    assert said == []


def test_new_and_changed_engines_take_a_restart(make_spec):
    engines = Engines()
    engines.hear("small", "ready", "", "http://127.0.0.1:9", 1)
    first = engines.open_host(SECTION, make_spec())
    assert engines.open_host(SECTION, make_spec()) is first
    with pytest.raises(ConfigError, match="restart"):
        engines.open_host(SECTION.model_copy(update={"weights": "other"}), make_spec())
    with pytest.raises(ConfigError, match="restart"):
        engines.open_host(SECTION.model_copy(update={"id": "new"}), make_spec())
