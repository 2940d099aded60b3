//! Paths below the root of a folder.

use iip_rpc::Status;

/// Maximum length, in bytes, of a name in a path.
const MAX_NAME_BYTES: usize = 255;
/// Maximum length, in bytes, of a path.
const MAX_PATH_BYTES: usize = 4096;

/// Maximum number of bytes that are added to the name of a target for its part file or journal.
const PART_NAME_BYTES: usize = ".".len() + ".0123456789abcdef.journal".len();

/// Maximum number of bytes of the name of a target that the names of its part file and journal
/// begin with.
const MAX_BEGIN_BYTES: usize = MAX_NAME_BYTES - PART_NAME_BYTES;

/// A path below the root of a folder. It cannot lead out of the folder or name an unfinished file.
/// The path of the root itself is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FilePath(String);

impl FilePath {
    /// Parses the path of a file or directory. The empty path is the root.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        let refused = |why: &str| {
            let shown: String = text.chars().take(200).collect();
            Err(Status::invalid_argument(format!(
                "the path {shown:?} {why}"
            )))
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_PATH_BYTES {
            return refused("is longer than 4096 bytes");
        }
        if text.starts_with('/') {
            return refused("is absolute; paths are relative to the folder");
        }
        for name in text.split('/') {
            if let Some(why) = objection(name) {
                return refused(why);
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Parses the path of a file.
    pub(crate) fn parse_file(text: &str) -> Result<Self, Status> {
        if text.is_empty() {
            return Err(Status::invalid_argument("the path of the file is empty"));
        }
        Self::parse(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the names in the path, starting at the root.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// Splits the path into that of the directory and the name in it.
    pub(crate) fn split(&self) -> (Self, &str) {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => (Self(parent.to_owned()), name),
            None => (Self::default(), &self.0),
        }
    }

    /// Appends `name`, which may be a path itself.
    pub(crate) fn join(&self, name: &str) -> Result<Self, Status> {
        match (self.0.as_str(), name) {
            (_, "") => Ok(self.clone()),
            ("", _) => Self::parse(name),
            (parent, _) => Self::parse(&format!("{parent}/{name}")),
        }
    }
}

/// Returns the reason why a name is not allowed in a path; `None` if it is allowed.
pub(crate) fn objection(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("has an empty name between two slashes, or a slash at its end"),
        "." => Some("contains the name `.`"),
        ".." => Some("contains `..`, which could lead out of the folder"),
        _ if name.contains('\0') => Some("contains a NUL character"),
        _ if cfg!(windows) && name.contains(['\\', ':']) => Some("contains `\\` or `:`"),
        _ if name.len() > MAX_NAME_BYTES => Some("has a name of more than 255 bytes"),
        _ if is_reserved(name) => Some("has the name of an unfinished file"),
        _ => None,
    }
}

/// Returns `true` for names that [`part_names`] and [`go_part_name`] return.
pub(crate) fn is_reserved(name: &str) -> bool {
    let stem = name
        .strip_suffix(".part")
        .or_else(|| name.strip_suffix(".journal"));
    let stem = stem.and_then(|stem| Some((stem, stem.strip_prefix('.')?.rsplit_once('.')?)));
    let Some((stem, (begin, id))) = stem else {
        return false;
    };
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    // The hash in a name that was cut is of a name that is not known here.
    let may_be_cut = begin.len() + 4 > MAX_BEGIN_BYTES;
    id.len() == 16
        && id.bytes().all(is_hex)
        && (may_be_cut
            || stem == hidden(begin, begin.as_bytes())
            || stem == hidden(begin, format!("\0{begin}").as_bytes()))
}

/// Returns the names of the part file and the journal of a file, in the same directory. They depend
/// only on the name of the file, so that a later process finds them.
pub(crate) fn part_names(name: &str) -> (String, String) {
    let stem = hidden(name, name.as_bytes());
    (format!("{stem}.part"), format!("{stem}.journal"))
}

/// Returns the name of the part file of a transfer on the paths of Go's file servers, which has no
/// journal.
pub(crate) fn go_part_name(name: &str) -> String {
    format!("{}.part", hidden(name, format!("\0{name}").as_bytes()))
}

/// Returns a dot, the beginning of `name`, and a hash of `identity` in hexadecimal digits.
fn hidden(name: &str, identity: &[u8]) -> String {
    let id = &blake3::hash(identity).to_hex()[..16];
    let begin = beginning(name, MAX_BEGIN_BYTES);
    format!(".{begin}.{id}")
}

/// Returns the beginning of a text, of at most this number of bytes.
pub(crate) fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use iip_rpc::Code;

    use super::*;

    #[test]
    fn paths_that_lead_out_or_are_reserved_are_refused() {
        let (part, journal) = part_names("file");
        let long = "a".repeat(256);
        let deep = "a/".repeat(2050);
        let refused = [
            "/etc/passwd",
            "..",
            "../a",
            "a/..",
            "a/../b",
            ".",
            "./a",
            "a//b",
            "a/",
            "/",
            "a\0b",
            &part,
            &journal,
            &long,
            &deep,
        ];
        for path in refused {
            let status = FilePath::parse(path).expect_err(path);
            assert_eq!(status.code(), Code::InvalidArgument, "{path}");
        }
        for path in [
            "a",
            "a/b",
            "...",
            "a..b",
            ".part",
            ".journal",
            "a.part",
            ".notes.0123456789abcdef.part",
            &"a".repeat(255),
        ] {
            assert!(FilePath::parse(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_path_is_split_and_joined() {
        let path = FilePath::parse("a/b/c").expect("a path");
        assert_eq!(path.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        let (parent, name) = path.split();
        assert_eq!((parent.as_str(), name), ("a/b", "c"));
        assert_eq!(parent.join(name).expect("a path"), path);
        assert_eq!(FilePath::default().join("a").expect("a path").as_str(), "a");
        assert_eq!(FilePath::default().names().count(), 0);
        assert!(parent.join("../..").is_err());
    }

    #[test]
    fn names_of_parts_are_reserved_short_enough_and_differ() {
        for name in ["a", &"a".repeat(255), &"ä".repeat(127)] {
            let (part, journal) = part_names(name);
            assert!(is_reserved(&part) && is_reserved(&journal), "{part}");
            assert!(part.len() <= 255 && journal.len() <= 255, "{part}");
            let of_go = go_part_name(name);
            assert!(
                is_reserved(&of_go) && of_go != part && of_go.len() <= 255,
                "{of_go}"
            );
        }
        assert_ne!(
            part_names(&format!("{}b", "a".repeat(254))),
            part_names(&"a".repeat(255))
        );
    }
}
