//! Names and types in texts for people. A description may come from a hostile peer, so names are
//! shortened and escaped.

use std::fmt;

use crate::types::Type;

/// The longest name that is shown in full, in characters.
const SHOWN: usize = 64;

/// Maximum number of levels that are shown of a type.
const SHOWN_DEPTH: usize = 4;

/// A name, shortened, without characters that move the cursor or change the direction of text.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.chars().enumerate() {
            if at == SHOWN {
                return f.write_str("..");
            }
            match is_unsafe(c) {
                true => write!(f, "{}", c.escape_unicode())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Returns `true` for control characters, the line and paragraph separators, the marks that change
/// the direction of text, and the character that surrounds names.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '`' | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// A type as Rust writes it, shortened.
pub(crate) struct Shown<'a>(pub(crate) &'a Type, usize);

impl<'a> Shown<'a> {
    pub(crate) fn new(ty: &'a Type) -> Self {
        Self(ty, SHOWN_DEPTH)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(depth) = self.1.checked_sub(1) else {
            return f.write_str("..");
        };
        let part = |ty| Shown(ty, depth);
        match self.0 {
            Type::Any => f.write_str("any value"),
            Type::Option(of) => write!(f, "Option<{}>", part(of)),
            Type::Seq(of) => write!(f, "Vec<{}>", part(of)),
            Type::Array(of, len) => write!(f, "[{}; {len}]", part(of)),
            Type::Map(key, value) => write!(f, "Map<{}, {}>", part(key), part(value)),
            Type::Named(name) | Type::Opaque { name, .. } => Name(name).fmt(f),
            Type::ByFormat { compact, .. } => part(compact).fmt(f),
            Type::Tuple(of) => {
                f.write_str("(")?;
                for (at, ty) in of.iter().enumerate() {
                    if at == SHOWN_DEPTH {
                        f.write_str(", ..")?;
                        break;
                    }
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}", part(ty))?;
                }
                f.write_str(")")
            }
            plain => f.write_str(plain.plain_name().unwrap_or_default()),
        }
    }
}
