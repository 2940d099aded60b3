//! The rates of `iq put`, `iq get`, and a copy over a plain TCP connection.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::proxy::{Program, serve, text};
use crate::{Bench, MIB, Outcome};

const ROUNDS: usize = 6;

/// Copies of one kind in a row. The first one is not counted: it takes memory as another kind has left
/// it, in other pieces, and a virtual machine may have to get it back from its host.
const COPIES: usize = 3;

/// Time in which the disk comes to rest.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that a plain copy reads and writes at a time.
const BLOCK: usize = 1 << 20;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    let (server, address) = serve(bench).await?;
    let (put, got) = (bench.served().join("put"), bench.folder.join("got"));
    let plain = bench.folder.join("plain");
    let uri = format!("{address}/put");
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // What is got is the same file that is put.
    let (got_from, link) = (format!("{address}/source"), bench.served().join("source"));
    bench.remove(&link);
    std::fs::hard_link(&bench.source, &link)?;
    for round in 0..ROUNDS {
        // None is always the one for which the disk has just written most.
        for turn in 0..3 {
            let which = (round + turn) % 3;
            let path = [&plain, &put, &got][which];
            for copy in 0..COPIES {
                bench.remove(path);
                let time = match which {
                    0 => plain_copy(&bench.source, &plain)?,
                    1 => iq(bench, &["put", text(&bench.source)?, &uri]).await?,
                    _ => iq(bench, &["get", &got_from, text(&got)?]).await?,
                };
                tokio::time::sleep(PAUSE).await;
                let name = ["tcp", "put", "get"][which];
                eprintln!("round {round}, {name}: {:.0} MiB/s", rate(bench, time));
                if copy > 0 {
                    times[which].push(time);
                }
            }
        }
    }
    for (name, all) in ["put", "get"].iter().zip(&times[1..]) {
        let ratios = times[0].iter().zip(all);
        let ratios = ratios.map(|(plain, own)| plain.as_secs_f64() / own.as_secs_f64());
        let ratio = median(ratios.collect());
        let rates = all.iter().map(|&time| rate(bench, time)).collect();
        println!(
            "{name}: {:.0} MiB/s, {ratio:.2} of a plain copy",
            median(rates)
        );
    }
    server.kill().await
}

fn rate(bench: &Bench, time: Duration) -> f64 {
    (bench.size / MIB) as f64 / time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn iq(bench: &Bench, args: &[&str]) -> Outcome<Duration> {
    let begun = Instant::now();
    Program::start(bench, args)?.result().await?;
    Ok(begun.elapsed())
}

/// Copies a file over a TCP connection, until it is on disk.
fn plain_copy(source: &Path, target: &Path) -> Outcome<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (mut source, mut target) = (File::open(source)?, File::create(target)?);
    let begun = Instant::now();
    let sending = thread::spawn(move || -> Outcome {
        let mut stream = TcpStream::connect(address)?;
        pump(&mut source, &mut stream)
    });
    let (mut stream, _) = listener.accept()?;
    pump(&mut stream, &mut target)?;
    target.sync_all()?;
    sending.join().map_err(|_| "the sender panicked")??;
    Ok(begun.elapsed())
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> Outcome {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block)? {
            0 => return Ok(()),
            length => to.write_all(&block[..length])?,
        }
    }
}
