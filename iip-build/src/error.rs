//! Errors and their locations.

use std::fmt;
use std::path::PathBuf;

/// The error of a `.proto` file that cannot be compiled. `Display` and `Debug` give the same text,
/// one line per problem, so that a build script whose `main` returns it prints it unchanged:
///
/// ```text
/// Error: proto/kv.proto:12:16: name 'GetReqest' is not defined
/// ```
pub struct Error(Vec<Problem>);

/// One problem.
pub(crate) struct Problem {
    place: Option<Place>,
    text: String,
}

/// The location of a problem. Lines and columns count from one.
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) at: Option<(usize, usize)>,
}

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::all(vec![Problem::new(None, text)])
    }

    pub(crate) fn all(problems: Vec<Problem>) -> Self {
        Self(problems)
    }
}

impl Problem {
    pub(crate) fn new(place: Option<Place>, text: impl Into<String>) -> Self {
        Self {
            place,
            text: text.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(place) = &problem.place {
                write!(f, "{}:", place.file.display())?;
                if let Some((line, column)) = place.at {
                    write!(f, "{line}:{column}:")?;
                }
                f.write_str(" ")?;
            }
            f.write_str(&problem.text)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// For build scripts whose `main` returns `std::io::Result`, as is common with prost-build.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
