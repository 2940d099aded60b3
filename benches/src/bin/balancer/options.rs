//! The command line.

use std::time::Duration;

use iip_benches::BoxError;
use iip_benches::args::seconds;

const USAGE: &str = "usage: balancer pick | fails-at-once | slow | new-server | outage | rest \
                     [--rounds N] [--secs S] [--callers N] [--down S] [--limit CALLS]";

/// The scenario that is measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Scenario {
    /// The time of a pick, of the account of a call, and of a snapshot.
    Pick,
    /// One of three servers fails its calls at once.
    FailsAtOnce,
    /// One of three servers is ten times slower.
    Slow,
    /// A fourth server joins.
    NewServer,
    /// All servers are down for some time.
    Outage,
    /// Memory and processor time of clients that make no calls.
    Rest,
    /// The process that [`Rest`](Self::Rest) measures.
    RestClient { addr: String, backends: usize },
}

/// The size of a scenario.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Options {
    /// `--rounds`: repetitions, of which the medians are printed.
    pub(crate) rounds: usize,
    /// `--secs`: duration of the measurement; its default depends on the scenario.
    pub(crate) secs: Option<Duration>,
    /// `--callers`: tasks that each keep one call in flight.
    pub(crate) callers: Option<usize>,
    /// `--down`: duration of an outage.
    pub(crate) down: Duration,
    /// `--limit`: the `max_concurrency` of a server that returns after an outage.
    pub(crate) limit: u32,
}

/// Reads a command line without the program's name.
///
/// # Errors
/// Names the argument that is wrong.
pub(crate) fn parse(
    mut args: impl Iterator<Item = String>,
) -> Result<(Scenario, Options), BoxError> {
    let scenario = match args.next().as_deref() {
        Some("pick") => Scenario::Pick,
        Some("fails-at-once") => Scenario::FailsAtOnce,
        Some("slow") => Scenario::Slow,
        Some("new-server") => Scenario::NewServer,
        Some("outage") => Scenario::Outage,
        Some("rest") => Scenario::Rest,
        Some("rest-client") => Scenario::RestClient {
            addr: args.next().ok_or(USAGE)?,
            backends: args.next().ok_or(USAGE)?.parse()?,
        },
        _ => return Err(USAGE.into()),
    };
    let mut options = Options {
        rounds: 3,
        secs: None,
        callers: None,
        down: Duration::from_secs(5),
        limit: 500,
    };
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |error: BoxError| format!("{name} {value:?}: {error}");
        match name.as_str() {
            "--rounds" => options.rounds = count(&value).map_err(wrong)?,
            "--secs" => options.secs = Some(seconds(&value).map_err(wrong)?),
            "--callers" => options.callers = Some(count(&value).map_err(wrong)?),
            "--down" => options.down = seconds(&value).map_err(wrong)?,
            "--limit" => options.limit = count(&value).map_err(wrong)?.try_into()?,
            _ => return Err(format!("unknown option {name}; {USAGE}").into()),
        }
    }
    Ok((scenario, options))
}

fn count(value: &str) -> Result<usize, BoxError> {
    match value.parse()? {
        0 => Err("it must be at least 1".into()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_a_mistake_is_named() {
        let read = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        let (scenario, options) = read("outage --down 30 --callers 7").expect("it is right");
        assert_eq!(scenario, Scenario::Outage);
        assert_eq!(options.down, Duration::from_secs(30));
        assert_eq!(options.callers, Some(7));
        for (line, named) in [
            ("", "usage"),
            ("slow --secs", "--secs"),
            ("slow --rounds 0", "--rounds"),
            ("slow --colour red", "--colour"),
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
