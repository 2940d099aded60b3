//! A directory and access to the files below it. Nothing outside it can be reached: each name of a
//! path is opened relative to the directory before it, and symbolic links are not followed. Only
//! regular files and directories are opened.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_fs_ext::{DirExt, FollowSymlinks, MetadataExt, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use iip_rpc::Status;

use crate::failure::failed;
use crate::path::FilePath;
use crate::service::{Entry, Identity, Kind, Modified};

/// A directory that paths are relative to, with its label in error texts.
#[derive(Debug)]
pub(crate) struct Root {
    dir: Dir,
    /// The prefix of paths in error texts.
    label: String,
}

/// A directory below a root, which holds a file.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) dir: Dir,
    /// The name of the file.
    pub(crate) name: String,
    /// The path of the file in error texts.
    pub(crate) label: String,
}

impl Root {
    /// Opens a directory of this machine. `label` is the prefix of paths in error texts.
    pub(crate) fn open(path: &Path, label: impl Into<String>) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Self {
            dir,
            label: label.into(),
        })
    }

    /// Returns the name of a path in error texts.
    pub(crate) fn label(&self, path: &FilePath) -> String {
        match path.as_str() {
            "" => format!("{}.", self.label),
            path => format!("{}{}", self.label, path.escape_debug()),
        }
    }

    /// Opens a directory.
    pub(crate) fn directory(&self, path: &FilePath) -> Result<Dir, Status> {
        self.descend(path, false, || self.label(path))
    }

    /// Opens a directory, and creates it and its parents if they do not exist.
    pub(crate) fn make_directory(&self, path: &FilePath) -> Result<Dir, Status> {
        self.descend(path, true, || self.label(path))
    }

    /// Opens a directory; if `create` is set, creates it and its parents if they do not exist.
    /// `label` is the path that error texts name.
    fn descend(
        &self,
        path: &FilePath,
        create: bool,
        label: impl Fn() -> String,
    ) -> Result<Dir, Status> {
        let doing = |error| failed(error, format_args!("opening the directory of {}", label()));
        let mut dir = self.dir.try_clone().map_err(doing)?;
        for name in path.names() {
            dir = open_directory(&dir, name, create).map_err(doing)?;
        }
        Ok(dir)
    }

    /// Opens the directory of a file.
    pub(crate) fn parent(&self, path: &FilePath, create: bool) -> Result<Parent, Status> {
        let (parent, name) = path.split();
        let dir = self.descend(&parent, create, || self.label(path))?;
        Ok(Parent {
            dir,
            name: name.to_owned(),
            label: self.label(path),
        })
    }

    /// Describes the entry at a path.
    pub(crate) fn entry(&self, path: &FilePath) -> Result<Entry, Status> {
        if path.as_str().is_empty() {
            return Ok(Entry {
                kind: Kind::Directory,
                identity: Identity::default(),
            });
        }
        let parent = self.parent(path, false)?;
        entry(&parent.dir, OsStr::new(&parent.name))
            .map_err(|error| failed(error, format_args!("reading {}", parent.label)))
    }
}

impl Parent {
    /// Like [`ambient`](Self::ambient), but creates the directory and its parents if they do not
    /// exist.
    pub(crate) fn make_ambient(path: &Path) -> Result<Self, Status> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| failed(error, format_args!("creating {}", parent.display())))?;
        }
        Self::ambient(path)
    }

    /// Opens the directory of a file of this machine. The path comes from the user, so it may lead
    /// anywhere; only the name of the file is checked.
    pub(crate) fn ambient(path: &Path) -> Result<Self, Status> {
        let label = path.display().to_string();
        let Some(name) = path.file_name() else {
            let text = format!("{label} does not end in the name of a file");
            return Err(Status::invalid_argument(text));
        };
        let Some(name) = name.to_str() else {
            return Err(Status::invalid_argument(format!(
                "the name of {label} is not UTF-8"
            )));
        };
        FilePath::parse_file(name)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let dir = Dir::open_ambient_dir(
            parent.unwrap_or_else(|| Path::new(".")),
            ambient_authority(),
        );
        let dir =
            dir.map_err(|error| failed(error, format_args!("opening the directory of {label}")))?;
        Ok(Self {
            dir,
            name: name.to_owned(),
            label,
        })
    }

    pub(crate) fn try_clone(&self) -> Result<Self, Status> {
        let dir = self.dir.try_clone();
        let dir = dir.map_err(|error| failed(error, format_args!("opening {}", self.label)))?;
        Ok(Self {
            dir,
            name: self.name.clone(),
            label: self.label.clone(),
        })
    }

    /// Returns `true` if a regular file exists with this size and modification time. If its time
    /// has no fraction of a second, which some file systems do not store, the seconds are compared.
    pub(crate) fn is_unchanged(&self, identity: &Identity) -> bool {
        let found = entry(&self.dir, OsStr::new(&self.name));
        found.is_ok_and(|found| {
            let (time, wanted) = (found.identity.modified, identity.modified);
            let is_coarse = time.nanoseconds == 0;
            found.kind == Kind::File
                && found.identity.size == identity.size
                && time.seconds == wanted.seconds
                && (is_coarse || time.nanoseconds == wanted.nanoseconds)
        })
    }

    /// Fails if the name belongs to anything but a regular file or a symbolic link. Of a link, the
    /// link itself is replaced, not its target.
    pub(crate) fn check_replaceable(&self) -> Result<(), Status> {
        match entry(&self.dir, OsStr::new(&self.name)) {
            Ok(entry) if entry.kind != Kind::Link => refuse_special(entry.kind, &self.label),
            _ => Ok(()),
        }
    }

    /// Gives a new file the permissions of the regular file that it replaces, and `further` ones.
    pub(crate) fn keep_mode(&self, new: &File, further: u32) -> io::Result<()> {
        #[cfg(unix)]
        if let Ok(old) = self.dir.symlink_metadata(&self.name)
            && old.is_file()
        {
            use cap_std::fs::PermissionsExt as _;
            use std::os::unix::fs::PermissionsExt as _;

            let mode = old.permissions().mode() & 0o777 | further;
            // File systems without permissions refuse to set them.
            if new.metadata()?.permissions().mode() & 0o777 != mode {
                new.set_permissions(std::fs::Permissions::from_mode(mode))?;
            }
        }
        #[cfg(not(unix))]
        let _ = (new, further);
        Ok(())
    }

    /// Opens the file for reading, and returns it with its identity.
    pub(crate) fn open_source(&self) -> Result<(File, Identity), Status> {
        let doing = |error| failed(error, format_args!("opening {}", self.label));
        // Checked before the file is opened: opening a device can change its state, and opening a
        // pipe would wait for the other end.
        let kind = entry(&self.dir, OsStr::new(&self.name))
            .map_err(doing)?
            .kind;
        refuse_special(kind, &self.label)?;
        let file =
            open_regular(&self.dir, &self.name, OpenOptions::new().read(true)).map_err(doing)?;
        let identity = identity(&file).map_err(doing)?;
        Ok((file, identity))
    }
}

/// Fails if the kind is not that of a regular file.
fn refuse_special(kind: Kind, label: impl Display) -> Result<(), Status> {
    let what = match kind {
        Kind::File => return Ok(()),
        Kind::Directory => "is a directory, not a file",
        Kind::Link => "is a symbolic link, which is not followed",
        Kind::Special => "is not a regular file",
    };
    Err(Status::failed_precondition(format!("{label} {what}")))
}

/// Opens a directory by its name; if `create` is set, creates it if it does not exist. Fails if it
/// is a symbolic link.
fn open_directory(dir: &Dir, name: &str, create: bool) -> io::Result<Dir> {
    match dir.open_dir_nofollow(name) {
        Err(error) if error.kind() == ErrorKind::NotFound && create => {
            match dir.create_dir(name) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_directory(dir)?,
            }
            open_directory(dir, name, false)
        }
        Err(error) => match dir.symlink_metadata(name) {
            Ok(metadata) if metadata.is_symlink() => {
                let text = format!("{name:?} is a symbolic link, which is not followed");
                Err(io::Error::new(ErrorKind::NotADirectory, text))
            }
            _ => Err(error),
        },
        opened => opened,
    }
}

/// Opens a file by its name. Fails if it is not a regular file.
pub(crate) fn open_regular(dir: &Dir, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    let file = dir
        .open_with(name, options.follow(FollowSymlinks::No).nonblock(true))?
        .into_std();
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(file)
}

/// Syncs a directory, so that entries that were created, renamed or removed in it are durable.
pub(crate) fn sync_directory(dir: &Dir) -> io::Result<()> {
    // Windows has no such operation. The directory is opened again because the descriptor of a
    // `Dir` may be for paths only, and cannot be synced.
    if cfg!(unix) {
        dir.open(".")?.sync_all()
    } else {
        Ok(())
    }
}

/// Describes the entry with this name in a directory.
pub(crate) fn entry(dir: &Dir, name: &OsStr) -> io::Result<Entry> {
    let metadata = dir.symlink_metadata(name)?;
    let kind = if metadata.is_file() {
        Kind::File
    } else if metadata.is_dir() {
        return Ok(Entry {
            kind: Kind::Directory,
            identity: Identity::default(),
        });
    } else if metadata.is_symlink() {
        Kind::Link
    } else {
        Kind::Special
    };
    let modified = Modified::from(metadata.modified()?.into_std());
    let identity = Identity {
        size: metadata.len(),
        modified,
        inode: metadata.ino(),
    };
    Ok(Entry { kind, identity })
}

/// Returns the identity of an open file.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    let modified = Modified::from(metadata.modified()?);
    Ok(Identity {
        size: metadata.len(),
        modified,
        inode: metadata.ino(),
    })
}

impl From<SystemTime> for Modified {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanoseconds) = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (i128::from(after.as_secs()), after.subsec_nanos()),
            Err(before) => {
                let nanoseconds = -(before.duration().as_nanos() as i128);
                let rest = nanoseconds.rem_euclid(1_000_000_000);
                (nanoseconds.div_euclid(1_000_000_000), rest as u32)
            }
        };
        Self {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanoseconds,
        }
    }
}

impl Modified {
    /// Returns the time, if the system can represent it.
    pub(crate) fn time(self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            UNIX_EPOCH.checked_sub(seconds)
        } else {
            UNIX_EPOCH.checked_add(seconds)
        };
        whole?.checked_add(Duration::from_nanos(u64::from(self.nanoseconds)))
    }
}
