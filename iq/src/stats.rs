//! `iq stats`: the statistics of a server, from the paths that Go servers have for them.

use std::time::Duration;

use iip_rpc::envelope::PlainError;
use iip_rpc::{Code, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::{StatsArgs, Unit};
use crate::connection::{ConnectArgs, Connection};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::raw::status_of;
use crate::services;

/// The end of the reply about a path that the server does not know.
const NO_PATH: &str = "] not support";

/// Prints the statistics of a server, of a path, or of its connections.
pub(crate) async fn run(args: &StatsArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let connection = connect.connect(&args.target, output).await?;
    if args.connections {
        return connections(&connection, output).await;
    }
    match &args.path {
        Some(name) => {
            let path = path_of(&connection, name).await?;
            of_path(&connection, &path, output).await
        }
        None if output.is_json() => {
            let count = read(&connection, "/sys/server_count", "{}").await?;
            let measure = read(&connection, "/sys/server_measure", "{}").await?;
            print("server", &count, &measure, output)
        }
        None => {
            let body = json!({"time_unit": args.unit.name()}).to_string();
            let report = ask(&connection, "/sys/statis", &body).await?;
            output.bytes(report.as_bytes())?;
            match report.ends_with('\n') {
                true => Ok(()),
                false => output.line(""),
            }
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Nanosecond => "nanosecond",
            Self::Microsecond => "microsecond",
            Self::Millisecond => "millisecond",
            Self::Second => "second",
        }
    }
}

/// Counters of messages. The names are those of the protocol.
#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
struct Count {
    packets_sent: i64,
    packet_received: i64,
    whole_packet_sent: i64,
    whole_packet_received: i64,
    bytes_sent: i64,
    bytes_received: i64,
}

/// Counters of requests and their durations. The five-minute fields have a slot for each second.
#[derive(Deserialize)]
struct Measure {
    five_minute_requests: Vec<u64>,
    /// In nanoseconds, like `all_duration`.
    five_minute_duration: Vec<u64>,
    all_requests: u64,
    all_duration: u64,
}

/// Returns the path of a method.
async fn path_of(connection: &Connection, name: &str) -> Outcome<String> {
    if name.starts_with('/') {
        return Ok(name.to_owned());
    }
    match services::of_server_if_told(&connection.within_time()).await? {
        Some(services) => Ok(services::method(&services, name)?.1.path.clone()),
        None => Err(Failure::Usage(format!(
            "`{name}` is not a path, such as /orders/place, and the server does not describe its \
             services, so the paths of methods are not known"
        ))),
    }
}

async fn of_path(connection: &Connection, path: &str, output: &Output) -> Outcome {
    let count = read(connection, "/sys/path_count", path).await;
    let count = count.map_err(|failure| match failure {
        Failure::Status(status) if status.message().contains(NO_PATH) => {
            let text = format!(
                "the server has no statistics of `{path}`: there is no such path, or no call of \
                 it has run"
            );
            Status::not_found(text).into()
        }
        failure => failure,
    })?;
    let measure = read(connection, "/sys/path_measure", path).await?;
    print(path, &count, &measure, output)
}

fn print(of: &str, count: &Count, measure: &Measure, output: &Output) -> Outcome {
    let sum = |ring: &[u64]| {
        ring.iter()
            .fold(0, |sum: u64, &slot| sum.saturating_add(slot))
    };
    let recent = sum(&measure.five_minute_requests);
    let mean = measure.all_duration.checked_div(measure.all_requests);
    let recent_mean = sum(&measure.five_minute_duration).checked_div(recent);
    if output.is_json() {
        let value = json!({
            "of": of,
            "count": count,
            "requests": measure.all_requests,
            "mean_ns": mean,
            "requests_5m": recent,
            "mean_5m_ns": recent_mean,
        });
        return output.object("stats", value);
    }
    let times = |mean: Option<u64>| match mean {
        Some(nanos) => format!(", mean {:.1?}", Duration::from_nanos(nanos)),
        None => String::new(),
    };
    output.line(format_args!(
        "requests\t{}{}",
        measure.all_requests,
        times(mean)
    ))?;
    output.line(format_args!("in 5 minutes\t{recent}{}", times(recent_mean)))?;
    output.line(format_args!(
        "messages\t{} received, {} sent",
        count.whole_packet_received, count.whole_packet_sent
    ))?;
    output.line(format_args!("bytes\t{} sent", count.bytes_sent))
}

async fn connections(connection: &Connection, output: &Output) -> Outcome {
    let text = ask(connection, "/sys/connection_statis", "{}").await?;
    if !output.is_json() {
        return output.line(text.trim_end());
    }
    let Value::Object(peers) = parse("/sys/connection_statis", &text)? else {
        let text = "the statistics of connections are not an object".to_owned();
        return Err(Failure::Own(text));
    };
    for (peer, statistics) in peers {
        output.object(
            "connection",
            json!({"peer": peer, "statistics": statistics}),
        )?;
    }
    Ok(())
}

async fn read<T: for<'de> Deserialize<'de>>(
    connection: &Connection,
    path: &str,
    body: &str,
) -> Outcome<T> {
    parse(path, &ask(connection, path, body).await?)
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(path: &str, text: &str) -> Outcome<T> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Own(format!("the reply of {path} is malformed: {error}")))
}

/// Calls a reserved path, within the timeout of the command.
async fn ask(connection: &Connection, path: &str, body: &str) -> Outcome<String> {
    ask_within(connection, path, body, connection.remaining()).await
}

/// Calls a reserved path, with this timeout.
pub(crate) async fn ask_within(
    connection: &Connection,
    path: &str,
    body: &str,
    time: Duration,
) -> Outcome<String> {
    let options = iip_core::CallOptions::default().timeout(time);
    let raw = connection.client.raw();
    let reply = raw.request_with(path, body.to_owned(), options).await;
    let reply = reply.map_err(|error| Failure::from(status_of(&error)))?;
    if let Some(error) = PlainError::read(&reply) {
        let status = error.into_status();
        return Err(Failure::Status(match status.code() {
            Code::Unimplemented => {
                let text = format!(
                    "the server has no statistics at {path}, or does not show them to this client"
                );
                Status::unimplemented(text)
            }
            _ => status,
        }));
    }
    String::from_utf8(reply.to_vec())
        .map_err(|_| Failure::Own(format!("the reply of {path} is not text")))
}
