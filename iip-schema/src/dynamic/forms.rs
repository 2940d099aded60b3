//! Types that are texts in formats for people, and numbers or bytes in others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use serde_json::Value;

use super::context::{Context, Form};
use super::error::Path;
use super::node::{Content, Node};
use crate::types::{Enum, Tagging, Type, VariantShape};

/// A type with two forms, both of which are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Uuid,
    Ipv4,
    Ipv6,
    Ip,
    SocketV4,
    SocketV6,
    Socket,
}

impl Known {
    /// The text of a value that tells nothing.
    pub(super) fn blank(self) -> &'static str {
        match self {
            Self::Uuid => "00000000-0000-0000-0000-000000000000",
            Self::Ipv4 | Self::Ip => "0.0.0.0",
            Self::Ipv6 => "::",
            Self::SocketV4 | Self::Socket => "0.0.0.0:0",
            Self::SocketV6 => "[::]:0",
        }
    }

    /// Names it in an error.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Uuid => "a UUID",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Ip => "an IP address",
            Self::SocketV4 => "an IPv4 address with a port",
            Self::SocketV6 => "an IPv6 address with a port",
            Self::Socket => "an IP address with a port",
        }
    }
}

/// Recognizes a type by its two forms.
pub(super) fn known<'t>(
    context: &Context<'t>,
    readable: &'t Type,
    compact: &'t Type,
) -> Option<Known> {
    if *readable != Type::Text {
        return None;
    }
    if let Some(known) = plain(compact) {
        return Some(known);
    }
    let Ok(Form::Enum(_, shape)) = context.form(compact, &Path::ROOT) else {
        return None;
    };
    match versions(shape)? {
        (Known::Ipv4, Known::Ipv6) => Some(Known::Ip),
        (Known::SocketV4, Known::SocketV6) => Some(Known::Socket),
        _ => None,
    }
}

/// A type that is not an enum.
fn plain(ty: &Type) -> Option<Known> {
    match ty {
        Type::Bytes => Some(Known::Uuid),
        Type::Tuple(parts) if matches!(&**parts, [_, Type::U16]) => match numbers(&parts[0])? {
            4 => Some(Known::SocketV4),
            16 => Some(Known::SocketV6),
            _ => None,
        },
        _ => match numbers(ty)? {
            4 => Some(Known::Ipv4),
            16 => Some(Known::Ipv6),
            _ => None,
        },
    }
}

/// The length of an array of `u8`.
fn numbers(mut ty: &Type) -> Option<u64> {
    while let Type::ByFormat { compact, .. } = ty {
        ty = compact;
    }
    match ty {
        Type::Array(of, len) if **of == Type::U8 => Some(*len),
        Type::Tuple(parts) if matches!(parts.len(), 4 | 16) => {
            let all = parts.iter().all(|part| *part == Type::U8);
            all.then_some(parts.len() as u64)
        }
        _ => None,
    }
}

/// The contents of an enum with the variants `V4` and `V6`.
fn versions(shape: &Enum) -> Option<(Known, Known)> {
    let [v4, v6] = &*shape.variants else {
        return None;
    };
    let of = |name, index, variant: &crate::types::Variant| match &variant.shape {
        VariantShape::Newtype(of) if variant.name == name && variant.index == index => {
            let mut of = of;
            while let Type::ByFormat { compact, .. } = of {
                of = compact;
            }
            plain(of)
        }
        _ => None,
    };
    if shape.tagging != Tagging::External {
        return None;
    }
    Some((of("V4", 0, v4)?, of("V6", 1, v6)?))
}

/// The compact form of a text.
pub(super) fn parse<'a>(known: Known, text: &str) -> Option<Node<'a>> {
    let version = |index: u32, node| {
        let name = if index == 0 { "V4" } else { "V6" };
        Node::Variant(index, name, Box::new(Content::One(node)))
    };
    Some(match known {
        Known::Uuid => Node::Bytes(uuid(text)?),
        Known::Ipv4 => octets(&text.parse::<Ipv4Addr>().ok()?.octets()),
        Known::Ipv6 => octets(&text.parse::<Ipv6Addr>().ok()?.octets()),
        Known::Ip => match text.parse().ok()? {
            IpAddr::V4(ip) => version(0, octets(&ip.octets())),
            IpAddr::V6(ip) => version(1, octets(&ip.octets())),
        },
        Known::SocketV4 => v4(text.parse().ok()?),
        Known::SocketV6 => v6(text.parse().ok()?),
        Known::Socket => match text.parse().ok()? {
            SocketAddr::V4(address) => version(0, v4(address)),
            SocketAddr::V6(address) => version(1, v6(address)),
        },
    })
}

fn octets<'a>(octets: &[u8]) -> Node<'a> {
    Node::Tuple(octets.iter().map(|octet| Node::U8(*octet)).collect())
}

fn v4<'a>(address: SocketAddrV4) -> Node<'a> {
    Node::Tuple(vec![
        octets(&address.ip().octets()),
        Node::U16(address.port()),
    ])
}

fn v6<'a>(address: SocketAddrV6) -> Node<'a> {
    Node::Tuple(vec![
        octets(&address.ip().octets()),
        Node::U16(address.port()),
    ])
}

/// The bytes of a UUID with hyphens or without.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let hyphens = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-');
    let hyphens: Vec<usize> = hyphens.map(|(at, _)| at).take(5).collect();
    if !hyphens.is_empty() && hyphens != [8, 13, 18, 23] {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').take(33).collect();
    if digits.len() != 32 {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// The text of a compact form that was read.
pub(super) fn show(known: Known, value: &Value) -> Option<String> {
    Some(match known {
        Known::Uuid => {
            let bytes: [u8; 16] = bytes(value)?;
            let hex = |range: std::ops::Range<usize>| -> String {
                bytes[range]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect()
            };
            let parts = [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)];
            parts.join("-")
        }
        Known::Ipv4 => ipv4(value)?.to_string(),
        Known::Ipv6 => ipv6(value)?.to_string(),
        Known::Ip => match value.get("V4") {
            Some(v4) => ipv4(v4)?.to_string(),
            None => ipv6(value.get("V6")?)?.to_string(),
        },
        Known::SocketV4 => socket_v4(value)?,
        Known::SocketV6 => socket_v6(value)?,
        Known::Socket => match value.get("V4") {
            Some(v4) => socket_v4(v4)?,
            None => socket_v6(value.get("V6")?)?,
        },
    })
}

fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    let numbers = value.as_array()?.iter();
    let bytes = numbers.map(|number| u8::try_from(number.as_u64()?).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// An address, whose own form may have been shown as a text already.
fn ipv4(value: &Value) -> Option<Ipv4Addr> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => bytes::<4>(value).map(Ipv4Addr::from),
    }
}

fn ipv6(value: &Value) -> Option<Ipv6Addr> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => bytes::<16>(value).map(Ipv6Addr::from),
    }
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.get(1)?.as_u64()?).ok()
}

fn socket_v4(value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text.clone());
    }
    let address = SocketAddrV4::new(ipv4(value.get(0)?)?, port(value)?);
    Some(address.to_string())
}

fn socket_v6(value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text.clone());
    }
    let address = SocketAddrV6::new(ipv6(value.get(0)?)?, port(value)?, 0, 0);
    Some(address.to_string())
}
