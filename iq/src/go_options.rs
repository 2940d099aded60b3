//! The options of Go's iq, which have one dash.

use std::ffi::{OsStr, OsString};

/// Options of Go's iq that are written as `-name`, `-name=value` or `-name value`.
const OPTIONS: [&str; 6] = ["data", "data-file", "timeout", "tlscert", "tlskey", "tls"];

/// Replaces the options of Go's iq with the same options with two dashes.
pub(crate) fn with_long_options(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut escaped = false;
    let args = args.into_iter().map(|arg| {
        escaped |= arg == "--";
        match is_go(&arg) && !escaped {
            true => {
                let mut long = OsString::from("-");
                long.push(&arg);
                long
            }
            false => arg,
        }
    });
    args.collect()
}

fn is_go(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    let Some(option) = text.strip_prefix('-') else {
        return false;
    };
    let name = option.split_once('=').map_or(option, |(name, _)| name);
    OPTIONS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_go_get_a_second_dash() {
        for (given, wanted) in [
            ("-data=x=y", "--data=x=y"),
            ("-data", "--data"),
            ("-timeout=500ms", "--timeout=500ms"),
            ("-tls=1", "--tls=1"),
            ("-d", "-d"),
            ("-dx", "-dx"),
            ("-t", "-t"),
            ("--data", "--data"),
            ("data", "data"),
            ("-tlsx", "-tlsx"),
        ] {
            assert_eq!(with_long_options([given.into()]), [OsString::from(wanted)]);
        }
        let escaped = ["--", "-data"].map(OsString::from);
        assert_eq!(with_long_options(escaped.clone()), escaped);
    }
}
