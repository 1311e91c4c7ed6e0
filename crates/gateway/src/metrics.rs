//! What is counted, and the page that shows it in Prometheus' text format.
//!
//! Names follow Prometheus' conventions: base units, `_total` for what only grows. docs/s3.md lists them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use pando_node::{Node, Status};

/// Upper ends of the classes of latencies, in seconds.
const CLASSES: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// Counters of one gateway. What they can grow to is bounded by the operations there are.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    latencies: Mutex<BTreeMap<String, Latency>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicI64,
    refused: AtomicU64,
}

/// A connection that is open.
pub(crate) struct Connected(Arc<Metrics>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Latency {
    classes: [u64; CLASSES.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// A request was answered; `took` until its answer's head.
    pub(crate) fn answered(&self, operation: &str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((operation.to_owned(), status)).or_default() += 1;
        drop(requests);
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = latencies.entry(operation.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        if let Some(class) = CLASSES.iter().position(|end| seconds <= *end) {
            latency.classes[class] += 1;
        }
        latency.count += 1;
        latency.sum += seconds;
    }

    pub(crate) fn bytes_in(&self, count: u64) {
        self.bytes_in.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn bytes_out(&self, count: u64) {
        self.bytes_out.fetch_add(count, Ordering::Relaxed);
    }

    /// A connection was taken; it counts until what is returned is dropped, also by a panic.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The page.
    pub(crate) async fn page(&self, node: &Node) -> String {
        let mut page = Page::default();
        page.family(
            "pando_http_requests_total",
            "counter",
            "HTTP requests answered, by operation and status.",
        );
        for ((operation, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            page.sample("", &format!("operation=\"{operation}\",status=\"{status}\""), *count);
        }
        let name = "pando_http_request_duration_seconds";
        page.family(name, "histogram", "Time until the head of the answer, by operation.");
        for (operation, latency) in &*self.latencies.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut below = 0;
            for (end, count) in CLASSES.iter().zip(latency.classes) {
                below += count;
                page.sample("_bucket", &format!("operation=\"{operation}\",le=\"{end}\""), below);
            }
            page.sample("_bucket", &format!("operation=\"{operation}\",le=\"+Inf\""), latency.count);
            page.sample("_sum", &format!("operation=\"{operation}\""), latency.sum);
            page.sample("_count", &format!("operation=\"{operation}\""), latency.count);
        }
        page.one(
            "pando_http_received_bytes_total",
            "counter",
            "Bytes of bodies received.",
            load(&self.bytes_in),
        );
        page.one("pando_http_sent_bytes_total", "counter", "Bytes of objects sent.", load(&self.bytes_out));
        let open = self.connections.load(Ordering::Relaxed);
        page.one("pando_http_connections", "gauge", "Open HTTP connections.", open);
        let refused = load(&self.refused);
        page.one(
            "pando_http_connections_refused_total",
            "counter",
            "Connections closed at the limit.",
            refused,
        );
        match node.vitals().await {
            Ok(status) => of_status(&mut page, &status),
            Err(error) => tracing::debug!(%error, "no status for the metrics"),
        }
        page.text
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn of_status(page: &mut Page, status: &Status) {
    page.one("pando_layout_version", "gauge", "The layout that this node knows.", status.layout);
    let moving = u8::from(status.in_transition);
    page.one("pando_layout_in_transition", "gauge", "1 while the layout changes.", moving);
    page.family("pando_member_up", "gauge", "1 if a member answers this node.");
    for node in &status.nodes {
        page.sample("", &format!("node=\"{}\"", node.id.short()), u8::from(node.up));
    }
    if let Some(me) = status.nodes.iter().find(|node| node.me) {
        page.one("pando_capacity_bytes", "gauge", "Bytes that this node offers.", me.capacity);
        page.one("pando_used_bytes", "gauge", "Bytes of chunks that it holds.", me.used.unwrap_or(0));
    }
    let healing = &status.healing;
    page.one(
        "pando_healing_lacking_chunks",
        "gauge",
        "Chunks that it should hold and does not yet.",
        healing.lacking,
    );
    page.one(
        "pando_healing_owing_chunks",
        "gauge",
        "Chunks that it has still to bring to others.",
        healing.owing,
    );
    page.one(
        "pando_healing_misplaced_chunks",
        "gauge",
        "Copies that it holds for others.",
        healing.misplaced,
    );
    page.one(
        "pando_healing_bytes_per_second",
        "gauge",
        "Bytes a second that healing moved lately.",
        healing.rate,
    );
    page.one("pando_scrub_verified_chunks", "gauge", "Chunks verified in this pass.", healing.scrub.verified);
    page.one(
        "pando_scrub_damaged_chunks",
        "gauge",
        "Damaged chunks found in this pass.",
        healing.scrub.damaged,
    );
}

/// A page in the making.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let name = self.name;
        let _ = match labels {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    fn one(&mut self, name: &'static str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample("", "", value);
    }
}
