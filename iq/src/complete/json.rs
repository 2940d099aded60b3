//! Completion of the names of fields in incomplete JSON.

use std::str::CharIndices;

use iip_rpc::schema::{Method, Types};

use super::is_harmless;
use crate::place::Place;

/// A bracket that encloses the end of the text.
#[derive(Debug, PartialEq, Eq)]
enum Level {
    /// An object, with the name whose value follows.
    Object(Option<String>),
    List,
}

/// The place where the text ends.
#[derive(Debug, PartialEq, Eq)]
struct End {
    levels: Vec<Level>,
    /// The position and the beginning of the name at the end; `None` if no name is expected.
    name: Option<(usize, String)>,
    /// The names that the object at the end already has.
    known: Vec<String>,
}

/// Returns the text with each name that can follow.
pub(super) fn complete(text: &str, method: &Method, types: &Types) -> Vec<String> {
    let Some(End {
        levels,
        name,
        known,
    }) = place(text)
    else {
        return Vec::new();
    };
    let Some((at, begun)) = name else {
        return Vec::new();
    };
    let names = names(&levels, method, types);
    let fitting = names.into_iter().filter(|name| {
        name.starts_with(&begun) && is_harmless(name) && !known.iter().any(|known| known == name)
    });
    let before = text.get(..at).unwrap_or_default();
    fitting.map(|name| format!("{before}\"{name}\":")).collect()
}

/// Scans the text up to its end; `None` if it is not the beginning of an object.
fn place(text: &str) -> Option<End> {
    let mut levels: Vec<Level> = Vec::new();
    let mut known: Vec<Vec<String>> = Vec::new();
    // A name is expected after `{`, and after `,` in an object.
    let mut expected = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let (content, is_closed) = text_in_quotes(&mut chars);
                if !is_closed {
                    let name = expected.then_some((at, content));
                    let known = known.pop().unwrap_or_default();
                    return Some(End {
                        levels,
                        name,
                        known,
                    });
                }
                if expected && let Some(Level::Object(name)) = levels.last_mut() {
                    known.last_mut()?.push(content.clone());
                    *name = Some(content);
                    expected = false;
                }
            }
            '{' => {
                levels.push(Level::Object(None));
                known.push(Vec::new());
                expected = true;
            }
            '[' => {
                levels.push(Level::List);
                known.push(Vec::new());
                expected = false;
            }
            '}' | ']' => {
                levels.pop()?;
                known.pop();
                expected = false;
            }
            ',' => expected = matches!(levels.last()?, Level::Object(_)),
            _ => {}
        }
    }
    let name = expected.then_some((text.len(), String::new()));
    let known = known.pop().unwrap_or_default();
    Some(End {
        levels,
        name,
        known,
    })
}

/// Scans a string after its first quote. Returns its content, and `true` if it has a closing quote.
fn text_in_quotes(chars: &mut CharIndices<'_>) -> (String, bool) {
    let mut content = String::new();
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return (content, true),
            '\\' => content.extend(chars.next().map(|(_, c)| c)),
            c => content.push(c),
        }
    }
    (content, false)
}

/// Returns the names that can be in the object at the end.
fn names<'a>(levels: &[Level], method: &'a Method, types: &'a Types) -> Vec<&'a str> {
    let Some((Level::Object(_), before)) = levels.split_last() else {
        return Vec::new();
    };
    let enclosing = before.iter();
    let place = enclosing.fold(Place::Arguments(method), |place, level| match level {
        Level::Object(Some(name)) => place.named(name, types),
        Level::Object(None) => Place::Unknown,
        Level::List => place.element(types),
    });
    place.names(types)
}

#[cfg(test)]
mod tests {
    use iip_rpc::schema::{Argument, Definition, Field, Shape, Type};

    use super::*;

    #[test]
    fn names_of_fields_are_offered_where_a_name_is_expected() {
        let mut types = Types::new();
        let item = Type::Named("Item".to_owned());
        let deny_unknown_fields = false;
        for (name, fields) in [
            (
                "Item",
                vec![
                    Field::new("name", Type::Text),
                    Field::new("note", Type::Text),
                ],
            ),
            (
                "Order",
                vec![
                    Field::new("id", Type::U64),
                    Field::new("items", Type::seq(item)),
                ],
            ),
        ] {
            let shape = Shape::Struct {
                fields,
                deny_unknown_fields,
            };
            types.insert(name, Definition::new(shape));
        }
        let mut method = Method::new("place", "/orders/place");
        method.args = vec![
            Argument::new("order", Type::option(Type::Named("Order".to_owned()))),
            Argument::new("rush", Type::Bool),
        ];
        for (text, wanted) in [
            ("{", &["{\"order\":", "{\"rush\":"][..]),
            ("{\"r", &["{\"rush\":"]),
            (
                "{\"order\":{\"",
                &["{\"order\":{\"id\":", "{\"order\":{\"items\":"],
            ),
            (
                "{\"order\":{\"id\":7,",
                &["{\"order\":{\"id\":7,\"items\":"],
            ),
            ("{\"order\":{\"items\":[{\"note\":\"{x\\\"", &[]),
            (
                "{\"order\":{\"items\":[{\"name\":\"{x\"},{\"no",
                &["{\"order\":{\"items\":[{\"name\":\"{x\"},{\"note\":"],
            ),
            ("{\"rush\":", &[]),
            ("{\"rush\":\"tr", &[]),
            ("[", &[]),
            ("}", &[]),
        ] {
            assert_eq!(complete(text, &method, &types), wanted, "{text}");
        }
    }
}
