"""What requests leave behind does not stay for long, however seldom it is looked for."""

import gc
import weakref
from collections import deque

import pytest

from coe.services.garbage import collect_less


@pytest.fixture
def collecting():
    before = gc.get_threshold()
    collect_less()
    yield
    gc.set_threshold(*before)
    gc.collect()


class Left:
    """Something that refers to itself by a hundred ways, as a failed request does."""

    def __init__(self):
        self.rest = [[self] for _ in range(100)]


def test_what_refers_to_itself_is_found_though_it_was_long_in_use(collecting):
    in_use, alive, most = deque(maxlen=1000), weakref.WeakSet(), 0
    for _ in range(20_000):
        one = Left()
        alive.add(one)
        in_use.append(one)
        most = max(most, len(alive))
    assert most < 12_000
