//! Macros in texts.

use super::{Compiler, quoted};
use crate::error::ProblemKind;
use crate::tree::{Literal, Operand, Piece};
use crate::value::Value;

const OPENING: &str = "{{$";
const CLOSING: &str = "}}";

impl Compiler<'_> {
    /// Compiles a text in which macros are replaced.
    pub(super) fn text(&mut self, text: &str, place: &str) -> Operand {
        let mut pieces = Vec::new();
        // What was not yet copied, and what was not yet searched.
        let (mut copied, mut searched) = (0, 0);
        while let Some(found) = next_macro(text, searched) {
            let (start, end) = found;
            searched = end;
            let name = &text[start + 2..end - CLOSING.len()];
            // Pipelines are no part of macros.
            let source = if name.contains('|') {
                None
            } else {
                self.names.source(name)
            };
            let Some(source) = source else {
                let registered = self.names.registered();
                let message = format!(
                    "unknown variable {}: the macro is not replaced; registered are {registered}, \
                     without pipelines",
                    quoted(name),
                );
                self.warn(ProblemKind::Variable, place.to_owned(), message);
                continue;
            };
            if copied < start {
                pieces.push(Piece::Text(text[copied..start].into()));
            }
            pieces.push(Piece::Macro(source, text[start..end].into()));
            copied = end;
        }
        if pieces.is_empty() {
            return Operand::Literal(Literal::new(Value::from(text)));
        }
        if copied < text.len() {
            pieces.push(Piece::Text(text[copied..].into()));
        }
        Operand::Template(pieces)
    }
}

/// Returns the first macro from a place on: the first opening that is followed in its line by a
/// name and a closing, up to the first closing.
fn next_macro(text: &str, from: usize) -> Option<(usize, usize)> {
    let mut from = from;
    loop {
        let start = from + text[from..].find(OPENING)?;
        from = start + OPENING.len();
        // A name has at least one character after its dollar sign.
        let first = text[from..].chars().next()?;
        if first == '\n' {
            continue;
        }
        let name = from + first.len_utf8();
        let bytes = text.as_bytes();
        let is_end = |&at: &usize| bytes[at] == b'\n' || bytes[at..].starts_with(b"}}");
        let end = (name..bytes.len()).find(is_end)?;
        if bytes[end] == b'}' {
            return Some((start, end + CLOSING.len()));
        }
        // No later opening of this line has a closing either.
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&str> {
        next_macro(text, 0).map(|(start, end)| &text[start..end])
    }

    #[test]
    fn a_macro_reaches_from_the_first_opening_to_the_first_closing() {
        assert_eq!(found("a{{$b}}c}}"), Some("{{$b}}"));
        assert_eq!(found("{{{$b}}}"), Some("{{$b}}"));
        assert_eq!(found("{{$a {{$b}}"), Some("{{$a {{$b}}"));
        assert_eq!(found("{{$}}"), None);
        assert_eq!(found("{{$}}}"), Some("{{$}}}"));
        assert_eq!(found("{{$ä}}"), Some("{{$ä}}"));
        assert_eq!(found("{{$a\n}}{{$b}}"), Some("{{$b}}"));
        assert_eq!(found("{{$"), None);
        assert_eq!(found("{{$\n}}"), None);
    }

    #[test]
    fn many_openings_without_a_closing_take_no_long_time() {
        assert_eq!(found(&"{{$".repeat(1_000_000)), None);
        assert_eq!(found(&"{{$\n".repeat(1_000_000)), None);
        assert_eq!(found(&format!("{}}}}}", "{{$a\n".repeat(1_000_000))), None);
    }
}
