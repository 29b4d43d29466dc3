"""The server's counters, for Prometheus."""

import prometheus_client as prometheus

from sepnet.serving.engine.versions import LoadedVersion

BUCKET_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST


class Metrics:
    """The server's counters, in a registry of their own: two servers in one process do not share them."""

    def __init__(self):
        self._registry = prometheus.CollectorRegistry()

        def make(kind, name: str, text: str, labels: tuple[str, ...] = (), **options):
            return kind(f"sepnet_{name}", text, labels, registry=self._registry, **options)

        self.requests = make(prometheus.Counter, "requests", "Answers, by route and status", ("route", "status"))
        self.seconds = make(
            prometheus.Histogram,
            "request_seconds",
            "From the request to the last byte",
            ("route",),
            buckets=BUCKET_SECONDS,
        )
        self.inside = make(prometheus.Gauge, "requests_inside", "Requests that are being answered")
        self.queue = make(prometheus.Gauge, "queue_length", "Runs of a model that wait")
        self.waiting_seconds = make(
            prometheus.Histogram, "queue_seconds", "What a run waited for its turn", buckets=BUCKET_SECONDS
        )
        self.batch = make(prometheus.Histogram, "batch_requests", "Requests in one run", buckets=(1, 2, 4, 8, 16))
        self.audio = make(prometheus.Counter, "audio_seconds", "Audio separated, with context", ("model", "version"))
        self.songs = make(prometheus.Gauge, "songs_inside", "Songs that are being sent, separated or fetched")

    def observe_run(self, version: LoadedVersion, num_samples: int, num_requests: int) -> None:
        """Counts a run of a model."""
        self.batch.observe(num_requests)
        seconds = num_samples / version.contract["sample_rate"]
        self.audio.labels(version.name, str(version.number)).inc(seconds)

    def text(self) -> bytes:
        """The counters in the format that Prometheus reads."""
        return prometheus.generate_latest(self._registry)
