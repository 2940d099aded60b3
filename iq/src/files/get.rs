//! `iq get`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::place::{Remote, not_a_stream};
use super::size_limit;
use super::transfer::{Transfer, TransferArgs};
use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::Outcome;
use crate::output::Output;

/// Download a file or folder from a server.
///
/// An interrupted transfer is resumed. The file gets its name once all of it has arrived and its
/// BLAKE3 hash matches. Prints a line, with the hash if it is a single file.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The file or folder, such as localhost:7000/name, or localhost:7000/ for everything.
    #[arg(value_name = "TARGET/PATH", add = ArgValueCompleter::new(complete::targets))]
    source: String,
    /// The local path to write, or an existing folder to write into [default: the current folder].
    #[arg(value_name = "DESTINATION", value_hint = ValueHint::AnyPath)]
    destination: Option<PathBuf>,
    #[command(flatten)]
    transfer: TransferArgs,
}

impl GetArgs {
    pub(crate) async fn run(&self, connect: &ConnectArgs, output: &Output) -> Outcome {
        let remote = Remote::parse(&self.source)?;
        if let Some(destination) = &self.destination {
            not_a_stream(destination)?;
        }
        let destination = remote.destination(self.destination.as_deref());
        size_limit::ignore_signal()?;
        let connection = connect.connect(remote.target, output).await?;
        let mut transfer = Transfer::new(&self.transfer, connection.client, *output);
        transfer.get(remote.path, &destination).await?;
        transfer.end()
    }
}
