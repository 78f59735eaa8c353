"""Collecting outcomes from stub experts: nothing is asked twice, nothing is lost."""

import json

import numpy as np
import pytest

from coe.core import ExpertSpec
from coe.device import DeviceProfile
from coe.errors.experts import ExpertUnavailableError
from coe.errors.files import OutcomesError
from coe.experts.stub import StubExpert
from coe.retrieval import Retriever
from coe.routers.outcomes import Outcomes
from coe.routers.retrieve import Index, Passage
from coe.services.collect import collect
from coe.services.fleet import Fleet

PROFILE = DeviceProfile("d", 0, 0, 100.0, 10.0, 10.0, 10.0)
PROMPTS = [
    {
        "prompt_id": f"p{n}",
        "prompt": f"Say {n}.",
        "split": "train",
        "check": {"kind": "contains_any", "items": ["hello"]},
    }
    for n in range(3)
]


def fleet(**stubs):
    return Fleet({name: ExpertSpec(name, PROFILE) for name in stubs}, stubs, {})


async def test_every_expert_is_asked_every_prompt_and_scored(tmp_path):
    right, wrong = StubExpert("right", tokens=["Hello", " you"]), StubExpert("wrong", ["Bye"])
    out = tmp_path / "deep" / "outcomes.parquet"
    seen = []
    remarks = await collect(fleet(right=right, wrong=wrong), PROMPTS, out, progress=seen.append)
    table = Outcomes.read(out)
    assert table.expert_ids == ("right", "wrong")
    assert table.scores.tolist() == [[1.0, 0.0]] * 3
    # 0.1 s of prefill and two tokens of 0.1 s each, at 10 W
    assert table.energy_j[:, 0].tolist() == pytest.approx([3.0] * 3)
    assert (remarks, sorted(seen)) == ([], ["right"] * 3 + ["wrong"] * 3)
    assert list(out.parent.iterdir()) == [out]


async def test_after_an_interruption_only_what_is_missing_is_asked(tmp_path):
    out = tmp_path / "outcomes.parquet"
    stub = StubExpert("e", error=ExpertUnavailableError("e", "down"))
    remarks = await collect(fleet(e=stub), PROMPTS, out)
    assert len(remarks) == 4
    stub.error = None
    await collect(fleet(e=stub), PROMPTS[:2], tmp_path / "outcomes.parquet")
    journal = tmp_path / "outcomes.parquet.journal.jsonl"
    assert not journal.exists()
    answered = len(stub.requests)
    row = {"prompt_id": "p0", "key": "of another text", "expert_id": "e", "answer": "x"}
    journal.write_text(json.dumps(row) + "\n{cut in tw")
    await collect(fleet(e=stub), PROMPTS, out)
    assert len(stub.requests) - answered == 3


async def test_the_journal_spares_the_experts(tmp_path):
    out = tmp_path / "outcomes.parquet"
    steady, shaky = StubExpert("a"), StubExpert("b", error=ExpertUnavailableError("b", "down"))
    await collect(fleet(a=steady, b=shaky), PROMPTS, out)
    shaky.error = None
    await collect(fleet(a=steady, b=shaky), PROMPTS, out)
    # all three failed the first time, then all were asked again; the other one was left alone
    assert (len(steady.requests), len(shaky.requests)) == (3, 6)


async def test_a_prompt_without_a_check_is_named(tmp_path):
    broken = [{k: v for k, v in PROMPTS[0].items() if k != "check"}]
    with pytest.raises(OutcomesError, match="'p0' has no field 'check'"):
        await collect(fleet(e=StubExpert("e")), broken, tmp_path / "o.parquet")


RETRIEVER = Retriever(Index.build([Passage("p", "Of 1 one speaks.", "a.md")]))


async def test_with_an_index_prompts_that_find_passages_are_asked_twice(tmp_path):
    out = tmp_path / "outcomes.parquet"
    stub = StubExpert("e")
    remarks = await collect(fleet(e=stub), PROMPTS, out, retriever=RETRIEVER)
    table = Outcomes.read(out)
    assert (remarks, len(stub.requests)) == ([], 4)
    assert np.isnan(table.retrieved_scores[:, 0]).tolist() == [True, False, True]
    assert table.retrieved_scores[1, 0] == table.scores[1, 0] == 1.0
    (aided,) = [r for r in stub.requests if r.passages_tokens]
    quoted, asked = aided.payload["messages"]
    assert asked == {"role": "user", "content": "Say 1."}
    assert "Of 1 one speaks." in quoted["content"]


async def test_a_second_call_asks_again_only_where_other_passages_are_found(tmp_path):
    out = tmp_path / "outcomes.parquet"
    steady, shaky = StubExpert("a"), StubExpert("b", error=ExpertUnavailableError("b", "down"))
    await collect(fleet(a=steady, b=shaky), PROMPTS, out, retriever=RETRIEVER)
    await collect(fleet(a=steady, b=shaky), PROMPTS, out, retriever=RETRIEVER)
    assert len(steady.requests) == 4
    other = Retriever(Index.build([Passage("q", "Of 1 another speaks.", "b.md")]))
    await collect(fleet(a=steady, b=shaky), PROMPTS, out, retriever=other)
    assert len(steady.requests) == 5


class Telling(StubExpert):
    """Says that each of its tokens was half as likely as could be, where it is asked."""

    async def stream(self, request, max_tokens):
        async for piece in super().stream(request, max_tokens):
            document = json.loads(piece)
            if request.payload.get("logprobs"):
                content = [{"token": token, "logprob": -0.5} for token in self.tokens]
                document["choices"][0]["logprobs"] = {"content": content}
            yield json.dumps(document).encode()


async def test_experts_that_can_say_how_likely_their_tokens_were(tmp_path):
    experts = {"can": Telling("can"), "cannot": Telling("cannot"), "mute": StubExpert("mute")}
    specs = {n: ExpertSpec(n, PROFILE, logprobs=n != "cannot") for n in experts}
    out = tmp_path / "outcomes.parquet"
    await collect(Fleet(specs, experts, {}), PROMPTS, out)
    table = Outcomes.read(out)
    np.testing.assert_array_equal(table.logprobs, [[-0.5, np.nan, np.nan]] * 3)
