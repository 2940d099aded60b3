//! The arguments of a call on the command line.

use std::path::Path;

use iip_core::Printable;
use iip_rpc::schema::dynamic::{Layout, MethodArguments, Options};
use iip_rpc::schema::{Description, Method};
use serde_json::Value;

use super::json;
use super::pairs::{self, Pair};
use crate::exit::{Failure, Outcome};
use crate::place::{Place, unknown_name};
use crate::raw::contents;

/// Arguments as they were given.
pub(crate) enum Arguments {
    /// None.
    Empty,
    /// JSON, as it was written.
    Json(String),
    /// Pairs of names and values.
    Pairs(Vec<Pair>),
}

impl Arguments {
    /// Reads JSON, `@FILE`, `-` or pairs.
    pub(crate) async fn read(args: &[String]) -> Outcome<Self> {
        let text = match args {
            [] => return Ok(Self::Empty),
            [only] if only == "-" => text_in(Path::new("-")).await?,
            [only] if only == "@" => {
                let text = "`@` needs the name of a file, as in `@args.json`";
                return Err(Failure::Usage(text.to_owned()));
            }
            [only] if only.starts_with('@') => text_in(Path::new(&only[1..])).await?,
            [only] if is_json(only) => only.clone(),
            pairs => {
                let pairs = pairs.iter().map(|pair| Pair::parse(pair));
                return Ok(Self::Pairs(pairs.collect::<Outcome<_>>()?));
            }
        };
        parsed(&text)?;
        Ok(Self::Json(text))
    }

    /// Checks the arguments for a method, and returns them in JSON as they were given.
    pub(crate) fn for_method(self, service: &Description, method: &Method) -> Outcome<String> {
        let name = format!("{}.{}", service.service, method.name);
        let (text, value) = match self {
            Self::Json(text) => {
                let value = parsed(&text)?;
                (Some(text), value)
            }
            Self::Empty => (None, Value::Object(serde_json::Map::new())),
            Self::Pairs(pairs) => (None, pairs::typed(pairs, method, &service.types)?),
        };
        let options = Options::new(Layout::Named);
        let checked = MethodArguments::new(method, &service.types, &value, options).check(true);
        checked.map_err(|error| {
            // A mistyped name is more likely than a missing one.
            let unknown = unknown_name(&value, Place::Arguments(method), &service.types);
            let reason = unknown.unwrap_or_else(|| error.to_string());
            Failure::Usage(format!("{}: {}", Printable(&name), Printable(reason)))
        })?;
        Ok(text.unwrap_or_else(|| value.to_string()))
    }

    /// Returns the arguments for a method without a description, in JSON.
    pub(crate) fn untyped(self) -> Outcome<String> {
        match self {
            Self::Empty => Ok("{}".to_owned()),
            Self::Json(text) => Ok(text),
            Self::Pairs(_) => Err(Failure::Usage(
                "pairs are typed by the description of the method, which the server does not \
                 have: give the arguments in JSON, or a description with --schema FILE"
                    .to_owned(),
            )),
        }
    }
}

/// Returns checked arguments in the JSON that the method reads, with numbers in place of texts for
/// example.
pub(super) fn for_server(text: &str, service: &Description, method: &Method) -> Outcome<String> {
    let value = parsed(text)?;
    let options = Options::new(Layout::Named);
    let arguments = MethodArguments::new(method, &service.types, &value, options);
    json::for_server(text, &value, &arguments).map_err(|error| {
        let name = format!("{}.{}", service.service, method.name);
        Failure::Usage(format!("{}: {error}", Printable(name)))
    })
}

fn parsed(text: &str) -> Outcome<Value> {
    json::parse(text).map_err(|error| {
        let what = match error.is_data() {
            true => "the arguments",
            false => "the arguments are not JSON",
        };
        Failure::Usage(format!("{what}: {}", Printable(error)))
    })
}

/// Returns `true` if an argument is meant as JSON, not as a pair.
fn is_json(text: &str) -> bool {
    let trimmed = text.trim_start();
    trimmed.starts_with(['{', '[', '"'])
        || serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok()
}

/// Reads a UTF-8 text from a file, or from stdin if its name is `-`.
pub(crate) async fn text_in(path: &Path) -> Outcome<String> {
    let data = contents(path).await?;
    String::from_utf8(data)
        .map_err(|_| Failure::Usage(format!("{}: it is not UTF-8", path.display())))
}
