//! Measures transfers of `iq` next to a copy over a plain TCP connection.
//!
//! ```sh
//! cargo build --release -p iq && cd benches/files
//! cargo run --release -- ../../target/release/iq FOLDER 2048
//! ```
//!
//! FOLDER gets files of 2048 MiB; it should be on a disk. All copies read the same file, which is in
//! the page cache, and end once the bytes are on disk.

mod beside;
mod copies;
mod kills;
mod proxy;
mod resume;

use std::error::Error;
use std::path::PathBuf;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: u64 = 1 << 20;

/// What all measurements use.
struct Bench {
    iq: PathBuf,
    folder: PathBuf,
    source: PathBuf,
    size: u64,
}

#[tokio::main]
async fn main() -> Outcome {
    let mut args = std::env::args_os().skip(1);
    let (Some(iq), Some(folder), Some(size)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: iip-bench-files IQ FOLDER MIB [MEASUREMENT..]".into());
    };
    let size: u64 = size.to_string_lossy().parse()?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(folder.join("served"))?;
    let source = folder.join("source");
    let bench = Bench {
        iq: iq.into(),
        folder,
        source,
        size: size * MIB,
    };
    bench.write_source()?;
    let chosen: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if is_chosen("copies") {
        copies::run(&bench).await?;
    }
    if is_chosen("kills") {
        kills::run(&bench).await?;
    }
    if is_chosen("resume") {
        resume::run(&bench).await?;
    }
    if is_chosen("beside") {
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| scope.spawn(|| beside::run(&bench)).join())
        })
        .map_err(|_| "it panicked")??;
    }
    Ok(())
}

impl Bench {
    /// Writes random bytes, and reads them once, so that they are in the page cache.
    fn write_source(&self) -> Outcome {
        use std::io::Write;

        if std::fs::metadata(&self.source).is_ok_and(|found| found.len() == self.size) {
            std::io::copy(
                &mut std::fs::File::open(&self.source)?,
                &mut std::io::sink(),
            )?;
            return Ok(());
        }
        let mut file = std::fs::File::create(&self.source)?;
        let mut block = vec![0; 1 << 20];
        for _ in 0..self.size / MIB {
            fastrand::fill(&mut block);
            file.write_all(&block)?;
        }
        Ok(file.sync_all()?)
    }

    fn served(&self) -> PathBuf {
        self.folder.join("served")
    }

    fn remove(&self, path: &std::path::Path) {
        // It may not exist.
        let _ = std::fs::remove_file(path);
    }
}
