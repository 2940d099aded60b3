//! Typed calls, over real sockets through the public API of `iip-rpc`.

mod common;

mod cancel;
mod codecs;
mod compression;
mod connection_life;
mod deadline;
mod errors;
mod faults;
mod features;
mod health;
mod hedging;
mod idle_memory;
mod interceptors;
mod layout;
mod limits;
mod metadata;
mod observe;
mod one_way;
mod overload;
mod plain;
mod policies;
mod reconnect;
mod retry;
mod serving;
mod shutdown;
mod streaming;
mod streaming_wire;
mod subscriptions;
mod tower;
mod unary;
mod values;
