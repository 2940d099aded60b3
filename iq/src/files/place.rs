//! Paths of files on the server and on this machine.

use std::path::{Path, PathBuf};

use crate::exit::{Failure, Outcome};
use crate::raw;

/// A file or folder of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote<'a> {
    pub(super) target: &'a str,
    /// The path, with a slash at the beginning.
    pub(super) path: &'a str,
}

impl<'a> Remote<'a> {
    /// Parses `TARGET/PATH`.
    pub(super) fn parse(text: &'a str) -> Outcome<Self> {
        match raw::split(text) {
            Some((target, path)) => Ok(Self { target, path }),
            None => Err(Failure::Usage(format!(
                "`{text}` is not TARGET/PATH, such as `localhost:7000/folder/file`, or \
                 `localhost:7000/` for the whole folder; a target with a slash of its own needs a \
                 name in the configuration"
            ))),
        }
    }

    /// Returns the path at which an uploaded source is written. If this path ends with a slash, or
    /// the source is one of several, this is a folder, and the source is written below it under its
    /// own name.
    pub(super) fn of_source(&self, source: &Path, is_one_of_many: bool) -> Outcome<String> {
        let folder = self.path.trim_end_matches('/');
        let is_folder = is_one_of_many || folder.len() < self.path.len();
        // `.` and `..` have no name: their contents are written to this path.
        let name = source.file_name().filter(|_| is_folder);
        let name = name.map(|name| text_of(name.as_ref())).transpose()?;
        Ok(match name {
            Some(name) => format!("{folder}/{name}"),
            None => folder.to_owned(),
        })
    }

    /// Returns the local path to write if the user has given `given`. If that is a folder, this is
    /// written below it under its own name.
    pub(super) fn destination(&self, given: Option<&Path>) -> PathBuf {
        let given = given.unwrap_or_else(|| Path::new("."));
        let is_folder = given.is_dir() || given.as_os_str().as_encoded_bytes().ends_with(b"/");
        match self.path.trim_end_matches('/').rsplit_once('/') {
            Some((_, name)) if is_folder => given.join(name),
            _ => given.to_owned(),
        }
    }
}

/// Fails if a path is `-`, which other programs take for stdin or stdout.
pub(super) fn not_a_stream(path: &Path) -> Outcome {
    match path.as_os_str().as_encoded_bytes() {
        b"-" => Err(Failure::Usage(
            "`-`: transfers from stdin and to stdout are not supported; `./-` is a file".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Returns a path as text, for messages and requests.
pub(super) fn text_of(path: &Path) -> Outcome<&str> {
    path.to_str()
        .ok_or_else(|| Failure::Usage(format!("{}: the name is not valid UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_go_to_a_path_or_into_a_folder() {
        for (remote, source, is_one_of_many, wanted) in [
            ("h:1/b", "d/a", false, "/b"),
            ("h:1/b/", "d/a", false, "/b/a"),
            ("h:1/b", "d/a", true, "/b/a"),
            ("h:1/", "a", false, "/a"),
            ("h:1/", "d/", false, "/d"),
            ("h:1/", ".", false, ""),
            ("h:1/b", "..", true, "/b"),
        ] {
            let remote = Remote::parse(remote).unwrap();
            let path = remote.of_source(Path::new(source), is_one_of_many).unwrap();
            assert_eq!(path, wanted, "{remote:?} {source}");
        }
    }

    #[test]
    fn what_is_got_goes_to_a_path_or_into_a_folder() {
        for (remote, given, wanted) in [
            ("h:1/a/b", None, "./b"),
            ("h:1/a/b/", None, "./b"),
            ("h:1/a/b", Some("c"), "c"),
            ("h:1/a/b", Some("c/"), "c/b"),
            ("h:1/a/b", Some("/"), "/b"),
            ("h:1/", Some("c"), "c"),
            ("h:1/", None, "."),
        ] {
            let remote = Remote::parse(remote).unwrap();
            let path = remote.destination(given.map(Path::new));
            assert_eq!(path, Path::new(wanted), "{remote:?} {given:?}");
        }
        assert!(matches!(Remote::parse("h:1"), Err(Failure::Usage(_))));
    }
}
