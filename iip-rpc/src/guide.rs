//! The README and the pages of the guide, so that `cargo test` compiles and runs their snippets. Nothing else needs these
//! files: a build of the package does not read them.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/guide/services.md")]
struct Services;

#[doc = include_str!("../../docs/guide/errors.md")]
struct Errors;

#[doc = include_str!("../../docs/guide/deadlines.md")]
struct Deadlines;

#[doc = include_str!("../../docs/guide/streaming.md")]
struct Streams;

#[doc = include_str!("../../docs/guide/subscriptions.md")]
struct Subscriptions;

#[doc = include_str!("../../docs/guide/retries.md")]
struct Retries;

#[doc = include_str!("../../docs/guide/connections.md")]
struct Connections;

#[doc = include_str!("../../docs/guide/interceptors.md")]
struct Interceptors;

#[doc = include_str!("../../docs/guide/health.md")]
struct HealthPage;

#[cfg(all(feature = "metrics", feature = "tracing"))]
#[doc = include_str!("../../docs/guide/observability.md")]
struct Observability;

#[doc = include_str!("../../docs/guide/limits.md")]
struct LimitsPage;

#[cfg(all(feature = "compress-zstd", feature = "compress-lz4"))]
#[doc = include_str!("../../docs/guide/compression.md")]
struct CompressionPage;

#[cfg(feature = "tls")]
#[doc = include_str!("../../docs/guide/tls.md")]
struct Tls;

#[cfg(feature = "tower")]
#[doc = include_str!("../../docs/guide/tower.md")]
struct Tower;

#[doc = include_str!("../../docs/guide/go.md")]
struct Go;

#[doc = include_str!("../../docs/guide/testing.md")]
struct Testing;

#[doc = include_str!("../../docs/guide/from-grpc.md")]
struct FromGrpc;

#[doc = include_str!("../../docs/guide/production.md")]
struct Production;
