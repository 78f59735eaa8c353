"""What becomes of every request under one policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.kernels.queues import Queues, Requests, loads_ahead, serve
from coe.optimizer.pacing import Pacer
from coe.simulation.deciding import REFUSED, Deciding
from coe.simulation.foreseen import usage_of
from coe.simulation.outlook import Outlook
from coe.simulation.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Progress = Callable[[int], None]
"""Told of so many requests more that have arrived."""

_CHUNK = 65536  # requests between two words on progress, where nothing else takes time
_LEAST_AHEAD, _MOST_AHEAD = 8, 2048


@dataclass(frozen=True, slots=True)
class Replayed:
    """Every request, in the order of arrival; each (n_requests,).

    Parameters
    ----------
    expert : who answered; `REFUSED` for nobody.
    output_tokens : length of the answer; 0 where there is none.
    start_s, end_s : when a slot began and ended it; NaN where none did.
    cut : answers that a ceiling on joules or dollars ended before their time.
    elapsed_s : of this machine's time.
    """

    expert: Integers
    output_tokens: Floats
    start_s: Floats
    end_s: Floats
    cut: NDArray[np.bool_]
    elapsed_s: float

    @property
    def n_events(self) -> int:
        """Arrivals and ends."""
        return self.expert.size + int((self.expert != REFUSED).sum())


def replay_fixed(
    outlook: Outlook, workload: Workload, picks: Integers, progress: Progress = lambda n: None
) -> Replayed:
    """Requests whose expert hangs on no load.

    Parameters
    ----------
    picks : (n_requests,) who is asked. An expert whose context has no room for the prompt refuses
        it.
    """
    run = _Run.begin(outlook, workload)
    n = workload.n_requests
    contexts = np.array([spec.context_tokens for spec in outlook.specs])
    asked = np.flatnonzero(workload.prompt_tokens < contexts[picks])
    for k, spec in enumerate(outlook.specs):
        mine = asked[picks[asked] == k]
        lengths = outlook.lengths_of(workload, mine, k)
        run.requests.expert[mine], run.tokens[mine] = k, lengths
        taken_ms = usage_of(spec, workload.prompt_tokens[mine], lengths)[:, 0]
        run.requests.service_s[mine] = taken_ms / 1000.0
        longest = np.full(mine.size, outlook.longest_tokens[k])
        expected_ms = usage_of(spec, workload.prompt_tokens[mine], longest)[:, 0]
        run.requests.expected_s[mine] = expected_ms / 1000.0
    for first in range(0, n, _CHUNK):
        last = min(first + _CHUNK, n)
        serve(run.queues, run.requests, (first, last))
        progress(last - first)
    return run.end()


def replay_deciding(deciding: Deciding, progress: Progress = lambda n: None) -> Replayed:
    """Requests that are decided one after the other, each under the load of its moment.

    Many at once, and still exactly: choices are guessed for some requests ahead, the loads that
    would come of them worked out, and choices taken under these loads. Up to the first one that
    differs from its guess, and that one too, they are what deciding one by one gives, since a load
    hangs on earlier choices alone. There the next guesses begin.
    """
    run = _Run.begin(deciding.outlook, deciding.workload)
    n, first, ahead = deciding.workload.n_requests, 0, _LEAST_AHEAD
    while first < n:
        rows = slice(first, min(first + ahead, deciding.foreseen(first).last))
        queues = run.queues
        guess = deciding.choose(rows, queues.n_in_flight, queues.slowdown)
        run.take(deciding, rows, *guess)
        loads = loads_ahead(queues, run.requests, (first, rows.stop))
        expert, fits = deciding.choose(rows, *loads)
        differs = (expert != guess[0]) | (fits != guess[1])
        known = int(differs.argmax()) + 1 if differs.any() else rows.stop - first
        rows = slice(first, first + known)
        run.take(deciding, rows, expert[:known], fits[:known])
        serve(queues, run.requests, (first, rows.stop))
        progress(known)
        first = rows.stop
        ahead = min(max(2 * known, _LEAST_AHEAD), _MOST_AHEAD)
    return run.end()


def replay_paced(deciding: Deciding, pacer: Pacer, progress: Progress = lambda n: None) -> Replayed:
    """As `replay_deciding`, at prices that make budgets over time last; one request by one.

    What ends when a request arrives has been booked by then.
    """
    run = _Run.begin(deciding.outlook, deciding.workload)
    workload, queues, n_booked = deciding.workload, run.queues, 0
    for i in range(workload.n_requests):
        for j in queues.ended[n_booked : queues.n[1]].tolist():
            spec = deciding.outlook.specs[run.requests.expert[j]]
            lengths = float(workload.prompt_tokens[j]), float(run.tokens[j])
            answer = spec.estimate(0.0, *lengths)
            spent = {name: float(getattr(answer, name)) for name in pacer.resources}
            pacer.settle(float(workload.at_s[j]), spent)
        n_booked = int(queues.n[1])
        expert, fits = deciding.choose_paced(i, queues.n_in_flight, queues.slowdown, pacer)
        run.take(deciding, slice(i, i + 1), np.array([expert]), np.array([fits]))
        serve(queues, run.requests, (i, i + 1))
        progress(1)
    return run.end()


@dataclass(frozen=True, slots=True)
class _Run:
    """A replay that is under way."""

    requests: Requests
    queues: Queues
    tokens: Floats
    cut: NDArray[np.bool_]
    started: float

    @classmethod
    def begin(cls, outlook: Outlook, workload: Workload) -> _Run:
        n = workload.n_requests
        draws = np.ascontiguousarray(workload.draws[:, :2])
        return cls(
            requests=Requests(workload.at_s, np.full(n, REFUSED), np.zeros(n), np.ones(n), draws),
            queues=Queues.empty(outlook.replicas, outlook.slots_each, n),
            tokens=np.zeros(n),
            cut=np.zeros(n, dtype=bool),
            started=time.perf_counter(),
        )

    def take(
        self, deciding: Deciding, rows: slice, expert: Integers, fits: NDArray[np.bool_]
    ) -> None:
        """These experts answer the requests of ``rows``."""
        foreseen = deciding.foreseen(rows.start)
        row = np.arange(rows.start, rows.stop) - foreseen.first
        # a ceiling that does not hold anyway cuts nothing
        way = fits.astype(int), row, expert
        answered = expert != REFUSED
        self.requests.expert[rows] = expert
        self.requests.service_s[rows] = np.where(answered, foreseen.service_s[way], 0.0)
        self.requests.expected_s[rows] = np.where(answered, foreseen.expected_s[way], 1.0)
        self.tokens[rows] = np.where(answered, foreseen.tokens[way], 0.0)
        self.cut[rows] = answered & (foreseen.tokens[way] < foreseen.tokens[0, row, expert])

    def end(self) -> Replayed:
        elapsed_s = time.perf_counter() - self.started
        queues, expert = self.queues, self.requests.expert
        return Replayed(expert, self.tokens, queues.start_s, queues.end_s, self.cut, elapsed_s)
