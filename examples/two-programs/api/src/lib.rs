//! The trait that the server and its clients share.

use iip_rpc::{Status, service};

/// Greets people.
#[service]
pub trait Greeter {
    /// Greets someone.
    async fn hello(&self, name: String) -> Result<String, Status>;
}
