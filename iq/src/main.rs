//! The program `iq`: the command line for IIP services.

mod address;
mod args;
mod bench;
mod call;
mod capture;
mod closest;
mod compare;
mod complete;
mod config;
mod connection;
mod describe;
mod diff;
mod drain;
mod exit;
mod files;
mod generate;
mod go_options;
mod health;
mod list;
mod live;
mod log;
mod man;
mod output;
mod place;
mod plural;
mod raw;
mod record;
mod replay;
mod schema;
mod services;
mod size;
mod stats;
mod time;
mod top;
mod typescript;
mod wording;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, SchemaCommand};
use crate::exit::{Failure, Outcome};
use crate::output::{Output, OutputArgs};

/// Maximum time at the end of the program for telling servers that calls are over.
const FAREWELL: Duration = Duration::from_millis(100);

/// Maximum time that an interrupted command has to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if complete::requested() {
        return complete::run(Cli::command);
    }
    let args = go_options::with_long_options(std::env::args_os());
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return rejected(&args, &error),
    };
    let does_more = cli
        .command
        .as_ref()
        .is_some_and(Command::does_more_than_print);
    let output = Output::new(cli.output).ignore_broken_pipe(does_more);
    log::start(&output);
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(&failure)
        }
    }
}

/// Prints a mistake on the command line, or the help that it asks for.
fn rejected(args: &[OsString], error: &clap::Error) -> ExitCode {
    let is_json = args.iter().any(|arg| arg == "--json");
    let mistyped = match error.kind() {
        ErrorKind::UnknownArgument => raw::mistyped_command(args),
        _ => None,
    };
    let failure = match mistyped {
        Some(failure) => failure,
        None if is_json && error.use_stderr() => Failure::Usage(mistake(error)),
        None => {
            // Help goes to stdout, errors to stderr. A failure to print cannot be reported.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = match is_json {
        true => Output::json(),
        false => Output::new(OutputArgs::default()),
    };
    output.failure(&failure);
    ExitCode::from(&failure)
}

/// Returns the message of a mistake on the command line in one line, without the usage.
fn mistake(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: try `iq --help`".to_owned();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraphs = text
        .split("\n\n")
        .take_while(|paragraph| !is_advice(paragraph));
    let paragraphs = paragraphs.map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    paragraphs.collect::<Vec<_>>().join("; ")
}

/// Returns `true` for the paragraphs after the message, which are for people.
fn is_advice(paragraph: &str) -> bool {
    paragraph.starts_with("Usage:") || paragraph.starts_with("For more information")
}

fn run(cli: &Cli, output: &Output) -> Outcome {
    if let Some(Command::Man(args)) = &cli.command {
        return man::write(&Cli::command(), &args.folder, output);
    }
    if let Some(Command::Bench(args)) = &cli.command {
        only_options_before(cli)?;
        return bench::run(args, &cli.connect, output);
    }
    // A separate thread drives the connection, so that it stays alive while writing output blocks.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::Own(format!("the runtime cannot be started: {error}")))?;
    // These commands handle the signal themselves, and complete what they have begun.
    let ends_itself = matches!(cli.command, Some(Command::Record(_) | Command::Serve(_)));
    runtime.spawn(async move {
        // The main thread may be blocked writing output, so this task ends the process.
        if !ends_itself && tokio::signal::ctrl_c().await.is_ok() {
            tokio::time::sleep(PATIENCE).await;
            std::process::exit(Failure::Interrupted.code().into());
        }
    });
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c(), if !ends_itself => Err(Failure::Interrupted),
            outcome = command(cli, output) => outcome,
        }
    });
    // A thread that reads stdin may not end by itself.
    runtime.shutdown_timeout(FAREWELL);
    outcome
}

async fn command(cli: &Cli, output: &Output) -> Outcome {
    let connect = &cli.connect;
    let Some(command) = &cli.command else {
        return raw::run(&cli.raw, connect, output).await;
    };
    only_options_before(cli)?;
    match command {
        Command::Call(args) => call::run(args, connect, output).await,
        Command::List(args) => list::run(args, connect, output).await,
        Command::Describe(args) => describe::run(args, connect, output).await,
        Command::Diff(args) => diff::run(args, connect, output).await,
        Command::Schema(SchemaCommand::Save {
            target,
            output: file,
        }) => schema::save(target, file.as_deref(), connect, output).await,
        Command::Schema(SchemaCommand::Check(args)) => schema::check(args, connect, output).await,
        Command::Gen(args) => generate::run(args, connect, output).await,
        Command::Health(args) => health::run(args, connect, output).await,
        Command::Stats(args) => stats::run(args, connect, output).await,
        Command::Record(args) => record::run(args, connect, output).await,
        Command::Replay(args) => replay::run(args, connect, output).await,
        Command::Top(args) => top::run(args, connect, output).await,
        Command::Drain(args) => drain::run(args, connect, output).await,
        Command::Put(args) => args.run(connect, output).await,
        Command::Get(args) => args.run(connect, output).await,
        Command::Serve(args) => args.run(connect, output).await,
        // These were run before; they do not use this runtime.
        Command::Bench(_) | Command::Man(_) => Ok(()),
    }
}

/// Fails if there are arguments or options of a raw request before a command.
fn only_options_before(cli: &Cli) -> Outcome {
    let raw = &cli.raw;
    if let Some(uri) = &raw.uri {
        return Err(Failure::Usage(format!(
            "`{uri}` is before the command: options alone may be there"
        )));
    }
    if raw.data.is_some() || raw.data_file.is_some() {
        let text = "--data and --data-file before the command are for raw requests, which have no \
                    command";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(())
}
