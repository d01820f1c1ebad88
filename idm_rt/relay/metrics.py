"""What Prometheus scrapes. A registry of its own, so that several relays in one process do not meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from idm_rt.relay.service import RelayService
    from idm_rt.relay.sessions import Session
    from idm_rt.worker import LiveStats

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST
_DELAY_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.067, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Metrics:
    """Counters that grow as things happen, and a collector that reads the sessions when asked."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "idm_relay_requests", "HTTP requests answered", ("route", "method", "status"), registry=self.registry
        )
        self._refused = prometheus.Counter(
            "idm_relay_refused", "Requests refused, by rule", ("rule",), registry=self.registry
        )
        self._delay = prometheus.Histogram(
            "idm_relay_frame_delay_seconds",
            "Arrival of a frame's last packet to the end of its encoding",
            buckets=_DELAY_BUCKETS_S,
            registry=self.registry,
        )
        self._finished: Counter[tuple[str, str]] = Counter()  # of sessions that have ended
        self._service: RelayService | None = None

    def watch(self, service: RelayService) -> None:
        """Report this relay's sessions."""
        self._service = service
        self.registry.register(self)

    def request(self, route: str, method: str, status: int) -> None:
        """A request was answered; ``route`` is a pattern and not a path."""
        self._requests.labels(route, method, str(status)).inc()

    def refused(self, rule: str) -> None:
        """A rule refused a request."""
        self._refused.labels(rule).inc()

    def delay(self, delay_s: float) -> None:
        """A frame left the relay."""
        self._delay.observe(delay_s)

    def finished(self, session: Session) -> None:
        """Keep the counts of a session that ends."""
        stats = session.stats()
        if stats is not None:
            self._finished.update(_counts(stats))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return prometheus.generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        if self._service is None:
            return
        service = self._service
        sessions = GaugeMetricFamily("idm_relay_sessions", "Sessions now", labels=["role"])
        for role in ("publish", "view", "call"):
            sessions.add_metric([role], service.counts()[role])
        yield sessions
        yield GaugeMetricFamily("idm_relay_rooms", "Rooms now", value=len(service.rooms))
        yield GaugeMetricFamily("idm_relay_ready", "1 if an enhancer can be opened", value=int(service.pool.ready))
        yield GaugeMetricFamily("idm_relay_cpu_cores", "Cores used, measured", value=service.admission.used_cores)
        yield from self._frames(service)
        yield _delays(service)

    def _frames(self, service: RelayService) -> Iterator[Metric]:
        total = Counter(self._finished)
        for session in service.sessions.values():
            stats = session.stats()
            if stats is not None:
                total.update(_counts(stats))
        frames = CounterMetricFamily("idm_relay_frames", "Video frames to be restored", labels=["outcome", "cause"])
        for (outcome, cause), count in sorted(total.items()):
            frames.add_metric([outcome, cause], count)
        yield frames


def _delays(service: RelayService) -> Metric:
    """Per session that sends pictures on: a histogram over all of them would mix restored and passed-through ones."""
    delays = GaugeMetricFamily(
        "idm_relay_session_delay_seconds",
        "Arrival of a frame's last packet to the end of its encoding, newest 1000 frames of a live session",
        labels=["session", "role", "room", "quantile"],
    )
    for session in service.sessions.values():
        summary = session.meter.summary()
        for quantile, key in (("0.5", "p50_ms"), ("0.95", "p95_ms"), ("0.99", "p99_ms")):
            if summary["count"]:
                labels = [session.id[:6], session.role, session.room or "", quantile]
                delays.add_metric(labels, summary[key] / 1000.0)
    return delays


def _counts(stats: LiveStats) -> Counter[tuple[str, str]]:
    """Frames by what became of them: restored, bypassed (by cause), dropped."""
    counts: Counter[tuple[str, str]] = Counter()
    counts["restored", ""] = stats.frames_out - sum(stats.bypassed.values())
    counts["dropped", ""] = stats.dropped + stats.superseded
    for cause, count in stats.bypassed.items():
        counts["bypassed", cause] = count
    return counts
