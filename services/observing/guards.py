"""How experts are guarded, and who is inside: figures that are read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coe.guard.guards import Figures

_NOTHING = Figures({}, 0, 0)


@dataclass(slots=True, eq=False)
class GuardCollector(Collector):
    """Shows what a gateway's guards say of experts and their replicas.

    Parameters
    ----------
    figures : as they are now.
    """

    figures: Callable[[], Figures] = field(default=lambda: _NOTHING)

    def collect(self) -> Iterator[Metric]:
        """Families by expert, by replica, and of retries."""
        found = self.figures()
        yield from _of_experts(found)
        yield from _of_replicas(found)
        retries = CounterMetricFamily(
            "coe_retries", "Experts asked once more, or not for want of budget.", labels=("made",)
        )
        retries.add_metric(("yes",), found.n_retries)
        retries.add_metric(("no",), found.n_retries_refused)
        yield retries


def _of_experts(found: Figures) -> Iterator[Metric]:
    labels = ("expert",)
    queue = GaugeMetricFamily("coe_queue", "Requests that wait for room.", labels=labels)
    ejections = CounterMetricFamily(
        "coe_ejections", "Times that a replica was left out for failing.", labels=labels
    )
    waits = CounterMetricFamily("coe_queue_waits", "Requests that got room late.", labels=labels)
    waited = CounterMetricFamily("coe_queue_wait_seconds", "Their waits, summed.", labels=labels)
    refused = CounterMetricFamily(
        "coe_queue_refusals", "Requests that got no room.", labels=("expert", "why")
    )
    for name, expert in found.experts.items():
        queue.add_metric((name,), expert.n_queued)
        ejections.add_metric((name,), expert.n_ejections)
        waits.add_metric((name,), expert.n_waited)
        waited.add_metric((name,), expert.waited_s)
        refused.add_metric((name, "full"), expert.n_full)
        refused.add_metric((name, "late"), expert.n_late)
    yield from (queue, ejections, waits, waited, refused)


def _of_replicas(found: Figures) -> Iterator[Metric]:
    labels = ("expert", "replica")
    out = GaugeMetricFamily("coe_replica_out", "1 while it is left out, else 0.", labels=labels)
    limit = GaugeMetricFamily("coe_replica_limit", "Requests that it gets at once.", labels=labels)
    n_in_flight = GaugeMetricFamily(
        "coe_replica_in_flight", "Requests that it is answering.", labels=labels
    )
    for name, expert in found.experts.items():
        for replica in expert.replicas:
            named = (name, replica.replica_id)
            out.add_metric(named, replica.phase != "closed")
            n_in_flight.add_metric(named, replica.n_in_flight)
            if replica.limit is not None:
                limit.add_metric(named, replica.limit)
    yield from (out, limit, n_in_flight)
