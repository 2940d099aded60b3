//! `iq replay`: makes the calls of a recording again, and compares the replies.

mod calls;
mod compare;
mod ignore;
mod pace;
mod select;
mod send;
mod show;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use iip_core::Printable;
use iip_rpc::{Client, Metadata};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::calls::{Call, Calls};
use self::compare::{Comparison, Difference};
use self::ignore::Ignored;
use self::pace::{Clock, Pace, positive};
use self::select::{LeftOut, reason};
use self::send::{Prepared, Replayed};
use crate::capture::Reader;
use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;

/// The maximum number of calls in flight, even if the recording had more.
const MAX_IN_FLIGHT: usize = 1000;

/// Make the calls of a recording again, and compare the replies; exit with 1 if they differ.
///
/// A call waits for those that had ended when it was recorded. Replies are compared field by field,
/// and their metadata by key.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// A file of `iq record`.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The server that is called: a target.
    #[arg(
        long,
        value_name = "TARGET",
        required_unless_present = "show",
        add = ArgValueCompleter::new(complete::targets),
    )]
    to: Option<String>,
    /// Print the records instead.
    #[arg(long, conflicts_with_all = ["to", "force", "ignore", "pace", "speed"])]
    pub(crate) show: bool,
    /// The pace of the calls: `original`, `max`, or a number in a second such as 50/s.
    #[arg(long, default_value = "original")]
    pace: Pace,
    /// Make the calls this many times as fast as they were recorded.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = positive)]
    speed: f64,
    /// The calls that are made.
    #[arg(long, value_enum, default_value_t = Only::Idempotent, conflicts_with = "force")]
    only: Only,
    /// Make calls of all methods, also of those that are not idempotent.
    #[arg(long)]
    force: bool,
    /// Do not compare this field of replies, such as order.updated_at, or this key of their
    /// metadata, metadata.KEY; `*` is any name; may be repeated.
    #[arg(long, value_name = "FIELD", value_parser = Ignored::parse)]
    ignore: Vec<Ignored>,
}

/// The calls that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Those of methods that the description marks as idempotent.
    Idempotent,
}

/// Makes the calls, or prints the records.
pub(crate) async fn run(args: &ReplayArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let (reader, begin) = Reader::open(&args.file)?;
    let Some(to) = args.to.as_ref().filter(|_| !args.show) else {
        return show::run(reader, &begin, output);
    };
    if args.speed != 1.0 && args.pace != Pace::Original {
        let text = "--speed changes the original pace, and no other";
        return Err(Failure::Usage(text.to_owned()));
    }
    if !begin.payloads {
        return Err(Failure::Usage(format!(
            "{} has no payloads, so its calls cannot be made again: record with --payloads",
            args.file.display()
        )));
    }
    let connection = connect.connect(to, output).await?;
    let replay = Replay {
        args,
        client: connection.client,
        given: Arc::new(connection.metadata),
        timeout: connection.timeout,
        output,
        counts: Counts::default(),
        tasks: JoinSet::new(),
        in_flight: BTreeSet::new(),
    };
    replay.run(Calls::new(reader)).await
}

/// The numbers of calls by their results.
#[derive(Default)]
struct Counts {
    made: u64,
    different: u64,
    left_out: LeftOut,
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    client: Client,
    /// The metadata of the command line and the configuration.
    given: Arc<Metadata>,
    timeout: std::time::Duration,
    output: &'a Output,
    counts: Counts,
    tasks: JoinSet<(Call, Replayed)>,
    /// The calls in flight: the position of their end in the recording, and their number.
    in_flight: BTreeSet<(u64, u64)>,
}

impl Replay<'_> {
    async fn run(mut self, mut calls: Calls) -> Outcome {
        let mut clock = Clock::new(self.args.pace, self.args.speed);
        while let Some(call) = calls.next()? {
            let described = calls.services.at(&call.request.path);
            if let Some(reason) = reason(&call, described, self.args.force) {
                *self.counts.left_out.entry(reason).or_default() += 1;
                continue;
            }
            let prepared = Prepared::new(&call, described, self.timeout);
            clock.wait(call.request.at).await;
            while self.must_wait(&call) {
                self.finish_one(&calls).await?;
            }
            self.start(call, prepared);
            while let Some(ended) = self.tasks.try_join_next() {
                self.finish(ended, &calls)?;
            }
        }
        while !self.tasks.is_empty() {
            self.finish_one(&calls).await?;
        }
        if let Some(remark) = calls.remark() {
            self.output.note(remark);
        }
        if calls.lost > 0 {
            self.output.note(format_args!(
                "{} dropped by the recorder",
                counted(calls.lost, "record")
            ));
        }
        self.summary()
    }

    /// Returns `true` if a call in flight had ended before this one began, or too many are open.
    fn must_wait(&self, call: &Call) -> bool {
        let first = self.in_flight.first();
        first.is_some_and(|&(ended, _)| ended < call.began) || self.tasks.len() >= MAX_IN_FLIGHT
    }

    fn start(&mut self, call: Call, prepared: Prepared) {
        let (client, given) = (self.client.clone(), Arc::clone(&self.given));
        self.counts.made += 1;
        self.in_flight.insert((call.ended, call.request.call));
        self.tasks.spawn(async move {
            let replayed = prepared.send(client, &given).await;
            (call, replayed)
        });
    }

    async fn finish_one(&mut self, calls: &Calls) -> Outcome {
        match self.tasks.join_next().await {
            Some(ended) => self.finish(ended, calls),
            None => Ok(()),
        }
    }

    fn finish(
        &mut self,
        ended: Result<(Call, Replayed), tokio::task::JoinError>,
        calls: &Calls,
    ) -> Outcome {
        let ended = ended.map_err(|error| Failure::Own(format!("a call has failed: {error}")));
        let (call, replayed) = ended?;
        self.in_flight.remove(&(call.ended, call.request.call));
        let described = calls.services.at(&call.request.path);
        let found = Comparison::of(&call, &replayed, described, &self.args.ignore);
        self.counts.different += u64::from(!found.is_empty());
        let name = match described {
            Some(described) => described.name(),
            None => call.request.path.clone(),
        };
        found
            .iter()
            .try_for_each(|difference| self.print(&call, &name, difference))
    }

    fn print(&self, call: &Call, name: &str, difference: &Difference) -> Outcome {
        let number = call.request.call;
        if self.output.is_json() {
            let mut value = json!({"call": number, "method": name});
            if let (Value::Object(all), Ok(Value::Object(more))) =
                (&mut value, serde_json::to_value(difference))
            {
                all.extend(more);
            }
            return self.output.object("difference", value);
        }
        let Difference {
            field,
            recorded,
            replayed,
        } = difference;
        let field = match field.is_empty() {
            true => String::new(),
            false => format!("{field}: "),
        };
        let line = format!("#{number} {name}: {field}recorded {recorded}, replayed {replayed}");
        self.output.line(Printable(line))
    }

    fn summary(self) -> Outcome {
        let Counts {
            made,
            different,
            left_out,
        } = self.counts;
        let same = made - different;
        let omitted: u64 = left_out.values().sum();
        if self.output.is_json() {
            let reasons = left_out.iter();
            let reasons: serde_json::Map<String, Value> = reasons
                .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                .collect();
            let value = json!({
                "calls": made,
                "same": same,
                "different": different,
                "left_out": omitted,
                "reasons": reasons,
            });
            self.output.object("summary", value)?;
        } else {
            self.output.line(format_args!(
                "calls: {made} made, {same} the same, {different} different"
            ))?;
            for (reason, count) in &left_out {
                self.output
                    .line(format_args!("left out: {count} {}", reason.text()))?;
            }
        }
        match (made, different) {
            (0, _) => Err(Failure::Check("no call was made".to_owned())),
            (_, 0) => Ok(()),
            (_, 1) => Err(Failure::Check("1 reply differs".to_owned())),
            (_, n) => Err(Failure::Check(format!("{n} replies differ"))),
        }
    }
}
