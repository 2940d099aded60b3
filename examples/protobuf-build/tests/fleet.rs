//! The service that the build script has made, over real sockets: all kinds of calls in one
//! process, and the two programs.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use iip_example_protobuf_build::Depot;
use iip_example_protobuf_build::fleet::v1::{
    Fleet, FleetClient, FleetServer, Note, ReportRequest, VehicleId,
};
use iip_example_protobuf_build::geo::v1::Position;
use iip_rpc::{Client, Code, Server, Status, Streaming};

const FIRST: VehicleId = VehicleId { number: 1 };

async fn start() -> (Server, FleetClient) {
    let server = Server::builder()
        .service(FleetServer::new(Depot::new(&[1])))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    (server, FleetClient::new(client))
}

fn report(latitude: f64) -> ReportRequest {
    ReportRequest {
        vehicle: Some(FIRST),
        position: Some(Position {
            latitude,
            longitude: 0.0,
        }),
    }
}

#[tokio::test]
async fn each_kind_of_call_works() -> Result<(), Status> {
    let (_server, fleet) = start().await;
    let status = fleet.locate(FIRST).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "nothing is known of 1");

    let summary = fleet
        .report(Streaming::iter([report(1.0), report(2.0)]))
        .await?;
    assert_eq!(summary.positions, 2);
    assert_eq!(fleet.locate(FIRST).await?.latitude, 2.0);

    let mut positions = fleet.follow(FIRST).await?;
    assert_eq!(positions.next().await.unwrap()?.latitude, 2.0);
    fleet.report(Streaming::iter([report(3.0)])).await?;
    assert_eq!(positions.next().await.unwrap()?.latitude, 3.0);

    let (sender, notes) = Streaming::channel(1);
    let mut replies = fleet.talk(notes).await?;
    for text in ["a", "b"] {
        let note = Note { text: text.into() };
        assert!(sender.send(note).await.is_ok());
        let reply = replies.next().await.unwrap()?;
        assert_eq!(reply.text, format!("you said: {text}"));
    }
    sender.finish();
    assert!(replies.next().await.is_none());
    Ok(())
}

#[tokio::test]
async fn a_method_with_its_own_timeout_waits_longer_than_its_client() -> Result<(), Status> {
    const SHORT: Duration = Duration::from_millis(1);
    let (server, fleet) = start().await;
    let client = Client::builder().timeout(SHORT);
    let hasty = FleetClient::new(client.connect(server.target()).await?);
    let first = hasty.acquire(()).await?;
    let waiting = tokio::spawn(async move { hasty.acquire(()).await });
    // Other calls go on meanwhile.
    let began = Instant::now();
    while began.elapsed() < 20 * SHORT {
        fleet.started(()).await?;
    }
    assert!(!waiting.is_finished());
    fleet.release(first).await?;
    assert_eq!(waiting.await.unwrap()?, first);
    Ok(())
}

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_two_programs_work_together() {
    let server = Command::new(env!("CARGO_BIN_EXE_server"))
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Running(server);
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_client"))
        .arg(address.trim())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "2 positions were reported",
            "vehicle 1 is at 47.4 north",
            "vehicle 1 is followed from 47.4 north",
            "you said: hello",
            "you said: goodbye",
            "vehicle 2 was free",
        ]
    );
}
