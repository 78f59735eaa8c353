"""Experts that compute nothing: they say what stands ready."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from coe.answer import DONE, chunk, completion
from coe.core import Request
from coe.errors.experts import ExpertRejectedError


@dataclass(frozen=True, slots=True)
class StandingExpert:
    """Says the answer that was found ready for it when the request was decided.

    A stream is one piece. The answer is whole whatever the cap: who must not be longer is no
    candidate, and a declination is brief.
    """

    expert_id: str
    new_id: Callable[[], str] = field(default=lambda: f"chatcmpl-{secrets.token_hex(12)}")

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """The answer, as often as the request asks for one.

        Raises
        ------
        ExpertRejectedError
            None stands ready (HTTP 404).
        """
        answer = request.standing.get(self.expert_id)
        if answer is None:
            raise ExpertRejectedError(self.expert_id, "has no answer ready", 404)
        usage = (request.prompt_tokens, answer.n_tokens * request.n_answers)
        n, name, answer_id = request.n_answers, self.expert_id, self.new_id()
        if not request.stream:
            yield completion(answer_id, name, answer.text, *usage, "stop", n)
            return
        said, stated = {"role": "assistant", "content": answer.text}, [None] * (n - 1) + [usage]
        yield (
            b"".join(
                chunk(answer_id, name, said, None, index=k)
                + chunk(answer_id, name, {}, "stop", of_all, k)
                for k, of_all in enumerate(stated)
            )
            + DONE
        )
