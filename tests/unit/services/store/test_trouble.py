"""What is said of a ledger that cannot be kept: once, however often it is noticed."""

import pytest

from coe.services.store.trouble import Trouble


@pytest.mark.parametrize(("patience", "said"), [(1, ["full", "over"]), (3, ["full", "over"])])
def test_its_beginning_and_its_end_are_said_once(patience, said):
    lines = []
    trouble = Trouble(lines.append, "over", patience)
    for _ in range(patience + 2):
        trouble.note("full")
    for _ in range(2):
        trouble.end()
    assert lines == said


def test_what_passes_before_anybodys_patience_ends_is_not_said():
    lines = []
    trouble = Trouble(lines.append, "over", 3)
    for _ in range(5):
        trouble.note("silent")
        trouble.note("silent")
        trouble.end()
    assert lines == []
