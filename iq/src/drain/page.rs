//! Draining of a process by the button of its live page.

use std::time::{Duration, Instant};

use iip_rpc::Status;

use super::{begun, ended, not_in_time};
use crate::exit::{Failure, Outcome};
use crate::live::Page;
use crate::output::Output;

/// The time between two requests to the page.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn drain(mut page: Page, wait: Option<Duration>, output: &Output) -> Outcome {
    let before = page.read().await?;
    let token = before.drain.token.as_deref();
    let Some(token) = token.filter(|_| before.drain.available) else {
        let text = "the live page has no drain button (option on_drain, or `drain` of the gateway)";
        return Err(Failure::Status(Status::unimplemented(text)));
    };
    page.drain(token).await?;
    let mut last = before.served_in_flight();
    begun(last, None, output)?;
    let Some(wait) = wait else { return Ok(()) };
    let deadline = Instant::now() + wait;
    while Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
        match page.read().await {
            Ok(snapshot) if snapshot.pid == before.pid => last = snapshot.served_in_flight(),
            // Another process serves the page now.
            Ok(_) => return ended(output),
            // The page ends with its process.
            Err(Failure::NotConnected(_)) => return ended(output),
            Err(failure) => return Err(failure),
        }
    }
    Err(not_in_time(last, wait))
}
