//! Addresses: a text in formats for people, bytes in others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::derived::own_enum;
use crate::registry::Registry;
use crate::schema::Schema;
use crate::types::{Type, Variant, VariantShape};

fn text_or(compact: Type) -> Type {
    Type::ByFormat {
        readable: Box::new(Type::Text),
        compact: Box::new(compact),
    }
}

fn octets(count: u64) -> Type {
    Type::array(Type::U8, count)
}

fn with_port(ip: Type) -> Type {
    Type::Tuple(vec![ip, Type::U16])
}

/// An enum of addresses in either version. The type of the whole has the name of the Rust type, so
/// the enum is registered under a name of its own.
fn either<T: 'static>(registry: &mut Registry, name: &str, v4: Type, v6: Type) -> Type {
    text_or(own_enum::<T>(registry, name, &[], |_| {
        vec![
            Variant::new("V4", 0, VariantShape::Newtype(v4)),
            Variant::new("V6", 1, VariantShape::Newtype(v6)),
        ]
    }))
}

macro_rules! addresses {
    ($($ty:ty: |$registry:pat_param| $type:expr;)+) => {
        $(
            impl Schema for $ty {
                fn describe($registry: &mut Registry) -> Type {
                    $type
                }
            }
        )+
    };
}

// The addresses within are written compactly where the whole is.
addresses! {
    Ipv4Addr: |_| text_or(octets(4));
    Ipv6Addr: |_| text_or(octets(16));
    SocketAddrV4: |_| text_or(with_port(octets(4)));
    SocketAddrV6: |_| text_or(with_port(octets(16)));
    IpAddr: |registry| either::<Self>(registry, "IpAddr", octets(4), octets(16));
    SocketAddr: |registry| either::<Self>(
        registry, "SocketAddr", with_port(octets(4)), with_port(octets(16)),
    );
}
