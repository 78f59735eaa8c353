import pytest

from coe.mode import Mode


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (Mode.single("a"), "a"),
        (Mode("vote", (("a", "b"),)), "a + b"),
        (Mode("rank", (("a", "b"),)), "surest of a + b"),
        (Mode("cascade", (("a", "b"), ("c",)), 0.8), "a + b, else c (0.80)"),
        (Mode("fuse", (("a", "b"), ("c",))), "a + b => c"),
        (Mode("mixture", (("a", "b"),)), "a ~ b"),
    ],
)
def test_a_mode_is_named_in_words(mode, name):
    assert mode.name == name
    assert set(mode.members) <= {"a", "b", "c"}


def test_members_stand_in_the_order_in_which_they_are_asked():
    assert Mode("cascade", (("c", "a"), ("b",)), 0.5).members == ("c", "a", "b")
