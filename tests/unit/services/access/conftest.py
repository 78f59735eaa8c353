"""A gateway over stub experts that asks for keys, and keys of every kind."""

import time
from dataclasses import dataclass, field

import httpx
import pytest

from coe.access.failures import Failures
from coe.access.keys import digest_of, minted
from coe.access.rates import RateMeter
from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.personal import Personal, personal
from coe.router import Router
from coe.services.access.keyfile import KeyFile, KeyRecord
from coe.services.access.keyring import Keyring
from coe.services.access.porter import Porter
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

PEPPER = b"p" * 32
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
NOW_S = 1_000_000.0


@dataclass
class House:
    """A gateway that asks for keys, its file of keys, and a client of it."""

    gateway: Gateway
    file: KeyFile
    entropy: list = field(default_factory=lambda: [0])

    def key(self, **more):
        """A new key with these fields of its record."""

        def counted(n):
            self.entropy[0] += 1
            return self.entropy[0].to_bytes(n, "big")

        key_id, shown = minted(counted)
        digest = digest_of(PEPPER, shown).hex()
        self.file.add(KeyRecord(id=key_id, digest=digest, created_s=NOW_S, **more))
        self.gateway.porter.keyring.open()
        return shown

    def client(self, **more):
        transport = httpx.ASGITransport(self.gateway.app(), raise_app_exceptions=False, **more)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
def house(tmp_path, clock, monkeypatch):
    """Of two stub experts, the larger of which is the tenant personal's own."""
    monkeypatch.setenv("COE_ADMIN_TOKEN", "the operator's token")
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    stubs = {name: StubExpert(name, tokens=["I", " am ", name]) for name in (SMALL, LARGE)}
    tenants = {"personal": Personal(LARGE)}
    engine = Engine(personal(router, tenants), stubs)
    runtime = Runtime(
        config,
        load_policies(config.budgets),
        engine,
        Fleet(specs=config.specs, experts=stubs, hosts={}),
        tenants=tenants,
    )
    file = KeyFile(tmp_path / "keys.json", PEPPER)
    porter = Porter(
        Keyring(file, now=clock),
        RateMeter(clock),
        Failures(60.0, clock),
        "the operator's token",
        wall=lambda: NOW_S,
    )
    porter.keyring.open()
    return House(Gateway(runtime, porter=porter), file)


@pytest.fixture
def shared(house):
    """The same, but that both experts are everybody's."""
    router = Router.load(
        house.gateway.runtime.config.artefact, list(house.gateway.runtime.fleet.specs.values())
    )
    runtime = house.gateway.runtime
    engine = Engine(router, runtime.fleet.experts)
    house.gateway = Gateway(
        Runtime(runtime.config, runtime.policies, engine, runtime.fleet),
        porter=house.gateway.porter,
    )
    return house


@pytest.fixture
def wall():
    """Seconds since 1970 by which keys of the house expire."""
    assert time.time() > NOW_S
    return NOW_S
