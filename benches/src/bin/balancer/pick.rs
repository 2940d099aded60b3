//! The time of a pick, of the account of a call, and of a snapshot. No connections.

use std::hint::black_box;
use std::time::{Duration, Instant};

use iip_benches::BoxError;
use iip_core::balance::{
    BackendInfo, BalanceOptions, Balancer, Notice, Outcome, PickHint, Picker, Policy,
};

use crate::median;

const PICKS: u32 = 20_000;
const SERIES: usize = 100;
const LARGE: usize = 10_000;

fn policies() -> [Policy; 7] {
    [
        Policy::P2c,
        Policy::LeastPending,
        Policy::RoundRobin,
        Policy::Random,
        Policy::Weighted,
        Policy::RingHash,
        Policy::GoHashIp,
    ]
}

pub(crate) fn run() -> Result<(), BoxError> {
    let empty = series(SERIES, PICKS, |rng| rng.u64(..));
    println!(
        "Nanoseconds, minimum and median of {SERIES} series. A loop without a pick takes {empty}.\n"
    );
    println!("| policy | 3 backends | 100 backends | 1,000 backends |");
    println!("|---|---:|---:|---:|");
    for policy in policies() {
        print!("| `{policy:?}` |");
        for count in [3, 100, 1000] {
            let now = Instant::now();
            let balancer = used(policy.clone(), &infos(count)?, now)?;
            print!(" {} |", picks(balancer.picker(), now));
        }
        println!();
    }
    println!("\nstarted and finished: {} ns\n", account()?);
    println!("Milliseconds for {LARGE} backends, minimum and median of 11.\n");
    println!(
        "| policy | first snapshot | one with changed weights and members | refresh | refresh while all are down |"
    );
    println!("|---|---:|---:|---:|---:|");
    for policy in policies() {
        let figures = snapshots(&policy)?;
        println!("| `{policy:?}` | {} |", figures.join(" | "));
    }
    Ok(())
}

fn infos(count: usize) -> Result<Vec<BackendInfo>, BoxError> {
    let info = |number: usize| -> Result<_, BoxError> {
        let (high, low) = (number / 250, number % 250);
        let endpoint = format!("10.0.{high}.{low}:7000").parse()?;
        Ok(BackendInfo::new(endpoint).weight(1 + u32::try_from(number % 3)?))
    };
    (0..count).map(info).collect()
}

/// Returns a balancer whose backends have calls in flight and latencies.
fn used(policy: Policy, infos: &[BackendInfo], now: Instant) -> Result<Balancer, BoxError> {
    let mut balancer = Balancer::new(BalanceOptions::new().policy(policy), now, 1)?;
    drop(balancer.apply(infos, now, |_, _| ()));
    for (number, (backend, _)) in balancer.set().iter().enumerate() {
        for _ in 0..=number % 3 {
            backend.started();
        }
        backend.observed(now, Duration::from_micros(900 + number as u64), 1);
        backend.observed(now, Duration::from_micros(500 + number as u64), 1);
    }
    balancer.refresh(now);
    Ok(balancer)
}

fn picks(picker: &Picker, now: Instant) -> String {
    let now = now + Duration::from_millis(1);
    series(SERIES, PICKS, |rng| {
        let random = rng.u64(..);
        let hint = PickHint::new().hash(Some(random));
        let picked = picker.pick(&hint, now, random);
        picked.map_or(0, |picked| picked.index as u64)
    })
}

/// Returns the minimum and the median time of a step, in nanoseconds.
fn series(repeats: usize, steps: u32, mut step: impl FnMut(&mut fastrand::Rng) -> u64) -> String {
    let mut rng = fastrand::Rng::with_seed(1);
    let times = (0..repeats).map(|_| {
        let start = Instant::now();
        for _ in 0..steps {
            black_box(step(&mut rng));
        }
        start.elapsed().as_nanos() as f64 / f64::from(steps)
    });
    figures(times.collect(), 1)
}

fn figures(times: Vec<f64>, digits: usize) -> String {
    let least = times.iter().copied().fold(f64::MAX, f64::min);
    format!("{least:.digits$}, {:.digits$}", median(times))
}

fn account() -> Result<String, BoxError> {
    let now = Instant::now();
    let balancer = used(Policy::P2c, &infos(3)?, now)?;
    let backend = balancer.set().get(0).ok_or("there are three")?;
    let mut time = 0;
    Ok(series(SERIES, PICKS, |_| {
        time += 1;
        backend.started();
        let elapsed = Duration::from_micros(900 + time % 7);
        let now = now + Duration::from_micros(time);
        u64::from(backend.finished(now, elapsed, Outcome::Success, false) != Notice::None)
    }))
}

fn snapshots(policy: &Policy) -> Result<[String; 4], BoxError> {
    let now = Instant::now();
    let list = infos(LARGE)?;
    let millis = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e3
    };
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..11 {
        let options = BalanceOptions::new().policy(policy.clone());
        let mut balancer = Balancer::<()>::new(options, now, 1)?;
        times[0].push(millis(&mut || {
            drop(black_box(balancer.apply(&list, now, |_, _| ())));
            balancer.refresh(now);
        }));
        // A tenth has left, and as many are new; every tenth of the others has another weight.
        let mut next = infos(LARGE + LARGE / 10)?.split_off(LARGE / 10);
        for info in next.iter_mut().skip(round).step_by(10) {
            info.weight += 1;
        }
        times[1].push(millis(&mut || {
            drop(black_box(balancer.apply(&next, now, |_, _| ())));
            balancer.refresh(now);
        }));
        times[2].push(millis(&mut || {
            balancer.refresh(now);
        }));
        let all: Vec<_> = balancer
            .set()
            .iter()
            .map(|(backend, _)| backend.id())
            .collect();
        for id in all {
            balancer.refused(id, now);
        }
        times[3].push(millis(&mut || {
            balancer.refresh(now);
        }));
    }
    Ok(times.map(|times| figures(times, 2)))
}
