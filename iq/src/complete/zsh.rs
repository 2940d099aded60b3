//! Completions in zsh. Names that end with `=` or `:` are followed by values, without a space.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::EnvCompleter;

use super::adapter::{candidates, index, write_lines, write_script};

/// The adapter of zsh, which adds no space before a value.
pub(super) struct Zsh;

/// The script that makes zsh ask for completions, see [`write_script`].
const REGISTRATION: &str = r#"#compdef {bin}
_iq_complete() {
    local line value
    local -a values shown open open_shown
    for line in "${(@f)$( \
        {var}=zsh _CLAP_COMPLETE_INDEX=$(( CURRENT - 1 )) \
        '{completer}' -- "${words[@]}" 2>/dev/null \
    )}"; do
        value="${line%%$'\t'*}"
        if [[ -z "$value" ]]; then
            continue
        elif [[ "$value" == *[=:/] ]]; then
            open+=("$value")
            open_shown+=("${line/$'\t'/  -- }")
        else
            values+=("$value")
            shown+=("${line/$'\t'/  -- }")
        fi
    done
    local found=1
    (( $#values )) && compadd -l -d shown -- "${values[@]}" && found=0
    (( $#open )) && compadd -S '' -l -d open_shown -- "${open[@]}" && found=0
    return found
}
compdef _iq_complete {bin}
"#;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        "zsh"
    }

    fn is(&self, name: &str) -> bool {
        name == "zsh"
    }

    fn write_registration(
        &self,
        var: &str,
        _: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        write_script(REGISTRATION, var, bin, completer, buf)
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        mut args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let index = index().unwrap_or_else(|| args.len().saturating_sub(1));
        // zsh does not pass an empty word at the end.
        if args.len() == index {
            args.push(OsString::new());
        }
        write_lines(&candidates(cmd, args, index, current_dir)?, buf)
    }
}
