//! Transfers during which either side is killed five times.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::proxy::{Program, Proxy, serve, text};
use crate::{Bench, MIB, Outcome};

const KILLS: u64 = 5;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    for command in ["put", "get"] {
        for side in ["client", "server"] {
            killed(bench, command, side).await?;
        }
    }
    Ok(())
}

async fn killed(bench: &Bench, command: &str, side: &str) -> Outcome {
    let (mut server, address) = serve(bench).await?;
    let proxy = Proxy::new(&address).await?;
    let (put, got) = (bench.served().join("killed"), bench.folder.join("killed"));
    let uri = format!("{}/killed", proxy.addr);
    let (args, target) = match command {
        "put" => (["put", text(&bench.source)?, &uri], &put),
        _ => (["get", &uri, text(&got)?], &got),
    };
    if command == "put" {
        bench.remove(&put);
    } else {
        bench.remove(&got);
    }
    let begun = Instant::now();
    let mut client = Program::start(bench, &args)?;
    for kill in 1..=KILLS {
        client.is_durable(bench.size * kill / (KILLS + 1)).await?;
        if side == "client" {
            client.kill().await?;
            client = Program::start(bench, &args)?;
        } else {
            server.kill().await?;
            let address;
            (server, address) = serve(bench).await?;
            if let Ok(mut leads_to) = proxy.server.lock() {
                *leads_to = address;
            }
        }
    }
    let done = client.result().await?;
    let time = begun.elapsed();
    server.kill().await?;
    let carried = match command {
        "put" => proxy.up.load(Ordering::Relaxed),
        _ => proxy.down.load(Ordering::Relaxed),
    };
    let is_same = same(&bench.source, target)?;
    println!(
        "{command}, {KILLS} kills of the {side}: {:.1} s, {} MiB sent for {} MiB, same: {is_same}, \
         blake3 {}",
        time.as_secs_f64(),
        carried / MIB,
        bench.size / MIB,
        done["blake3"].as_str().unwrap_or_default(),
    );
    Ok(())
}

fn same(a: &std::path::Path, b: &std::path::Path) -> Outcome<bool> {
    use std::io::Read;

    let (mut a, mut b) = (std::fs::File::open(a)?, std::fs::File::open(b)?);
    let (mut of_a, mut of_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = a.read(&mut of_a)?;
        if length == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
        b.read_exact(&mut of_b[..length])?;
        if of_a[..length] != of_b[..length] {
            return Ok(false);
        }
    }
}
