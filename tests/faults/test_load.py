"""Load for some seconds each; `make soak` takes its time. Verdicts go by counts."""

from harness import heavy, scenarios


def assert_ok(found):
    assert found["ok"], found


async def test_l1_steady_requests_are_answered_every_one(tmp_path):
    assert_ok(await scenarios.steady(tmp_path, 2.0, 40.0))


async def test_l2_streams_side_by_side_lose_no_token(tmp_path):
    assert_ok(await scenarios.streams(tmp_path, 3.0))


async def test_l3_what_is_too_much_is_refused_in_good_order(tmp_path):
    found = await scenarios.overload(tmp_path, 1.5, (400,))
    # how much a shared machine answers differs from second to second
    assert found["violations"] == []
    assert [rung["odd"] for rung in (*found["steps"], found["twice"], found["after"])] == [0, 0, 0]
    assert found["steps"][0]["refused"] or found["steps"][0]["good_share"] == 1.0


async def test_l4_an_outage_is_not_multiplied_by_retries(tmp_path):
    found = await scenarios.outage(tmp_path, 4.0, 40.0)
    assert found["violations"] == []
    # of ten seconds, of which an outage this short is a part: a tenth, and one a second
    assert found["retries"] <= 0.1 * found["requests"] + 10 + found["lasted_s"], found
    # four seconds of it come after the outage
    assert found["healed_after_s"] <= 3.0, found


async def test_l5_who_says_nothing_or_reads_slowly_keeps_nobody_waiting(tmp_path):
    found = await heavy.crowded(tmp_path, 3.0, 20.0, 100, 30, 1, head_timeout_s=1.0)
    assert found["violations"] == []
    assert found["answered_share"] == 1.0, found
    assert found["readers_ended"] == {"left": 1}
    # milliseconds of a shared machine are for `make soak`
    assert (found["not_let_in"], found["closed_early_or_late"]) == (0, 0)
    assert min(found["closed"].values()) >= 20


async def test_l6_a_noisy_neighbour_is_felt_by_nobody_else(tmp_path):
    found = await scenarios.neighbours(tmp_path, 4.0, 16, 1.0)
    assert_ok(found)


async def test_l8_requests_as_large_as_may_be_are_answered_and_so_are_all_others(tmp_path):
    found = await heavy.expensive(tmp_path, 3.0, 20.0, 1)
    assert found["violations"] == []
    assert found["beside"]["heavy"] == {"whole": 3}
    assert found["beside"]["ends"] == {"whole": found["beside"]["requests"]}


async def test_soak_leaves_nothing_behind(tmp_path):
    found = await scenarios.soak(tmp_path, 5.0)
    assert found["violations"] == []
    assert not any(map(any, found["held"]))
    assert found["fds_grown"] <= 8
    assert found["threads_grown"] <= 8
