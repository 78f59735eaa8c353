"""Errors: one tree, and each survives the way between two processes."""

import inspect
import pkgutil
from importlib import import_module
from multiprocessing.reduction import ForkingPickler

import pytest

from coe import errors
from coe.errors import CoeError
from coe.errors.callers import (
    BudgetExhaustedError,
    CredentialsError,
    ForbiddenError,
    InfeasibleError,
    RateLimitError,
    RequestError,
    UnknownExpertError,
)
from coe.errors.experts import (
    ExpertError,
    ExpertLostError,
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnaskedError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.errors.files import (
    ArtefactError,
    ConfigError,
    MeasurementsError,
    OutcomesError,
    PlanError,
    SimulationError,
    WeightsError,
)
from coe.errors.gateway import (
    EmbeddingError,
    EmbeddingUnavailableError,
    EndingError,
    FleetError,
    GatewayError,
    LedgerConflictError,
    LedgerError,
    LedgerUnavailableError,
    MeterError,
    OverdueError,
    OverloadedError,
)

ERRORS = [
    CoeError("broken"),
    ConfigError("coe.yaml:3: wrong"),
    WeightsError("no weights"),
    ArtefactError("altered"),
    MeasurementsError("row 3: ttft_ms: empty"),
    OutcomesError("no score"),
    PlanError("plan.json: not a readable plan"),
    FleetError("no Ray cluster at 'auto'"),
    LedgerError("ledger.sqlite: in use"),
    LedgerConflictError("a", "was settled before, with other figures"),
    LedgerUnavailableError("the disk is full"),
    MeterError("rapl", "may not be read", "sudo chmod a+r energy_uj"),
    SimulationError("trace.csv: no rows"),
    EmbeddingError("embedder.dim: the vectors have 3 numbers"),
    EmbeddingUnavailableError("embedder.base_url: nobody there"),
    RequestError("too small", "coe.budget.energy_j", "too_small"),
    UnknownExpertError("no expert is called 'x'", "coe.experts.deny", "gone"),
    InfeasibleError("no", "coe.budget.ttft_ms", "none", {"ttft_ms": 3.0, "energy_j": None}),
    BudgetExhaustedError("day is spent", "limits.day.tokens", "spent", 7),
    GatewayError("no further"),
    OverloadedError("512 requests are being answered", 3),
    OverdueError("it took 600 s"),
    EndingError("it is being ended"),
    CredentialsError("no key", None, "missing_api_key"),
    ForbiddenError("not yours", "model", "model_not_allowed"),
    RateLimitError("too often", None, "auth_rate_limited", 7),
    ExpertError("a", "hiccup"),
    ExpertUnavailableError("a", "not started"),
    ExpertLostError("a", "the answer broke off"),
    ExpertUnaskedError("a", "its engine is not running"),
    ExpertOverloadedError("a", "its queue is full", 3.5),
    ExpertTimeoutError("a", "silent for 3 s"),
    ExpertRejectedError("a", "answered HTTP 418", 418, b"teapot", "7"),
    ExpertUntrustedError("a", "points elsewhere", "upstream_redirect"),
]


def every_error():
    names = [info.name for info in pkgutil.iter_modules(errors.__path__, "coe.errors.")]
    modules = [errors, *map(import_module, names)]
    found = {e for module in modules for _, e in inspect.getmembers(module, inspect.isclass)}
    return {error for error in found if issubclass(error, BaseException)}


def test_each_error_class_has_an_example_here():
    assert every_error() == {type(error) for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_all_its_attributes(error):
    copy = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def test_attributes_are_what_the_constructor_was_given():
    infeasible = InfeasibleError("no", "p", "c", {"energy_j": 1.0})
    assert (infeasible.message, infeasible.param, infeasible.code) == ("no", "p", "c")
    assert infeasible.needed == {"energy_j": 1.0}
    rejected = ExpertRejectedError("a", "r", 429, b"slow down")
    assert (rejected.expert_id, rejected.reason) == ("a", "r")
    assert (rejected.status, rejected.body) == (429, b"slow down")


def test_attempts_count_what_reached_somebody():
    assert ExpertTimeoutError("a", "silent").n_attempts == 1
    assert ExpertOverloadedError("a", "full").n_attempts == 0


def test_defaults_say_what_clients_match_on():
    assert (RequestError("m").param, RequestError("m").code) == (None, "invalid_value")
    unknown = UnknownExpertError("m")
    assert (unknown.param, unknown.code) == ("model", "model_not_found")
    assert InfeasibleError("m").code == "budget_infeasible"
    assert InfeasibleError("m").needed == {}


def test_the_message_is_the_sentence_alone():
    assert str(InfeasibleError("no expert fits", "p", needed={"energy_j": 1.0})) == "no expert fits"
    assert str(ExpertTimeoutError("a", "silent")) == "expert 'a': silent"
    assert str(MeterError("rapl", "not here")) == "rapl: not here"
    assert str(MeterError("rapl", "may not be read", "run chmod")) == (
        "rapl: may not be read: run chmod"
    )


def test_errors_form_one_tree():
    parents = {error.__name__: error.__base__.__name__ for error in every_error()}
    assert parents == {
        "CoeError": "Exception",
        **dict.fromkeys(
            [
                "ConfigError",
                "WeightsError",
                "ArtefactError",
                "MeasurementsError",
                "OutcomesError",
                "FleetError",
                "PlanError",
                "SimulationError",
            ],
            "CoeError",
        ),
        **dict.fromkeys(
            ["LedgerError", "MeterError", "EmbeddingError", "RequestError", "ExpertError"],
            "CoeError",
        ),
        "EmbeddingUnavailableError": "EmbeddingError",
        **dict.fromkeys(["LedgerConflictError", "LedgerUnavailableError"], "LedgerError"),
        "GatewayError": "CoeError",
        **dict.fromkeys(["OverloadedError", "OverdueError", "EndingError"], "GatewayError"),
        **dict.fromkeys(
            ["UnknownExpertError", "InfeasibleError", "BudgetExhaustedError"], "RequestError"
        ),
        **dict.fromkeys(["CredentialsError", "ForbiddenError", "RateLimitError"], "RequestError"),
        **dict.fromkeys(
            [
                "ExpertUnavailableError",
                "ExpertTimeoutError",
                "ExpertRejectedError",
                "ExpertUntrustedError",
            ],
            "ExpertError",
        ),
        "ExpertLostError": "ExpertUnavailableError",
        "ExpertUnaskedError": "ExpertUnavailableError",
        "ExpertOverloadedError": "ExpertUnaskedError",
    }
