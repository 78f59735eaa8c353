"""Between a pacer's numbers and the nouns of one request."""

from __future__ import annotations

from dataclasses import replace

from coe.core import Budget, Decision, Policy, Prices, Receipt
from coe.optimizer.options import AXES, Options
from coe.optimizer.pacing import Pacer


def running_prices(pacer: Pacer, now_s: float) -> Prices:
    """What period budgets make of a joule and a dollar right now."""
    prices = pacer.prices(now_s)
    return Prices(per_joule=prices.get("energy_j", 0.0), per_usd=prices.get("cost_usd", 0.0))


def steered(policy: Policy, running: Prices) -> Policy:
    """The policy with the running prices on top of its own."""
    own = policy.prices
    total = Prices(
        own.per_second + running.per_second,
        own.per_joule + running.per_joule,
        own.per_usd + running.per_usd,
    )
    return replace(policy, prices=total)


def observe(pacer: Pacer, now_s: float, decision: Decision, own: Prices) -> None:
    """Tell the pacer of a request that is answered, and of the experts that fitted its ceilings.

    An expert's worth is its quality less what it takes at ``own``, the prices of the policy.
    """
    fitting = [other.estimate for other in decision.alternatives if not other.violated]
    options = [decision.predicted, *fitting]
    rows = Options.of(options, options, Budget(), own)
    columns = [AXES.index(name) for name in pacer.resources]
    pacer.observe(now_s, rows.utility, rows.usage[:, columns])


def settle(pacer: Pacer, began_s: float, receipt: Receipt) -> None:
    """Book what an answer took."""
    pacer.settle(began_s, {name: getattr(receipt, name) for name in pacer.resources})
