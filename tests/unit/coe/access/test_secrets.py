"""Secrets taken out of texts by value."""

from hypothesis import given
from hypothesis import strategies as st

from coe.access.keys import minted
from coe.access.secrets import HIDDEN, NO_SECRETS, all_of


def test_a_secret_is_hidden_wherever_it_stands():
    secrets = all_of("hunter2-hunter2", "hunter2-hunter2-longer", "short")
    text = "a hunter2-hunter2 b=hunter2-hunter2-longer, hunter2-hunter2! short"
    assert secrets.hidden(text) == f"a {HIDDEN} b={HIDDEN}, {HIDDEN}! short"
    assert "hunter2" not in repr(secrets)


def test_the_id_of_a_key_stays_and_its_secret_does_not():
    key_id, shown = minted(lambda n: bytes(range(n)))
    assert NO_SECRETS.hidden(f"Bearer {shown},") == f"Bearer coe-{key_id}-{HIDDEN},"
    assert NO_SECRETS.hidden(f"coe-{key_id} coe-router") == f"coe-{key_id} coe-router"


@given(st.lists(st.text(min_size=1, max_size=20), max_size=5), st.text(max_size=200))
def test_none_is_left(values, text):
    secrets = all_of(*values)
    found = secrets.hidden("".join(secrets.values) + text + "".join(values))
    left = [value for value in secrets.values if value in found]
    # one may come about where another was taken out
    assert all(set(value) & set(HIDDEN) for value in left)
