//! `iq record`: a proxy that records the calls between clients and a server.

mod channel;
mod filter;
mod message;
mod proxy;
mod queue;
mod tap;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use iip_core::transport::{Endpoint, Listener};
use iip_rpc::schema::Description;
use serde_json::json;

use self::filter::Filter;
use self::proxy::Proxy;
use self::queue::{Queue, queue};
use self::writer::{Bounds, FileWriter, Recorded};
use crate::capture::Services;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;
use crate::{complete, services, size, time};

/// Record the calls between clients and a server, as a proxy between them.
///
/// Clients connect to the address of --listen. All traffic is forwarded unchanged. The recording
/// ends with ctrl-c or SIGTERM. `iq replay` shows a recording, and repeats its calls.
#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    /// The address to listen on, such as localhost:7001.
    #[arg(long, value_name = "ADDRESS")]
    listen: Endpoint,
    /// The server: one address, or a named target with one address.
    #[arg(long, value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    to: String,
    /// The file to write. An existing file is replaced.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Record payloads too: arguments, messages, results and errors. Fields marked as secret are
    /// blanked.
    #[arg(long)]
    payloads: bool,
    /// Also blank the values of this metadata key and query parameter; may be repeated.
    #[arg(long, value_name = "KEY")]
    secret: Vec<String>,
    /// End the recording when the file has this size, such as 500MiB; forwarding continues.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    max_size: u64,
    /// End the recording after this time; forwarding continues.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    max_time: Option<Duration>,
    /// Use a saved description instead of asking the server.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    schema: Option<PathBuf>,
    /// Accept connections with TLS, with the certificate in this PEM file.
    #[arg(long, value_name = "FILE", requires = "listen_key", value_hint = ValueHint::FilePath)]
    listen_cert: Option<PathBuf>,
    /// The private key for --listen-cert, in PEM.
    #[arg(long, value_name = "FILE", requires = "listen_cert", value_hint = ValueHint::FilePath)]
    listen_key: Option<PathBuf>,
}

/// The state that all connections share.
#[derive(Debug)]
struct Recorder {
    queue: Queue,
    filter: Filter,
    services: Services,
    /// The build that the descriptions are of, if the server has announced it.
    build: Option<String>,
    /// Set once the note about another build has been printed.
    is_noted: AtomicBool,
    output: Output,
}

impl Recorder {
    /// Prints a note, once, that the server has another build now.
    fn note_other_build(&self) {
        if self.filter.payloads() && !self.is_noted.swap(true, Ordering::Relaxed) {
            self.output.note(
                "the server has another build now, whose secrets are not known: payloads are left \
                 out; record anew to have them",
            );
        }
    }
}

/// Records until interrupted.
pub(crate) async fn run(args: &RecordArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let mut signals = Signals::new()?;
    let server = connect.direct(&args.to)?;
    #[cfg(feature = "tls")]
    let tls = listen_tls(args)?;
    #[cfg(not(feature = "tls"))]
    if args.listen_cert.is_some() {
        let text = "this iq was built without TLS: build it with the feature `tls`";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (services, build) = described(args, connect, output).await?;
    let listener = Listener::bind(&args.listen).await;
    let listener = listener.map_err(|error| Failure::Own(error.to_string()))?;
    let (queue, drafts) = queue();
    let shared = Arc::clone(&queue.shared);
    let recorder = Arc::new(Recorder {
        queue,
        filter: Filter::new(&args.secret, args.payloads),
        services: Services::new(services)?,
        build,
        is_noted: AtomicBool::new(false),
        output: *output,
    });
    let bounds = Bounds {
        bytes: args.max_size,
        time: args.max_time,
    };
    let writer = Arc::clone(&recorder);
    let writer = FileWriter::create(&args.output, &args.to, writer, bounds, *output)?;
    let written = writer.spawn(drafts)?;
    let address = listener.describe();
    output.either(
        "listening",
        json!({ "address": address }),
        format_args!(
            "listening on {address}, recording to {}",
            args.output.display()
        ),
    )?;
    let proxy = Arc::new(Proxy {
        recorder,
        server,
        #[cfg(feature = "tls")]
        tls,
        output: *output,
    });
    tokio::select! {
        biased;
        () = signals.next() => {}
        () = proxy.serve(listener) => {}
    }
    shared.end();
    let recorded = completed(written, &mut signals).await?;
    summary(args, &recorded, output)
}

/// Waits until the file is complete, or a signal comes.
async fn completed(
    written: JoinHandle<Outcome<Recorded>>,
    signals: &mut Signals,
) -> Outcome<Recorded> {
    let written = tokio::task::spawn_blocking(move || written.join());
    let recorded = tokio::select! {
        biased;
        // A second signal ends the wait for a slow disk.
        () = signals.next() => return Err(Failure::Interrupted),
        written = written => written,
    };
    let recorded = recorded.ok().and_then(Result::ok);
    recorded.unwrap_or_else(|| {
        let text = "the thread that writes the file has failed".to_owned();
        Err(Failure::Own(text))
    })
}

/// Returns the descriptions of the services, and the build that they are of.
async fn described(
    args: &RecordArgs,
    connect: &ConnectArgs,
    output: &Output,
) -> Outcome<(Vec<Description>, Option<String>)> {
    if let Some(file) = &args.schema {
        return Ok((services::in_file(file)?, None));
    }
    let connection = connect.connect(&args.to, output).await?;
    let told = services::of_server_if_told(&connection.within_time()).await?;
    if told.is_none() {
        output.note(match args.payloads {
            true => {
                "the server does not describe its services: secrets in payloads are not known, \
                 and are recorded; --schema FILE has a saved description"
            }
            false => "the server does not describe its services",
        });
    }
    Ok((
        told.unwrap_or_default(),
        connection.client.announced_build(),
    ))
}

#[cfg(feature = "tls")]
fn listen_tls(args: &RecordArgs) -> Outcome<Option<iip_rpc::tls::ServerTls>> {
    let (Some(cert), Some(key)) = (&args.listen_cert, &args.listen_key) else {
        return Ok(None);
    };
    let tls = iip_rpc::tls::ServerTls::from_files(cert, key);
    let tls = tls.map_err(|error| {
        let text = error.to_string();
        Failure::Usage(text.replace("ServerTls::from_files", "--listen-cert and --listen-key"))
    })?;
    Ok(Some(tls))
}

/// The signals that end the recording.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Outcome<Self> {
        #[cfg(unix)]
        let signal = |kind| {
            let signal = tokio::signal::unix::signal(kind);
            signal.map_err(|error| Failure::Own(format!("signals cannot be received: {error}")))
        };
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(tokio::signal::unix::SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

fn summary(args: &RecordArgs, recorded: &Recorded, output: &Output) -> Outcome {
    let Recorded {
        calls,
        bytes,
        lost,
        left_out,
    } = *recorded;
    if lost > 0 {
        output.note(format_args!(
            "{} dropped: the file could not be written fast enough",
            counted(lost, "record")
        ));
    }
    if left_out > 0 {
        output.note(format_args!(
            "{} left out: `iq replay --show` tells why",
            counted(left_out, "payload")
        ));
    }
    output.either(
        "recorded",
        json!({
            "file": args.output,
            "calls": calls,
            "bytes": bytes,
            "dropped": lost,
            "payloads_left_out": left_out,
        }),
        format_args!(
            "calls: {calls} recorded to {} ({})",
            args.output.display(),
            counted(bytes, "byte")
        ),
    )
}
