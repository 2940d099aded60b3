//! The client. It calls every method once; the address of the server is its argument,
//! `127.0.0.1:7300` by default.
//! Prints: where vehicle 1 is, the replies of the server, which vehicle was free

use iip_example_protobuf_build::fleet::v1::{
    // The trait has the methods of the client.
    Fleet,
    FleetClient,
    Note,
    ReportRequest,
    VehicleId,
};
use iip_example_protobuf_build::geo::v1::Position;
use iip_rpc::{Client, Streaming};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let client = Client::connect(address.as_deref().unwrap_or("127.0.0.1:7300")).await?;
    let fleet = FleetClient::new(client);
    let vehicle = VehicleId { number: 1 };

    // A stream of requests.
    let report = |latitude| ReportRequest {
        vehicle: Some(vehicle),
        position: Some(Position {
            latitude,
            longitude: 8.5,
        }),
    };
    let summary = fleet
        .report(Streaming::iter([report(47.3), report(47.4)]))
        .await?;
    println!("{} positions were reported", summary.positions);

    // One request, one reply.
    let position = fleet.locate(vehicle).await?;
    println!("vehicle 1 is at {} north", position.latitude);

    // A stream of replies, which ends here because it is dropped.
    let mut positions = fleet.follow(vehicle).await?;
    if let Some(position) = positions.next().await {
        println!("vehicle 1 is followed from {} north", position?.latitude);
    }
    drop(positions);

    // Both at a time.
    let (sender, notes) = Streaming::channel(1);
    let mut replies = fleet.talk(notes).await?;
    for text in ["hello", "goodbye"] {
        let note = Note { text: text.into() };
        if sender.send(note).await.is_err() {
            break;
        }
        if let Some(reply) = replies.next().await {
            println!("{}", reply?.text);
        }
    }
    sender.finish();

    // A call that may wait, and messages of google.protobuf.
    let free = fleet.acquire(()).await?;
    println!("vehicle {} was free", free.number);
    fleet.release(free).await?;
    println!("the server runs since {}", fleet.started(()).await?);
    Ok(())
}
