//! Removal of old unfinished files.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use cap_std::fs::Dir;
use iip_rpc::Status;
use tokio::time::Instant;

use crate::failure::failed;
use crate::part;
use crate::path::{FilePath, is_reserved, objection};
use crate::root::Root;
use crate::sync::locked;

const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The time of the last search for unfinished files.
#[derive(Debug, Default)]
pub(super) struct Stale(Mutex<Option<Instant>>);

impl Stale {
    /// Returns `true` if it is time for a search, which the caller then makes.
    pub(super) fn is_due(&self) -> bool {
        let mut last = locked(&self.0);
        let is_due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Removes unfinished files that are older than `lifetime` and not being written. Blocks.
pub(super) fn remove(root: &Root, lifetime: Duration) -> Result<u64, Status> {
    let mut removed = 0;
    let mut directories = vec![FilePath::default()];
    while let Some(path) = directories.pop() {
        let doing = |error| failed(error, format_args!("reading {}", root.label(&path)));
        let opened = root.directory(&path).and_then(|dir| {
            let entries = dir.entries().map_err(doing)?;
            Ok((dir, entries))
        });
        let (dir, entries) = match opened {
            Ok(opened) => opened,
            // The directory was removed or replaced in the meantime, or cannot be read.
            Err(_) if !path.as_str().is_empty() => continue,
            Err(status) => return Err(status),
        };
        for entry in entries {
            let entry = entry.map_err(doing)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && objection(name).is_none() {
                directories.extend(path.join(name));
            } else if is_reserved(name) && is_old(&dir, name, lifetime) {
                removed += u64::from(remove_file(&dir, name));
            }
        }
    }
    Ok(removed)
}

fn is_old(dir: &Dir, name: &str, lifetime: Duration) -> bool {
    let modified = dir
        .symlink_metadata(name)
        .and_then(|metadata| metadata.modified());
    let age = modified.map(|modified| SystemTime::now().duration_since(modified.into_std()));
    matches!(age, Ok(Ok(age)) if age >= lifetime)
}

/// Removes a part with its journal, or a journal without a part. Returns `true` for a part.
fn remove_file(dir: &Dir, name: &str) -> bool {
    let (stem, is_part) = match name.strip_suffix(".part") {
        Some(stem) => (stem, true),
        None => (name.trim_end_matches(".journal"), false),
    };
    let part = format!("{stem}.part");
    if !is_part && dir.symlink_metadata(&part).is_ok() {
        // The journal is removed with the part.
        return false;
    }
    let journal = format!("{stem}.journal");
    // The journal is locked while the file is being written.
    let Ok(Some(_locked)) = part::lock(dir, &journal) else {
        return false;
    };
    let removed = is_part && dir.remove_file(&part).is_ok();
    let _ = dir.remove_file(&journal);
    removed
}
