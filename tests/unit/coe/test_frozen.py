import copy
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from inspect import signature

import pytest

from coe.answer import Reading
from coe.core import Request
from coe.decision import Alternative, Candidate, CategoryGuess, Decision, Receipt, Selection
from coe.frozen import quick


@dataclass(frozen=True, slots=True)
class Slow:
    kind: str
    self_s: float
    seen: Mapping[str, int] = field(default_factory=dict)
    note: str = field(default="none", compare=False)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    kind: str
    self_s: float
    seen: Mapping[str, int] = field(default_factory=dict)
    note: str = field(default="none", compare=False)


GIVEN = [
    (("a", 1.0), {}),
    (("a", 1.0, {"b": 2}), {"note": "c"}),
    ((), {"self_s": 2.0, "kind": "a"}),
    (("a",), {"self_s": 1.0, "seen": None}),
]


@pytest.mark.parametrize(("args", "named"), GIVEN)
def test_it_is_made_as_the_slow_one(args, named):
    slow, made = Slow(*args, **named), Quick(*args, **named)
    assert type(made) is Quick
    assert [getattr(made, f.name) for f in fields(made)] == [
        getattr(slow, f.name) for f in fields(slow)
    ]
    assert repr(made) == repr(slow).replace("Slow", "Quick")


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), (("a", 1.0, {}, "", 5), {}), (("a", 1.0), {"other": 1})]
)
def test_it_refuses_what_the_slow_one_refuses(args, named):
    with pytest.raises(TypeError) as slow:
        Slow(*args, **named)
    with pytest.raises(TypeError) as made:
        Quick(*args, **named)
    assert str(made.value) == str(slow.value).replace("Slow", "Quick")


def test_a_factory_makes_a_new_value_for_each():
    assert Quick("a", 1.0).seen is not Quick("a", 1.0).seen


@pytest.mark.parametrize(
    "change", [lambda it: setattr(it, "kind", "b"), lambda it: delattr(it, "kind")]
)
def test_it_is_frozen_however_it_came_to_be(change):
    made = Quick("a", 1.0)
    for one in (made, replace(made, kind="c"), copy.copy(made)):
        with pytest.raises(FrozenInstanceError):
            change(one)
    assert made == copy.deepcopy(made)


@pytest.mark.parametrize(
    "kind",
    [Quick, Alternative, Candidate, CategoryGuess, Decision, Reading, Receipt, Request, Selection],
)
def test_it_says_what_it_is_made_of(kind):
    assert [*signature(kind).parameters] == [one.name for one in fields(kind)]
    assert all(one.init and not one.kw_only for one in fields(kind))
    assert not hasattr(kind, "__post_init__")
