//! The arguments of the program.

use std::ffi::OsString;
use std::path::PathBuf;

pub(super) const USAGE: &str = "\
usage: iip-gateway [--check] FILE

Serves HTTP as the configuration FILE says (docs/gateway.md).

  --check      only look for mistakes in FILE and the files that it names
  --help       print this text
  --version    print the version

Signals: SIGHUP reloads FILE; SIGTERM and SIGINT end the program once running
requests have their replies.
";

/// The action that the arguments request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Version,
    Check(PathBuf),
    Serve(PathBuf),
}

/// Parses the arguments without the name of the program.
pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut checks, mut file, mut only_files) = (false, None, false);
    for argument in arguments {
        match argument.to_str() {
            Some("--help" | "-h") if !only_files => return Ok(Command::Help),
            Some("--version" | "-V") if !only_files => return Ok(Command::Version),
            Some("--check") if !only_files => checks = true,
            Some("--") if !only_files => only_files = true,
            Some(option) if option.starts_with('-') && !only_files => {
                return Err(format!("unknown option `{option}`"));
            }
            _ if file.is_some() => return Err("more than one FILE".to_owned()),
            _ => file = Some(PathBuf::from(argument)),
        }
    }
    let file = file.ok_or("FILE is missing")?;
    Ok(if checks {
        Command::Check(file)
    } else {
        Command::Serve(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_one_file_and_options() {
        assert_eq!(parsed(&["a"]), Ok(Command::Serve("a".into())));
        assert_eq!(parsed(&["a", "--check"]), Ok(Command::Check("a".into())));
        assert_eq!(
            parsed(&["--", "--check"]),
            Ok(Command::Serve("--check".into()))
        );
        assert_eq!(parsed(&["--help"]), Ok(Command::Help));
        for wrong in [&[][..], &["--check"], &["a", "b"], &["--chek", "a"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
