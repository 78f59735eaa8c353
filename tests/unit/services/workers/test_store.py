"""The ledger as a worker asks for it: what may have been granted is given back."""

import asyncio

import pytest

from coe.errors.gateway import GatewayError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Payer
from coe.services.workers.store import ToldStore


class Failing:
    """A line at whose end every question fails with this."""

    def __init__(self, error):
        self.error, self.told = error, []

    async def ask(self, *words):
        raise self.error

    def tell(self, *words):
        self.told.append(words)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (GatewayError("the other process has failed: KeyError"), LedgerUnavailableError),
        (asyncio.CancelledError(), asyncio.CancelledError),
    ],
)
async def test_what_may_have_been_granted_when_the_question_fails_is_given_back(error, raised):
    line = Failing(error)
    with pytest.raises(raised):
        await ToldStore(line).reserve("a", Payer("", ""), Amounts(requests=1))
    assert line.told == [("release", "a")]
