//! Loads on a server that stalls, and loads that are interrupted.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use iip_rpc::{Server, Status, service};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::one;
use crate::common::{GUARD, Home, LONG, Ran, json_lines};
use crate::streams::interrupt;

/// The call at which the server stalls.
const STALLING: u64 = 1000;

/// The time for which it does.
const STALL: Duration = Duration::from_secs(2);

#[service]
trait Clock {
    async fn tick(&self) -> Result<u64, Status>;
    async fn never(&self) -> Result<(), Status>;
}

struct Stalling {
    calls: AtomicU64,
    begun: mpsc::UnboundedSender<u64>,
}

impl Clock for Stalling {
    async fn tick(&self) -> Result<u64, Status> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let _ = self.begun.send(call);
        if call == STALLING {
            // No other call is served meanwhile: the server has this thread alone.
            std::thread::sleep(STALL);
        }
        Ok(call)
    }

    async fn never(&self) -> Result<(), Status> {
        let _ = self.begun.send(0);
        std::future::pending().await
    }
}

/// A server on a thread of its own, which ends with this.
struct Stalls {
    target: String,
    begun: mpsc::UnboundedReceiver<u64>,
    _end: oneshot::Sender<()>,
}

impl Stalls {
    async fn new() -> Self {
        let (started, target) = oneshot::channel();
        let (sender, begun) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let clock = Stalling {
                    calls: AtomicU64::new(0),
                    begun: sender,
                };
                let server = Server::builder().service(ClockServer::new(clock));
                let server = server.bind("127.0.0.1:0").await.unwrap();
                started.send(server.target().to_string()).unwrap();
                let _ = ended.await;
            });
        });
        Self {
            target: target.await.unwrap(),
            begun,
            _end: end,
        }
    }

    /// Runs a load, and returns its summary.
    async fn load(&self, options: &[&str]) -> Value {
        let call = [
            "bench",
            &self.target,
            "Clock.tick",
            "--json",
            "--timeout",
            LONG,
        ];
        let ran = Home::new().iq(&[&call[..], options].concat()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        one(&json_lines(&ran.out), "summary").clone()
    }

    async fn begin(&mut self, call: u64) {
        let waiting = async { while self.begun.recv().await.unwrap() != call {} };
        tokio::time::timeout(GUARD, waiting)
            .await
            .expect("calls in time");
    }
}

fn seconds(summary: &Value, kind: &str, quantile: &str) -> f64 {
    summary[kind][quantile].as_f64().unwrap() / 1e6
}

#[tokio::test]
async fn an_open_loop_shows_a_stall_that_a_closed_loop_hides() {
    let open = Stalls::new().await;
    let open = open.load(&["--rate", "1000", "-n", "4000"]).await;
    assert_eq!((&open["ok"], &open["skipped"]), (&4000.into(), &0.into()));
    assert!(seconds(&open, "latency_us", "p99.9") >= 1.9, "{open}");
    // Half of the calls were due during the stall.
    assert!(seconds(&open, "latency_us", "p75") >= 0.5, "{open}");
    let closed = Stalls::new().await;
    let closed = closed.load(&["-c", "1", "-n", "4000"]).await;
    assert_eq!(closed["ok"], 4000);
    assert!(seconds(&closed, "latency_us", "max") >= 1.9, "{closed}");
    assert!(seconds(&closed, "latency_us", "p99.9") < 1.0, "{closed}");
}

#[tokio::test]
async fn calls_that_are_due_above_the_limit_in_flight_are_skipped_and_counted() {
    let stalls = Stalls::new().await;
    let options = ["--rate", "1000", "-n", "4000", "--max-in-flight", "100"];
    let summary = stalls.load(&options).await;
    let [ok, skipped] = ["ok", "skipped"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(ok + skipped, 4000);
    assert!(skipped >= 1700, "{summary}");
}

#[tokio::test]
async fn the_load_before_the_measurement_is_left_out() {
    let stalls = Stalls::new().await;
    // It stalls before.
    let options = ["--rate", "1000", "--warmup", "4s", "--duration", "1s"];
    let summary = stalls.load(&options).await;
    assert_eq!(summary["ok"], 1000);
    assert!(seconds(&summary, "latency_us", "max") < 1.9, "{summary}");
}

#[tokio::test]
async fn an_interrupt_ends_a_load_and_prints_what_was_measured() {
    let home = Home::new();
    for method in ["Clock.tick", "Clock.never"] {
        let mut stalls = Stalls::new().await;
        let mut command = home.command();
        command.args(["bench", &stalls.target, method, "--json", "-c", "2"]);
        command.args(["--duration", "1h", "--timeout", "1h"]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        stalls
            .begin(if method == "Clock.tick" {
                STALLING - 1
            } else {
                0
            })
            .await;
        interrupt(child.id().unwrap());
        let ended = tokio::time::timeout(GUARD, child.wait_with_output()).await;
        let ran = Ran::new(ended.expect("an end in time").unwrap());
        assert_eq!(ran.code, Some(130), "{ran:?}");
        let note = "interrupted: the figures are those until then";
        assert!(ran.err.contains(note), "{ran:?}");
        let objects = json_lines(&ran.out);
        let summary = one(&objects, "summary");
        match method {
            "Clock.tick" => assert!(summary["ok"].as_u64() > Some(900), "{summary}"),
            _ => assert_eq!(summary["unfinished"], 2, "{summary}"),
        }
    }
}

#[tokio::test]
async fn the_highest_rate_at_which_conditions_hold_is_searched() {
    let stalls = Stalls::new().await;
    let search = async |conditions| {
        let call = [
            "bench",
            &stalls.target,
            "Clock.tick",
            "--json",
            "--warmup",
            "100ms",
        ];
        let search = ["--rate", "40", "--step", "200ms", "--max-in-flight", "50"];
        let conditions = ["--find-limit", conditions];
        Home::new()
            .iq(&[&call[..], &search, &conditions].concat())
            .await
    };
    // A higher rate does not hold, and a lower one may not on a busy machine.
    let ran = search("rate<100").await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let objects = json_lines(&ran.out);
    let limit = one(&objects, "limit")["rate"].as_f64().unwrap();
    assert!(limit < 106.0, "{objects:?}");
    let steps = objects.iter().filter(|object| object["type"] == "step");
    assert!(steps.clone().any(|step| step["holds"] == false) && steps.clone().count() > 2);
    for step in steps {
        let mut conditions = step["conditions"].as_array().unwrap().iter();
        let all_hold = conditions.all(|condition| condition["holds"] == true);
        assert_eq!(step["holds"], all_hold, "{step}");
    }
    let ran = search("p50<1ns").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("no rate was found"), "{ran:?}");
}
