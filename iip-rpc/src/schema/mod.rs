//! Descriptions of services, and what happens when two builds of a service differ.
//!
//! `#[service]` gives each client a function `description`, which describes the service as this
//! build has it. A server announces a fingerprint of its services to its clients, and describes
//! them on request; [`ServerBuilder::describe`](crate::ServerBuilder::describe) controls who may
//! ask. Clients compare both, see [`SchemaCheck`].

pub(crate) mod announced;
pub(crate) mod builds;
pub(crate) mod describing;
pub(crate) mod finding;
pub(crate) mod own;
mod own_types;
pub(crate) mod served;

pub use iip_schema::*;

pub use self::served::{ServerDescription, ServiceSummary};

/// The policy of a client for servers whose build of a service differs from its own.
///
/// A client compares a service before its first call of it to a server of a build that it has not
/// met; the call waits for the comparison, within its deadline. Servers that announce no
/// fingerprint, such as Go servers, are not asked, and neither are those that do not describe
/// themselves to this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SchemaCheck {
    /// Nothing is compared.
    Off,
    /// Differences are logged. A call is made in MessagePack or JSON if only they carry the values
    /// of both builds, and in the configured codec if none does.
    Warn,
    /// Like `Warn`, but a call that no codec carries fails as FAILED_PRECONDITION and is not sent.
    #[default]
    Enforce,
}
