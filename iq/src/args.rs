//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use iip_rpc::Position;

use crate::bench::BenchArgs;
use crate::complete;
use crate::connection::ConnectArgs;
use crate::drain::DrainArgs;
use crate::files::{GetArgs, PutArgs, ServeArgs};
use crate::output::OutputArgs;
use crate::record::RecordArgs;
use crate::replay::ReplayArgs;
use crate::top::TopArgs;
use crate::typescript::TsArgs;

/// The exit codes of all commands.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0 ok; 1 failed here, or a check did; 2 usage; 3 not connected; 64 + the code of \
     the call's status; 130 interrupted; 141 the reader of the output has gone.";

/// The command line for IIP services.
///
/// Without a command it sends one raw request: `iq localhost:7000/echo -d hello`.
#[derive(Debug, Parser)]
#[command(
    name = "iq",
    version,
    disable_help_subcommand = true,
    args_override_self = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) raw: RawArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A raw request.
#[derive(Args, Debug)]
pub(crate) struct RawArgs {
    /// The target and path to call, such as localhost:7000/echo?lang=en, or the target alone.
    #[arg(value_name = "TARGET/PATH", add = ArgValueCompleter::new(complete::targets))]
    pub(crate) uri: Option<String>,
    /// The path, if it is not part of TARGET/PATH.
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The body of the request [default: {}].
    #[arg(
        long,
        short,
        value_name = "DATA",
        conflicts_with = "data_file",
        allow_hyphen_values = true
    )]
    pub(crate) data: Option<String>,
    /// A file with the body of the request; `-` for stdin.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) data_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Call(CallArgs),
    List(ListArgs),
    Describe(DescribeArgs),
    Diff(DiffArgs),
    /// Save descriptions of services, and check changes for compatibility.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Generate documents and clients from the descriptions of services.
    #[command(subcommand)]
    Gen(GenCommand),
    Health(HealthArgs),
    Stats(StatsArgs),
    Top(TopArgs),
    Bench(Box<BenchArgs>),
    Record(RecordArgs),
    Replay(ReplayArgs),
    Drain(DrainArgs),
    Put(PutArgs),
    Get(GetArgs),
    Serve(ServeArgs),
    Man(ManArgs),
}

impl Command {
    /// Returns `true` if the command also checks, changes or writes something, which it has to do
    /// to its end even if nobody reads its output any more.
    pub(crate) fn does_more_than_print(&self) -> bool {
        match self {
            Self::Diff(_)
            | Self::Schema(SchemaCommand::Check(_))
            | Self::Record(_)
            | Self::Drain(_)
            | Self::Put(_)
            | Self::Get(_)
            | Self::Serve(_)
            | Self::Man(_) => true,
            Self::Health(args) => !args.watch,
            Self::Bench(args) => !args.searches(),
            Self::Replay(args) => !args.show,
            Self::Schema(SchemaCommand::Save { output, .. }) => output.is_some(),
            Self::Gen(GenCommand::Ts(args)) => args.output.is_some(),
            Self::Call(_)
            | Self::List(_)
            | Self::Describe(_)
            | Self::Gen(GenCommand::Openapi { .. })
            | Self::Stats(_)
            | Self::Top(_) => false,
        }
    }
}

/// Call a method with JSON.
///
/// ARGS is a JSON object, or the value of the only argument; `@FILE`; `-` for stdin; or pairs:
/// `name=value` is converted to the type in the description of the method, `order.id=7` sets a
/// field, a repeated name makes a list, and `name:=JSON` is passed on as JSON. A stream of requests
/// is read from stdin, and a stream of replies is printed, as one JSON value per line.
#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// An address, such as localhost:7000, or a target of the configuration.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    pub(crate) target: String,
    /// `Service.method` or `Service/method`, or the path of the method.
    #[arg(add = ArgValueCompleter::new(complete::methods))]
    pub(crate) method: String,
    /// The arguments.
    #[arg(allow_negative_numbers = true, add = ArgValueCompleter::new(complete::arguments))]
    pub(crate) args: Vec<String>,
    /// Use a saved description instead of asking the server.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) schema: Option<PathBuf>,
    /// End after this number of messages.
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Resume a subscription after a position: the one that `--verbose` prints at its end, or that
    /// of an item with `--json`.
    #[arg(long, value_name = "POSITION")]
    pub(crate) resume: Option<Position>,
    /// Print results and messages with indentation.
    #[arg(long, conflicts_with = "json")]
    pub(crate) pretty: bool,
}

/// List the services of a server, or the methods of a service.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// A target, or a file of `iq schema save`.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) target: String,
    /// The service whose methods are listed.
    #[arg(add = ArgValueCompleter::new(complete::services))]
    pub(crate) service: Option<String>,
}

/// Print the descriptions of services as Rust traits.
#[derive(Args, Debug)]
pub(crate) struct DescribeArgs {
    /// A target, or a file of `iq schema save`.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) target: String,
    /// A service, or a method of it; all services if it is left out.
    #[arg(
        value_name = "SERVICE[.METHOD]",
        add = ArgValueCompleter::new(complete::services_and_methods),
    )]
    pub(crate) name: Option<String>,
    /// Print an OpenAPI 3.1 document of the HTTP interface instead.
    #[arg(long)]
    pub(crate) openapi: bool,
}

/// Compare the services of two servers; exit with 1 if they differ.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// A target, or a file of `iq schema save`.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) a: String,
    /// The target or file to compare with.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) b: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Save the descriptions of a server's services, in a form for a repository.
    Save {
        /// A target.
        #[arg(add = ArgValueCompleter::new(complete::targets))]
        target: String,
        /// Write to this file instead of stdout.
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Check that an old and a new build are compatible; exit with 1 if not.
    Check(CheckArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The old build: a file of `iq schema save`, or a target.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) old: String,
    /// The new build: a file of `iq schema save`, or a target.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    pub(crate) new: String,
    /// The codecs that must carry the values.
    #[arg(long, value_enum, default_value_t = Codecs::Any)]
    pub(crate) codec: Codecs,
    /// The side of the new build that talks to the old one.
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    pub(crate) direction: Direction,
    /// Treat warnings as failures: a narrowed number, or a variant that the other side does not
    /// know.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

/// The codecs of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codecs {
    /// bincode and postcard.
    Positional,
    /// MessagePack and JSON.
    Named,
    /// At least one codec for each method: clients switch to it automatically.
    Any,
}

/// The side of the new build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// New clients call old servers.
    Client,
    /// Old clients call new servers.
    Server,
    /// Both, as during a rolling upgrade.
    Both,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GenCommand {
    /// Print an OpenAPI 3.1 document of the HTTP interface that a gateway provides for the
    /// services.
    Openapi {
        /// A target, or a file of `iq schema save`.
        #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
        target: String,
        /// The service; all services if it is left out.
        #[arg(add = ArgValueCompleter::new(complete::services))]
        service: Option<String>,
    },
    Ts(TsArgs),
}

/// Ask for the health of a server or a service; exit with 1 unless it is serving.
///
/// The exit code is 69 for a service that the server does not know, and 76 if it has no health.
#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    /// A target.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    pub(crate) target: String,
    /// The service; the server as a whole if it is left out.
    #[arg(add = ArgValueCompleter::new(complete::services))]
    pub(crate) service: Option<String>,
    /// Print each change, until interrupted.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Print the statistics of a server.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// A target.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    pub(crate) target: String,
    /// `Service.method` or `Service/method`, or a path, such as /orders/place; the server as a
    /// whole if it is left out.
    #[arg(conflicts_with = "connections", add = ArgValueCompleter::new(complete::methods))]
    pub(crate) path: Option<String>,
    /// Print the connections of the server in JSON.
    #[arg(long)]
    pub(crate) connections: bool,
    /// The unit of times in the report.
    #[arg(long, value_enum, default_value_t = Unit::Microsecond)]
    pub(crate) unit: Unit,
}

/// A unit of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    Nanosecond,
    Microsecond,
    Millisecond,
    Second,
}

/// Write the manual pages.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder for the pages, such as ~/.local/share/man/man1.
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
