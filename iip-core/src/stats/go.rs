//! The statistics of a server in the words of Go's: the replies to its six paths. Source:
//! recordings `sys_server_count`, `sys_server_measure`, `sys_path_count`, `sys_path_measure`,
//! `sys_statis` and `sys_connection_statis`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::frames::FrameCounts;
pub(crate) use super::go_paths::{
    CONNECTION_STATIS, PATH_COUNT, PATH_MEASURE, PATHS, SERVER_COUNT, SERVER_MEASURE,
};
use super::json::SNAPSHOT;
use super::recent::{Recent, TimeCount};
use super::registry::Registry;
use super::snapshot::Traffic;

const RULE: &str = "-----------------------------------";

/// Frames, messages and bytes. "Packets" are frames, "whole packets" messages. Go does not count
/// the frames and bytes that it receives (defect D30); this does.
#[derive(Clone, Copy, Default, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Count {
    packets_sent: u64,
    packet_received: u64,
    whole_packet_sent: u64,
    whole_packet_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Count {
    pub(crate) fn new(sent: Traffic, received: Traffic) -> Self {
        Self {
            packets_sent: sent.frames,
            packet_received: received.frames,
            whole_packet_sent: sent.messages,
            whole_packet_received: received.messages,
            bytes_sent: sent.bytes,
            bytes_received: received.bytes,
        }
    }
}

/// The durations of a path, or of all.
#[derive(Debug, Serialize)]
struct Measure<'a> {
    five_minute_requests: Vec<u64>,
    five_minute_duration: Vec<u64>,
    all_requests: u64,
    all_duration: u64,
    five_minute_timecount: &'a [TimeCount],
    all_timecount: TimeCount,
}

impl<'a> Measure<'a> {
    fn of(recent: &'a mut Recent, now: u64) -> Self {
        let (all_timecount, all) = (recent.all, recent.all.total());
        let seconds = recent.seconds(now);
        let totals = || seconds.iter().map(TimeCount::total);
        Self {
            five_minute_requests: totals().map(|total| total.count).collect(),
            five_minute_duration: totals().map(|total| total.duration).collect(),
            all_requests: all.count,
            all_duration: all.duration,
            five_minute_timecount: seconds,
            all_timecount,
        }
    }
}

/// The connections, by the addresses of their clients.
pub(crate) type ConnectionStatis = BTreeMap<String, ConnectionCount>;

/// One connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConnectionCount {
    channels: BTreeMap<u32, ChannelCount>,
    write_queue: usize,
    count: Count,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ChannelCount {
    receive_queue: usize,
    count: Count,
}

impl ConnectionCount {
    /// `queues` are the requests that wait, by channel; `open` are the channels with a request that
    /// has no reply yet, which does not count as a whole message yet, as in Go.
    pub(crate) fn new(
        received: &FrameCounts,
        sent: &FrameCounts,
        queues: &BTreeMap<u32, (usize, bool)>,
        write_queue: usize,
    ) -> Self {
        let handled = |traffic: Traffic, open: u64| Traffic {
            messages: traffic.messages.saturating_sub(open),
            ..traffic
        };
        let ids = received.channels.keys().chain(sent.channels.keys());
        let ids = ids.chain(queues.keys());
        let channels = ids.map(|id| {
            let of = |counts: &FrameCounts| counts.channels.get(id).copied().unwrap_or_default();
            let &(receive_queue, is_open) = queues.get(id).unwrap_or(&(0, false));
            let received = handled(of(received), u64::from(is_open));
            let count = Count::new(of(sent), received);
            let channel = ChannelCount {
                receive_queue,
                count,
            };
            (*id, channel)
        });
        let open = queues.values().filter(|(_, is_open)| *is_open).count();
        Self {
            channels: channels.collect(),
            write_queue,
            count: Count::new(sent.total, handled(received.total, open as u64)),
        }
    }
}

impl Registry {
    /// Returns what all paths with a handler have received and sent, or one of them.
    pub(crate) fn go_count(&self, path: Option<&[u8]>) -> Option<Count> {
        let methods = match path {
            Some(path) => vec![self.known(path)?],
            None => self.methods(),
        };
        let (mut received, mut sent) = (Traffic::default(), Traffic::default());
        for method in methods {
            let (more, more_sent) = method.traffic();
            received.merge(more);
            sent.merge(more_sent);
        }
        Some(Count::new(sent, received))
    }

    /// Returns the durations of all paths with a handler, or of one of them, as JSON.
    pub(crate) fn go_measure(&self, path: Option<&[u8]>) -> Option<String> {
        let now = self.now();
        let method = match path {
            Some(path) => Some(self.known(path)?),
            None => None,
        };
        let mut recent = match &method {
            Some(method) => method.recent(),
            None => self.recent()?,
        };
        serde_json::to_string(&Measure::of(&mut recent, now)).ok()
    }

    /// Returns the report about all paths with a handler. `unit` is that of durations, in
    /// nanoseconds.
    pub(crate) fn go_report(&self, unit: u64) -> Option<String> {
        let (mut out, times) = (String::new(), (self.now(), unit));
        let total = self.go_count(None)?;
        write_report(&mut out, "total", total, &mut *self.recent()?, times);
        out.push_str(RULE);
        out.push('\n');
        let methods = self.methods().into_iter();
        // Go has no such path.
        for method in methods.filter(|method| method.path() != SNAPSHOT) {
            let (received, sent) = method.traffic();
            let count = Count::new(sent, received);
            write_report(&mut out, method.path(), count, &mut method.recent(), times);
            out.push('\n');
        }
        Some(out)
    }
}

/// The unit of a report, in nanoseconds.
pub(crate) fn unit_of(request: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Request {
        time_unit: String,
    }
    let request = serde_json::from_slice::<Request>(request);
    match request.as_ref().map(|request| request.time_unit.as_str()) {
        Ok("nanosecond") => 1,
        Ok("millisecond") => 1_000_000,
        Ok("second") => 1_000_000_000,
        // Anything else, as in Go.
        _ => 1000,
    }
}

/// Writes the part of a report about one path, or about all.
fn write_report(
    out: &mut String,
    name: &str,
    count: Count,
    recent: &mut Recent,
    (now, unit): (u64, u64),
) {
    let count = serde_json::to_string(&count).unwrap_or_default();
    let (five, all) = (recent.five_minutes(now), recent.all);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "{name} count: {count}\n{name} measure: \n\n5 minute requests     : {}\nall requests          \
         : {}\n5 minute timecount    : {}\nall timecount         : {}\n\n",
        requests(&five, unit),
        requests(&all, unit),
        ranges(&five, unit),
        ranges(&all, unit),
    );
}

fn average(duration: u64, count: u64, unit: u64) -> u64 {
    duration.checked_div(count).unwrap_or(0) / unit
}

fn requests(time: &TimeCount, unit: u64) -> String {
    let total = time.total();
    let average = average(total.duration, total.count, unit);
    format!("{}, average duration: {average}", total.count)
}

fn ranges(time: &TimeCount, unit: u64) -> String {
    let total = time.total().count;
    let last = time.range_count.len() - 1;
    let ranges = time.range_count.iter().enumerate().map(|(index, range)| {
        let percent = (range.count * 100).checked_div(total).unwrap_or(0);
        let average = average(range.duration, range.count, unit);
        let name = match index == last {
            true => "other".to_owned(),
            false => format!("range{}", index + 1),
        };
        format!("{name}({},{percent}%, average {average})", range.count)
    });
    ranges.collect::<Vec<_>>().join(", ")
}
