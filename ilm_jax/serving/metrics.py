"""The metrics that Prometheus reads at /metrics."""
from collections.abc import Callable

import prometheus_client as prometheus

_SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
  """Counters of one server, in their own registry."""

  def __init__(self):
    self.registry = prometheus.CollectorRegistry()
    own = {"registry": self.registry}
    self._requests = prometheus.Counter(
        "ilm_requests", "Requests answered.", ("route", "status"), **own)
    self._seconds = prometheus.Histogram(
        "ilm_request_seconds", "From the head of a request to the end of its answer.", ("route",),
        buckets=_SECONDS, **own)
    self._batch = prometheus.Histogram(
        "ilm_batch_size", "Histories scored in one batch; 1 for a text.",
        buckets=(1, 2, 4, 8, 16, 32), **own)
    self._model = prometheus.Counter(
        "ilm_model_seconds", "Seconds in which the model thread worked.", **own)

  def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
    """Adds a gauge; `value` is called whenever /metrics is read."""
    prometheus.Gauge(name, about, registry=self.registry).set_function(value)

  def batch(self, size: int, seconds: float) -> None:
    """Counts a batch of the model thread."""
    self._batch.observe(size)
    self._model.inc(seconds)

  def request(self, route: str, status: int, seconds: float) -> None:
    """Counts a request. `route`: one of a small fixed set, e.g. "/v1/sessions/{raw}"."""
    self._requests.labels(route, str(status)).inc()
    self._seconds.labels(route).observe(seconds)

  def text(self) -> bytes:
    """The page of /metrics."""
    return prometheus.generate_latest(self.registry)
