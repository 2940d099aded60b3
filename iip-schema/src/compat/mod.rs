//! Checks whether two builds understand each other.
//!
//! A comparison takes what the writer and the reader of a value describe, and an [`Encoding`]. Of
//! arguments and streams of requests the client is the writer, of everything else the server.
//!
//! Two verdicts rest on assumptions:
//!
//! * In bincode and postcard, a field with another name at the same place counts as renamed if
//!   neither name occurs elsewhere. The same names in another order count as incompatible, even if
//!   the types are equal and nothing on the wire would show it.
//! * About an opaque type nothing is known but its Rust name, so its verdict is
//!   [`Verdict::Unknown`] even if the names are equal: types change and keep their names. An opaque
//!   type opposite one that is described is unknown too.
//!
//! Differences inside a variant, an option or a collection count as if every value had them. A
//! variant that the reader does not know is a warning, because other values are not affected.
//!
//! Documentation, `deprecated`, `secret`, timeouts, priorities, `auth` and the names of types are
//! not compared.

mod enums;
mod fields;
mod forms;
mod judge;
mod methods;
mod numbers;
mod report;
mod values;

use std::fmt;

use crate::description::{Description, Method};
use crate::types::{Type, Types};

pub(crate) use self::judge::Sides;
use self::judge::{Judge, MAX_STEPS, Root};
pub use self::report::{Difference, Report, Rule, Verdict};

/// The encoding of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// bincode in its standard configuration: fields are identified by their places.
    Bincode,
    /// postcard: fields are identified by their places.
    Postcard,
    /// MessagePack with structs as maps: fields are identified by their names.
    MessagePack,
    /// JSON: fields are identified by their names.
    Json,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 4] = [Self::Bincode, Self::Postcard, Self::MessagePack, Self::Json];

    /// Returns `true` if fields are identified by their places.
    #[must_use]
    pub const fn is_positional(self) -> bool {
        matches!(self, Self::Bincode | Self::Postcard)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bincode => "bincode",
            Self::Postcard => "postcard",
            Self::MessagePack => "MessagePack",
            Self::Json => "JSON",
        })
    }
}

/// Judges whether values of one type are read rightly as values of another.
///
/// The comparison ends after 100,000 steps or 128 levels, with [`Verdict::Unknown`].
#[must_use]
pub fn compare_types(
    writer: (&Type, &Types),
    reader: (&Type, &Types),
    encoding: Encoding,
) -> Report {
    let mut steps = MAX_STEPS;
    let sides = Sides::new("writer", "reader");
    let mut judge = Judge::new(sides, writer.1, reader.1, encoding, &mut steps);
    judge.begin(Root::Value, true);
    judge.types(writer.0, reader.0);
    judge.finish()
}

/// Judges whether a client with one description of a method can call a server with another.
///
/// Methods whose codec is protobuf are [`Verdict::Unknown`], and of methods with raw messages no
/// types are compared. Methods in plain JSON are compared for JSON whatever `encoding` is. The
/// comparison ends after 100,000 steps or 128 levels, with [`Verdict::Unknown`].
#[must_use]
pub fn compare_methods(
    client: (&Method, &Types),
    server: (&Method, &Types),
    encoding: Encoding,
) -> Report {
    let sides = Sides::new("client", "server");
    methods::compare("", client, server, encoding, sides, &mut MAX_STEPS.clone())
}

/// Judges whether a client with one description of a service can call a server with another.
///
/// Methods belong together by their paths. A method that the server does not have is a warning: the
/// others can be called. The comparison ends after 100,000 steps for a method and a million for the
/// service, with [`Verdict::Unknown`].
#[must_use]
pub fn compare(client: &Description, server: &Description, encoding: Encoding) -> Report {
    compare_as(client, server, encoding, Sides::new("client", "server"))
}

pub(crate) fn compare_as(
    client: &Description,
    server: &Description,
    encoding: Encoding,
    sides: Sides,
) -> Report {
    methods::compare_services(client, server, encoding, sides)
}
