"""The OpenAPI document, and requests made from it: whatever is asked, answers keep to it."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime
from coe.services.wire.openapi import openapi_document


def served():
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    stubs = {name: StubExpert(name, tokens=["I", " am ", name]) for name in config.specs}
    fleet = Fleet(specs=config.specs, experts=stubs, hosts={})
    policies = load_policies(config.budgets)
    return Gateway(Runtime(config, policies, Engine(router, stubs), fleet)).app()


APP = served()
DOCUMENT = schemathesis.openapi.from_asgi("/openapi.json", APP)


def keeping_to_it(label):
    """The test of an operation: whatever is asked, the answer is one that the document knows."""

    @DOCUMENT.include(name=label).parametrize()
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    def keeps(case):
        # some rules no schema says: a user must have asked, a call have an answer, an expert be
        # able
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    return keeps


# each under a name of its own: of tests that share one, pytest-xdist runs the first
globals().update(
    {
        f"test_answers_keep_to_the_document[{label}]": keeping_to_it(label)
        for label in (found.ok().label for found in DOCUMENT.get_all_operations())
    }
)


def test_every_route_but_the_operators_is_in_it():
    routes = {r.path.replace(":path", "") for r in APP.routes if not r.path.startswith("/admin")}
    assert openapi_document(()).get("paths", {}).keys() == routes


def test_fields_that_experts_take_are_in_it():
    schemas = openapi_document({"top_k"})["components"]["schemas"]
    assert "top_k" in schemas["ChatBody"]["properties"]
    assert "top_k" not in schemas["EmbeddingBody"]["properties"]
    assert schemas["ChatBody"]["additionalProperties"] is False
