"""Accounts of nodes, fed by snapshots of a fleet whose truth is known."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from coe.device import DeviceProfile
from coe.replica import HostReport, NodeReading, Replica, Snapshot
from coe.services.cluster.accounts import NodeAccounts

# tokens of 1 J, ten a second; no prompt to speak of
PROFILE = DeviceProfile("ten watts", 0.0, 0.0, 0.0, 10.0, 0.0, 10.0)
IDLE_W = 5.0
READY = HostReport("ready")


@dataclass
class Copy:
    """A copy whose host was last heard at ``heard_s``, on a node of so many watts."""

    replica_id: str
    node: str
    origin: int
    watts: float = 20.0
    meter: str = "rapl"
    scope: str = "rail"
    n_running: int = 0
    heard_s: float = 0.0
    since_s: float = 0.0
    silent: bool = False
    report: HostReport = READY
    energy_j: float = 0.0

    def hear(self, now_s, age_s=0.0):
        if self.silent:
            return
        read_s = max(now_s - age_s, self.heard_s)
        self.energy_j += self.watts * (read_s - self.since_s)
        self.since_s, self.heard_s = read_s, now_s
        reading = NodeReading(self.energy_j, self.origin, now_s - read_s, self.scope, self.meter)
        self.report = HostReport("ready", n_running=self.n_running, meter=reading)

    def restart(self, origin, now_s):
        self.origin, self.energy_j, self.since_s = origin, 0.0, now_s


@dataclass
class Fleet:
    """What a gateway hears of a fleet, by a clock that obeys."""

    clock: object
    copies: dict[str, Copy] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.accounts = NodeAccounts({"edge": IDLE_W}, self.said.append, self.clock)

    def add(self, replica_id, node, origin, **more):
        now_s = self.clock()
        self.copies[replica_id] = Copy(
            replica_id, node, origin, heard_s=now_s, since_s=now_s, **more
        )

    def tell(self):
        """A snapshot reaches the gateway; reports are as old as they are."""
        now_s = self.clock()
        self.accounts.note(
            Snapshot(
                "e",
                1,
                {
                    name: Replica(
                        name, "x", copy.node, replace(copy.report, age_s=now_s - copy.heard_s)
                    )
                    for name, copy in self.copies.items()
                },
            )
        )

    def second(self):
        """Half a second after a report a snapshot comes, and half a second later a report."""
        self.clock.seconds += 0.5
        self.tell()
        self.clock.seconds += 0.5
        for copy in self.copies.values():
            copy.hear(self.clock(), age_s=0.125)

    def begin(self, replica_id):
        self.copies[replica_id].n_running += 1
        return self.accounts.copies[replica_id].enter(PROFILE, 0)

    def end(self, replica_id, claim):
        self.copies[replica_id].n_running -= 1
        return claim.leave()


@pytest.fixture
def fleet(clock):
    """A node of twenty watts, five of them idle, and one of forty; heard of."""
    found = Fleet(clock)
    found.add("a", "edge", 100)
    found.add("b", "cloud", 200, watts=40.0)
    for _ in range(3):
        found.second()
    return found


def balanced(account):
    parts = account.idle_j + account.requests_j + account.carried_j
    return account.metered_j == pytest.approx(parts, abs=1e-6)


def answered(fleet, replica_id, seconds, claim=None):
    """Joules of a request of so many seconds, ten tokens each."""
    claim = claim or fleet.begin(replica_id)
    for n in range(1, seconds + 1):
        fleet.second()
        claim.note(10 * n)
    return fleet.end(replica_id, claim)


def test_every_node_has_its_account_and_copies_claim_on_their_own(fleet):
    assert set(fleet.accounts.machines) == {"edge", "cloud"}
    assert fleet.accounts.copies["a"] is fleet.accounts.machines["edge"]
    assert fleet.said == [
        "energy of copies on edge: measured by rapl, scope rail",
        "energy of copies on cloud: measured by rapl, scope rail",
    ]
    # fifteen and forty watts above idle, and some of the second before they were sent
    assert 20 * 15 <= answered(fleet, "a", 20) <= 22 * 15
    assert 20 * 40 <= answered(fleet, "b", 20) <= 22 * 40
    assert all(balanced(account) for account in fleet.accounts.machines.values())


def test_a_node_without_a_meter_has_no_account(fleet):
    fleet.copies["c"] = Copy("c", "dark", 300, silent=True)
    fleet.second()
    assert "dark" not in fleet.accounts.machines
    assert "c" not in fleet.accounts.copies


def test_an_answer_shorter_than_reports_are_late_is_not_metered(fleet):
    assert answered(fleet, "a", 1) is None


@pytest.mark.parametrize("seed", range(5))
def test_however_requests_come_shares_and_idle_sum_to_what_the_meters_counted(fleet, clock, seed):
    draw, flying, first = Random(seed), [], {}
    joules = dict.fromkeys(fleet.copies, 0.0)
    for name, account in zip(fleet.copies, fleet.accounts.machines.values(), strict=True):
        first[name] = (account.metered_j, account._last)
    for _ in range(400):
        clock.seconds += draw.choice([0.0, 0.1, 0.2])
        for name, copy in fleet.copies.items():
            copy.watts = draw.choice([5.0, 20.0, 60.0])
            if draw.random() < 0.3:
                copy.hear(clock(), age_s=draw.random() / 5)
            if draw.random() < 0.1:
                flying.append((name, fleet.begin(name)))
        if draw.random() < 0.2:
            fleet.tell()
        for _, claim in flying:
            claim.note(claim.n_tokens + draw.randrange(3))
        if flying and draw.random() < 0.2:
            name, claim = flying.pop(draw.randrange(len(flying)))
            joules[name] += fleet.end(name, claim) or 0.0
    for name, account in zip(fleet.copies, fleet.accounts.machines.values(), strict=True):
        before_j, start = first[name]
        assert balanced(account)
        # no gap and no crowd: everything between the first and the last reading was shared out
        assert account.metered_j - before_j == pytest.approx(
            account._last.energy_j - start.energy_j
        )
        assert joules[name] <= account.requests_j + 1e-9


def test_of_copies_on_one_node_one_meter_is_followed(fleet, clock):
    fleet.add("c", "edge", 900)
    for _ in range(3):
        fleet.second()
    account = fleet.accounts.machines["edge"]
    before_j, before_s = account.metered_j, account._last.at_s
    claims = {name: fleet.begin(name) for name in ("a", "c")}
    for n in range(1, 21):
        fleet.second()
        for claim in claims.values():
            claim.note(10 * n)
    joules = [fleet.end(name, claim) for name, claim in claims.items()]
    assert joules[0] == pytest.approx(joules[1])
    assert 20 * 15 <= sum(joules) <= 22 * 15
    # the node's, and not the sum of what both hosts read
    assert account.metered_j - before_j == pytest.approx(20.0 * (account._last.at_s - before_s))


def test_where_the_copy_that_was_followed_is_gone_the_other_one_is(fleet):
    fleet.add("c", "edge", 900)
    for _ in range(3):
        fleet.second()
    claim = fleet.begin("c")
    fleet.copies["a"].silent = True
    assert answered(fleet, "c", 20, claim) is None, "between two beginnings nothing is known"
    assert answered(fleet, "c", 20) >= 20 * 15
    del fleet.copies["a"]
    assert answered(fleet, "c", 20) >= 20 * 15
    assert balanced(fleet.accounts.machines["edge"])


def test_a_host_that_restarts_begins_anew(fleet, clock):
    claim = fleet.begin("a")
    for _ in range(3):
        fleet.second()
    account = fleet.accounts.machines["edge"]
    before_j = account.metered_j
    fleet.copies["a"].restart(101, clock())
    assert answered(fleet, "a", 20, claim) is None
    assert answered(fleet, "a", 20) >= 20 * 15
    assert balanced(account)
    # what lies between the two beginnings is in no sum
    assert account.metered_j - before_j < 41 * 20


def test_a_node_that_is_silent_for_long_leaves_a_gap(fleet):
    claim = fleet.begin("a")
    fleet.copies["a"].silent = True
    for _ in range(8):
        fleet.second()
    fleet.copies["a"].silent = False
    assert answered(fleet, "a", 20, claim) is None
    assert answered(fleet, "b", 20) >= 20 * 40


def test_requests_of_another_gateway_make_ours_unmetered(fleet):
    fleet.copies["a"].n_running += 1
    assert answered(fleet, "a", 20) is None
    assert answered(fleet, "b", 20) is not None, "another node is not concerned"
    account = fleet.accounts.machines["edge"]
    metered_j = account.metered_j
    fleet.second()
    fleet.second()
    assert account.metered_j == metered_j, "what they draw while ours rest is not idle power"
    fleet.copies["a"].n_running -= 1
    for _ in range(3):
        fleet.second()
    assert answered(fleet, "a", 20) is not None
    assert balanced(account)


def test_one_report_that_has_caught_a_request_at_its_end_changes_nothing(fleet):
    claim = fleet.begin("a")
    for n in range(20):
        fleet.copies["a"].n_running += n % 2
        fleet.second()
        fleet.copies["a"].n_running -= n % 2
        claim.note(10 * n)
    assert fleet.end("a", claim) is not None


def test_the_meter_of_a_node_s_gpus_has_an_account_of_its_own(fleet):
    fleet.add("g", "cloud", 900, watts=300.0, meter="nvml")
    for _ in range(3):
        fleet.second()
    machines = fleet.accounts.machines
    assert set(machines) == {"edge", "cloud", "cloud/nvml"}
    assert fleet.accounts.copies["g"] is machines["cloud/nvml"]
    assert answered(fleet, "g", 20) >= 20 * 300


def test_while_a_node_changes_its_meter_copies_that_read_another_one_are_not_metered(fleet):
    fleet.add("c", "edge", 900, meter="ina3221", scope="board")
    for _ in range(3):
        fleet.second()
    account = fleet.accounts.machines["edge"]
    assert (account.scope, "c" in fleet.accounts.copies) == ("rail", False)
    del fleet.copies["a"]
    for _ in range(3):
        fleet.second()
    assert account.scope == "board"
    assert fleet.accounts.copies["c"] is account
    assert answered(fleet, "c", 20) >= 20 * 15
    assert balanced(account)


def test_a_snapshot_without_news_is_no_reading(fleet, clock):
    account = fleet.accounts.machines["edge"]
    fleet.tell()
    last = account._last
    for _ in range(4):
        clock.seconds += 0.25
        fleet.tell()
        assert account._last is last
