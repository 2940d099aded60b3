//! Sources of snapshots: live pages and IIP servers.

use std::time::Duration;

use super::go;
use super::own;
use crate::connection::ConnectArgs;
use crate::exit::Outcome;
use crate::live::{Page, Snapshot, Text};
use crate::output::Output;

/// The source of snapshots.
#[derive(Debug)]
pub(super) enum Source {
    Page(Box<Page>),
    Own(Box<own::Server>),
    Go(Box<go::Server>),
}

impl Source {
    /// Connects. `interval` is the time between the first two readings, if rates need two.
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
