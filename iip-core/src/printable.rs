//! Escaping of text from a peer for terminals and logs. Pure.

use std::fmt::{self, Display, Write};

/// A wrapper for a value whose text may come from a peer: characters that move a cursor, end a
/// line, or change the direction of text are escaped on display, as in `\n` and `\u{1b}`. All other
/// characters are unchanged.
///
/// ```
/// use iip_core::Printable;
///
/// assert_eq!(Printable("ünwell\r\n\u{1b}[31m").to_string(), r"ünwell\r\n\u{1b}[31m");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// A writer that escapes the text written through it.
struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_unsafe(c)) {
            self.0.write_str(rest.get(..at).unwrap_or_default())?;
            write!(self.0, "{}", c.escape_debug())?;
            rest = rest.get(at + c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Returns `true` for control characters, the line and paragraph separators, and the marks that
/// change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_the_line_is_escaped_and_all_else_is_not() {
        for (text, shown) in [
            ("", ""),
            (
                "a \"quoted\" \\ text, ünïcödé 💡",
                "a \"quoted\" \\ text, ünïcödé 💡",
            ),
            ("\x1b[31mred\x07", r"\u{1b}[31mred\u{7}"),
            ("a\r\nb\tc\0", r"a\r\nb\tc\0"),
            ("\u{9b}31m\x7f", r"\u{9b}31m\u{7f}"),
            (
                "a\u{2028}b\u{202e}c\u{2066}d\u{feff}",
                r"a\u{2028}b\u{202e}c\u{2066}d\u{feff}",
            ),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
        let rejected = crate::CallErrorKind::ChannelRejected {
            code: 106,
            message: "no\x1b[2J\nERROR forged".to_owned(),
        };
        assert_eq!(
            rejected.to_string(),
            r"the server rejected a new channel: no\u{1b}[2J\nERROR forged (code 106)"
        );
        assert_eq!(
            Printable(format_args!("{}-{}", '\n', "x\n")).to_string(),
            r"\n-x\n"
        );
    }
}
