"""Whether a worker still does anything: whatever it answers, it does."""

import pytest

from coe.errors.gateway import GatewayError
from coe.services.workers.pulse import stops


class Answering:
    """A line of which every question ends with the next of these; an error is raised."""

    def __init__(self, *ends):
        self.ends, self.open = list(ends), True

    async def ask(self, verb):
        end = self.ends.pop(0)
        if not self.ends:
            self.open = False
        if end is not None:
            raise end


@pytest.mark.parametrize("error", [TimeoutError(), ZeroDivisionError()])
async def test_six_questions_without_an_answer_are_the_end_whyever_there_is_none(error):
    line = Answering(*[error] * 5, None, *[error] * 6, None)
    assert await stops(line, 0.0)
    assert len(line.ends) == 1


async def test_an_error_is_an_answer_as_long_as_the_line_is_open():
    failed = GatewayError("the other process has failed")
    line = Answering(*[TimeoutError()] * 5, failed, *[TimeoutError()] * 5, failed)
    assert not await stops(line, 0.0)
    assert line.ends == []
