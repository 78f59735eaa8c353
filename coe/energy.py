"""A machine's measured joules, shared among the requests that it answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from coe.device import DeviceProfile, Scope
from coe.meter import MeterReading


@dataclass(slots=True, eq=False)
class Claim:
    """What one request in flight may claim of a machine's joules: its work, by time.

    Work is counted in the joules that the device profile predicts, so that a prompt, an answer
    and the answers of another expert weigh what they cost relative to each other. The prompt's
    work is done at the profile's power from the moment that the request enters, and what is left
    of it at the moment of the first token. (Without watts in the profile, at one watt.)

    Parameters
    ----------
    prompt_j, prefill_w, token_j : work of the prompt, its rate, and work of an output token.
    entered_s, left_s : when the request came and went; ``None`` while it is in flight.
    n_answers : that it asked for.
    n_tokens : of the answer so far.
    share_j, done_j : joules that readings gave it, and the work that they covered.
    metered : false once a stretch of its time was not.
    settled : its joules have been told; what readings still give it is carried.
    """

    account: EnergyAccount
    prompt_j: float
    prefill_w: float
    token_j: float
    entered_s: float
    n_answers: int = 1
    left_s: float | None = None
    n_tokens: int = 0
    share_j: float = 0.0
    done_j: float = 0.0
    metered: bool = True
    settled: bool = False
    _first_s: float | None = None
    _notes: list[tuple[float, float]] = field(default_factory=list)

    def note(self, n_tokens: int) -> None:
        """The answer has ``n_tokens`` by now; fewer than before are ignored."""
        if n_tokens > self.n_tokens:
            at_s = self.account.moment()
            if self._first_s is None:
                self._first_s = at_s
            self._notes.append((at_s, (n_tokens - self.n_tokens) * self.token_j))
            self.n_tokens = n_tokens

    def leave(self) -> float | None:
        """The request has ended: its joules, or ``None`` where they were not metered."""
        return self.account.settle(self)

    def work_j(self, from_s: float, until_s: float) -> float:
        """Work in ``(from_s, until_s]``; notes up to ``from_s`` may have been forgotten."""
        tokens_j = sum(work for at_s, work in self._notes if from_s < at_s <= until_s)
        return tokens_j + self._prompt_by(until_s) - self._prompt_by(from_s)

    def seconds(self, from_s: float, until_s: float) -> float:
        """Time in flight in ``(from_s, until_s]``."""
        end_s = until_s if self.left_s is None else min(until_s, self.left_s)
        return max(0.0, end_s - max(from_s, self.entered_s))

    def forget(self, until_s: float) -> None:
        """Drop the notes of what has been shared out."""
        if self._notes and self._notes[0][0] <= until_s:
            self._notes = [note for note in self._notes if note[0] > until_s]

    def _prompt_by(self, at_s: float) -> float:
        if self._first_s is not None and at_s >= self._first_s:
            return self.prompt_j
        return min(self.prompt_j, self.prefill_w * self.seconds(self.entered_s, at_s))


@dataclass(slots=True)
class EnergyAccount:
    """Shares out what one meter counts: ``metered_j = idle_j + requests_j + carried_j``.

    Of the joules between two readings, ``idle_w`` is the machine's own, and so is everything
    while nothing is in flight; the rest is shared in proportion to the work that each request did
    in between, or to its time in flight where none did any. The order of requests is of no
    account, and neither is how late a reading comes: work is kept until the reading that covers
    it. A request that ends before gets, for the uncovered part, joules per work as in the part
    before; what the reading then says otherwise is ``carried_j``, of either sign.

    Parameters
    ----------
    scope : what the meter covers.
    idle_w : power that belongs to no request.
    longest_gap_s : what lies between readings further apart, or of two origins, is left out of
        every sum, and a request in flight meanwhile was not metered.
    least_covered : a request of which readings cover less than this share of its time was not
        metered.
    refresh : called when a request enters and when it ends; may read the meter and hand the
        reading to `note_reading`. ``None``: readings come when they come.
    now : monotonic seconds, the clock of the readings.
    """

    scope: Scope
    idle_w: float = 0.0
    longest_gap_s: float = 5.0
    least_covered: float = 0.8
    refresh: Callable[[], None] | None = None
    now: Callable[[], float] = time.monotonic
    metered_j: float = 0.0
    idle_j: float = 0.0
    requests_j: float = 0.0
    carried_j: float = 0.0
    _last: MeterReading | None = None
    _claims: dict[Claim, None] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Requests in flight, and ended ones whose reading has not come yet."""
        return len(self._claims)

    def moment(self) -> float:
        """Now; or just after the last reading, if that is not earlier: what it covers is shared."""
        now = self.now()
        if self._last is None or now > self._last.at_s:
            return now
        return math.nextafter(self._last.at_s, math.inf)

    def enter(self, profile: DeviceProfile, prompt_tokens: int, n_answers: int = 1) -> Claim:
        """The claim of a request that is dispatched now."""
        self._update()
        prefill_w, decode_w = profile.prefill_w, profile.decode_w
        if not prefill_w and not decode_w:
            prefill_w = decode_w = 1.0
        claim = Claim(
            account=self,
            prompt_j=prefill_w * profile.ttft_ms(prompt_tokens) / 1000.0,
            prefill_w=prefill_w,
            token_j=decode_w / profile.decode_tokens_per_s,
            entered_s=self.now(),
            n_answers=n_answers,
        )
        self._claims[claim] = None
        return claim

    def settle(self, claim: Claim) -> float | None:
        """As `Claim.leave`; to be called once."""
        claim.left_s = self.now()
        self._update()
        claim.settled = True
        if self._last is None:
            return None
        covered_s = self._last.at_s
        if covered_s >= claim.left_s:
            del self._claims[claim]
            return claim.share_j if claim.metered else None
        tail_j = self._estimated(claim, covered_s)
        if tail_j is None:
            return None
        self.requests_j += tail_j
        self.carried_j -= tail_j
        return claim.share_j + tail_j

    def in_flight(self, at_s: float) -> int:
        """Answers in flight at a moment that no reading covers yet, or that came or went then."""
        return sum(
            claim.n_answers
            for claim in self._claims
            if claim.entered_s <= at_s and (claim.left_s is None or claim.left_s >= at_s)
        )

    def note_reading(self, reading: MeterReading, alone: bool = True) -> None:
        """Share out what the meter counted since the last reading; one not later is ignored.

        O(requests in flight + tokens since the last reading).

        Parameters
        ----------
        alone : false where requests that nobody told of were answered meanwhile: what they drew
            cannot be told apart, so it is left out as in a gap.
        """
        last = self._last
        if last is not None and reading.at_s <= last.at_s:
            return
        if (
            last is None
            or not alone
            or reading.origin != last.origin
            or reading.energy_j < last.energy_j
            or reading.at_s - last.at_s > self.longest_gap_s
        ):
            self._break(reading.at_s)
        else:
            self._share(last.at_s, reading.at_s, reading.energy_j - last.energy_j)
        self._last = reading

    def _update(self) -> None:
        if self.refresh is not None:
            self.refresh()
        now = self.now()
        if self._last is not None and now - self._last.at_s > self.longest_gap_s:
            # no reading can follow on this one any more
            self._last = None
            self._break(now)
        if self._last is None:
            # the first reading may be late, but what waits for it must not pile up
            self._close(now - self.longest_gap_s)

    def _break(self, until_s: float) -> None:
        for claim in self._claims:
            claim.metered = claim.metered and claim.entered_s >= until_s
        self._close(until_s)

    def _share(self, from_s: float, until_s: float, energy_j: float) -> None:
        self.metered_j += energy_j
        seconds = {c: s for c in self._claims if (s := c.seconds(from_s, until_s)) > 0}
        idle_j = min(energy_j, self.idle_w * (until_s - from_s)) if seconds else energy_j
        self.idle_j += idle_j
        works = {claim: claim.work_j(from_s, until_s) for claim in seconds}
        weights = works if any(works.values()) else seconds
        whole = sum(weights.values())
        for claim, weight in weights.items():
            share_j = (energy_j - idle_j) * weight / whole
            if claim.settled:
                self.carried_j += share_j
            else:
                self.requests_j += share_j
                claim.share_j += share_j
                claim.done_j += works[claim]
        self._close(until_s)

    def _close(self, until_s: float) -> None:
        """Forget what lies before: no reading comes for it any more."""
        for claim in list(self._claims):
            claim.forget(until_s)
            if claim.settled and claim.left_s is not None and claim.left_s <= until_s:
                del self._claims[claim]

    def _estimated(self, claim: Claim, covered_s: float) -> float | None:
        """Joules of an ended request after ``covered_s``, at the joules per work before.

        ``None`` where too little is covered, or what is was not metered.
        """
        assert claim.left_s is not None
        before_s = claim.seconds(claim.entered_s, covered_s)
        after_s = claim.seconds(covered_s, claim.left_s)
        if not claim.metered or before_s < self.least_covered * (before_s + after_s):
            return None
        if not after_s:
            return 0.0
        if not claim.done_j:
            return claim.share_j * after_s / before_s
        return claim.share_j * claim.work_j(covered_s, claim.left_s) / claim.done_j
