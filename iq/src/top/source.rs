//! Where the numbers come from: a live page, or a server of IIP.

use std::time::Duration;

use iip_rpc::{Code, Status};

use super::go;
use super::own;
use crate::connection::{ConnectArgs, Connection};
use crate::exit::{Failure, Outcome};
use crate::live::{Page, Snapshot, Text};
use crate::output::Output;
use crate::stats::ask_within;

/// What is watched.
#[derive(Debug)]
pub(super) enum Source {
    Page(Box<Page>),
    Own(Box<own::Server>),
    Go(Box<go::Server>),
}

impl Source {
    /// Connects. `interval` is the time between two readings.
    pub(super) async fn open(
        target: &str,
        interval: Duration,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Outcome<Self> {
        if let Some(page) = connect.page(target)? {
            return Ok(Self::Page(Box::new(page)));
        }
        let connection = connect
            .connect_to_one(target, Duration::ZERO, output)
            .await?;
        let target = Text::new(target);
        Ok(match own::is_there(&connection).await? {
            true => Self::Own(Box::new(own::Server::new(connection, target, interval))),
            false => Self::Go(Box::new(go::Server::new(connection, target, interval))),
        })
    }

    pub(super) async fn read(&mut self) -> Outcome<Snapshot> {
        match self {
            Self::Page(page) => page.read().await,
            Self::Own(server) => server.read().await,
            Self::Go(server) => server.read().await,
        }
    }
}

/// Asks a path with statistics.
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
