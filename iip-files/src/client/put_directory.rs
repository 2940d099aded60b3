//! Upload of a directory.

use std::sync::Arc;
use std::time::Duration;

use iip_rpc::Status;

use super::attempts::Failure;
use super::progress::{Phase, Tracker};
use super::{FileClient, MAX_PACKED_BYTES, split};
use crate::failure::blocking;
use crate::listing::Listing;
use crate::path::FilePath;
use crate::root::Root;
use crate::service::{Files, Listed, MAX_ENTRIES, MAX_SMALL_FILES, SMALL_FILE_BYTES, SmallFile};
use crate::small::read_small_file;

/// Small files that are sent in one call.
#[derive(Default)]
struct Pack {
    files: Vec<SmallFile>,
    bytes: usize,
}

impl FileClient {
    pub(super) async fn put_directory(
        &self,
        root: Arc<Root>,
        remote: &FilePath,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        tracker.phase(Phase::Listing);
        let (listed, unreadable) = self.list_local(Arc::clone(&root)).await?;
        for (path, status) in unreadable {
            tracker.unreadable(path.as_str(), status.message());
        }
        let (directories, files) = split(listed, tracker);
        let mut paths = Vec::with_capacity(directories.len() + 1);
        paths.push(remote.as_str().to_owned());
        for directory in &directories {
            paths.push(remote.join(&directory.path)?.as_str().to_owned());
        }
        for paths in paths.chunks(MAX_ENTRIES) {
            let server = self.patient(Duration::ZERO);
            let call = || server.make_directories(paths.to_vec());
            self.again(tracker, call).await?;
        }
        for files in files.chunks(MAX_ENTRIES) {
            self.put_missing(&root, files, remote, tracker).await?;
        }
        Ok(())
    }

    /// Lists the directory. Also returns the directories below it that cannot be read.
    async fn list_local(
        &self,
        root: Arc<Root>,
    ) -> Result<(Vec<Listed>, Vec<(FilePath, Status)>), Status> {
        let client = self.clone();
        blocking(move || {
            let mut listing = Listing::new(root, FilePath::default())?.leave_out_unreadable();
            let (mut all, mut path_bytes) = (Vec::<Listed>::new(), 0);
            loop {
                let next = listing.next()?;
                if next.is_empty() {
                    return Ok((all, listing.unreadable()));
                }
                path_bytes += next.iter().map(|listed| listed.path.len()).sum::<usize>();
                all.extend(next);
                client.check_files(all.len(), path_bytes)?;
            }
        })
        .await
    }

    /// Sends the files that the server does not have.
    async fn put_missing(
        &self,
        root: &Arc<Root>,
        files: &[Listed],
        remote: &FilePath,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let path = remote.join(&file.path)?.as_str().to_owned();
            entries.push(Listed {
                path,
                entry: file.entry,
            });
        }
        let server = self.patient(Duration::ZERO);
        let call = || server.missing(entries.clone());
        let missing = self.again(tracker, call).await?;
        let with_answers = || {
            files
                .iter()
                .zip(missing.iter().copied().chain(std::iter::repeat(true)))
        };
        let unchanged = with_answers().filter(|&(_, is_missing)| !is_missing);
        tracker.unchanged(unchanged.map(|(file, _)| file.entry.identity.size));
        let mut pack = Pack::default();
        for (file, _) in with_answers().filter(|&(_, is_missing)| is_missing) {
            self.put_listed(root, file, remote, &mut pack, tracker)
                .await?;
        }
        self.put_pack(&mut pack, tracker).await
    }

    /// Sends a file, or adds it to the pack if it is small.
    async fn put_listed(
        &self,
        root: &Arc<Root>,
        file: &Listed,
        remote: &FilePath,
        pack: &mut Pack,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        let (local, target) = (FilePath::parse_file(&file.path)?, remote.join(&file.path)?);
        let is_small = file.entry.identity.size < SMALL_FILE_BYTES;
        let root = Arc::clone(root);
        let opened = blocking(move || {
            let parent = root.parent(&local, false)?;
            if is_small && let Some(small) = read_small_file(&parent)? {
                return Ok((parent, Some(small)));
            }
            parent.open_source()?;
            Ok((parent, None))
        })
        .await;
        match opened {
            Ok((_, Some(small))) => {
                pack.bytes += small.bytes.len();
                pack.files.push(SmallFile {
                    path: target.as_str().to_owned(),
                    modified: small.modified,
                    hash: small.hash,
                    bytes: small.bytes,
                });
                if pack.files.len() >= MAX_SMALL_FILES || pack.bytes >= MAX_PACKED_BYTES {
                    self.put_pack(pack, tracker).await?;
                }
            }
            Ok((parent, None)) => {
                self.put_pack(pack, tracker).await?;
                tracker.file(&file.path);
                match self.put_file(parent, &target, tracker).await {
                    Err(Failure::Source(status)) => {
                        tracker.unreadable(&file.path, status.message());
                    }
                    outcome => outcome?,
                }
            }
            // The file was removed or replaced in the meantime, or cannot be read.
            Err(status) => tracker.unreadable(&file.path, status.message()),
        }
        Ok(())
    }

    async fn put_pack(&self, pack: &mut Pack, tracker: &Tracker<'_>) -> Result<(), Status> {
        let Pack { files, bytes } = std::mem::take(pack);
        if files.is_empty() {
            return Ok(());
        }
        self.options.pay(bytes).await;
        let sizes: Vec<u64> = files.iter().map(|file| file.bytes.len() as u64).collect();
        // The server may limit the rate, to 10 kB/s at least.
        let server = self.patient(Duration::from_secs(bytes as u64 / 10_000));
        let call = || server.write_small(files.clone());
        self.again(tracker, call).await?;
        tracker.done_small(sizes.into_iter());
        Ok(())
    }
}
