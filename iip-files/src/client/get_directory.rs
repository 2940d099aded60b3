//! Download of a directory.

use std::path::PathBuf;
use std::sync::Arc;

use iip_rpc::{Code, Status, Streaming};

use super::progress::{Phase, Tracker};
use super::{FileClient, MAX_PACKED_BYTES, broken, split};
use crate::failure::{blocking, failed};
use crate::path::FilePath;
use crate::root::Root;
use crate::service::{
    Files, FilesClient, Kind, Listed, MAX_SMALL_FILES, SMALL_FILE_BYTES, SmallRead,
};
use crate::small::{Small, write_small_files};

impl FileClient {
    pub(super) async fn get_directory(
        &self,
        remote: &FilePath,
        local: PathBuf,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        tracker.phase(Phase::Listing);
        let mut batches = self.files.list(remote.as_str()).await?;
        let listed = self.collect(&mut batches).await?;
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
    async fn collect(&self, batches: &mut Streaming<Vec<Listed>>) -> Result<Vec<Listed>, Status> {
        let (mut all, mut path_bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            for listed in batch? {
                // Other kinds are only reported, and may have names that are not allowed in a path.
                if matches!(listed.entry.kind, Kind::File | Kind::Directory) {
                    FilePath::parse_file(&listed.path).map_err(|status| broken(&status))?;
                }
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
            // The file was removed in the meantime.
            Err(status) if status.code() == Code::NotFound => {
                tracker.skipped(&file.path, status.message());
                Ok(())
            }
            outcome => outcome,
        }
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
        let call = |client: FilesClient, args| async move { client.read_small(args).await };
        let read = self.again(tracker, paths, call).await?;
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
                SmallRead::Refused(reason) => tracker.skipped(&file.path, reason),
            }
        }
        if let Some(rate) = &self.options.rate {
            let bytes = sizes.iter().sum::<u64>();
            tokio::time::sleep_until(rate.take(bytes as usize)).await;
        }
        write_small_files(root, small).await?;
        tracker.done_small(sizes.into_iter());
        Ok(())
    }
}

/// Returns `true` if no file exists with the same size and modification time.
fn is_missing(root: &Root, file: &Listed) -> bool {
    let parent = FilePath::parse_file(&file.path).and_then(|path| root.parent(&path, false));
    !parent.is_ok_and(|parent| parent.is_unchanged(&file.entry.identity))
}
