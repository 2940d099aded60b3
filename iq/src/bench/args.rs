//! The options of `iq bench`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::conditions::Conditions;
use crate::complete;
use crate::time;

/// Call a method under load, and measure how long its replies take.
///
/// By default, a number of callers call one after the other (closed loop). With --rate, calls are
/// due at fixed times, whatever the server does (open loop), and latencies count from those times.
///
/// ARGS are as for `iq call`, and may have templates, which are filled in for each call: {{int
/// 1..1000}}, {{string 16}}, {{uuid}}, {{bool}}, {{item a,b,c}}. Without ARGS, values are made from
/// the description of the method. Raw requests are TARGET/PATH with -d DATA.
///
/// A call ends with its reply, or with the end of the stream that it returns. A one-way call ends
/// once it is queued to be written, so its latency does not tell when it has run.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// An address, such as localhost:7000, or a target of the configuration; TARGET/PATH for raw
    /// requests.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    pub(super) target: String,
    /// `Service.method` or `Service/method`, or the path of the method.
    #[arg(add = ArgValueCompleter::new(complete::methods))]
    pub(super) method: Option<String>,
    /// The arguments.
    #[arg(allow_negative_numbers = true, add = ArgValueCompleter::new(complete::arguments))]
    pub(super) args: Vec<String>,
    /// For methods that take a stream: a message in JSON, which may have templates; `@FILE` has one
    /// in each line, `-` is stdin. May be repeated; each call sends them in turn.
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = ["data", "data_file"],
        allow_hyphen_values = true
    )]
    pub(super) message: Vec<String>,
    /// The messages that a call sends [default: each --message once, or one made from the
    /// description].
    #[arg(long, value_name = "N", conflicts_with_all = ["data", "data_file"])]
    pub(super) messages: Option<u64>,
    /// The body of raw requests; it may have templates.
    #[arg(
        long,
        short,
        value_name = "DATA",
        conflicts_with_all = ["data_file", "args"],
        allow_hyphen_values = true
    )]
    pub(super) data: Option<String>,
    /// A file with the body of raw requests, which is sent as it is; `-` for stdin.
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with = "args"
    )]
    pub(super) data_file: Option<PathBuf>,
    /// A saved description, instead of asking the server.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) schema: Option<PathBuf>,
    /// A further target; calls go to all targets in turn. May be repeated.
    #[arg(long, value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    pub(super) also: Vec<String>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    #[command(flatten)]
    pub(super) report: ReportArgs,
}

/// The load.
#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// The number of callers, each of which waits for a reply before it calls again.
    #[arg(
        long,
        short,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
        conflicts_with_all = ["rate", "ramp", "find_limit"]
    )]
    pub(super) concurrency: u32,
    /// Calls per second, which do not wait for replies.
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "ramp")]
    pub(super) rate: Option<f64>,
    /// Calls per second that change evenly from A to B.
    #[arg(long, value_name = "A..B", conflicts_with_all = ["requests", "find_limit"])]
    pub(super) ramp: Option<Ramp>,
    /// With --rate or --ramp: calls in flight, above which calls that are due are skipped
    /// [default: 10 s of the rate, at most 100000].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(super) max_in_flight: Option<u32>,
    /// The time that is measured [default: 10s, none with --requests].
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) duration: Option<Duration>,
    /// The number of calls that are measured.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(super) requests: Option<u64>,
    /// The load before that, which is not measured, such as 2s.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) warmup: Option<Duration>,
    /// Connections to each target [default: one for each thread].
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub(super) connections: Option<u32>,
    /// Threads that make the load.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=256)
    )]
    pub(super) threads: u32,
    /// Do not sleep in the last 50 µs before a call is due: takes more processor time.
    #[arg(long)]
    pub(super) precise: bool,
    /// The seed of templates and of values from descriptions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Search for the highest rate at which this holds, such as 'p99<5ms,errors<0.1%'; begins with
    /// --rate, or 1000.
    #[arg(
        long,
        value_name = "CONDITIONS",
        conflicts_with_all = ["duration", "requests", "expect", "save", "compare", "html"]
    )]
    pub(super) find_limit: Option<Conditions>,
    /// With --find-limit: the duration of each step [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) step: Option<Duration>,
}

/// What is done with the figures.
#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(super) struct ReportArgs {
    /// Exit with 1 unless this holds, such as 'p99<5ms,errors<0.1%,rate>900'.
    #[arg(long, value_name = "CONDITIONS")]
    pub(super) expect: Option<Conditions>,
    /// Save the figures, for --compare.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) save: Option<PathBuf>,
    /// Compare with figures that --save has written.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) compare: Option<PathBuf>,
    /// Write a page with curves and figures.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) html: Option<PathBuf>,
}

/// Two rates, in calls per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ramp {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").ok_or("expected A..B, as 100..1000")?;
        Ok(Self {
            from: rate(from)?,
            to: rate(to)?,
        })
    }
}

/// Parses a number of calls per second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10e6).contains(&rate) => Ok(rate),
        Ok(_) => Err("a rate is between 0.01 and 10 million calls per second".to_owned()),
        Err(_) => Err("expected a number of calls per second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_and_finite() {
        let ramp = "100..2.5".parse::<Ramp>();
        assert_eq!(
            ramp,
            Ok(Ramp {
                from: 100.0,
                to: 2.5
            })
        );
        for text in [
            "", "1", "1..", "0..5", "1..NaN", "1..inf", "-1..2", "1..1e9",
        ] {
            assert!(text.parse::<Ramp>().is_err(), "{text}");
        }
    }
}
