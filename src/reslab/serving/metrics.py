"""Metrics for Prometheus: requests, latency, batches, queue length, and what the networks answer.

An alert on the answers shows that the pictures have changed.
"""

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reslab.serving.schema import RunAnswer

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
# All other paths count as one, or strangers could fill the memory.
PATHS = frozenset(("/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/predict", "/v1/model"))
PATHS |= {"/v1/examples", "/v1/runs", "/v1/log", "/v1/report", "/v1/compare", "/v1/differences"}
PICTURES = (1, 2, 4, 8, 16, 32, 64)
SHARES = (0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 11)))  # up to 0.05 a picture is not answered


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("path", "status")
        self._requests = Counter("reslab_requests", "Requests answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "reslab_request_seconds", "Time to answer.", ("path",), buckets=SECONDS, registry=self.registry
        )
        self._batches = Histogram(
            "reslab_batch_pictures", "Pictures computed at once.", buckets=PICTURES, registry=self.registry
        )
        self._waiting = Gauge(
            "reslab_waiting_pictures", "Pictures that wait for a decoder or the network.", registry=self.registry
        )

        shares: dict[str, Any] = {"labelnames": ("run",), "buckets": SHARES, "registry": self.registry}
        self._answers = Counter(
            "reslab_answers", "Pictures answered, by the class named.", ("run", "class"), registry=self.registry
        )
        self._abstentions = Counter(
            "reslab_abstentions", "Pictures unlike the training pictures.", ("run",), registry=self.registry
        )
        self._familiarity = Histogram(
            "reslab_familiarity", "Share of held-out images that are no more like the training images.", **shares
        )
        self._probability = Histogram("reslab_probability", "Probability of the most probable class.", **shares)

    def expect(self, run: str, classes: Iterable[str]) -> None:
        """Show the counts of a run at 0 from the start, since an alert cannot compute with a count that is absent."""
        for name in classes:
            self._answers.labels(run, name)
        for counted in (self._abstentions, self._familiarity, self._probability):
            counted.labels(run)

    def note_answer(self, answer: RunAnswer) -> None:
        """Count a run's answer to a picture."""
        best = answer.classes[0]
        if answer.answered:
            self._answers.labels(answer.run, best.name).inc()
        else:
            self._abstentions.labels(answer.run).inc()
        if answer.familiarity is not None:
            self._familiarity.labels(answer.run).observe(answer.familiarity)
        self._probability.labels(answer.run).observe(best.probability)

    def note_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        name = path if path in PATHS else "other"
        self._requests.labels(name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def note_batch(self, size: int) -> None:
        self._batches.observe(size)

    def watch_queue(self, count: Callable[[], int]) -> None:
        self._waiting.set_function(count)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
