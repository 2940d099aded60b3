//! A service from `.proto` files: `proto/` has the files, `build.rs` compiles them, and this is the
//! server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use iip_rpc::{Status, Stream, Streaming};
use prost_types::Timestamp;
use tokio::sync::{Semaphore, broadcast};

// Packages that use each other's messages: modules are nested and named as they are.
pub mod fleet {
    //! The package `fleet`.

    pub mod v1 {
        //! The package `fleet.v1`.
        iip_rpc::include_proto!("fleet.v1");
    }
}

pub mod geo {
    //! The package `geo`.

    pub mod v1 {
        //! The package `geo.v1`.
        iip_rpc::include_proto!("geo.v1");
    }
}

use fleet::v1::{Fleet, Note, ReportRequest, ReportSummary, VehicleId};
use geo::v1::Position;

/// Maximum number of positions that a follower may lag.
const BEHIND: usize = 16;

/// A fleet in memory.
#[derive(Debug, Clone)]
pub struct Depot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: SystemTime,
    last: Mutex<HashMap<u64, Position>>,
    reports: broadcast::Sender<(u64, Position)>,
    free: Semaphore,
    free_numbers: Mutex<Vec<u64>>,
}

impl Depot {
    /// Returns a fleet of these vehicles, all of which are free.
    #[must_use]
    pub fn new(vehicles: &[u64]) -> Self {
        Self(Arc::new(Inner {
            started: SystemTime::now(),
            last: Mutex::default(),
            reports: broadcast::channel(BEHIND).0,
            free: Semaphore::new(vehicles.len()),
            free_numbers: Mutex::new(vehicles.to_vec()),
        }))
    }
}

impl Fleet for Depot {
    async fn locate(&self, request: VehicleId) -> Result<Position, Status> {
        let last = lock(&self.0.last).get(&request.number).copied();
        last.ok_or_else(|| Status::not_found(format!("nothing is known of {}", request.number)))
    }

    async fn follow(
        &self,
        request: VehicleId,
    ) -> Result<impl Stream<Item = Result<Position, Status>>, Status> {
        let mut reports = self.0.reports.subscribe();
        let last = self.locate(request).await?;
        let (sender, positions) = Streaming::channel(1);
        tokio::spawn(async move {
            let mut next = last;
            // The follower has gone: then this task ends.
            while sender.send(next).await.is_ok() {
                next = loop {
                    match reports.recv().await {
                        Ok((vehicle, position)) if vehicle == request.number => break position,
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Closed) => return sender.finish(),
                        Err(broadcast::error::RecvError::Lagged(count)) => {
                            let text = format!("{count} reports were missed");
                            return sender.fail(Status::data_loss(text)).await;
                        }
                    }
                };
            }
        });
        Ok(positions)
    }

    async fn report(
        &self,
        mut requests: Streaming<ReportRequest>,
    ) -> Result<ReportSummary, Status> {
        let mut positions = 0;
        while let Some(request) = requests.next().await {
            let request = request?;
            let (Some(vehicle), Some(position)) = (request.vehicle, request.position) else {
                return Err(Status::invalid_argument(
                    "a vehicle and a position are needed",
                ));
            };
            lock(&self.0.last).insert(vehicle.number, position);
            // It is not an error that there is no follower.
            let _ = self.0.reports.send((vehicle.number, position));
            positions += 1;
        }
        Ok(ReportSummary { positions })
    }

    async fn talk(
        &self,
        mut requests: Streaming<Note>,
    ) -> Result<impl Stream<Item = Result<Note, Status>>, Status> {
        let (sender, replies) = Streaming::channel(1);
        tokio::spawn(async move {
            while let Some(note) = requests.next().await {
                let reply = match note {
                    Ok(note) => format!("you said: {}", note.text),
                    Err(status) => return sender.fail(status).await,
                };
                if sender.send(Note { text: reply }).await.is_err() {
                    return;
                }
            }
            // tonic ends a stream when its sender is dropped; this marks the stream as complete.
            sender.finish();
        });
        Ok(replies)
    }

    async fn acquire(&self, (): ()) -> Result<VehicleId, Status> {
        let permit = self.0.free.acquire().await;
        permit
            .map_err(|closed| Status::unavailable(closed.to_string()))?
            .forget();
        let number = lock(&self.0.free_numbers).pop();
        let number = number.ok_or_else(|| Status::internal("no vehicle behind a permit"))?;
        Ok(VehicleId { number })
    }

    async fn release(&self, request: VehicleId) -> Result<(), Status> {
        lock(&self.0.free_numbers).push(request.number);
        self.0.free.add_permits(1);
        Ok(())
    }

    async fn started(&self, (): ()) -> Result<Timestamp, Status> {
        Ok(self.0.started.into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
