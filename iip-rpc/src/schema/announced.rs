//! The short text by which peers recognize a build.

use iip_schema::Description;

/// A fingerprint as it is announced: 48 bits in eight characters of the alphabet of base64url, so
/// that the hello grows by sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Announced([u8; Self::CHARS]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Announced {
    const CHARS: usize = 8;

    /// Returns the fingerprint of one service.
    pub(crate) fn of_service(description: &Description) -> Self {
        Self::new(iip_schema::fingerprint::service_fingerprint(description))
    }

    /// Returns the fingerprint of all services of a server. For a single service it is that of the
    /// service, so a client of such a server has nothing to ask.
    pub(crate) fn of_services<'a>(services: impl IntoIterator<Item = &'a Description>) -> Self {
        let services = services
            .into_iter()
            .map(iip_schema::fingerprint::service_fingerprint);
        Self::new(iip_schema::fingerprint::build_fingerprint(services))
    }

    /// Reads what a peer has announced; `None` if it has another form.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let chars: [u8; Self::CHARS] = text.as_bytes().try_into().ok()?;
        let known = chars.iter().all(|char| ALPHABET.contains(char));
        known.then_some(Self(chars))
    }

    fn new(fingerprint: u64) -> Self {
        let mut rest = fingerprint;
        Self([(); Self::CHARS].map(|()| {
            let char = ALPHABET[(rest % 64) as usize];
            rest /= 64;
            char
        }))
    }

    pub(crate) fn as_str(&self) -> &str {
        // All characters are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read_as_the_same() {
        for fingerprint in [0, 1, 63, 64, u64::MAX, 0x1234_5678_9ABC_DEF0] {
            let announced = Announced::new(fingerprint);
            assert_eq!(announced.as_str().len(), 8);
            assert_eq!(Announced::read(announced.as_str()), Some(announced));
        }
        assert_ne!(Announced::new(1), Announced::new(2));
    }

    #[test]
    fn another_form_is_not_read() {
        for text in ["", "AAAAAAA", "AAAAAAAAA", "AAAA AAA", "AAAAAA\u{e9}"] {
            assert_eq!(Announced::read(text), None, "{text:?}");
        }
    }
}
