//! The descriptions of a server's services, for programs that have no types.

use iip_core::__rpc::{after, now};
use iip_core::Peer;
use iip_schema::file::{Limits, parse_description};

use super::Client;
use super::compatibility::ask;
use super::failure::call_status;
use crate::hello::RpcPeer;
use crate::schema::served::{DESCRIBE, LIST};
use crate::schema::{ServerDescription, ServiceSummary};
use crate::status::Status;

/// The number of services of a server that are asked for.
const MAX_SERVICES: usize = 1024;

/// The size of all descriptions of a server together, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

impl Client {
    /// Asks a server for the descriptions of its services: at most 1,024, of 16 MiB together. With
    /// several backends it asks one of them, which may have another build than others. A service
    /// whose description is not valid is left out, and logged.
    ///
    /// # Errors
    ///
    /// The failure of a connection or a call, within the client's timeout of calls. UNIMPLEMENTED
    /// if the server does not describe its services, as Go servers do not, and PERMISSION_DENIED or
    /// another status if it does not describe them to this client.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped.
    pub fn describe(&self) -> impl Future<Output = Result<ServerDescription, Status>> + Send {
        async move {
            let timeout = self.options.timeout.unwrap_or(self.settings.timeout);
            let deadline = after(now(), timeout);
            let connection = self.core.connection(deadline).await;
            let connection = connection.map_err(|error| call_status(&error, None))?;
            let list = ask(&connection, LIST, "", deadline).await??;
            let list: Vec<ServiceSummary> = serde_json::from_slice(&list).map_err(|error| {
                Status::internal(format!("the server's list of services is refused: {error}"))
            })?;
            if list.len() > MAX_SERVICES {
                let count = list.len();
                let text = format!("the server has {count} services, more than {MAX_SERVICES}");
                return Err(Status::resource_exhausted(text));
            }
            let (mut services, mut bytes) = (Vec::new(), 0_usize);
            for summary in list {
                let service = &summary.service;
                let reply = ask(&connection, DESCRIBE, service, deadline).await??;
                bytes = bytes.saturating_add(reply.len());
                if bytes > MAX_BYTES {
                    let text = format!("the server's descriptions exceed {MAX_BYTES} bytes");
                    return Err(Status::resource_exhausted(text));
                }
                match parse_description(&reply, &Limits::default()) {
                    Ok(description) => services.push(description),
                    Err(error) => {
                        tracing::warn!(service, %error, "the server's description is refused");
                    }
                }
            }
            Ok(ServerDescription {
                build: announced(connection.peer()),
                services,
            })
        }
    }

    /// Returns a short text that is equal for servers with equal services: that of a connected
    /// server. It can be compared with [`ServerDescription::build`] to notice that a description is
    /// out of date. `None` if there is no connection, or the server announces none.
    #[must_use]
    pub fn announced_build(&self) -> Option<String> {
        announced(self.core.ready_connection()?.peer())
    }
}

fn announced(peer: &Peer) -> Option<String> {
    let build = peer.extension(RpcPeer::read)?.build.as_deref()?;
    Some(build.announced.as_str().to_owned())
}
