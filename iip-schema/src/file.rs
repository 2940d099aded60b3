//! Descriptions as text: saved in a repository, or received from a peer.
//!
//! A saved description is what programs that are in use were built with. A test that compares it
//! with the description of today finds changes that those programs would not understand:
//!
//! ```
//! use iip_schema::{Description, Method, file};
//!
//! // In a program, this is the description that `#[service]` generates,
//! // and the saved text is `include_str!("../orders.schema.json")`.
//! let mut orders = Description::new("Orders");
//! orders.methods.push(Method::new("count", "/orders/count"));
//! let saved = file::to_text([&orders]);
//!
//! file::assert_compatible(&orders, &saved);
//! ```

mod check;
mod parse;
mod pretty;

use serde::{Deserialize, Serialize};

use crate::description::Description;

pub use self::check::{Check, Incompatible, assert_compatible, check_compatible};
pub use self::parse::{DescriptionError, Limits, parse_description};

/// The version of the form of saved files.
const VERSION: u64 = 1;

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The content of a saved file.
#[derive(Serialize, Deserialize)]
struct File {
    iip_schema: u64,
    services: Vec<Description>,
}

/// Writes descriptions in their canonical form: JSON with services, methods and types sorted by
/// name, two spaces for each level, and a line for whatever fits into 100 columns.
///
/// Equal descriptions have the same text, whatever the order of the trait. Documentation is saved
/// too; comparisons ignore it.
#[must_use]
pub fn to_text<'a>(services: impl IntoIterator<Item = &'a Description>) -> String {
    pretty::print(&File {
        iip_schema: VERSION,
        services: sorted(services),
    })
}

/// Returns descriptions in the order of saved files: services and methods sorted by name. What is
/// generated from descriptions in this order does not depend on where they came from.
#[must_use]
pub fn sorted<'a>(services: impl IntoIterator<Item = &'a Description>) -> Vec<Description> {
    let mut services: Vec<Description> = services.into_iter().cloned().collect();
    for service in &mut services {
        let methods = &mut service.methods;
        methods.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    }
    services.sort_by(|a, b| a.service.cmp(&b.service));
    services
}

/// Reads what [`to_text`] has written, or somebody has edited.
///
/// # Errors
///
/// The text is not of this form, has another version, or is larger than 16 MiB.
pub fn from_text(text: &str) -> Result<Vec<Description>, FileError> {
    /// The part of a file that is read in every version.
    #[derive(Deserialize)]
    struct Version {
        iip_schema: Option<u64>,
    }

    if text.len() > MAX_BYTES {
        return Err(FileError::TooLarge { bytes: text.len() });
    }
    let version: Version = serde_json::from_str(text)?;
    match version.iip_schema {
        Some(VERSION) => {}
        Some(found) => return Err(FileError::Version { found }),
        None => return Err(FileError::NoVersion),
    }
    let file: File = serde_json::from_str(text)?;
    for service in &file.services {
        parse::check(service, &Limits::default())?;
    }
    Ok(file.services)
}

/// The reason why a saved file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is not JSON of this form. The text names the line and the column.
    #[error("the saved schema cannot be read: {0}; save it by `schema::file::to_text`")]
    Json(#[from] serde_json::Error),
    /// It does not state its version.
    #[error("the saved schema has no key `iip_schema` with its version, which is {VERSION}")]
    NoVersion,
    /// It has a version that this build does not know.
    #[error(
        "the saved schema has version {found}, and this build reads version {VERSION}; use the \
         version of iip-schema that wrote it, or a newer one"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// It is larger than the limit.
    #[error("the saved schema has {bytes} bytes, and the limit is {MAX_BYTES}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// A description in it exceeds a limit.
    #[error("the saved schema cannot be read: {0}")]
    Description(#[from] DescriptionError),
}
