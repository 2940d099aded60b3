//! Download of a directory.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use iip_rpc::Status;

use super::attempts::Failure;
use super::progress::{Phase, Tracker};
use super::{FileClient, MAX_PACKED_BYTES, broken, split};
use crate::failure::{blocking, failed};
use crate::path::FilePath;
use crate::root::Root;
use crate::service::{Files, Kind, Listed, MAX_SMALL_FILES, SMALL_FILE_BYTES, SmallRead};
use crate::small::{Small, write_small_files};

impl FileClient {
    pub(super) async fn get_directory(
        &self,
        remote: &FilePath,
        local: PathBuf,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        tracker.phase(Phase::Listing);
        let list = || self.watched(tracker, self.list(remote, tracker));
        let listed = self.again(tracker, list).await?;
        let (directories, files) = split(listed, tracker);
        let (root, missing) = blocking(move || {
            let doing = |error| failed(error, format_args!("creating {}", local.display()));
            std::fs::create_dir_all(&local).map_err(doing)?;
            let root = Root::open(&local, format!("{}/", local.display())).map_err(doing)?;
            for directory in &directories {
                root.make_directory(&FilePath::parse(&directory.path)?)?;
            }
            let missing = files
                .into_iter()
                .map(|file| (is_missing(&root, &file), file))
                .collect();
            Ok((Arc::new(root), missing))
        })
        .await?;
        let missing: Vec<(bool, Listed)> = missing;
        let unchanged = missing.iter().filter(|(is_missing, _)| !is_missing);
        tracker.unchanged(unchanged.map(|(_, file)| file.entry.identity.size));
        let mut pack = Vec::new();
        let mut packed = 0;
        for (_, file) in missing.into_iter().filter(|&(is_missing, _)| is_missing) {
            let size = file.entry.identity.size;
            let is_small = size < SMALL_FILE_BYTES;
            let is_full = pack.len() == MAX_SMALL_FILES || packed >= MAX_PACKED_BYTES as u64;
            if is_full || !is_small {
                self.get_pack(&root, remote, std::mem::take(&mut pack), tracker)
                    .await?;
                packed = 0;
            }
            if is_small {
                packed += size;
                pack.push(file);
            } else {
                self.get_listed(&root, remote, &file, tracker).await?;
            }
        }
        self.get_pack(&root, remote, pack, tracker).await
    }

    /// Collects the entries that the server lists, and checks their paths.
    async fn list(&self, remote: &FilePath, tracker: &Tracker<'_>) -> Result<Vec<Listed>, Status> {
        let mut batches = self.files.list(remote.as_str()).await?;
        let (mut all, mut path_bytes) = (Vec::new(), 0);
        let mut directories = HashSet::from([FilePath::default()]);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            if batch.is_empty() {
                return Err(broken(&Status::internal("a list of no entries")));
            }
            tracker.step();
            for listed in batch {
                check_listed(&listed, &mut directories).map_err(|status| broken(&status))?;
                path_bytes += listed.path.len();
                all.push(listed);
                self.check_files(all.len(), path_bytes)?;
            }
        }
        Ok(all)
    }

    /// Downloads a file that is not small.
    async fn get_listed(
        &self,
        root: &Arc<Root>,
        remote: &FilePath,
        file: &Listed,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        let (source, target) = (remote.join(&file.path)?, FilePath::parse_file(&file.path)?);
        let root = Arc::clone(root);
        let parent = blocking(move || root.parent(&target, true)).await?;
        tracker.file(&file.path);
        match self.get_file(&source, parent, tracker).await {
            Err(Failure::Source(status)) => tracker.unreadable(&file.path, status.message()),
            outcome => outcome?,
        }
        Ok(())
    }

    /// Downloads small files in one call.
    async fn get_pack(
        &self,
        root: &Arc<Root>,
        remote: &FilePath,
        files: Vec<Listed>,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        if files.is_empty() {
            return Ok(());
        }
        let mut paths = Vec::with_capacity(files.len());
        for file in &files {
            paths.push(remote.join(&file.path)?.as_str().to_owned());
        }
        let files_of_server = self.patient(Duration::ZERO);
        let call = || files_of_server.read_small(paths.clone());
        let read = self.again(tracker, call).await?;
        if read.len() != files.len() {
            return Err(broken(&Status::internal(
                "not as many files as were requested",
            )));
        }
        let (mut small, mut sizes) = (Vec::new(), Vec::new());
        for (file, read) in files.into_iter().zip(read) {
            match read {
                SmallRead::File {
                    modified,
                    hash,
                    bytes,
                } => {
                    self.check_size(&file.path, bytes.len() as u64)?;
                    sizes.push(bytes.len() as u64);
                    small.push((
                        FilePath::parse_file(&file.path)?,
                        Small {
                            modified,
                            hash,
                            bytes,
                        },
                    ));
                }
                SmallRead::Large => self.get_listed(root, remote, &file, tracker).await?,
                SmallRead::Refused(reason) => tracker.unreadable(&file.path, &reason),
            }
        }
        self.options.pay(sizes.iter().sum::<u64>() as usize).await;
        write_small_files(root, small).await?;
        tracker.done_small(sizes.into_iter());
        Ok(())
    }
}

/// Fails if a path is not allowed, or its directory was not listed before it: otherwise, the
/// directories would not be counted.
fn check_listed(listed: &Listed, directories: &mut HashSet<FilePath>) -> Result<(), Status> {
    // Other kinds are only reported, and may have names that are not allowed in a path.
    if !matches!(listed.entry.kind, Kind::File | Kind::Directory) {
        return Ok(());
    }
    let path = FilePath::parse_file(&listed.path)?;
    if !directories.contains(&path.split().0) {
        let text = format!("{:?} before its directory", path.as_str());
        return Err(Status::internal(text));
    }
    if listed.entry.kind == Kind::Directory {
        directories.insert(path);
    }
    Ok(())
}

/// Returns `true` if no file exists with the same size and modification time.
fn is_missing(root: &Root, file: &Listed) -> bool {
    let parent = FilePath::parse_file(&file.path).and_then(|path| root.parent(&path, false));
    !parent.is_ok_and(|parent| parent.is_unchanged(&file.entry.identity))
}
