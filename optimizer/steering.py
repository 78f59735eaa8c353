"""Between a pacer's numbers and the nouns of one request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coe.core import Budget, Policy, Prices
from coe.decision import Decision, Receipt
from coe.optimizer.options import AXES, Options
from coe.optimizer.pacing import Allowance, Pacer


def running_prices(pacer: Pacer, now_s: float) -> Prices:
    """What period budgets make of a joule and a dollar right now."""
    prices = pacer.prices(now_s)
    return Prices(per_joule=prices.get("energy_j", 0.0), per_usd=prices.get("cost_usd", 0.0))


def steered(policy: Policy, running: Prices) -> Policy:
    """The policy with the running prices on top of its own."""
    return replace(policy, prices=sum_of(policy.prices, running))


def declined(pacer: Pacer, decision: Decision, own: Prices) -> Allowance | None:
    """The allowance that declines what was decided; ``None``: it may be answered.

    One that may decline does so where the expert's quality is worth less than what it takes at
    ``own``, the prices of the policy, and at the running ones.
    """
    predicted = [decision.predicted]
    return decliner(
        pacer, Options.of(predicted, predicted, Budget(), sum_of(own, decision.running))
    )


def decliner(pacer: Pacer, chosen: Options) -> Allowance | None:
    """As `declined`, of a choice that is an option of its own, at all its prices."""
    if chosen.utility[0] >= 0:
        return None
    return pacer.decliner(
        {name: float(chosen.paid[0, AXES.index(name)]) for name in pacer.resources}
    )


def observe(pacer: Pacer, now_s: float, decision: Decision, own: Prices) -> None:
    """Tell the pacer of a request that is answered, and of the experts that fitted its ceilings.

    An expert's worth is its quality less what it takes at ``own``, the prices of the policy. No
    answer is an option too where an allowance may decline.
    """
    fitting = [other.estimate for other in decision.alternatives if not other.violated]
    options = [decision.predicted, *fitting]
    note(pacer, now_s, Options.of(options, options, Budget(), own))


def note(pacer: Pacer, now_s: float, fitting: Options) -> None:
    """As `observe`, of options that fit their ceilings, at the prices of the policy alone."""
    columns = [AXES.index(name) for name in pacer.resources]
    worth, usage = fitting.utility, fitting.paid[:, columns]
    if any(allowance.may_decline for allowance in pacer.allowances):
        worth, usage = np.append(worth, 0.0), np.pad(usage, [(0, 1), (0, 0)])
    pacer.observe(now_s, worth, usage)


def settle(pacer: Pacer, began_s: float, receipt: Receipt) -> None:
    """Book what an answer took."""
    pacer.settle(began_s, {name: getattr(receipt, name) for name in pacer.resources})


def sum_of(one: Prices, other: Prices) -> Prices:
    """Both prices together."""
    return Prices(
        one.per_second + other.per_second,
        one.per_joule + other.per_joule,
        one.per_usd + other.per_usd,
    )
