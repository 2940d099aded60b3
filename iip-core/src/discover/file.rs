//! A file that lists backends.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash64;

use super::list::parse_list;
use super::stream::{Item, unfold};
use super::{Discover, DiscoverError, Snapshot, SnapshotStream};

/// Default interval at which a file is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// Minimum interval at which a file is read.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A file that lists backends. It is read every 2 s, and its contents are compared, so that changes
/// are seen on every file system, and if a link is swapped, as in a ConfigMap of Kubernetes.
///
/// The form follows from the extension `.toml` or `.json`, and without one from the contents:
///
/// - TOML: tables `[[backend]]` with the keys `address`, and optionally `id`, `weight`, `zone`,
///   `priority` and `metadata` (a table of texts).
/// - JSON: an array of objects with these keys, or `{"backends": [..]}`.
/// - Text: `address#weight` with commas between, as in the Go client, or one per line; the weight
///   is from 0 to 65,535, default 1. Lines that begin with `#` are comments.
///
/// A file that is missing, larger than 16 MiB or faulty is an error of the stream with its path,
/// line and column, once per change; the previous backends stay. So is an address or an id that is
/// listed twice. An empty file is faulty: `[]` lists no backend.
///
/// A program that writes the file should write another one and rename it, because a part of a list
/// may be a valid list.
///
/// ```no_run
/// use std::time::Duration;
/// use iip_core::discover::FileSource;
///
/// let source = FileSource::new("/etc/iip/backends.toml").interval(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    path: Arc<Path>,
    interval: Duration,
}

impl FileSource {
    /// Creates a source of the backends in the file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into().into(),
            interval: INTERVAL,
        }
    }

    /// Sets the interval at which the file is read: at least 100 ms, default 2 s. Less counts as
    /// 100 ms.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(MIN_INTERVAL);
        self
    }
}

impl Discover for FileSource {
    fn watch(&self) -> SnapshotStream {
        let state = Watch {
            path: Arc::clone(&self.path),
            interval: self.interval,
            seen: None,
        };
        unfold(state, Watch::next)
    }

    fn describe(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

/// The result of reading a path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Found {
    /// The digest of the contents.
    Contents(u64),
    /// The reason why there are none.
    Nothing(String),
}

/// The state of one stream.
struct Watch {
    path: Arc<Path>,
    interval: Duration,
    /// The result that the last item reported; `None` before the first one.
    seen: Option<Found>,
}

impl Watch {
    async fn next(mut self) -> (Item, Self) {
        loop {
            if self.seen.is_some() {
                tokio::time::sleep(self.interval).await;
            }
            let (path, seen) = (Arc::clone(&self.path), self.seen.clone());
            let looked = tokio::task::spawn_blocking(move || look(&path, seen.as_ref()));
            let (found, item) = match looked.await {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                Err(error) => {
                    let text = format!("cannot read file {}: {error}", self.path.display());
                    if self.seen == Some(Found::Nothing(text.clone())) {
                        continue;
                    }
                    (Found::Nothing(text.clone()), Err(DiscoverError::new(text)))
                }
            };
            self.seen = Some(found);
            return (item, self);
        }
    }
}

/// Reads a file; returns `None` if it is as it was.
fn look(path: &Path, seen: Option<&Found>) -> Option<(Found, Item)> {
    let read = read(path);
    let found = match &read {
        Ok(contents) => Found::Contents(XxHash64::oneshot(0, contents)),
        Err(error) => Found::Nothing(error.to_string()),
    };
    if seen == Some(&found) {
        return None;
    }
    let item = match read {
        Ok(contents) => match parse_list(path, &contents) {
            Ok(backends) => {
                let revision = match found {
                    Found::Contents(digest) => format!("{digest:016x}"),
                    Found::Nothing(_) => String::new(),
                };
                Ok(Snapshot::new(backends).revision(revision))
            }
            Err(error) => Err(DiscoverError::new(format!(
                "file {}, line {}, column {}: {}",
                path.display(),
                error.line,
                error.column,
                error.reason,
            ))),
        },
        Err(error) => {
            let text = format!("cannot read file {}: {error}", path.display());
            Err(DiscoverError::new(text))
        }
    };
    Some((found, item))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open a pipe may block for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut contents = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_BYTES {
        let text = format!("it is larger than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::other(text));
    }
    Ok(contents)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::stream::tests::{error, ids, next};
    use super::*;

    /// A directory that is removed with this.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let name = format!(
                "iip-file-{}-{}",
                std::process::id(),
                crate::random::random_id()
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// Replaces a file as a whole.
        fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
            fs::write(self.0.join("new"), contents).unwrap();
            fs::rename(self.0.join("new"), self.0.join(name)).unwrap();
        }

        fn source(&self, name: &str) -> FileSource {
            FileSource::new(self.0.join(name)).interval(Duration::ZERO)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Waits for some reads, of which none must have an item.
    async fn nothing_new(stream: &mut SnapshotStream) {
        let item = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx));
        let item = tokio::time::timeout(5 * MIN_INTERVAL, item).await;
        assert!(item.is_err(), "{item:?}");
    }

    #[tokio::test]
    async fn a_change_of_the_contents_is_sent_once() {
        let dir = Dir::new();
        dir.write("list", "a:1#1");
        let mut stream = dir.source("list").watch();
        let first = next(&mut stream).await.unwrap();
        assert_eq!(first.revision.len(), 16);
        // Another file with the same contents is no change.
        dir.write("list", "a:1#1");
        nothing_new(&mut stream).await;
        dir.write("list", "a:1#2");
        let second = next(&mut stream).await.unwrap();
        assert_eq!(second.backends[0].weight, 2);
        assert_ne!(second.revision, first.revision);
        nothing_new(&mut stream).await;
        // Every watch begins with what there is.
        assert_eq!(ids(&mut dir.source("list").watch()).await, ["a:1"]);
    }

    #[tokio::test]
    async fn a_fault_is_sent_once_per_change_with_path_line_and_column() {
        let dir = Dir::new();
        let mut stream = dir.source("list.toml").watch();
        let path = dir.0.join("list.toml");
        let path = path.display();
        let missing = error(&mut stream).await;
        let expected = format!("cannot read file {path}: No such file");
        assert!(missing.starts_with(&expected), "{missing}");
        nothing_new(&mut stream).await;
        dir.write("list.toml", "[[backend]]\naddress = 7");
        let faulty = error(&mut stream).await;
        let expected = format!("file {path}, line 2, column 11: invalid type");
        assert!(faulty.starts_with(&expected), "{faulty}");
        nothing_new(&mut stream).await;
        dir.write("list.toml", "[[backend]]\naddress = 8");
        assert_ne!(error(&mut stream).await, faulty);
        let good = "[[backend]]\naddress = \"a:1\"";
        dir.write("list.toml", good);
        assert_eq!(ids(&mut stream).await, ["a:1"]);
        fs::remove_file(dir.0.join("list.toml")).unwrap();
        assert_eq!(error(&mut stream).await, missing);
        // A file that is back as it was ends the error.
        dir.write("list.toml", good);
        assert_eq!(ids(&mut stream).await, ["a:1"]);
    }

    #[tokio::test]
    async fn the_swap_of_a_config_map_is_a_change() {
        let dir = Dir::new();
        let version = |name: &str, contents: &str| {
            fs::create_dir(dir.0.join(name)).unwrap();
            fs::write(dir.0.join(name).join("list.json"), contents).unwrap();
            symlink(name, dir.0.join("..data_tmp")).unwrap();
            fs::rename(dir.0.join("..data_tmp"), dir.0.join("..data")).unwrap();
        };
        version("..2026_1", "[{\"address\":\"a:1\"}]");
        symlink("..data/list.json", dir.0.join("list.json")).unwrap();
        let mut stream = dir.source("list.json").watch();
        assert_eq!(ids(&mut stream).await, ["a:1"]);
        version("..2026_2", "[{\"address\":\"b:1\"}]");
        assert_eq!(ids(&mut stream).await, ["b:1"]);
        fs::remove_dir_all(dir.0.join("..2026_1")).unwrap();
        // The link may come before its contents.
        fs::remove_file(dir.0.join("..data")).unwrap();
        symlink("..2026_3", dir.0.join("..data")).unwrap();
        assert!(error(&mut stream).await.contains("No such file"));
        fs::create_dir(dir.0.join("..2026_3")).unwrap();
        fs::write(dir.0.join("..2026_3/new"), "[{\"address\":\"c:1\"}]").unwrap();
        fs::rename(dir.0.join("..2026_3/new"), dir.0.join("..2026_3/list.json")).unwrap();
        assert_eq!(ids(&mut stream).await, ["c:1"]);
    }

    #[tokio::test]
    async fn what_is_no_file_or_too_large_is_an_error() {
        let dir = Dir::new();
        fs::create_dir(dir.0.join("list")).unwrap();
        let mut stream = dir.source("list").watch();
        assert!(
            error(&mut stream)
                .await
                .ends_with("it is not a regular file")
        );
        fs::remove_dir(dir.0.join("list")).unwrap();
        let comment = vec![b'#'; 16 << 20];
        let mut large = b"a:1\n".to_vec();
        large.extend_from_slice(&comment);
        dir.write("list", &large);
        // The directory may have been missed, and its absence may not.
        let mut text = error(&mut stream).await;
        if text.contains("No such file") {
            text = error(&mut stream).await;
        }
        assert!(text.ends_with("it is larger than 16 MiB"), "{text}");
        large.truncate(16 << 20);
        dir.write("list", &large);
        assert_eq!(ids(&mut stream).await, ["a:1"]);
    }

    #[test]
    fn a_file_is_read_every_two_seconds_by_default() {
        let source = FileSource::new("/etc/a");
        assert_eq!(source.interval, Duration::from_secs(2));
        assert_eq!(source.describe(), "file:///etc/a");
        assert_eq!(source.interval(Duration::ZERO).interval, MIN_INTERVAL);
    }
}
