"""What two routers' decisions come to, side by side."""

from dataclasses import replace

from coe.core import Message, Policy, Request
from coe.shadow import Comparison, Shade

ASKED = Request((Message("user", "some code"),), Policy("default"))


def decided(make_router, make_spec, quality):
    specs = [make_spec("small"), make_spec("large")]
    return make_router(specs, [quality] * 3).decide(ASKED)


def test_same_and_different_decisions_are_counted_with_their_differences(make_router, make_spec):
    live = decided(make_router, make_spec, [0.4, 0.6])
    same = decided(make_router, make_spec, [0.3, 0.7])
    other = decided(make_router, make_spec, [0.9, 0.6])
    found = Comparison()
    assert found.document()["mean_difference"]["quality"] is None
    for decision in (same, other):
        found.add(live, Shade(decision))
    found.add(live, Shade(None, "nobody fits"))
    said = found.document()
    assert (said["same"], said["different"], said["refused"]) == (1, 1, 1)
    assert abs(said["mean_difference"]["quality"] - 0.2) < 1e-9
    assert said["pairs"] == [{"live": "large", "shadow": "small", "n": 1}]
    assert Shade(other).beside(live)["status"] == "different"
    assert Shade(replace(same, decision_id="x")).beside(live)["status"] == "same"
    assert Shade(None, "no").beside(live) == {"status": "refused", "message": "no"}


def test_pairs_are_bounded(make_router, make_spec):
    live = decided(make_router, make_spec, [0.4, 0.6])
    other = decided(make_router, make_spec, [0.9, 0.6])
    found = Comparison()
    for n in range(2000):
        mode = replace(other.selection.mode, stages=((f"e{n}",),))
        found.add(live, Shade(replace(other, selection=replace(other.selection, mode=mode))))
    assert len(found.pairs) <= 1000
    assert len(found.document()["pairs"]) == 20
