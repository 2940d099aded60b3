//! Layout of TypeScript text, with lines broken as by prettier.

use super::text::comment;

/// Maximum width of a line, in characters.
const WIDTH: usize = 80;

/// A part of the text. It is written on one line if it fits.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Text(String),
    Concat(Vec<Self>),
    /// Items between brackets.
    Group(Group),
    /// A union type.
    Union(Vec<Item>),
    /// An intersection type.
    Intersection(Vec<Self>),
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    open: String,
    items: Vec<Item>,
    close: String,
    separator: char,
}

/// An item of a group, with its documentation.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) doc: String,
    pub(super) layout: Layout,
}

impl From<Layout> for Item {
    fn from(layout: Layout) -> Self {
        let doc = String::new();
        Self { doc, layout }
    }
}

/// Returns a text that is not broken.
pub(super) fn text(text: impl Into<String>) -> Layout {
    Layout::Text(text.into())
}

/// Returns a call or a tuple.
pub(super) fn list(open: impl Into<String>, items: Vec<Layout>, close: &str) -> Layout {
    Layout::Group(Group {
        open: open.into(),
        items: items.into_iter().map(Item::from).collect(),
        close: close.to_owned(),
        separator: ',',
    })
}

/// Returns an object of values.
pub(super) fn object(members: Vec<Layout>) -> Layout {
    list("{", members, "}")
}

/// Returns an object type.
pub(super) fn members(items: Vec<Item>) -> Layout {
    Layout::Group(Group {
        open: "{".to_owned(),
        items,
        close: "}".to_owned(),
        separator: ';',
    })
}

impl Layout {
    /// Returns the text on one line; `None` if it contains documentation.
    pub(super) fn flat(&self) -> Option<String> {
        let joined = |parts: &[Self], separator: &str| {
            let parts: Option<Vec<String>> = parts.iter().map(Self::flat).collect();
            Some(parts?.join(separator))
        };
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Concat(parts) => joined(parts, ""),
            Self::Intersection(parts) => joined(parts, " & "),
            Self::Union(items) => Some(flat_items(items)?.join(" | ")),
            Self::Group(group) => group.flat(),
        }
    }

    /// Appends the text, with all lines but the first indented. `after` is the number of characters
    /// that follow on its last line.
    pub(super) fn write(&self, out: &mut String, indent: usize, after: usize) {
        let column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
        match self.flat() {
            Some(flat) if column + flat.len() + after <= WIDTH => out.push_str(&flat),
            _ => self.write_broken(out, indent, after),
        }
    }

    fn write_broken(&self, out: &mut String, indent: usize, after: usize) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Concat(parts) => parts.iter().for_each(|part| part.write(out, indent, after)),
            Self::Intersection(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " & " });
                    part.write(out, indent, after);
                }
            }
            Self::Union(items) => {
                out.truncate(out.trim_end_matches(' ').len());
                for item in items {
                    new_line(out, indent + 2);
                    item.write_doc(out, indent + 2);
                    out.push_str("| ");
                    item.layout.write(out, indent + 4, after);
                }
            }
            Self::Group(group) => group.write_broken(out, indent),
        }
    }

    /// Puts an intersection type in parentheses, for use within another type.
    pub(super) fn parenthesize(&mut self) {
        if let Self::Intersection(_) = self {
            let inner = std::mem::replace(self, text(""));
            *self = Self::Concat(vec![text("("), inner, text(")")]);
        }
    }

    /// Appends the head of a function. Each parameter is on a separate line unless the head fits on
    /// one.
    pub(super) fn write_head(&self, result: &Self, out: &mut String, indent: usize) {
        let head = Self::Concat(vec![self.clone(), result.clone()]);
        let fits = head
            .flat()
            .is_some_and(|flat| indent + flat.len() + " {".len() <= WIDTH);
        match self {
            Self::Group(group) if !fits => group.write_broken(out, indent),
            whole => whole.write(out, indent, 0),
        }
        result.write(out, indent, " {".len());
    }

    /// Appends an object type with a line for each member.
    pub(super) fn write_open(&self, out: &mut String) {
        match self {
            Self::Group(group) => group.write_broken(out, 0),
            other => other.write(out, 0, 0),
        }
    }
}

impl Group {
    fn flat(&self) -> Option<String> {
        let items = flat_items(&self.items)?;
        let space = if self.open.ends_with('{') && !items.is_empty() {
            " "
        } else {
            ""
        };
        let items = items.join(&format!("{} ", self.separator));
        Some(format!("{}{space}{items}{space}{}", self.open, self.close))
    }

    fn write_broken(&self, out: &mut String, indent: usize) {
        out.push_str(&self.open);
        if self.items.is_empty() {
            out.push_str(&self.close);
            return;
        }
        if let Some((last, before)) = self.hugged() {
            for item in before {
                out.push_str(&item);
                out.push_str(", ");
            }
            last.write_broken(out, indent);
            out.push_str(&self.close);
            return;
        }
        for item in &self.items {
            new_line(out, indent + 2);
            item.write_doc(out, indent + 2);
            item.layout.write(out, indent + 2, 1);
            out.push(self.separator);
        }
        new_line(out, indent);
        out.push_str(&self.close);
    }

    /// Returns the last argument of a call, if it is the only one that is an object, and the other
    /// arguments. The object begins on the line of the others.
    fn hugged(&self) -> Option<(&Self, Vec<String>)> {
        let (last, before) = self.items.split_last()?;
        let Layout::Group(group) = &last.layout else {
            return None;
        };
        let is_call = self.open.ends_with('(') && group.open == "{";
        let before = before.iter().map(|item| match &item.layout {
            Layout::Text(text) => Some(text.clone()),
            _ => None,
        });
        let before = before.collect::<Option<Vec<String>>>()?;
        is_call.then_some((group, before))
    }
}

impl Item {
    fn write_doc(&self, out: &mut String, indent: usize) {
        if !self.doc.is_empty() {
            out.push_str(comment(&self.doc, indent).trim_start());
            new_line(out, indent);
        }
    }
}

fn flat_items(items: &[Item]) -> Option<Vec<String>> {
    let flat = |item: &Item| match item.doc.is_empty() {
        true => item.layout.flat(),
        false => None,
    };
    items.iter().map(flat).collect()
}

fn new_line(out: &mut String, indent: usize) {
    out.push('\n');
    out.push_str(&" ".repeat(indent));
}
