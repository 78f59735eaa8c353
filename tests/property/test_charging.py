"""Whatever happens to an answer, what is charged is what its receipt says, within the limits."""

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from coe.core import Message, Policy, Request
from coe.engine import Engine
from coe.errors import CoeError
from coe.errors.experts import ExpertRejectedError, ExpertUnavailableError
from coe.experts.stub import StubExpert
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.limits import Limit
from coe.mode import Mode

NAMES = ("a", "b", "c")
MODES = (
    None,
    Mode("vote", (NAMES,)),
    Mode("rank", (NAMES,)),
    Mode("cascade", (("a",), ("b", "c")), 1.0),
    Mode("fuse", (("a", "b"), ("c",))),
)
ERRORS = (ExpertUnavailableError, ExpertRejectedError)


def stub(name, error, error_after, n_tokens):
    made = None
    if error is ExpertRejectedError:
        made = ExpertRejectedError(name, "no", 500)
    elif error is not None:
        made = error(name, "gone")
    return StubExpert(
        name, ["x "] * n_tokens, 1e-9, made, error_after, sleep=lambda _: asyncio.sleep(0)
    )


behaviours = st.tuples(
    st.sampled_from((None, *ERRORS)), st.integers(0, 4), st.integers(1, 6)
)  # what it fails with, after so many pieces, of so many tokens
callers = st.tuples(
    st.booleans(),  # streamed
    st.none() | st.integers(0, 40),  # gives up after so many turns of the loop
    st.none() | st.integers(0, 5),  # reads so many pieces
)


def taken(receipt):
    """What the receipts of all who were asked say."""
    amounts = NOTHING
    for part in receipt.parts or (receipt,):
        tokens = part.prompt_tokens + part.output_tokens
        amounts = amounts.plus(Amounts.of(part.energy_j, part.cost_usd, tokens))
    return amounts


async def call(engine, stream, gives_up_after, n_pieces):
    """The reply, read as far as the caller cares to; ``None``: there was none, or nobody waited."""
    request = Request(
        (Message("user", "some code"),), Policy("p"), stream=stream, max_tokens=5, payload={}
    )
    answering = asyncio.create_task(engine.answer(request))
    if gives_up_after is not None:
        for _ in range(gives_up_after):
            await asyncio.sleep(0)
        answering.cancel()
    try:
        reply = await answering
    except (CoeError, asyncio.CancelledError):
        return None
    with contextlib.suppress(CoeError):
        pieces = reply.pieces()
        async with contextlib.aclosing(pieces):
            if n_pieces is None:
                async for _ in pieces:
                    pass
            else:
                for _ in range(n_pieces):
                    await anext(pieces, b"")
    await reply.close()
    return reply


@given(
    stubs=st.tuples(behaviours, behaviours, behaviours),
    mode=st.sampled_from(MODES),
    called=st.lists(callers, min_size=1, max_size=5),
    ceiling=st.integers(0, 3000),
)
def test_what_is_charged_is_what_receipts_say(
    make_spec, make_router, in_mode, memory_store, stubs, mode, called, ceiling
):
    specs = [
        make_spec(n, watts=w, usd_per_mtok_out=w) for n, w in zip(NAMES, (9, 5, 1), strict=True)
    ]
    router = make_router(specs, [[0.9, 0.6, 0.3]] * 3)
    if mode is not None:
        router = in_mode(router, mode)
    store = memory_store(Limit("house", "global", 3600, tokens=ceiling))
    made = {name: stub(name, *how) for name, how in zip(NAMES, stubs, strict=True)}
    engine = Engine(router, made, store=store)

    async def live():
        return await asyncio.gather(*(call(engine, *how) for how in called))

    replies = asyncio.run(live())
    assert not store.ledger.held
    ended = dict(store.ended)
    assert ended.keys() == store.holds.keys()
    assert len(ended) == len(store.ended)
    for name, took in ended.items():
        assert took.beyond(store.holds[name]) == NOTHING
    for balance in store.ledger.accounts.values():
        assert balance.spent.tokens <= ceiling
    for reply in filter(None, replies):
        own = [took for name, took in store.ended if name.startswith(reply.decision.decision_id)]
        charged = NOTHING
        for took in own:
            charged = charged.plus(took)
        assert charged == taken(reply.receipt).plus(Amounts(requests=1))
