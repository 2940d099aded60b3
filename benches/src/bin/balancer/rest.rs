//! Memory and processor time of a client process that makes no calls.

use std::process::Stdio;
use std::time::Duration;

use iip_benches::{BoxError, cpu, memory};
use iip_rpc::Client;
use iip_rpc::balance::{BackendInfo, BalanceOptions};
use iip_rpc::discover::StaticList;

use crate::cluster::{Member, Work as _, WorkClient};
use crate::options::Options;

/// The backends that a client uses.
const USED: usize = 10;

/// Measures processes with 10 and with 1,000 backends.
pub(crate) async fn run(options: &Options) -> Result<(), BoxError> {
    let member = Member::start(Duration::ZERO).await?;
    let secs = options.secs.unwrap_or(Duration::from_secs(30));
    println!(
        "| backends, connected | resident memory | processor time in {:.0} s |",
        secs.as_secs_f64()
    );
    println!("|---:|---:|---:|");
    for backends in [USED, 1000] {
        let mut rounds = Vec::with_capacity(options.rounds);
        for _ in 0..options.rounds {
            let child = std::process::Command::new(std::env::current_exe()?)
                .args([
                    "rest-client",
                    &member.server.target(),
                    &backends.to_string(),
                ])
                .args(["--secs", &secs.as_secs_f64().to_string()])
                .stdout(Stdio::piped())
                .spawn()?;
            let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
            if !output.status.success() {
                return Err(format!("the client ended with {}", output.status).into());
            }
            let text = String::from_utf8(output.stdout)?;
            let numbers: Vec<f64> = text
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?;
            rounds.push(<[f64; 2]>::try_from(numbers).map_err(|_| "two numbers are expected")?);
        }
        let [kib, micros] = options.medians(&rounds);
        let millis = micros / 1e3;
        println!("| {backends}, {USED} | {kib:.0} KiB | {millis:.1} ms |");
    }
    member.server.shutdown(Duration::ZERO).await;
    Ok(())
}

/// Connects to [`USED`] of some backends, all at one address. Prints the resident memory in KiB, and
/// the processor time at rest in microseconds.
pub(crate) async fn client(addr: &str, backends: usize, options: &Options) -> Result<(), BoxError> {
    let of = |number| -> Result<_, BoxError> {
        Ok(BackendInfo::new(addr.parse()?).id(format!("backend-{number}")))
    };
    let list = (0..backends).map(of).collect::<Result<Vec<_>, _>>()?;
    let pid = std::process::id();
    let before = memory::open_files(pid)?;
    let client = Client::builder()
        .balance(BalanceOptions::new().subset(USED))
        .discover(StaticList::new(list))
        .await?;
    let work = WorkClient::new(client.clone());
    while memory::open_files(pid)? < before + USED {
        work.work().await?;
    }
    // Buffers are released after a second without calls.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let start = cpu::own()?;
    tokio::time::sleep(options.secs.unwrap_or(Duration::from_secs(30))).await;
    let used = cpu::own()? - start;
    println!("{} {}", memory::resident_kib(pid)?, used.as_micros());
    Ok(())
}
