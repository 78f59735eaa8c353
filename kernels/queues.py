"""Requests through replicas with slots and a queue, event by event. Compiled when imported."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# what is learned of an expert's slowdown, as in `coe.core.Load`
_SMOOTHING, _LEAST, _MOST = 0.2, 0.1, 10.0
# how long a replica's slowness is remembered, as in `coe.optimizer.balance`
_MEMORY_S = 30.0


class Requests(NamedTuple):
    """All requests, in the order of their arrival.

    Parameters
    ----------
    at_s : (n_requests,) not negative, ascending.
    expert : (n_requests,) who is asked; -1: nobody. Only that of requests served counts.
    service_s : (n_requests,) how long a slot is taken, not negative; likewise.
    expected_s : (n_requests,) how long the replica is expected to take, positive; likewise.
    draws : (n_requests, 2) uniform in [0, 1).
    """

    at_s: Floats
    expert: Integers
    service_s: Floats
    expected_s: Floats
    draws: Floats


class Queues(NamedTuple):
    """The state of all queues, and what became of every request. Changed in place by `serve`.

    Parameters
    ----------
    first_replica : (n_experts + 1,) replicas of expert e are ``first_replica[e]`` to
        ``first_replica[e + 1]``, half open; each expert has at least one.
    first_slot : (n_replicas + 1,) likewise the slots of replicas, each of which has at least one.
    replica : (n_requests,) who answers each request; -1 where nobody does, or not yet.
    start_s, end_s : (n_requests,) when its slot begins and ends it; NaN likewise.
    stretch : (n_requests,) requests inside the expert as it came in over the expert's slots, at
        least 1.
    ended : (n_requests,) requests in the order of their ends; ``n[1]`` of them.
    free_s : (n_slots,) when each slot is free, a heap per replica.
    n_inside : (n_replicas,) requests that a replica is answering or keeps waiting.
    seen : (n_replicas, 4) of those inside the sums of arrivals and of expected times; slowness, and
        when it was last seen; as in `coe.optimizer.balance`.
    n_in_flight, slowdown : (n_experts,) the load of each expert, as `coe.core.Load` has it.
    due_s, due : (n_requests,) ends to come, a heap of times and requests; ``n[0]`` of them.
    n : (2,) see above.
    """

    first_replica: Integers
    first_slot: Integers
    replica: Integers
    start_s: Floats
    end_s: Floats
    stretch: Floats
    ended: Integers
    free_s: Floats
    n_inside: Integers
    seen: Floats
    n_in_flight: Integers
    slowdown: Floats
    due_s: Floats
    due: Integers
    n: Integers

    @classmethod
    def empty(cls, replicas: Integers, slots: Integers, n_requests: int) -> Queues:
        """Queues before the first request.

        Parameters
        ----------
        replicas, slots : (n_experts,) replicas of each expert, and slots of each of these; >= 1.
        """
        n_replicas, each = int(replicas.sum()), np.repeat(slots, replicas)
        return cls(
            first_replica=np.concatenate([[0], np.cumsum(replicas)]),
            first_slot=np.concatenate([[0], np.cumsum(each)]),
            replica=np.full(n_requests, -1),
            start_s=np.full(n_requests, np.nan),
            end_s=np.full(n_requests, np.nan),
            stretch=np.ones(n_requests),
            ended=np.zeros(n_requests, dtype=np.int64),
            free_s=np.zeros(int(each.sum())),
            n_inside=np.zeros(n_replicas, dtype=np.int64),
            seen=np.tile([0.0, 0.0, 0.0, -np.inf], (n_replicas, 1)),
            n_in_flight=np.zeros(replicas.size, dtype=np.int64),
            slowdown=np.ones(replicas.size),
            due_s=np.zeros(n_requests),
            due=np.zeros(n_requests, dtype=np.int64),
            n=np.zeros(2, dtype=np.int64),
        )


def serve(queues: Queues, requests: Requests, span: tuple[int, int]) -> None:
    """Let the requests of ``span`` (half open) arrive, and end all that ends before the next.

    Of two replicas of its expert, drawn at random, a request goes to the one that
    `coe.optimizer.balance` would send it to. There it gets the slot that is free first, in the
    order of arrival. What ends when another arrives has ended by then; after the last request of
    all, everything ends.
    O(log(slots) + log(requests inside)) each.

    Parameters
    ----------
    span : calls take spans in order, without a gap.
    """
    none, no_load = np.empty((0, 0), dtype=np.int64), np.empty((0, 0))
    _serve(
        span[0], span[1], requests.at_s, requests.expert, requests.service_s, requests.expected_s,
        requests.draws,
        queues.first_replica, queues.first_slot, queues.replica, queues.start_s, queues.end_s,
        queues.stretch, queues.ended, queues.free_s, queues.n_inside, queues.seen,
        queues.n_in_flight, queues.slowdown, queues.due_s, queues.due, queues.n, none, no_load,
    )  # fmt: skip


def loads_ahead(
    queues: Queues, requests: Requests, span: tuple[int, int]
) -> tuple[Integers, Floats]:
    """The loads that each request of ``span`` would find, if those before it went as they say.

    Nothing is served: the state stays as it is, and what is written of the requests of ``span``
    does not count.

    Returns
    -------
    n_in_flight, slowdown : (n_span, n_experts) just before each request, as in `Queues`.
    """
    shape = (span[1] - span[0], queues.n_in_flight.size)
    n_in_flight, slowdown = np.empty(shape, dtype=np.int64), np.empty(shape)
    # the heap of ends may grow by the span
    room = int(queues.n[0]) + shape[0]
    _serve(
        span[0], span[1], requests.at_s, requests.expert, requests.service_s, requests.expected_s,
        requests.draws,
        queues.first_replica, queues.first_slot, queues.replica, queues.start_s, queues.end_s,
        queues.stretch, queues.ended, queues.free_s.copy(), queues.n_inside.copy(),
        queues.seen.copy(),
        queues.n_in_flight.copy(), queues.slowdown.copy(), queues.due_s[:room].copy(),
        queues.due[:room].copy(), queues.n.copy(), n_in_flight, slowdown,
    )  # fmt: skip
    return n_in_flight, slowdown


@compiled("void(f8[::1], i8, i8, f8)")
def _replace_first(heap: Floats, low: int, high: int, value: float) -> None:
    """Put ``value`` in place of the least of ``heap[low:high]``."""
    at, size = 0, high - low
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[low + child + 1] < heap[low + child]:
            child += 1
        if heap[low + child] >= value:
            break
        heap[low + at] = heap[low + child]
        at = child
    heap[low + at] = value


@compiled("void(f8[::1], i8[::1], i8, f8, i8)")
def _push(times: Floats, requests: Integers, size: int, time: float, request: int) -> None:
    """Add to a heap of ``size``; of equal times the smaller request comes first."""
    at = size
    while at > 0:
        above = (at - 1) // 2
        if times[above] < time or (times[above] == time and requests[above] < request):
            break
        times[at], requests[at] = times[above], requests[above]
        at = above
    times[at], requests[at] = time, request


@compiled("void(f8[::1], i8[::1], i8)")
def _drop(times: Floats, requests: Integers, size: int) -> None:
    """Take the first off a heap of ``size``."""
    time, request = times[size - 1], requests[size - 1]
    size -= 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            times[other] < times[child]
            or (times[other] == times[child] and requests[other] < requests[child])
        ):
            child = other
        if times[child] > time or (times[child] == time and requests[child] > request):
            break
        times[at], requests[at] = times[child], requests[child]
        at = child
    times[at], requests[at] = time, request


@compiled("f8(i8, f8, i8[::1], f8[:,::1])")
def _cost(replica: int, now_s: float, n_inside: Integers, seen: Floats) -> float:
    """`ReplicaState.cost` of `coe.optimizer.balance`."""
    n = n_inside[replica]
    began_s, expected_s, slowness, seen_s = seen[replica]
    if seen_s == -np.inf:
        return np.inf if n > 0 else 0.0
    slowness *= np.exp((seen_s - now_s) / _MEMORY_S)
    if n > 0:
        slowness = max(slowness, (n * now_s - began_s) / expected_s)
    return float(slowness * (n + 1))


@compiled("i8(i8, i8, f8, f8[::1], i8[::1], f8[:,::1])")
def _pick(
    low: int, high: int, now_s: float, draws: Floats, n_inside: Integers, seen: Floats
) -> int:
    """One of the replicas ``low`` to ``high``, half open: the better of two."""
    chosen = low + int(draws[0] * (high - low))
    if high - low > 1:
        other = low + int(draws[1] * (high - low - 1))
        if other >= chosen:
            other += 1
        mine, theirs = _cost(chosen, now_s, n_inside, seen), _cost(other, now_s, n_inside, seen)
        if theirs < mine or (theirs == mine and n_inside[other] < n_inside[chosen]):
            chosen = other
    return chosen


@compiled("void(i8, f8, f8, f8, f8, i8[::1], f8[:,::1])")
def _forget(
    replica: int,
    at_s: float,
    expected_s: float,
    usual_s: float,
    end_s: float,
    n_inside: Integers,
    seen: Floats,
) -> None:
    """A request leaves its replica: `ReplicaState.end` of `coe.optimizer.balance`."""
    n_inside[replica] -= 1
    state = seen[replica]
    state[0] = state[0] - at_s if n_inside[replica] > 0 else 0.0
    state[1] = state[1] - expected_s if n_inside[replica] > 0 else 0.0
    slowness = max(end_s - at_s, 0.0) / (usual_s if usual_s > 0 else expected_s)
    if slowness < state[2]:
        kept = np.exp((state[3] - end_s) / _MEMORY_S)
        slowness = kept * state[2] + (1.0 - kept) * slowness
    state[2], state[3] = slowness, end_s


@compiled("void(i8, i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], i8[::1], f8[::1])")
def _leave(
    i: int,
    expert: Integers,
    at_s: Floats,
    service_s: Floats,
    end_s: Floats,
    stretch: Floats,
    n_in_flight: Integers,
    slowdown: Floats,
) -> None:
    """Request i goes, and its expert's load learns from it."""
    e = expert[i]
    n_in_flight[e] -= 1
    if service_s[i] > 0:
        took = (end_s[i] - at_s[i]) / (service_s[i] * stretch[i])
        slowdown[e] += _SMOOTHING * (min(max(took, _LEAST), _MOST) - slowdown[e])


@compiled(
    "void(i8, i8, f8[::1], i8[::1], f8[::1], f8[::1], f8[:,::1], i8[::1], i8[::1], i8[::1],"
    " f8[::1], f8[::1], f8[::1], i8[::1], f8[::1], i8[::1], f8[:,::1], i8[::1], f8[::1], f8[::1],"
    " i8[::1], i8[::1], i8[:,::1], f8[:,::1])"
)
def _serve(
    first: int,
    last: int,
    at_s: Floats,
    expert: Integers,
    service_s: Floats,
    expected_s: Floats,
    draws: Floats,
    first_replica: Integers,
    first_slot: Integers,
    replica: Integers,
    start_s: Floats,
    end_s: Floats,
    stretch: Floats,
    ended: Integers,
    free_s: Floats,
    n_inside: Integers,
    seen: Floats,
    n_in_flight: Integers,
    slowdown: Floats,
    due_s: Floats,
    due: Integers,
    n: Integers,
    told_in_flight: Integers,
    told_slowdown: Floats,
) -> None:
    for i in range(first, last):
        if told_slowdown.size:
            told_in_flight[i - first], told_slowdown[i - first] = n_in_flight, slowdown
        e = expert[i]
        replica[i], start_s[i], end_s[i] = -1, np.nan, np.nan
        if e >= 0:
            low, high = first_replica[e], first_replica[e + 1]
            chosen = _pick(low, high, at_s[i], draws[i], n_inside, seen)
            slot = first_slot[chosen]
            start = max(at_s[i], free_s[slot])
            end = start + service_s[i]
            _replace_first(free_s, slot, first_slot[chosen + 1], end)
            replica[i], start_s[i], end_s[i] = chosen, start, end
            stretch[i] = max(1.0, (n_in_flight[e] + 1) / (first_slot[high] - first_slot[low]))
            n_inside[chosen] += 1
            seen[chosen, 0] += at_s[i]
            seen[chosen, 1] += expected_s[i]
            n_in_flight[e] += 1
            _push(due_s, due, n[0], end, i)
            n[0] += 1
        until_s = at_s[i + 1] if i + 1 < at_s.size else np.inf
        while n[0] > 0 and due_s[0] <= until_s:
            j = due[0]
            _drop(due_s, due, n[0])
            ended[n[1]] = j
            n[0] -= 1
            n[1] += 1
            _forget(replica[j], at_s[j], expected_s[j], service_s[j], end_s[j], n_inside, seen)
            _leave(j, expert, at_s, service_s, end_s, stretch, n_in_flight, slowdown)
