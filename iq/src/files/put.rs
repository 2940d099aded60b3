//! `iq put`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::place::{Remote, not_a_stream, text_of};
use super::transfer::{Transfer, TransferArgs};
use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Upload files and folders to a server.
///
/// An interrupted transfer is resumed. The file gets its name on the server once all of it has
/// arrived and its BLAKE3 hash matches. Prints a line for each source, with the hash if it is a
/// file.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// Files and folders.
    #[arg(required = true, value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    sources: Vec<PathBuf>,
    /// The path to write, such as localhost:7000/name. With a slash at the end, or with several
    /// sources, the folder to write into.
    #[arg(value_name = "TARGET/PATH", add = ArgValueCompleter::new(complete::targets))]
    destination: String,
    #[command(flatten)]
    transfer: TransferArgs,
}

impl PutArgs {
    /// Uploads one source after the other.
    pub(crate) async fn run(&self, connect: &ConnectArgs, output: &Output) -> Outcome {
        let remote = Remote::parse(&self.destination)?;
        let mut paths = BTreeMap::new();
        for source in &self.sources {
            not_a_stream(source)?;
            let path = remote.of_source(source, self.sources.len() > 1)?;
            if let Some(other) = paths.insert(path, source) {
                let (one, other) = (source.display(), other.display());
                let text = format!("{other} and {one} would be written to the same path");
                return Err(Failure::Usage(text));
            }
        }
        let connection = connect.connect(remote.target, output).await?;
        let mut transfer = Transfer::new(&self.transfer, connection.client, *output);
        for source in &self.sources {
            let path = remote.of_source(source, self.sources.len() > 1)?;
            transfer.put(source, text_of(source)?, &path).await?;
        }
        transfer.end()
    }
}
