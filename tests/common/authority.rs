//! Certificates that the tests issue.

use iip_core::tls::{ClientTls, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and key of an authority as PEM, and the certificate as DER.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a root certificate"),
        }
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    pub(crate) fn server(&self) -> ServerTls {
        self.server_called("localhost")
    }

    pub(crate) fn server_called(&self, name: &str) -> ServerTls {
        let issued = self.issue(name);
        ServerTls::from_pem(issued.chain, issued.key).expect("a usable certificate")
    }

    /// A server that accepts only clients with a certificate of this authority.
    pub(crate) fn closed_server(&self) -> ServerTls {
        self.server()
            .client_roots_pem(self.issuer.pem())
            .expect("usable roots")
    }

    /// Trusts this authority.
    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::new()
            .roots_pem(self.issuer.pem())
            .expect("usable roots")
    }

    /// Trusts this authority, and presents a certificate that `other` issued.
    pub(crate) fn client_known_to(&self, other: &Self) -> ClientTls {
        let issued = other.issue("client");
        self.client()
            .identity_pem(issued.chain, issued.key)
            .expect("a usable identity")
    }
}
