"""A gateway over stub experts."""

import httpx
import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"


@pytest.fixture
def stubs():
    return {name: StubExpert(name, tokens=["I", " am ", name]) for name in (SMALL, LARGE)}


@pytest.fixture
def told():
    """Exchanges that the gateway told of."""
    return []


@pytest.fixture
def gateway(stubs, told):
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    fleet = Fleet(specs=config.specs, experts=stubs, hosts={})
    policies = load_policies(config.budgets)
    return Gateway(Runtime(config, policies, Engine(router, stubs), fleet), tell=[told.append])


@pytest.fixture
def client(gateway):
    transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
def value(gateway):
    """The present value of a sample."""
    return lambda name, **labels: gateway.metrics.registry.get_sample_value(name, labels)
