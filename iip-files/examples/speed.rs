//! Measures transfers over loopback next to a plain copy through a TCP socket:
//! `cargo run --release -p iip-files --example speed -- FOLDER [MIB [ROUNDS]]`. The folder should be on
//! the disk that is of interest, and the file larger than the memory.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use iip_files::{FileClient, Folder, TransferOptions};
use iip_rpc::{Client, Server, Status, service};

/// Calls beside transfers.
#[service]
pub(crate) trait Echo {
    /// Returns the text.
    async fn echo(&self, text: [u8; 16]) -> Result<[u8; 16], Status>;
}

struct Here;

impl Echo for Here {
    async fn echo(&self, text: [u8; 16]) -> Result<[u8; 16], Status> {
        Ok(text)
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

/// Copies a file through a socket, and makes it durable.
fn copy_by_tcp(from: &Path, to: &Path) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, from) = (listener.local_addr()?, from.to_owned());
    let sender =
        thread::spawn(move || copy(&mut File::open(from)?, &mut TcpStream::connect(address)?));
    let mut target = File::create(to)?;
    copy(&mut listener.accept()?.0, &mut target)?;
    target.sync_all()?;
    sender
        .join()
        .map_err(|_| io::Error::other("the sender has panicked"))?
}

fn make_file(path: &Path, mib: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0x5A; 1 << 20];
    for number in 0..mib {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn rate(mib: u64, begun: Instant) -> String {
    format!("{:.0} MiB/s", mib as f64 / begun.elapsed().as_secs_f64())
}

/// Sends a file, is interrupted after nine tenths of it, and returns the time from the beginning of
/// the next transfer to its first bytes.
async fn resumed(files: &FileClient, source: &Path) -> Result<Duration, Status> {
    let (reached, mut is_reached) = tokio::sync::watch::channel(false);
    let options = TransferOptions::new().progress(move |progress| {
        if progress.size > 0 && progress.durable >= progress.size / 10 * 9 {
            reached.send_replace(true);
        }
    });
    let first_files = files.clone().with_options(options);
    tokio::select! {
        report = first_files.put(source, "resumed") => drop(report?),
        _ = is_reached.wait_for(|is_reached| *is_reached) => {}
    }
    let first = Arc::new(Mutex::new(None));
    let (begun, seen) = (Instant::now(), Arc::clone(&first));
    let options = TransferOptions::new().progress(move |progress| {
        if progress.sent > 0 && progress.phase == iip_files::Phase::Transferring {
            seen.lock()
                .expect("no panic")
                .get_or_insert_with(|| begun.elapsed());
        }
    });
    files
        .clone()
        .with_options(options)
        .put(source, "resumed")
        .await?;
    let first = *first.lock().expect("no panic");
    first.ok_or_else(|| Status::internal("nothing was left to send"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("which folder?")?);
    let mib: u64 = args.next().map_or(Ok(1024), |mib| mib.parse())?;
    let rounds: u32 = args.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let (served, source, target) = (
        folder.join("served"),
        folder.join("source"),
        folder.join("target"),
    );
    fs::create_dir_all(&served)?;
    make_file(&source, mib)?;

    let server = Server::builder()
        .service(Folder::open(&served)?.writable(true).into_service())
        .service(EchoServer::new(Here));
    let server = server.bind("127.0.0.1:0").await?;
    let client = Client::connect(server.target()).await?;
    let files = FileClient::new(client.clone());
    for _ in 0..rounds {
        let (from, to) = (source.clone(), target.clone());
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || copy_by_tcp(&from, &to)).await??;
        let tcp = rate(mib, begun);
        fs::remove_file(&target)?;
        let begun = Instant::now();
        files.put(&source, "file").await?;
        let put = rate(mib, begun);
        let begun = Instant::now();
        files.get("file", &target).await?;
        println!("TCP {tcp}, put {put}, get {}", rate(mib, begun));
        fs::remove_file(&target)?;
        fs::remove_file(served.join("file"))?;
    }
    println!(
        "resumed after nine tenths: first bytes after {:?}",
        resumed(&files, &source).await?
    );

    let echo = EchoClient::new(client);
    let put = tokio::spawn(async move { files.put(source, "file").await });
    let mut times = Vec::new();
    while !put.is_finished() {
        let begun = Instant::now();
        echo.echo([7; 16]).await?;
        times.push(begun.elapsed());
    }
    put.await??;
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    println!(
        "calls of 16 bytes beside a put: p50 {:?}, p99 {:?}",
        at(500),
        at(990)
    );
    fs::remove_dir_all(&served)?;
    Ok(fs::remove_file(folder.join("source"))?)
}
