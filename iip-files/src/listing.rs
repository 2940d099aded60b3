//! Recursive listing of a directory.

use std::collections::VecDeque;
use std::sync::Arc;

use cap_std::fs::DirEntry;
use iip_rpc::{Code, Status};

use crate::failure::failed;
use crate::path::{FilePath, is_reserved, objection};
use crate::root::{self, Root};
use crate::service::{Entry, Identity, Kind, Listed, MAX_ENTRIES};

/// Lists everything below a directory, sorted by name within each directory, and each directory
/// before its contents. Symbolic links and special files are listed and not followed; unfinished
/// files are left out.
#[derive(Debug)]
pub(crate) struct Listing {
    root: Arc<Root>,
    base: FilePath,
    /// Stack of the directories that are still to be read.
    directories: Vec<FilePath>,
    found: VecDeque<Listed>,
}

impl Listing {
    /// Starts at a directory. Blocks.
    pub(crate) fn new(root: Arc<Root>, base: FilePath) -> Result<Self, Status> {
        root.directory(&base)?;
        let directories = vec![FilePath::default()];
        Ok(Self {
            root,
            base,
            directories,
            found: VecDeque::new(),
        })
    }

    /// Returns the next entries, at most [`MAX_ENTRIES`]. There are none at the end. Blocks.
    pub(crate) fn next(&mut self) -> Result<Vec<Listed>, Status> {
        while self.found.len() < MAX_ENTRIES
            && let Some(directory) = self.directories.pop()
        {
            self.read(&directory)?;
        }
        let length = self.found.len().min(MAX_ENTRIES);
        Ok(self.found.drain(..length).collect())
    }

    fn read(&mut self, directory: &FilePath) -> Result<(), Status> {
        let path = self.base.join(directory.as_str())?;
        let doing = |error| failed(error, format_args!("reading {}", self.root.label(&path)));
        let dir = match self.root.directory(&path) {
            // The directory was removed in the meantime.
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            dir => dir?,
        };
        let mut entries = Vec::new();
        for entry in dir.entries().map_err(doing)? {
            entries.extend(listed(directory, &entry.map_err(doing)?, &dir));
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for listed in entries.iter().rev() {
            if listed.entry.kind == Kind::Directory {
                self.directories.push(FilePath::parse(&listed.path)?);
            }
        }
        self.found.extend(entries);
        Ok(())
    }
}

/// Describes an entry of a directory; `None` if it was removed in the meantime, or is an unfinished
/// file.
fn listed(directory: &FilePath, entry: &DirEntry, dir: &cap_std::fs::Dir) -> Option<Listed> {
    let name = entry.file_name();
    let special = Entry {
        kind: Kind::Special,
        identity: Identity::default(),
    };
    let in_directory = |name: &str| match directory.as_str() {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    };
    match name.to_str() {
        Some(name) if is_reserved(name) => None,
        Some(name) => {
            let path = in_directory(name);
            let is_path = objection(name).is_none() && FilePath::parse(&path).is_ok();
            let entry = if is_path {
                root::entry(dir, name.as_ref()).ok()?
            } else {
                special
            };
            Some(Listed { path, entry })
        }
        // A name that is not UTF-8 is not allowed in a path.
        None => Some(Listed {
            path: in_directory(&name.to_string_lossy()),
            entry: special,
        }),
    }
}
