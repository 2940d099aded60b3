//! Requests for statistics.

use iip_rpc::{Code, Status};

use crate::connection::Connection;
use crate::exit::{Failure, Outcome};
use crate::stats::ask_within;

/// Calls a path with statistics.
pub(super) async fn ask(connection: &Connection, path: &str, body: &str) -> Outcome<String> {
    let asked = ask_within(connection, path, body, connection.timeout).await;
    asked.map_err(|failure| match failure {
        Failure::Status(status) if status.code() == Code::Unimplemented => {
            let text = format!(
                "{}: see `ServerBuilder::statistics`, or watch its live page, \
                 `iq top http://HOST:PORT/live`",
                status.own_message()
            );
            Failure::Status(Status::unimplemented(text))
        }
        failure => failure,
    })
}
