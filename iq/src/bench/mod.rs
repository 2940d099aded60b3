//! `iq bench`: makes a load on a method, and measures its latencies.

mod args;
mod caller;
mod conditions;
mod cpu;
mod difference;
mod find;
mod interrupt;
mod latencies;
mod load;
mod measured;
mod payload;
mod progress;
mod report;
mod tally;
mod work;

use std::time::Duration;

pub(crate) use self::args::BenchArgs;
use self::args::{LoadArgs, Ramp};
use self::find::Search;
use self::interrupt::Interrupt;
use self::load::{Load, Made, Mode, Setup};
use self::measured::{Measured, PlanText};
use self::payload::Messages;
use self::work::Work;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;

/// The measured time, if neither a time nor a number of calls is given.
const DURATION: Duration = Duration::from_secs(10);

/// The seconds of a rate whose calls may be in flight, and the maximum number of calls in flight,
/// unless another number is given.
const IN_FLIGHT_SECONDS: f64 = 10.0;
const MAX_IN_FLIGHT: f64 = 100_000.0;

/// The first rate of a search.
const FIRST_RATE: f64 = 1000.0;

/// The measured time of each step of a search, if none is given.
const STEP: Duration = Duration::from_secs(10);

/// The time of each step of a search before the measured part.
const STEP_WARMUP: Duration = Duration::from_millis(500);

impl BenchArgs {
    /// Returns `true` if the command searches for a limit, instead of measuring a load.
    pub(crate) fn searches(&self) -> bool {
        self.load.find_limit.is_some()
    }
}

/// Makes the load, on its own threads. Handles interrupts itself, and then reports what was
/// measured so far.
pub(crate) fn run(args: &BenchArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::Own(format!("the runtime cannot be started: {error}")))?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen();
        let preparing = prepare(args, connect, output);
        let (load, work, old) = tokio::select! {
            biased;
            () = interrupt.wait() => return Err(Failure::Interrupted),
            prepared = preparing => prepared?,
        };
        let setup = Setup {
            work: &work,
            connect,
            output,
            interrupt: &interrupt,
        };
        if let Some(conditions) = &args.load.find_limit {
            if work.is_one_way() {
                output.note(report::ONE_WAY);
            }
            let search = Search {
                conditions,
                load,
                max_in_flight: args.load.max_in_flight,
            };
            return search
                .run(args.load.rate.unwrap_or(FIRST_RATE), setup)
                .await;
        }
        let Made {
            mut measured,
            is_interrupted,
        } = load.make(setup).await?;
        measured.plan = plan(args, &load, &work);
        if is_interrupted {
            output.note("interrupted: the figures are those until then");
        }
        report(args, &measured, old.as_ref(), output)?;
        match is_interrupted {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    })
}

/// Checks everything that can be wrong before the load begins, and prepares the calls.
async fn prepare(
    args: &BenchArgs,
    connect: &ConnectArgs,
    output: &Output,
) -> Outcome<(Load, Work, Option<Measured>)> {
    let load = load(&args.load)?;
    let old = args
        .report
        .compare
        .as_deref()
        .map(difference::read)
        .transpose()?;
    let work = Work::prepare(args, connect, output).await?;
    Ok((load, work, old))
}

fn load(args: &LoadArgs) -> Outcome<Load> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let rates = match (args.rate, args.ramp) {
        (_, Some(Ramp { from, to })) => Some((from, to)),
        (rate, None) => rate.map(|rate| (rate, rate)),
    };
    let mode = match rates {
        Some((from, to)) => Mode::Open {
            rates: (from, to),
            max_in_flight: max_in_flight(args.max_in_flight, f64::max(from, to)),
        },
        None if args.find_limit.is_some() => Mode::Open {
            rates: (FIRST_RATE, FIRST_RATE),
            max_in_flight: max_in_flight(args.max_in_flight, FIRST_RATE),
        },
        None if args.max_in_flight.is_some() || args.precise => {
            return usage("--max-in-flight and --precise need --rate, --ramp or --find-limit");
        }
        None => Mode::Closed {
            callers: callers(args),
        },
    };
    if args.step.is_some() && args.find_limit.is_none() {
        return usage("--step needs --find-limit");
    }
    let connections = args.connections.unwrap_or(args.threads);
    if connections < args.threads {
        return usage("each thread needs a connection: --connections is less than --threads");
    }
    if matches!(mode, Mode::Closed { callers } if callers < args.threads) {
        return usage("each thread needs a caller: --concurrency is less than --threads");
    }
    let duration = match (args.duration, args.requests) {
        _ if args.find_limit.is_some() => Some(args.step.unwrap_or(STEP)),
        (None, None) => Some(DURATION),
        (duration, _) => duration,
    };
    let warmup = match args.find_limit {
        Some(_) => args.warmup.unwrap_or(STEP_WARMUP),
        None => args.warmup.unwrap_or_default(),
    };
    Ok(Load {
        mode,
        warmup,
        duration,
        requests: args.requests,
        connections,
        threads: args.threads,
        is_precise: args.precise,
        seed: args.seed,
    })
}

/// Returns the number of callers of a closed loop. Callers without a call would be idle.
fn callers(args: &LoadArgs) -> u32 {
    let calls = args.requests.map_or(u32::MAX, |calls| {
        u32::try_from(calls).unwrap_or(u32::MAX).max(args.threads)
    });
    args.concurrency.min(calls)
}

/// Returns the maximum number of calls in flight at a rate.
fn max_in_flight(given: Option<u32>, rate: f64) -> u32 {
    let by_rate = (rate * IN_FLIGHT_SECONDS).ceil().clamp(1.0, MAX_IN_FLIGHT);
    given.unwrap_or(by_rate as u32)
}

fn plan(args: &BenchArgs, load: &Load, work: &Work) -> PlanText {
    let how = match load.mode {
        Mode::Closed { callers } => format!("closed loop, {}", counted(callers, "caller")),
        Mode::Open {
            rates: (from, to), ..
        } if from == to => format!("open loop, {from} calls/s"),
        Mode::Open {
            rates: (from, to), ..
        } => format!("open loop, {from} to {to} calls/s"),
    };
    let connections = load.connections * work.targets.len() as u32;
    let messages = match work.messages.as_ref().map(Messages::count) {
        Some(count) => format!(", {} per call", counted(count, "message")),
        None => String::new(),
    };
    PlanText {
        method: work.name.clone(),
        targets: work.targets.clone(),
        load: format!(
            "{how}, {}, {}{messages}",
            counted(connections, "connection"),
            counted(load.threads, "thread")
        ),
        seed: args.load.seed,
        one_way: work.is_one_way(),
    }
}

fn report(
    args: &BenchArgs,
    measured: &Measured,
    old: Option<&Measured>,
    output: &Output,
) -> Outcome {
    let printed = report::print(measured, output).and_then(|()| match old {
        Some(old) => difference::print(old, measured, output),
        None => Ok(()),
    });
    // The files are written even if the output cannot be.
    if let Some(path) = &args.report.save {
        let text = serde_json::to_string(measured);
        let text = text.map_err(|error| Failure::Own(format!("no JSON: {error}")))?;
        report::write(path, &text)?;
    }
    if let Some(path) = &args.report.html {
        report::write(path, &report::page(measured)?)?;
    }
    printed?;
    report::warn_if_busy(measured, output);
    if let Some(conditions) = &args.report.expect {
        report::expectations(&conditions.check(measured), output)?;
    }
    measured.nothing_succeeded().map_or(Ok(()), Err)
}
