"""What is said of a ledger that cannot be kept: once, however often it is noticed."""

import pytest

from coe.errors.gateway import LedgerError
from coe.services.store.trouble import Trouble

FULL = LedgerError("the disk is full.")


@pytest.mark.parametrize("patience", [1, 3])
def test_its_beginning_and_its_end_are_said_once(patience):
    lines = []
    trouble = Trouble(lines.append, "nobody is answered", "it is over", patience)
    for _ in range(patience + 2):
        trouble.note(FULL)
    for _ in range(2):
        trouble.end()
    assert lines == ["ledger: the disk is full: nobody is answered", "ledger: it is over"]


def test_what_passes_before_anybodys_patience_ends_is_not_said():
    lines = []
    trouble = Trouble(lines.append, "nobody is answered", "it is over", 3)
    for _ in range(5):
        trouble.note(FULL)
        trouble.note(FULL)
        trouble.end()
    assert lines == []
