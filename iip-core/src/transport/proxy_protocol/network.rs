//! Networks of IP addresses, written as `10.0.0.0/8`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IpNetwork {
    addr: IpAddr,
    prefix: u32,
}

impl IpNetwork {
    /// Returns `true` if the network contains the address. An IPv4 address in its IPv6 form counts
    /// as the IPv4 address.
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        let (own, width) = bits(self.addr);
        let (other, other_width) = bits(addr);
        width == other_width && first_bits(own ^ other, width, self.prefix) == 0
    }
}

/// Returns the address as a number, and the number of its bits.
fn bits(addr: IpAddr) -> (u128, u32) {
    match addr {
        IpAddr::V4(addr) => (addr.to_bits().into(), u32::BITS),
        IpAddr::V6(addr) => (addr.to_bits(), u128::BITS),
    }
}

/// Returns the first `prefix` of the `width` bits of a number.
fn first_bits(number: u128, width: u32, prefix: u32) -> u128 {
    number.checked_shr(width - prefix).unwrap_or(0)
}

impl FromStr for IpNetwork {
    /// The reason, without the text itself.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| {
            "does not begin with an IP address: write `10.0.0.0/8`, `2001:db8::/32` or a single \
             address"
                .to_owned()
        })?;
        if addr.to_canonical() != addr {
            return Err(format!(
                "is an IPv4 address in the form of IPv6: write it as `{}`",
                addr.to_canonical()
            ));
        }
        let (number, width) = bits(addr);
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let prefix = digits.parse().ok().filter(|&prefix| prefix <= width);
                prefix.ok_or_else(|| format!("must end with a number of bits from 0 to {width}"))?
            }
            Some(_) => return Err(format!("must end with a number of bits from 0 to {width}")),
        };
        let network = first_bits(number, width, prefix)
            .checked_shl(width - prefix)
            .unwrap_or(0);
        if network != number {
            let addr = match addr {
                // The number has 32 bits, like the address that it comes from.
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(network).unwrap_or_default().into()),
                IpAddr::V6(_) => IpAddr::V6(network.into()),
            };
            return Err(format!(
                "has bits set after the first {prefix}: write `{addr}/{prefix}`, or the address \
                 alone for a single host"
            ));
        }
        Ok(Self { addr, prefix })
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().expect("a network")
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_contains_the_addresses_that_begin_with_its_bits() {
        let table = [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.4", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.9.9.9", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("::/0", "10.0.0.1", false),
            ("192.0.2.128/25", "192.0.2.127", false),
        ];
        for (text, other, is_inside) in table {
            assert_eq!(
                network(text).contains(addr(other)),
                is_inside,
                "{text} {other}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_rejected_with_what_to_write() {
        let table = [
            ("", "does not begin with an IP address"),
            ("10.0.0/8", "does not begin with an IP address"),
            ("proxy.example/8", "does not begin with an IP address"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/8/8", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("::/99999999999", "from 0 to 128"),
            ("10.1.2.3/8", "write `10.0.0.0/8`"),
            ("2001:db8::1/32", "write `2001:db8::/32`"),
            ("::ffff:10.0.0.0/104", "write it as `10.0.0.0`"),
        ];
        for (text, expected) in table {
            let error = text.parse::<IpNetwork>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_network_contains_exactly_those_with_its_first_bits(
            own: u128, other: u128, is_v4: bool, prefix in 0_u32..=128,
        ) {
            let width = if is_v4 { 32 } else { 128 };
            let prefix = prefix.min(width);
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            // The number is that of the first bits, so that both families are tested alike.
            let addr = |number: u128| match is_v4 {
                true => IpAddr::V4(u32::try_from(number >> 96).expect("32 bits").into()),
                false => IpAddr::V6(number.into()),
            };
            let text = format!("{}/{prefix}", addr(own & mask));
            // IPv6 addresses that are written like IPv4 ones are rejected.
            prop_assume!(is_v4 || addr(own & mask).to_canonical() == addr(own & mask));
            prop_assume!(is_v4 || addr(other).to_canonical() == addr(other));
            let network: IpNetwork = text.parse().expect("a network");
            prop_assert_eq!(network.to_string(), text);
            prop_assert!(network.contains(addr(own)) || addr(own).to_canonical() != addr(own));
            prop_assert_eq!(network.contains(addr(other)), own & mask == other & mask);
        }

        #[test]
        fn any_text_is_a_network_or_an_error(text in ".{0,40}") {
            if let Ok(network) = text.parse::<IpNetwork>() {
                let again: IpNetwork = network.to_string().parse().expect("its own text");
                prop_assert_eq!(again, network);
            }
        }
    }
}
