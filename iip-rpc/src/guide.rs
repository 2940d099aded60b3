#![doc = iip_macros::__guide_page!("guide/README.md")]
//!
//! The modules of this module are the pages; they have no items.

/// The README, so that `cargo test` compiles and runs its snippets.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = iip_macros::__guide_page!("guide/services.md")]
pub mod services {}

#[doc = iip_macros::__guide_page!("guide/errors.md")]
pub mod errors {}

// Its snippets are compiled and run by `iip-files`.
#[cfg(not(doctest))]
#[doc = iip_macros::__guide_page!("guide/files.md")]
pub mod files {}

#[doc = iip_macros::__guide_page!("guide/deadlines.md")]
pub mod deadlines {}

#[doc = iip_macros::__guide_page!("guide/streaming.md")]
pub mod streaming {}

#[doc = iip_macros::__guide_page!("guide/subscriptions.md")]
pub mod subscriptions {}

#[doc = iip_macros::__guide_page!("guide/retries.md")]
pub mod retries {}

#[doc = iip_macros::__guide_page!("guide/connections.md")]
pub mod connections {}

#[doc = iip_macros::__guide_page!("guide/balancing.md")]
pub mod balancing {}

#[doc = iip_macros::__guide_page!("guide/discovery.md")]
pub mod discovery {}

#[cfg(all(unix, feature = "inherit", feature = "signal"))]
#[doc = iip_macros::__guide_page!("guide/rolling-restarts.md")]
pub mod rolling_restarts {}

#[cfg(feature = "rules")]
#[doc = iip_macros::__guide_page!("guide/routing-rules.md")]
pub mod routing_rules {}

#[doc = iip_macros::__guide_page!("guide/describing-a-service.md")]
pub mod describing_a_service {}

#[doc = iip_macros::__guide_page!("guide/calling-over-http.md")]
pub mod calling_over_http {}

#[doc = iip_macros::__guide_page!("guide/typescript.md")]
pub mod typescript {}

#[doc = iip_macros::__guide_page!("guide/iq.md")]
pub mod iq {}

#[doc = iip_macros::__guide_page!("guide/changing-a-service.md")]
pub mod changing_a_service {}

#[doc = iip_macros::__guide_page!("guide/interceptors.md")]
pub mod interceptors {}

#[doc = iip_macros::__guide_page!("guide/http.md")]
pub mod http {}

#[doc = iip_macros::__guide_page!("guide/health.md")]
pub mod health {}

#[cfg(all(feature = "metrics", feature = "tracing"))]
#[doc = iip_macros::__guide_page!("guide/observability.md")]
pub mod observability {}

#[doc = iip_macros::__guide_page!("guide/statistics.md")]
pub mod statistics {}

#[doc = iip_macros::__guide_page!("guide/live-page.md")]
pub mod live_page {}

#[doc = iip_macros::__guide_page!("guide/record-and-replay.md")]
pub mod record_and_replay {}

#[doc = iip_macros::__guide_page!("guide/limits.md")]
pub mod limits {}

#[cfg(all(feature = "compress-zstd", feature = "compress-lz4"))]
#[doc = iip_macros::__guide_page!("guide/compression.md")]
pub mod compression {}

#[cfg(feature = "tls")]
#[doc = iip_macros::__guide_page!("guide/tls.md")]
pub mod tls {}

#[cfg(feature = "tower")]
#[doc = iip_macros::__guide_page!("guide/tower.md")]
pub mod tower {}

#[doc = iip_macros::__guide_page!("guide/go.md")]
pub mod go {}

#[doc = iip_macros::__guide_page!("guide/load-testing.md")]
pub mod load_testing {}

#[doc = iip_macros::__guide_page!("guide/testing.md")]
pub mod testing {}

#[doc = iip_macros::__guide_page!("guide/from-grpc.md")]
pub mod from_grpc {}

#[doc = iip_macros::__guide_page!("guide/production.md")]
pub mod production {}
