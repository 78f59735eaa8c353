"""The shipped gateway over the stubs that a module names by the shipped experts' ids."""

import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime


@pytest.fixture
def gateway(stubs):
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    fleet = Fleet(specs=config.specs, experts=stubs, hosts={})
    policies = load_policies(config.budgets)
    return Gateway(Runtime(config, policies, Engine(router, stubs), fleet))
