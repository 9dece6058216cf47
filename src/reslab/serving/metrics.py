"""What Prometheus reads: requests, their time, batches, what waits."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
# Any other address is counted as one, or strangers could fill the memory.
PATHS = frozenset(("/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/predict", "/v1/model"))
PATHS |= {"/v1/runs", "/v1/log", "/v1/compare"}
PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one app."""

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
        """Write all figures in Prometheus's text format."""
        return generate_latest(self.registry)
