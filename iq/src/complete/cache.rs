//! A cache of the services of servers, in files.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use iip_rpc::schema::{Description, file};

use crate::config::home_folder;

/// The time for which services are cached.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// The maximum size of a file, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Returns the services that are cached under a key, unless they are too old.
pub(super) fn read(key: &str) -> Option<Vec<Description>> {
    let path = path_of(key)?;
    let metadata = fs::metadata(&path).ok()?;
    // A file with a time in the future counts as too old.
    let age = SystemTime::now()
        .duration_since(metadata.modified().ok()?)
        .ok()?;
    if age > FRESH || metadata.len() > MAX_BYTES {
        return None;
    }
    file::from_text(&fs::read_to_string(path).ok()?).ok()
}

/// Caches services. Failures are ignored.
pub(super) fn write(key: &str, services: &[Description]) {
    let Some(path) = path_of(key) else {
        return;
    };
    let text = file::to_text(services);
    if text.len() as u64 <= MAX_BYTES {
        let _ = replace(&path, text.as_bytes());
    }
}

/// Replaces a file atomically, so that no other process reads a part of it.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&part)?.write_all(text)?;
    fs::rename(&part, path)
}

fn path_of(key: &str) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), key).hash(&mut hasher);
    let name = format!("{:016x}.json", hasher.finish());
    Some(
        home_folder("XDG_CACHE_HOME", ".cache")?
            .join("iq")
            .join(name),
    )
}
