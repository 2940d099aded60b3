//! The settings of servers that this program runs.

use iip_rpc::ServerBuilder;

use super::ConnectArgs;
use crate::exit::Outcome;

impl ConnectArgs {
    /// Adds TLS to a server if options ask for it: its certificate and, if `--ca` is given, the
    /// roots for the certificates that its clients need.
    pub(crate) fn secure(&self, server: ServerBuilder) -> Outcome<ServerBuilder> {
        let implied = self.cert.is_some() || self.key.is_some() || self.ca.is_some();
        match self.tls.unwrap_or(implied) {
            true => self.with_server_tls(server),
            false => self.check_without_tls().map(|()| server),
        }
    }

    #[cfg(feature = "tls")]
    fn with_server_tls(&self, server: ServerBuilder) -> Outcome<ServerBuilder> {
        use iip_rpc::tls::{ServerTls, TlsError};

        use crate::exit::Failure;

        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            let text = "a server with TLS needs both --cert and --key";
            return Err(Failure::Usage(text.to_owned()));
        };
        let mistake = |error: TlsError| Failure::Usage(error.to_string());
        let mut tls = ServerTls::from_files(cert, key).map_err(mistake)?;
        if let Some(ca) = &self.ca {
            tls = tls.client_roots_file(ca).map_err(mistake)?;
        }
        Ok(server.tls(tls.watch_files().map_err(mistake)?))
    }

    #[cfg(not(feature = "tls"))]
    fn with_server_tls(&self, _: ServerBuilder) -> Outcome<ServerBuilder> {
        Err(super::without_tls())
    }
}
