//! `iq man`: the manual pages.

use std::path::Path;

use serde_json::json;

use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Writes a page for the program and each of its commands.
pub(crate) fn write(command: &clap::Command, folder: &Path, output: &Output) -> Outcome {
    let failed = |error| Failure::Own(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command.clone(), folder).map_err(failed)?;
    if output.is_json() {
        return output.object("man", json!({"folder": folder}));
    }
    output.note(format_args!("the manual pages are in {}", folder.display()));
    Ok(())
}
