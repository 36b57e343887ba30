//! Prometheus metrics: of requests, and whatever a server registers.
//!
//! Labels are bounded: a request is counted under the first configured route prefix its path begins with, else under
//! `other`, and under its status class. Counting is a few relaxed atomic additions; nothing is looked up by string.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Media type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency buckets in microseconds: 0.1 ms to 10 s.
const BOUNDS_MICROS: [u64; 11] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The registry of a server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Arc<RequestMetrics>,
}

impl Metrics {
    /// A registry that counts requests by these route prefixes (`/api/v1/certificates`, …).
    #[must_use]
    pub fn new(routes: &[&'static str]) -> Self {
        let requests = Arc::new(RequestMetrics::new(routes));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(RequestCollector(Arc::clone(&requests))));
        Self { registry: Arc::new(Mutex::new(registry)), requests }
    }

    /// Registers a server's own metrics.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The exposition in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(4096);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    pub(crate) fn requests(&self) -> Arc<RequestMetrics> {
        Arc::clone(&self.requests)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Route {
    classes: [AtomicU64; CLASSES.len()],
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

/// The counters of the request path.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    prefixes: Vec<&'static str>,
    /// One more than `prefixes`: the last is `other`.
    routes: Vec<Route>,
    pub(crate) connections: AtomicI64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) connections_displaced: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) rate_limited: AtomicU64,
    pub(crate) answers_refused: AtomicU64,
    pub(crate) answers_unread: AtomicU64,
    pub(crate) bodies_refused: AtomicU64,
}

impl RequestMetrics {
    fn new(prefixes: &[&'static str]) -> Self {
        Self {
            prefixes: prefixes.to_vec(),
            routes: (0..=prefixes.len()).map(|_| Route::default()).collect(),
            connections: AtomicI64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_displaced: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            answers_refused: AtomicU64::new(0),
            answers_unread: AtomicU64::new(0),
            bodies_refused: AtomicU64::new(0),
        }
    }

    /// The number of the route a path belongs to.
    pub(crate) fn route_of(&self, path: &str) -> usize {
        self.prefixes.iter().position(|prefix| path.starts_with(prefix)).unwrap_or(self.prefixes.len())
    }

    pub(crate) fn observe(&self, route: usize, status: StatusCode, took: Duration) {
        let Some(route) = self.routes.get(route) else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = route.classes.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        if let Some(counter) = route.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        route.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct RequestCollector(Arc<RequestMetrics>);

impl Collector for RequestCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let names = || self.0.prefixes.iter().copied().chain(std::iter::once("other"));
        {
            let mut requests = encoder.encode_descriptor(
                "http_requests",
                "Requests answered, by route and status class",
                None,
                MetricType::Counter,
            )?;
            for (name, route) in names().zip(&self.0.routes) {
                for (class, counter) in CLASSES.iter().zip(&route.classes) {
                    let count = counter.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = [("route", name), ("status", *class)];
                        ConstCounter::new(count).encode(requests.encode_family(&labels)?)?;
                    }
                }
            }
        }
        {
            let mut latency = encoder.encode_descriptor(
                "http_request_duration_seconds",
                "Time from a request's headers to its response's headers",
                None,
                MetricType::Histogram,
            )?;
            for (name, route) in names().zip(&self.0.routes) {
                let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
                let counts = route.buckets.iter().map(|b| b.load(Ordering::Relaxed));
                let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
                let count: u64 = buckets.iter().map(|(_, count)| count).sum();
                if count > 0 {
                    let labels = [("route", name)];
                    let sum = route.nanos.load(Ordering::Relaxed) as f64 / 1e9;
                    latency
                        .encode_family(&labels)?
                        .encode_histogram::<prometheus_client::encoding::NoLabelSet>(
                            sum, count, &buckets, None,
                        )?;
                }
            }
        }
        let counters = [
            ("http_connections_refused", "Connections over a limit", &self.0.connections_refused),
            ("tls_handshakes_failed", "TLS handshakes that failed or timed out", &self.0.handshakes_failed),
            ("http_requests_rate_limited", "Requests answered with 429", &self.0.rate_limited),
            (
                "http_answers_refused",
                "Answers replaced by a 503 because too many bytes were under way",
                &self.0.answers_refused,
            ),
            (
                "http_answers_unread",
                "Connections closed because an answer was not read",
                &self.0.answers_unread,
            ),
            (
                "http_bodies_refused",
                "Requests answered with a 503 because too many bytes of request bodies were under way",
                &self.0.bodies_refused,
            ),
            (
                "http_connections_displaced",
                "Connections closed because others needed the room for what they held",
                &self.0.connections_displaced,
            ),
        ];
        for (name, help, counter) in counters {
            let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let open = ConstGauge::new(self.0.connections.load(Ordering::Relaxed));
        open.encode(encoder.encode_descriptor(
            "http_connections",
            "Open connections",
            None,
            MetricType::Gauge,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_class_with_bounded_labels() {
        let metrics = Metrics::new(&["/api/v1/things", "/api"]);
        let requests = metrics.requests();
        for path in ["/api/v1/things/7", "/api/x", "/nobody/knows", "/\u{7f}"] {
            requests.observe(requests.route_of(path), StatusCode::OK, Duration::from_micros(300));
        }
        requests.observe(0, StatusCode::INTERNAL_SERVER_ERROR, Duration::from_secs(60));
        let text = metrics.encode().unwrap();
        for line in [
            "http_requests_total{route=\"/api/v1/things\",status=\"2xx\"} 1",
            "http_requests_total{route=\"/api/v1/things\",status=\"5xx\"} 1",
            "http_requests_total{route=\"other\",status=\"2xx\"} 2",
            "http_request_duration_seconds_bucket{le=\"0.0005\",route=\"/api\"} 1",
            "http_request_duration_seconds_bucket{le=\"+Inf\",route=\"/api/v1/things\"} 2",
            "http_connections 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
