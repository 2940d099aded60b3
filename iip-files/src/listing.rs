//! Recursive listing of a directory.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use cap_std::fs::{Dir, DirEntry, ReadDir};
use iip_rpc::{Code, Status};

use crate::failure::failed;
use crate::path::{FilePath, is_reserved, objection};
use crate::root::{self, Root};
use crate::service::{Entry, Identity, Kind, Listed, MAX_ENTRIES};

/// Lists everything below a directory, each directory before its contents. The entries of a
/// directory are sorted by name, in runs of [`MAX_ENTRIES`]. Symbolic links and special files are
/// listed and not followed; unfinished files are left out.
#[derive(Debug)]
pub(crate) struct Listing {
    root: Arc<Root>,
    base: FilePath,
    /// Stack of the directories that are still to be read.
    directories: Vec<FilePath>,
    /// Size of the stack, and its maximum, in bytes.
    stack_bytes: usize,
    max_stack_bytes: usize,
    /// The directories that could not be read; `None` if such a directory ends the listing.
    unreadable: Option<Vec<(FilePath, Status)>>,
    /// The directory that is being read.
    open: Option<OpenDirectory>,
    found: VecDeque<Listed>,
}

#[derive(Debug)]
struct OpenDirectory {
    path: FilePath,
    dir: Dir,
    entries: ReadDir,
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
            stack_bytes: stack_bytes(&FilePath::default()),
            max_stack_bytes: usize::MAX,
            unreadable: None,
            open: None,
            found: VecDeque::new(),
        })
    }

    /// Sets the maximum size of the paths of the directories that are still to be read, in bytes.
    /// Default: no limit.
    pub(crate) fn max_stack_bytes(mut self, bytes: usize) -> Self {
        self.max_stack_bytes = bytes;
        self
    }

    /// Continues after directories that cannot be read, except for the first one.
    pub(crate) fn leave_out_unreadable(mut self) -> Self {
        self.unreadable = Some(Vec::new());
        self
    }

    /// Returns the directories that were left out, with the reasons.
    pub(crate) fn unreadable(self) -> Vec<(FilePath, Status)> {
        self.unreadable.unwrap_or_default()
    }

    /// Returns the next entries, at most [`MAX_ENTRIES`]. There are none at the end. Blocks.
    pub(crate) fn next(&mut self) -> Result<Vec<Listed>, Status> {
        while self.found.len() < MAX_ENTRIES {
            if self.open.is_none() {
                self.open = self.open_next()?;
            }
            let Some(mut open) = self.open.take() else {
                break;
            };
            match self.read(&mut open) {
                Ok(true) => self.open = Some(open),
                Ok(false) => {}
                Err(status) => self.leave_out(open.path, status)?,
            }
        }
        let length = self.found.len().min(MAX_ENTRIES);
        Ok(self.found.drain(..length).collect())
    }

    /// Opens the next directory, if there is one.
    fn open_next(&mut self) -> Result<Option<OpenDirectory>, Status> {
        while let Some(path) = self.directories.pop() {
            self.stack_bytes -= stack_bytes(&path);
            match self.open(&path) {
                Ok(open) => return Ok(Some(open)),
                // The directory was removed in the meantime.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => self.leave_out(path, status)?,
            }
        }
        Ok(None)
    }

    fn open(&self, path: &FilePath) -> Result<OpenDirectory, Status> {
        let dir = self.root.directory(&self.base.join(path.as_str())?)?;
        let entries = dir.entries().map_err(|error| self.failed(path, error))?;
        let path = path.clone();
        Ok(OpenDirectory { path, dir, entries })
    }

    fn leave_out(&mut self, directory: FilePath, status: Status) -> Result<(), Status> {
        match &mut self.unreadable {
            Some(unreadable) if !directory.as_str().is_empty() => {
                unreadable.push((directory, status));
                Ok(())
            }
            _ => Err(status),
        }
    }

    /// Reads the next entries of a directory. Returns `true` if there may be more.
    fn read(&mut self, open: &mut OpenDirectory) -> Result<bool, Status> {
        let mut entries = Vec::new();
        while entries.len() < MAX_ENTRIES
            && let Some(entry) = open.entries.next()
        {
            let entry = entry.map_err(|error| self.failed(&open.path, error))?;
            let listed = listed(&open.path, &entry, &open.dir);
            entries.extend(listed.map_err(|error| self.failed(&open.path, error))?);
        }
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for listed in entries.iter().rev() {
            if listed.entry.kind == Kind::Directory {
                self.push(FilePath::parse(&listed.path)?)?;
            }
        }
        let may_be_more = entries.len() == MAX_ENTRIES;
        self.found.extend(entries);
        Ok(may_be_more)
    }

    fn push(&mut self, directory: FilePath) -> Result<(), Status> {
        self.stack_bytes += stack_bytes(&directory);
        if self.stack_bytes > self.max_stack_bytes {
            let text = format!(
                "listing {}: the paths of the directories that are still to be listed take more \
                 than {} bytes of memory; list them one by one",
                self.root.label(&self.base),
                self.max_stack_bytes
            );
            return Err(Status::resource_exhausted(text));
        }
        self.directories.push(directory);
        Ok(())
    }

    fn failed(&self, directory: &FilePath, error: io::Error) -> Status {
        match self.base.join(directory.as_str()) {
            Ok(path) => failed(error, format_args!("reading {}", self.root.label(&path))),
            Err(status) => status,
        }
    }
}

/// Returns the size of a path on the stack, in bytes.
fn stack_bytes(path: &FilePath) -> usize {
    size_of::<FilePath>() + path.as_str().len()
}

/// Describes an entry of a directory; `None` if it was removed in the meantime, or is an unfinished
/// file.
fn listed(directory: &FilePath, entry: &DirEntry, dir: &Dir) -> io::Result<Option<Listed>> {
    let name = entry.file_name();
    let special = Entry {
        kind: Kind::Special,
        identity: Identity::default(),
    };
    let in_directory = |name: &str| match directory.as_str() {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    };
    let Some(name) = name.to_str() else {
        // A name that is not UTF-8 is not allowed in a path.
        let path = in_directory(&name.to_string_lossy());
        return Ok(Some(Listed {
            path,
            entry: special,
        }));
    };
    if is_reserved(name) {
        return Ok(None);
    }
    let path = in_directory(name);
    let is_path = objection(name).is_none() && FilePath::parse(&path).is_ok();
    let entry = match is_path {
        true => root::entry(dir, name.as_ref()),
        false => Ok(special),
    };
    match entry {
        Ok(entry) => Ok(Some(Listed { path, entry })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn listing(folder: &tempfile::TempDir) -> Listing {
        let root = Root::open(folder.path(), "").expect("a folder");
        Listing::new(Arc::new(root), FilePath::default()).expect("a directory")
    }

    #[test]
    fn a_directory_that_cannot_be_read_ends_the_listing_or_is_left_out() {
        for is_left_out in [false, true] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let below = |number: usize| folder.path().join(format!("{number:05}"));
            for number in 0..=MAX_ENTRIES {
                fs::create_dir(below(number)).expect("a directory");
            }
            let mut listing = listing(&folder);
            if is_left_out {
                listing = listing.leave_out_unreadable();
            }
            assert_eq!(listing.next().expect("readable").len(), MAX_ENTRIES);
            // These are the directories that were listed, and one more.
            for number in 0..=MAX_ENTRIES {
                fs::remove_dir(below(number)).expect("empty");
                fs::write(below(number), "").expect("a file");
            }
            let end = loop {
                match listing.next() {
                    Ok(next) if next.is_empty() => break Ok(listing.unreadable().len()),
                    Ok(_) => {}
                    Err(status) => break Err(status),
                }
            };
            assert_eq!(end.ok(), is_left_out.then_some(MAX_ENTRIES));
        }
    }

    #[test]
    fn a_large_directory_is_read_in_runs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let count = 3 * MAX_ENTRIES + 7;
        for number in 0..count {
            fs::write(folder.path().join(format!("{number:05}")), "").expect("a file");
        }
        let mut listing = listing(&folder);
        let mut paths = Vec::new();
        loop {
            let next = listing.next().expect("entries");
            assert!(listing.found.len() <= MAX_ENTRIES);
            if next.is_empty() {
                break;
            }
            assert!(next.is_sorted_by(|a, b| a.path < b.path));
            paths.extend(next.into_iter().map(|listed| listed.path));
        }
        paths.sort();
        let expected: Vec<_> = (0..count).map(|number| format!("{number:05}")).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn directories_that_wait_to_be_listed_take_limited_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for number in 0..20 {
            let path = folder.path().join(format!("{number:0100}/below"));
            fs::create_dir_all(path).expect("a directory");
        }
        let status = listing(&folder).max_stack_bytes(2000).next();
        let status = status.expect_err("more than fits");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("2000 bytes"), "{status}");
        // They need not fit with what is below them.
        let all = listing(&folder).max_stack_bytes(20 * 130).next();
        assert_eq!(all.expect("all").len(), 40);
    }
}
