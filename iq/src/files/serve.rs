//! `iq serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use iip_core::ShutdownSignal;
use iip_files::{Folder, go};
use iip_rpc::Server;
use serde_json::json;

use super::size_limit;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::size;

/// The time that running transfers have after a signal. They can be resumed later.
const DRAIN: Duration = Duration::from_secs(2);

/// Serve the files of a folder to `iq get`, `iq put` and clients of Go's file servers.
///
/// Without --write, clients cannot change anything. Nothing outside the folder can be read or
/// written, and symbolic links are not followed. With --cert and --key, connections need TLS; with
/// --ca, clients also need a certificate signed by this CA. SIGINT and SIGTERM end the server.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The folder.
    #[arg(value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// The address to listen on: everyone who can reach it can read the files.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: String,
    /// Let clients write files.
    #[arg(long)]
    write: bool,
    /// The maximum bytes per second of all transfers together, such as 10M.
    #[arg(long, value_name = "RATE", value_parser = size::parse_rate)]
    limit_rate: Option<u64>,
}

impl ServeArgs {
    /// Serves until a signal arrives.
    pub(crate) async fn run(&self, connect: &ConnectArgs, output: &Output) -> Outcome {
        let shown = self.folder.display();
        let folder = Folder::open(&self.folder);
        let mut folder = folder
            .map_err(|error| Failure::Usage(format!("{shown}: {error}")))?
            .writable(self.write);
        if let Some(rate) = self.limit_rate {
            folder = folder.bytes_per_second(rate);
        }
        // Go clients name files by their paths on the disk of the server.
        let prefix = self.folder.canonicalize().unwrap_or_default();
        let prefix = prefix.to_str().unwrap_or_default();
        let failed = |error| Failure::Own(format!("{}: {error} (option --listen)", self.listen));
        size_limit::ignore_signal()?;
        // Installed before the server listens, so that no signal kills the process from then on.
        let mut signal = ShutdownSignal::new().map_err(failed)?;
        let server = Server::builder()
            .service(folder.clone().into_service())
            .service(go::service(folder, prefix));
        let server = connect.secure(server)?.bind(&self.listen);
        let server = server.await.map_err(failed)?;
        let address = server.target();
        let mode = match self.write {
            true => "read and write",
            false => "read only",
        };
        output.either(
            "serving",
            json!({"folder": self.folder, "address": address, "write": self.write}),
            format_args!("{address}\t{shown}\t{mode}"),
        )?;
        let cause = signal.recv().await;
        output.detail(format_args!("{cause}: the server ends"));
        server.shutdown(DRAIN).await;
        Ok(())
    }
}
