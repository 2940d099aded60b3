//! A gateway from HTTP/1.1 and HTTP/2 to IIP servers, as a library and as the program
//! `iip-gateway`.
//!
//! Toward the backends, it behaves like Go's HTTP adapter, byte for byte: a request becomes a call
//! of the same path, with the headers in the parameter `__http_hdr__`. Unlike the adapter, it
//! rejects ambiguous requests, limits the resources of clients, and reports failures with specific
//! HTTP statuses. `docs/gateway.md` in the repository describes it, and the configuration of the
//! program.
//!
//! A group with [`Group::typed`] serves typed services instead: it calls their methods with JSON,
//! see [`TypedOptions`].
//!
//! ```
//! use iip_core::{HandlerError, Request, Response, Server, handler_fn};
//! use iip_gateway::{Gateway, Group, Route};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let echo = handler_fn(|request: Request| async move {
//!     Ok::<_, HandlerError>(Response::from(request.into_body()))
//! });
//! let server = Server::builder().route("/echo", echo).bind("127.0.0.1:0").await?;
//!
//! let gateway = Gateway::builder()
//!     .group("echo", Group::new(server.target().to_string()))
//!     .route(Route::all("echo"))
//!     .build()?;
//! let address = gateway.bind("127.0.0.1:0").await?;
//! println!("curl -d hello http://{address}/echo");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | effect |
//! |---|---|---|
//! | `cli` | yes | the program `iip-gateway` |
//! | `etcd` | no | targets such as `etcd://10.0.0.1:2379/services/users` |
//! | `tls` | yes | TLS from clients, and to backends |

// The path of a request through the modules:
//
//   accept ─▶ connection: first bytes, TLS, hyper on WatchedIo (io, scan)
//   http   ─▶      └─▶ service: checks (request), failure
//                          ├─▶ of a gateway: route, proxy or typed
//                          └─▶ on the port of an IIP server: http/served, typed
//
//   typed: Api ─▶ catalog (methods by path) ─▶ call: arguments, lines ─▶ results, events

mod accept;
mod access_log;
mod activity;
mod body;
mod builder;
pub mod config;
mod connection;
mod drain;
mod exchange;
mod failure;
mod gateway;
mod group;
mod header_map;
mod http;
mod io;
mod large_reply;
mod limits;
mod listen;
pub mod live;
mod networks;
mod page;
mod places;
mod proxy;
mod record;
mod request;
mod request_body;
mod route;
mod runtime;
mod scan;
mod service;
mod trace;
mod typed;
mod worker;

pub use self::access_log::{AccessLog, LogFormat};
pub use self::builder::{BuildError, GatewayBuilder};
pub use self::failure::Statuses;
pub use self::gateway::Gateway;
pub use self::group::{Dialect, Group};
pub use self::http::{Http, HttpPeer};
pub use self::limits::Limits;
pub use self::listen::ListenOptions;
pub use self::networks::{InvalidNetwork, IpNetwork};
pub use self::route::{Route, RouteError, RouteRequest, Target};
pub use self::runtime::worker_runtime;
pub use self::typed::{JsonInt64, TypedOptions};
