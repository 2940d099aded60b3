//! The share of a fourth server that joins three others.

use std::time::Duration;

use iip_benches::BoxError;
use iip_rpc::Client;

use crate::cluster::{Directory, Member, WorkClient, calls, counts, load, share};
use crate::median;
use crate::options::Options;

const CALLERS: usize = 50;
const TAKES: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(1);

pub(crate) async fn run(options: &Options) -> Result<(), BoxError> {
    let callers = options.callers.unwrap_or(CALLERS);
    let time = options.secs.unwrap_or(Duration::from_secs(14));
    let mut rounds = Vec::with_capacity(options.rounds);
    for _ in 0..options.rounds {
        rounds.push(shares(callers, time.as_secs().max(1)).await?);
    }
    println!(
        "| second after the new server is listed | its share relative to a quarter | lowest and highest of all rounds |"
    );
    println!("|---:|---:|---:|");
    for window in 0..rounds[0].len() {
        let all = || rounds.iter().map(|round| round[window]);
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        let middle = median(all().collect());
        println!("| {} | {middle:.2} | {least:.2}, {most:.2} |", window + 1);
    }
    Ok(())
}

async fn shares(callers: usize, windows: u64) -> Result<Vec<f64>, BoxError> {
    let mut members = Member::start_all(3, TAKES).await?;
    let (list, directory) = Directory::new(&members);
    let client = WorkClient::new(Client::builder().discover(directory).await?);
    // Longer than a slow start, so that the others are warm.
    let before = Duration::from_secs(2);
    let seen = load(callers, before, calls(&client)).await?;
    members.push(Member::start(TAKES).await?);
    list.send(members.iter().map(|member| member.info.clone()).collect())?;
    let time = WINDOW * u32::try_from(windows)?;
    let running = tokio::spawn(load(callers, time, calls(&client)));
    let mut shares = Vec::new();
    let mut ticks = tokio::time::interval(WINDOW);
    ticks.tick().await;
    for _ in 0..windows {
        let before = counts(&members);
        ticks.tick().await;
        shares.push(4.0 * share(&members, &before, 3));
    }
    let failed = seen.failed + running.await??.failed;
    for member in members {
        member.server.shutdown(Duration::ZERO).await;
    }
    match failed {
        0 => Ok(shares),
        failed => Err(format!("{failed} calls have failed").into()),
    }
}
