//! A snapshot as the text that Prometheus scrapes.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::histogram::Histogram;
use super::names::{METHOD, Metrics, STATUS_CODE, SYSTEM, SYSTEM_NAME};
use super::snapshot::{MethodStats, Snapshot};
use crate::frame::Side;

/// The upper bounds of the buckets: 10 µs, and that doubled up to 10.5 s.
const BOUNDS: u32 = 21;
const FIRST_BOUND: Duration = Duration::from_micros(10);

/// The form of the text that [`Snapshot::to_metrics`] returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// The text format of Prometheus, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Returns the format for a request with this `Accept` header: OpenMetrics if it is named,
    /// otherwise that of Prometheus.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let names = accept.split(',').map(|one| one.split(';').next());
        let wants = |name: Option<&str>| {
            name.is_some_and(|name| name.trim() == "application/openmetrics-text")
        };
        match names.into_iter().any(wants) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Returns the value of the header `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Snapshot {
    /// Returns the snapshot in the text format of Prometheus.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        self.to_metrics(MetricsFormat::Prometheus)
    }

    /// Returns the snapshot as metrics, with the names of OpenTelemetry.
    ///
    /// | metric | kind | labels |
    /// |---|---|---|
    /// | `rpc_server_call_duration_seconds` | histogram, from 10 µs to 10.5 s, each bucket twice as long as the one before | `rpc_system_name`, `rpc_method` |
    /// | `rpc_server_calls_total` | counter | the same, `rpc_response_status_code` |
    /// | `rpc_server_active_calls` | gauge | `rpc_system_name`, `rpc_method` |
    /// | `rpc_server_concurrency_limit` | gauge, of methods with a limit of their own | the same |
    /// | `rpc_server_received_bytes_total`, `rpc_server_sent_bytes_total` | counter | the same |
    /// | `rpc_server_credit_stalls_total` | counter, of methods with streams that had to wait for credit | the same |
    /// | `rpc_server_connections` | gauge | `rpc_system_name` |
    /// | `rpc_server_start_time_seconds` | gauge, seconds since 1970 | `rpc_system_name` |
    ///
    /// Those of a client begin with `rpc_client`. A call belongs to a bucket if it took less time
    /// than the bound. `rpc_method` is [`MethodStats::rpc_method`].
    #[must_use]
    pub fn to_metrics(&self, format: MetricsFormat) -> String {
        let mut text = String::with_capacity(4096 + self.methods.len() * 4096);
        // Writing to a string cannot fail.
        let _ = Text {
            out: &mut text,
            format,
        }
        .write(self);
        text
    }
}

struct Text<'a> {
    out: &'a mut String,
    format: MetricsFormat,
}

impl Text<'_> {
    fn write(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let names = Exported::of(snapshot.side);
        let (system, status_code) = (exported(SYSTEM_NAME, ""), exported(STATUS_CODE, ""));
        let prefix = format!("{system}=\"{SYSTEM}\",{}=\"", exported(METHOD, ""));
        let labelled: Vec<(String, &MethodStats)> = snapshot
            .methods
            .iter()
            .map(|method| (labels(&prefix, method.rpc_method()), method))
            .collect();
        self.head(
            &names.duration,
            "histogram",
            "seconds",
            "Duration of calls.",
        )?;
        for (labels, method) in &labelled {
            self.histogram(&names.duration, labels, &method.latency)?;
        }
        self.counter(&names.calls, "", "Calls that have ended, by status code.")?;
        for (labels, method) in &labelled {
            for (_, code, count) in method.codes.iter() {
                let name = &names.calls;
                writeln!(
                    self.out,
                    "{name}_total{{{labels},{status_code}=\"{code}\"}} {count}"
                )?;
            }
        }
        self.head(
            &names.active,
            "gauge",
            "",
            "Calls that have begun and not ended.",
        )?;
        self.values(&names.active, "", &labelled, |method| {
            Some(method.in_flight)
        })?;
        self.head(
            &names.limit,
            "gauge",
            "",
            "The most calls that may run at the same time.",
        )?;
        self.values(&names.limit, "", &labelled, |method| {
            method.max_concurrency.map(u64::from)
        })?;
        self.counter(&names.received, "bytes", "Bytes of frames received.")?;
        self.values(&names.received, "_total", &labelled, |method| {
            Some(method.received.bytes)
        })?;
        self.counter(&names.sent, "bytes", "Bytes of frames sent.")?;
        self.values(&names.sent, "_total", &labelled, |method| {
            Some(method.sent.bytes)
        })?;
        self.counter(
            &names.credit_stalls,
            "",
            "Streams that began to wait for credit.",
        )?;
        self.values(&names.credit_stalls, "_total", &labelled, |method| {
            Some(method.credit_stalls).filter(|&stalls| stalls > 0)
        })?;
        self.head(&names.connections, "gauge", "", "Open connections.")?;
        let open = snapshot.connections.open;
        writeln!(
            self.out,
            "{}{{{system}=\"{SYSTEM}\"}} {open}",
            names.connections
        )?;
        self.head(
            &names.started,
            "gauge",
            "seconds",
            "Time of the start since 1970.",
        )?;
        let started = snapshot.started_at.duration_since(SystemTime::UNIX_EPOCH);
        let started = started.unwrap_or_default().as_secs_f64();
        writeln!(
            self.out,
            "{}{{{system}=\"{SYSTEM}\"}} {started:.3}",
            names.started
        )?;
        if self.format == MetricsFormat::OpenMetrics {
            self.out.write_str("# EOF\n")?;
        }
        Ok(())
    }

    /// Writes the lines with the values of the methods that have one.
    fn values(
        &mut self,
        name: &str,
        suffix: &str,
        labelled: &[(String, &MethodStats)],
        value: impl Fn(&MethodStats) -> Option<u64>,
    ) -> fmt::Result {
        for (labels, method) in labelled {
            if let Some(value) = value(method) {
                writeln!(self.out, "{name}{suffix}{{{labels}}} {value}")?;
            }
        }
        Ok(())
    }

    /// Writes the lines before the values of a counter. In OpenMetrics they name it without its
    /// suffix.
    fn counter(&mut self, name: &str, unit: &str, help: &str) -> fmt::Result {
        match self.format {
            MetricsFormat::OpenMetrics => self.head(name, "counter", unit, help),
            MetricsFormat::Prometheus => self.head(&format!("{name}_total"), "counter", unit, help),
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) -> fmt::Result {
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        if !unit.is_empty() && self.format == MetricsFormat::OpenMetrics {
            writeln!(self.out, "# UNIT {name} {unit}")?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) -> fmt::Result {
        for doubling in 0..BOUNDS {
            let bound = FIRST_BOUND * (1 << doubling);
            let count = histogram.count_below(bound);
            let le = bound.as_secs_f64();
            writeln!(self.out, "{name}_bucket{{{labels},le=\"{le}\"}} {count}")?;
        }
        let (count, sum) = (histogram.count(), histogram.sum().as_secs_f64());
        writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(self.out, "{name}_sum{{{labels}}} {sum}")?;
        writeln!(self.out, "{name}_count{{{labels}}} {count}")
    }
}

/// The names of the metrics of one side.
struct Exported {
    duration: String,
    calls: String,
    active: String,
    limit: String,
    received: String,
    sent: String,
    credit_stalls: String,
    connections: String,
    started: String,
}

impl Exported {
    fn of(side: Side) -> Self {
        let names = Metrics::of(side);
        Self {
            duration: exported(names.duration, "_seconds"),
            calls: exported(names.calls, ""),
            active: exported(names.active, ""),
            limit: exported(names.limit, ""),
            received: exported(names.received, "_bytes"),
            sent: exported(names.sent, "_bytes"),
            credit_stalls: exported(names.credit_stalls, ""),
            connections: exported(names.connections, ""),
            started: exported(names.started, "_seconds"),
        }
    }
}

/// Returns a name of OpenTelemetry in the form of Prometheus.
fn exported(name: &str, unit: &str) -> String {
    name.replace('.', "_") + unit
}

/// Returns the labels of a method; `prefix` ends where its name begins. Paths come from callers,
/// and may contain any text.
fn labels(prefix: &str, method: &str) -> String {
    let mut labels = prefix.to_owned();
    for c in method.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => labels.push(c),
        }
    }
    labels.push('"');
    labels
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::stats::snapshot::Connections;
    use crate::stats::{Codes, OTHER};

    fn method(path: &str, micros: &[u64]) -> MethodStats {
        let mut method = MethodStats::new(path.into());
        for &micros in micros {
            method.latency.record(Duration::from_micros(micros));
        }
        let mut codes = [0; 17];
        (codes[0], codes[5]) = (micros.len() as u64, 1);
        method.codes = Codes::new(codes);
        method.received.bytes = 100;
        (method.max_concurrency, method.credit_stalls) = (Some(8), 3);
        method
    }

    fn snapshot(methods: Vec<MethodStats>) -> Snapshot {
        Snapshot {
            side: Side::Server,
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            uptime: Duration::from_secs(1),
            methods,
            connections: Connections::default(),
        }
    }

    #[test]
    fn each_metric_has_its_lines_in_the_form_of_prometheus() {
        let text = snapshot(vec![method("/a/b", &[5, 15, 15, 20_000_000])]).to_prometheus();
        let lines: Vec<&str> = text.lines().collect();
        let labels = "rpc_system_name=\"iip\",rpc_method=\"a/b\"";
        let name = "rpc_server_call_duration_seconds";
        let expected = [
            format!("# TYPE {name} histogram"),
            format!("{name}_bucket{{{labels},le=\"0.00001\"}} 1"),
            format!("{name}_bucket{{{labels},le=\"0.00002\"}} 3"),
            format!("{name}_bucket{{{labels},le=\"10.48576\"}} 3"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("{name}_sum{{{labels}}} 20.000035"),
            format!("{name}_count{{{labels}}} 4"),
            "# TYPE rpc_server_calls_total counter".to_owned(),
            format!("rpc_server_calls_total{{{labels},rpc_response_status_code=\"NOT_FOUND\"}} 1"),
            format!("rpc_server_active_calls{{{labels}}} 0"),
            format!("rpc_server_concurrency_limit{{{labels}}} 8"),
            format!("rpc_server_received_bytes_total{{{labels}}} 100"),
            format!("rpc_server_credit_stalls_total{{{labels}}} 3"),
            "rpc_server_connections{rpc_system_name=\"iip\"} 0".to_owned(),
            "rpc_server_start_time_seconds{rpc_system_name=\"iip\"} 1.500".to_owned(),
        ];
        let mut rest = lines.iter();
        for expected in expected {
            assert!(rest.any(|line| *line == expected), "{expected}\n{text}");
        }
        let buckets = lines.iter().filter(|line| line.contains("_bucket{"));
        assert_eq!(buckets.count(), 22);
    }

    #[test]
    fn open_metrics_name_counters_without_suffix_and_end_with_a_mark() {
        let snapshot = snapshot(vec![method(OTHER, &[5])]);
        let text = snapshot.to_metrics(MetricsFormat::OpenMetrics);
        assert!(text.contains(
            "# TYPE rpc_server_sent_bytes counter\n# UNIT rpc_server_sent_bytes bytes\n"
        ));
        assert!(text.contains("rpc_method=\"_OTHER\""));
        assert!(text.ends_with("# EOF\n"));
        for (accept, format) in [
            ("text/plain", MetricsFormat::Prometheus),
            ("", MetricsFormat::Prometheus),
            (
                "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
                MetricsFormat::OpenMetrics,
            ),
        ] {
            assert_eq!(MetricsFormat::accepted(accept), format);
        }
    }

    #[test]
    fn the_text_of_a_path_cannot_end_its_label() {
        let text = snapshot(vec![method("/a\"} 1\n# \\", &[5])]).to_prometheus();
        let label = "rpc_method=\"a\\\"} 1\\n# \\\\\"";
        assert!(text.contains(label), "{text}");
        assert!(
            text.lines()
                .all(|line| line.starts_with("rpc_") || line.starts_with("# "))
        );
    }

    #[test]
    #[ignore = "a measurement, of a release build: cargo test --release -p iip-core -- --ignored"]
    fn a_hundred_methods_are_written_in_less_than_five_milliseconds() {
        let micros: Vec<u64> = (1..2000).map(|n| n * n).collect();
        let methods = (0..100).map(|n| method(&format!("/service/method{n}"), &micros));
        let snapshot = snapshot(methods.collect());
        let times = (0..20).map(|_| {
            let start = Instant::now();
            let text = snapshot.to_prometheus();
            assert!(text.len() > 100_000);
            start.elapsed()
        });
        let best = times.min().expect("some");
        println!("a text of 100 methods: {best:?}");
        assert!(best < Duration::from_millis(5));
    }
}
