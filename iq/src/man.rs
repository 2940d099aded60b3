//! `iq man`: the manual pages.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use serde_json::json;

use crate::args::EXIT_CODES;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The program and its version, for the last line of each page.
const SOURCE: &str = concat!("iq ", env!("CARGO_PKG_VERSION"));

/// Writes a page for the program and each of its commands.
pub(crate) fn write(command: &Command, folder: &Path, output: &Output) -> Outcome {
    let failed = |error| Failure::Own(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut built = command.clone();
    built.build();
    pages(&built, folder).map_err(failed)?;
    if output.is_json() {
        return output.object("man", json!({"folder": folder}));
    }
    output.note(format_args!("the manual pages are in {}", folder.display()));
    Ok(())
}

/// Writes the page of a command and those of its subcommands.
fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    for subcommand in shown {
        pages(&subcommand.clone().after_help(EXIT_CODES), folder)?;
    }
    let page = Man::new(command.clone()).source(SOURCE);
    page.generate_to(folder).map(drop)
}
