//! The command line of the program, its threads and its signals.

mod options;
mod workers;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use iip_core::ShutdownSignal;
use iip_gateway::Gateway;
use iip_gateway::config::{ConfigFile, LiveConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use self::options::Command;
use self::workers::Workers;

/// Exit code for a mistake on the command line.
const USAGE: u8 = 2;

pub(crate) fn main() -> ExitCode {
    let command = match options::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(reason) => {
            complain(format_args!("{reason}\n\n{}", options::USAGE));
            return ExitCode::from(USAGE);
        }
    };
    let outcome = match command {
        Command::Help => print(options::USAGE),
        Command::Version => print(concat!("iip-gateway ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Check(path) => check(&path),
        Command::Serve(path) => serve(&path),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn complain(text: std::fmt::Arguments<'_>) {
    // A failure to print cannot be reported.
    let _ = write!(io::stderr(), "iip-gateway: {text}");
}

fn print(text: &str) -> Outcome {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Loads a configuration and the files that it names.
fn check(path: &Path) -> Outcome {
    let config = ConfigFile::load(path)?;
    let listeners = config.listeners()?;
    config.builder()?.build()?;
    config.live()?;
    for listener in listeners {
        listener.options.check()?;
    }
    print(&format!("{}: no mistakes\n", path.display()))
}

fn serve(path: &Path) -> Outcome {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let config = ConfigFile::load(path)?;
    let gateway = config.builder()?.build()?;
    let listeners = config.listeners()?;
    let live = config.live()?;
    let limit = config.drain();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Installed before the program listens, so that no signal kills the process from then on.
        let mut ended = ShutdownSignal::new()?;
        let mut reload = signal(SignalKind::hangup())?;
        for listener in &listeners {
            // This applies to the clones of all workers.
            listener.options.clone().watch_files()?;
        }
        let workers = Workers::start(&gateway, &listeners, config.workers())?;
        for address in workers.addresses() {
            tracing::info!(%address, "the gateway listens");
        }
        let asked = Arc::new(Notify::new());
        if let Some(live) = &live {
            let address = listen_live(live, &gateway, &asked).await?;
            tracing::info!(%address, "the live page is at /live");
        }
        let name = loop {
            tokio::select! {
                name = ended.recv() => break name,
                () = asked.notified() => break "live page",
                _ = reload.recv() => reload_from(path, &gateway, &workers, live.as_ref()),
            }
        };
        tracing::info!(
            cause = name,
            ?limit,
            "the gateway ends when its requests have replies"
        );
        if !gateway.shutdown(limit).await {
            tracing::warn!("requests were interrupted: they took longer than `drain`");
        }
        workers.join();
        Ok(())
    })
}

/// Serves the live page. `asked` is notified when a user drains the gateway there.
async fn listen_live(
    live: &LiveConfig,
    gateway: &Gateway,
    asked: &Arc<Notify>,
) -> io::Result<SocketAddr> {
    let page = live.of(gateway);
    let page = match live.drain {
        true => {
            let asked = Arc::clone(asked);
            page.on_drain(move || asked.notify_one())
        }
        false => page,
    };
    page.listen(&live.address).await
}

/// Reloads the configuration. If the file has a mistake, nothing changes.
fn reload_from(path: &Path, gateway: &Gateway, workers: &Workers, live: Option<&LiveConfig>) {
    let load = || -> Outcome {
        let config = ConfigFile::load(path)?;
        let builder = config.builder()?;
        let listeners = config.listeners()?;
        workers.check(&listeners, config.workers())?;
        if config.live()?.as_ref() != live {
            return Err("`live` cannot be changed by a reload: start the program again".into());
        }
        gateway.replace(builder)?;
        Ok(())
    };
    match load() {
        Ok(()) => tracing::info!("the configuration was reloaded"),
        Err(error) => tracing::error!(%error, "the configuration was not reloaded"),
    }
}
