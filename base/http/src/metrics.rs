//! Counters for Prometheus: requests by service and status, and their time.

use crate::Service;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram, milliseconds.
const BUCKETS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000];
const SERVICES: [Service; 6] = [
    Service::Identity,
    Service::Image,
    Service::Network,
    Service::Compute,
    Service::Placement,
    Service::Front,
];

#[derive(Default)]
struct PerService {
    /// By hundreds of the status: 2xx is index 2.
    by_class: [AtomicU64; 6],
    buckets: [AtomicU64; 11],
    micros: AtomicU64,
}

/// All counters of this process.
#[derive(Default)]
pub struct Metrics {
    services: [PerService; 6],
}

impl Metrics {
    /// Counts one request.
    pub fn count(&self, service: Service, status: u16, took: Duration) {
        let Some(i) = SERVICES.iter().position(|s| *s == service) else {
            return;
        };
        let Some(s) = self.services.get(i) else { return };
        if let Some(c) = s.by_class.get(usize::from(status / 100)) {
            c.fetch_add(1, Ordering::Relaxed);
        }
        let ms = took.as_millis() as u64;
        let b = BUCKETS.iter().position(|b| ms <= *b).unwrap_or(BUCKETS.len());
        if let Some(c) = s.buckets.get(b) {
            c.fetch_add(1, Ordering::Relaxed);
        }
        s.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::from(
            "# HELP haneul_requests_total Requests answered, by service and class of status.\n# TYPE haneul_requests_total counter\n",
        );
        let named = || SERVICES.iter().zip(&self.services);
        let label = |s: &Service| match s.prefix().trim_start_matches('/') {
            "" => "front",
            other => other,
        };
        for (s, c) in named() {
            for (class, n) in c.by_class.iter().enumerate().skip(1) {
                let _ = writeln!(
                    out,
                    "haneul_requests_total{{service=\"{}\",status=\"{class}xx\"}} {}",
                    label(s),
                    n.load(Ordering::Relaxed)
                );
            }
        }
        out.push_str("# HELP haneul_request_seconds Time to answer.\n# TYPE haneul_request_seconds histogram\n");
        for (s, c) in named() {
            let mut sum = 0;
            for (i, n) in c.buckets.iter().enumerate() {
                sum += n.load(Ordering::Relaxed);
                let le = BUCKETS
                    .get(i)
                    .map_or_else(|| "+Inf".into(), |b| format!("{}", *b as f64 / 1000.0));
                let _ = writeln!(
                    out,
                    "haneul_request_seconds_bucket{{service=\"{}\",le=\"{le}\"}} {sum}",
                    label(s)
                );
            }
            let _ = writeln!(
                out,
                "haneul_request_seconds_sum{{service=\"{}\"}} {}",
                label(s),
                c.micros.load(Ordering::Relaxed) as f64 / 1e6
            );
            let _ = writeln!(out, "haneul_request_seconds_count{{service=\"{}\"}} {sum}", label(s));
        }
        out
    }
}
