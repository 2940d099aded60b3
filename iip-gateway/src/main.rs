//! The program `iip-gateway`: a gateway with a configuration file.

#[cfg(unix)]
mod cli;

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    cli::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("iip-gateway: the program needs Unix; the library does not");
    ExitCode::FAILURE
}
