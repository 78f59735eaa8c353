"""Labels that cannot become too many."""

from coe.services.observing.labels import OTHER, Bound


def test_each_is_made_once():
    made = []
    bound = Bound(lambda *values: made.append(values) or len(made))
    assert [bound.of("a"), bound.of("b"), bound.of("a")] == [1, 2, 1]
    assert made == [("a",), ("b",)]


def test_beyond_the_bound_all_share_one():
    bound = Bound(lambda *values: values, most=3)
    found = {bound.of(str(k), "x") for k in range(100)}
    assert found == {("0", "x"), ("1", "x"), ("2", "x"), (OTHER, OTHER)}
    assert bound.of("1", "x") == ("1", "x")
