//! The time from the start of `iq` until the first bytes of a file that is at 90 % are sent.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::proxy::{Program, Proxy, serve, text};
use crate::{Bench, Outcome};

const ROUNDS: usize = 5;

/// More than what precedes the file.
const BEFORE: u64 = 64 * 1024;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    for command in ["put", "get"] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(resumed(bench, command).await?);
        }
        times.sort();
        println!(
            "{command}, resumed at 90 %: the first bytes after {:.1?}",
            times[ROUNDS / 2]
        );
    }
    Ok(())
}

async fn resumed(bench: &Bench, command: &str) -> Outcome<Duration> {
    let (server, address) = serve(bench).await?;
    let proxy = Proxy::new(&address).await?;
    let (put, got) = (bench.served().join("resumed"), bench.folder.join("resumed"));
    let uri = format!("{}/resumed", proxy.addr);
    if command == "get" && !put.exists() {
        std::fs::copy(&bench.source, &put)?;
    }
    bench.remove(if command == "put" { &put } else { &got });
    let args = match command {
        "put" => ["put", text(&bench.source)?, &uri],
        _ => ["get", &uri, text(&got)?],
    };
    // So slow that it does not end before it is killed.
    let slow = [&args[..], &["--limit-rate", "200M"]].concat();
    let mut client = Program::start(bench, &slow)?;
    client.is_durable(bench.size / 10 * 9).await?;
    client.kill().await?;
    let carried = if command == "put" {
        &proxy.up
    } else {
        &proxy.down
    };
    // What was sent before has arrived once it does not grow any more.
    let mut before = carried.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = carried.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    let begun = Instant::now();
    let mut client = Program::start(bench, &args)?;
    while carried.load(Ordering::Relaxed) < before + BEFORE {
        if client.child.try_wait()?.is_some() {
            return Err("nothing was left to send".into());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let time = begun.elapsed();
    client.result().await?;
    server.kill().await?;
    Ok(time)
}
