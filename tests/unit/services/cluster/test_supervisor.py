"""The supervisor on a cluster that does as it is told."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from coe.errors.gateway import FleetError
from coe.replica import Deployment, HostReport
from coe.services.cluster.targets import LoadTargets

A, B = Deployment("a", "{}"), Deployment("b", "{}", least=2, most=2)


def states(supervisor, expert_id):
    return [r.report.state for r in supervisor.snapshot().of(expert_id)]


async def test_what_is_wanted_runs(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A, B])
        await until(lambda: states(supervisor, "a") + states(supervisor, "b") == ["ready"] * 3)
    keys = {copy.given.key for copy in cluster.copies.values()}
    assert len(keys) == 3
    assert None not in keys


async def test_a_silent_host_is_news_within_watch_and_grace(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        seen = supervisor.snapshot()
        (copy,) = cluster.of("a")
        copy.silent = True
        news = await supervisor.newer(seen.epoch, seen.version, 5.0)
        (replica,) = news.of("a")
        assert replica.report.state == "starting"
        assert replica.report.address is None
        assert news.version > seen.version
        copy.silent = False
        await until(lambda: states(supervisor, "a") == ["ready"])


@pytest.mark.parametrize("how", ["gone", "failed"])
async def test_a_copy_that_is_lost_for_long_is_replaced(cluster, supervising, until, how, pace):
    async with supervising(cluster, replace(pace, retry_failed_s=0.05)) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (first,) = cluster.of("a")
        if how == "gone":
            first.gone = True
        else:
            first.report = HostReport("failed", "no weights")
        await until(lambda: first.ended and states(supervisor, "a") == ["ready"])


async def test_what_failed_is_shown_with_its_reason_and_not_started_over_and_over(
    cluster, supervising, until
):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: cluster.of("a"))
        cluster.of("a")[0].report = HostReport("failed", "no weights")
        await until(lambda: states(supervisor, "a") == ["failed"])
        await asyncio.sleep(0.1)
        assert len(cluster.copies) == 1
        assert supervisor.snapshot().of("a")[0].report.reason == "no weights"


async def test_a_copy_drains_before_it_ends(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (copy,) = cluster.of("a")
        copy.busy = True
        await supervisor.want([])
        await until(lambda: copy.drained)
        assert states(supervisor, "a") == ["draining"]
        assert not copy.ended
        copy.busy = False
        await until(lambda: copy.ended and not states(supervisor, "a"))


async def test_a_copy_that_still_waits_for_a_node_ends_at_once(cluster, supervising, until):
    cluster.full = True
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        (copy,) = await until(lambda: cluster.of("a"))
        before = time.monotonic()
        await supervisor.want([])
        await until(lambda: copy.ended and not states(supervisor, "a"))
        assert time.monotonic() - before < supervisor.pace.drain_s / 2
        assert not copy.drained


async def test_another_configuration_means_another_copy_first(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (old,) = cluster.of("a")
        await supervisor.want([replace(A, memory_gb=2.0)])
        await until(lambda: old.ended)
        (new,) = cluster.of("a")
        assert new.given.digest != old.given.digest
        assert "ready" in states(supervisor, "a")


async def test_scaled_up_and_down_by_hand(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        supervisor.scale("a", 3)
        await until(lambda: states(supervisor, "a") == ["ready"] * 3)
        supervisor.scale("a", 0)
        await until(lambda: not states(supervisor, "a"))
        supervisor.scale("a", None)
        await until(lambda: states(supervisor, "a") == ["ready"])
        with pytest.raises(FleetError, match="no expert 'zzz'; it has a"):
            supervisor.scale("zzz", 1)


async def test_scaled_by_load(cluster, supervising, until):
    async with supervising(cluster, target=LoadTargets(stable_s=0.05)) as supervisor:
        await supervisor.want([replace(A, most=3)])
        await until(lambda: states(supervisor, "a") == ["ready"])
        busy = cluster.of("a")[0]
        busy.report = replace(busy.report, n_running=1, n_waiting=2)
        await until(lambda: states(supervisor, "a") == ["ready"] * 2)
        busy.report = replace(busy.report, n_running=0, n_waiting=0)
        await until(lambda: states(supervisor, "a") == ["ready"])


async def test_a_node_is_emptied_without_a_gap(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (here,) = cluster.of("a")
        cluster.node = "there"
        supervisor.shun("here")
        await until(lambda: here.ended)
        (replica,) = supervisor.snapshot().of("a")
        assert (replica.node, replica.report.state) == ("there", "ready")
        with pytest.raises(FleetError, match="nothing runs on a node 'moon'"):
            supervisor.shun("moon")


async def test_a_copy_that_is_silent_for_a_moment_is_not_let_go_for_it(
    cluster, supervising, until, pace
):
    async with supervising(cluster, replace(pace, adopt_s=60.0)) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (here,) = cluster.of("a")
        cluster.full = True  # nothing can be placed elsewhere yet
        supervisor.shun("here")
        await until(lambda: len(cluster.copies) == 2)
        here.silent = True
        await until(lambda: "ready" not in states(supervisor, "a"))
        await asyncio.sleep(5 * pace.reconcile_s)
        here.silent = False
        await until(lambda: "ready" in states(supervisor, "a"))
        assert not here.drained


async def test_a_copy_that_was_not_there_when_it_was_asked_first_tells_its_node_later(
    cluster, supervising, until
):
    async with supervising(cluster) as supervisor:
        cluster.gone_at_first = True
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        await until(lambda: [r.node for r in supervisor.snapshot().of("a")] == ["here"])


async def test_an_only_node_that_is_emptied_goes_on_until_there_is_another(
    cluster, supervising, until
):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        (first,) = cluster.of("a")
        supervisor.shun("here")
        await until(lambda: len(cluster.copies) == 2)
        seen = supervisor.snapshot().version
        supervisor.shun("here", shunned=False)
        await until(lambda: list(cluster.alive.values()) == [first])
        assert supervisor.snapshot().version > seen
        assert len(cluster.copies) == 2
        assert states(supervisor, "a") == ["ready"]


async def test_a_copy_that_waits_elsewhere_is_not_needed_once_its_node_is_used_again(
    cluster, supervising, until
):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        supervisor.shun("here")
        await until(lambda: len(cluster.copies) == 2)
        cluster.of("a")[0].gone = True
        supervisor.shun("here", shunned=False)
        await until(lambda: states(supervisor, "a") == ["ready"])


async def test_a_lost_copy_does_not_wait_for_nodes_that_are_used_again_elsewhere(
    cluster, supervising, until
):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        cluster.node = "there"
        supervisor.shun("here")
        await until(lambda: [c.node for c in cluster.of("a")] == ["there"])
        supervisor.shun("here", shunned=False)
        cluster.node = "here"
        (moved,) = cluster.of("a")
        moved.silent = True  # its node is gone, and it may not go back
        await until(lambda: [c.node for c in cluster.of("a")] == ["here"])
        await until(lambda: states(supervisor, "a") == ["ready"])


async def test_a_new_supervisor_adopts_what_runs(cluster, supervising, until):
    async with supervising(cluster) as first:
        await first.want([A, B])
        first.scale("a", 2)
        await until(lambda: states(first, "a") + states(first, "b") == ["ready"] * 4)
    before = dict(cluster.copies)
    async with supervising(cluster) as second:
        await until(lambda: states(second, "a") + states(second, "b") == ["ready"] * 4)
        await asyncio.sleep(0.1)
        assert cluster.copies == before
        assert second.snapshot().epoch != first.snapshot().epoch
        assert {r.key for r in second.snapshot().replicas.values()} == {
            copy.given.key for copy in before.values()
        }


async def test_the_first_word_of_a_new_supervisor_has_all_that_runs(cluster, supervising, until):
    async with supervising(cluster) as first:
        await first.want([B])
        await until(lambda: states(first, "b") == ["ready"] * 2)
    async with supervising(cluster) as second:
        found = await second.newer(first.epoch, first.snapshot().version, 0.0)
        said = [(r.report.state, r.report.address) for r in found.of("b")]
        assert said == [(copy.report.state, copy.report.address) for copy in cluster.of("b")]


async def test_a_copy_that_does_not_say_what_it_is_is_not_adopted(cluster, supervising, until):
    async with supervising(cluster) as first:
        await first.want([A])
        await until(lambda: states(first, "a") == ["ready"])
    (lost,) = cluster.of("a")
    lost.gone = True
    async with supervising(cluster) as second:
        await until(lambda: lost.ended and states(second, "a") == ["ready"])


async def test_down_ends_everything(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A, B])
        await until(lambda: states(supervisor, "b") == ["ready"] * 2)
        await supervisor.down()
        assert not cluster.alive
        assert json.loads(cluster.kept)["wanted"] == []


async def test_down_waits_for_the_last_copy(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([B])
        await until(lambda: states(supervisor, "b") == ["ready"] * 2)
        quick, slow = cluster.of("b")
        slow.held = True
        down = asyncio.create_task(supervisor.down())
        await until(lambda: quick.ended and not states(supervisor, "b"))
        await asyncio.sleep(0.05)
        assert not down.done()
        slow.held = False
        await down
        assert not cluster.alive


async def test_down_ends_what_another_supervisor_left(cluster, supervising, until):
    async with supervising(cluster) as first:
        await first.want([B])
        await until(lambda: states(first, "b") == ["ready"] * 2)
    async with supervising(cluster) as second:
        await second.down()
        assert not cluster.alive


async def test_no_news_is_the_same_version_after_the_wait(cluster, supervising, until):
    async with supervising(cluster) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        seen = supervisor.snapshot()
        cluster.of("a")[0].report = replace(cluster.of("a")[0].report, n_running=7)
        await until(lambda: supervisor.snapshot().of("a")[0].report.n_running == 7)
        again = await supervisor.newer(seen.epoch, seen.version, 0.01)
        assert again.version == seen.version
        assert again.of("a")[0].report.n_running == 7
        other = await supervisor.newer("another life", seen.version, 60.0)
        assert other.version == seen.version


async def test_a_report_is_as_old_as_it_is_kept(cluster, supervising, until, clock):
    async with supervising(cluster, now=clock) as supervisor:
        await supervisor.want([A])
        await until(lambda: states(supervisor, "a") == ["ready"])
        assert supervisor.snapshot().of("a")[0].report.age_s == 0
        cluster.of("a")[0].silent = True
        await until(lambda: states(supervisor, "a") == ["starting"])
        clock.seconds += 3.0
        # what it said last was said three seconds ago, and not when silence was noticed
        assert supervisor.snapshot().of("a")[0].report.age_s == 3.0
