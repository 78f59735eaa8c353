"""A compound-AI router: the best expected answer inside latency, energy and money budgets.

>>> import coe
>>> router = coe.Router.load("artefact")                      # doctest: +SKIP
>>> router.decide(request, coe.Budget(energy_j=5.0)).why      # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coe.core import Budget, ExpertSpec, Message, Policy, Prices, Request
from coe.decision import Decision, Receipt
from coe.device import DeviceProfile
from coe.errors import CoeError

if TYPE_CHECKING:
    from coe.router import Router

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "CoeError",
    "Decision",
    "DeviceProfile",
    "ExpertSpec",
    "Message",
    "Policy",
    "Prices",
    "Receipt",
    "Request",
    "Router",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """`Router` on first use, so that ``import coe`` stays light."""
    if name == "Router":
        return importlib.import_module("coe.router").Router
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
