//! The baseline: three clients of one address each, balanced by tower.

use std::time::Duration;

use iip_benches::BoxError;
use iip_rpc::Client;
use iip_rpc::tower::{ClientService, RawRequest};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::{Service as _, ServiceExt as _};

use crate::cluster::{BoxFuture, Member, RAW};

/// The initial latency and the time constant, as in tower's documentation.
const FIRST: Duration = Duration::from_millis(1);
const DECAY: Duration = Duration::from_secs(10);

/// Returns a call for [`load`](crate::cluster::load).
pub(crate) async fn calls(
    members: &[Member],
) -> Result<impl Fn() -> BoxFuture<Result<(), BoxError>> + Clone + Send + Sync + 'static, BoxError>
{
    let mut services = Vec::with_capacity(members.len());
    for member in members {
        let client = Client::connect(member.server.target()).await?;
        let done = CompleteOnResponse::default();
        services.push(PeakEwma::new(
            ClientService::new(client),
            FIRST,
            DECAY.as_nanos() as f64,
            done,
        ));
    }
    let balance = Balance::new(ServiceList::new::<RawRequest>(services));
    let shared = Buffer::new(balance, 1024);
    Ok(move || -> BoxFuture<Result<(), BoxError>> {
        let mut service = shared.clone();
        Box::pin(async move {
            let request = RawRequest::new(RAW, "work");
            service.ready().await?.call(request).await?;
            Ok(())
        })
    })
}
