//! A server for peers in other languages to test against: plain IIP, default limits.
//!
//! Run: `cargo run --example interop_server -- --listen 127.0.0.1:0`, or with TLS `cargo run
//! --features tls --example interop_server -- --listen 127.0.0.1:0 --tls-cert FILE --tls-key FILE`
//! Prints: the address it listens on, in one line. Ends on ctrl-c, when the running calls have
//! ended.
//!
//! | path | reply |
//! |---|---|
//! | `/echo`, `/echo_benchmark` | the body |
//! | `/slow?ms=N` | the body, after N ms |
//! | `/fail?msg=TEXT` | the handler error TEXT, `boom` by default |
//! | `/empty` | no data, which IIP turns into the in-band error 101 |
//! | `/panic` | none, the handler panics; the same error 101 |
//! | `/big?n=N&seed=S` | N bytes, byte i being (S + i + (i >> 8)) mod 256; S is 0 by default |
//! | `/digest` | `{"len":N,"sha256":"hex"}` of the body |

use std::time::Duration;

use bytes::Bytes;
use iip_core::{HandlerError, Limits, Request, Response, Server, ServerBuilder, handler_fn};
use serde_json::json;
use sha2::{Digest, Sha256};

const USAGE: &str = "usage: interop_server --listen ADDR [--tls-cert FILE --tls-key FILE]";

type Answer = Result<Response, HandlerError>;

async fn echo(request: Request) -> Answer {
    Ok(request.into_body().into())
}

async fn slow(request: Request) -> Answer {
    let ms = number(&request, "ms")?.ok_or("ms is missing")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(request.into_body().into())
}

async fn fail(request: Request) -> Answer {
    Err(HandlerError::new(
        request.query_param("msg").unwrap_or_else(|| "boom".into()),
    ))
}

async fn empty(_request: Request) -> Answer {
    Ok(Response::empty())
}

async fn panic(_request: Request) -> Answer {
    panic!("as requested");
}

async fn big(request: Request) -> Answer {
    let n = number(&request, "n")?.ok_or("n is missing")?;
    let seed = number(&request, "seed")?.unwrap_or(0);
    let limit = Limits::default().get_max_message_bytes() as u64;
    if n > limit {
        return Err(format!("n={n} exceeds the limit of {limit} bytes").into());
    }
    computed(move || {
        (0..n)
            .map(|i| seed.wrapping_add(i).wrapping_add(i >> 8) as u8)
            .collect::<Vec<_>>()
    })
    .await
}

async fn digest(request: Request) -> Answer {
    let body = request.into_body();
    computed(move || json!({ "len": body.len(), "sha256": sha256(&body) }).to_string()).await
}

fn sha256(body: &Bytes) -> String {
    Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Computes a reply that takes long, without blocking the other calls of the connection.
async fn computed<T>(compute: impl FnOnce() -> T + Send + 'static) -> Answer
where
    T: Into<iip_core::Body> + Send + 'static,
{
    let body = tokio::task::spawn_blocking(compute)
        .await
        .map_err(|error| error.to_string())?;
    Ok(body.into().into())
}

fn number(request: &Request, key: &str) -> Result<Option<u64>, HandlerError> {
    let Some(value) = request.query_param(key) else {
        return Ok(None);
    };
    let number = value
        .parse()
        .map_err(|_| format!("{key}={value} is no number"))?;
    Ok(Some(number))
}

#[derive(Default)]
struct Options {
    listen: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(name) = args.next() {
            let place = match name.as_str() {
                "--listen" => &mut options.listen,
                "--tls-cert" => &mut options.tls_cert,
                "--tls-key" => &mut options.tls_key,
                _ => return Err(format!("unknown option {name}; {USAGE}")),
            };
            *place = Some(
                args.next()
                    .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?,
            );
        }
        Ok(options)
    }
}

#[cfg(feature = "tls")]
fn with_tls(
    config: ServerBuilder,
    cert: &str,
    key: &str,
) -> Result<ServerBuilder, Box<dyn std::error::Error>> {
    Ok(config.tls(iip_core::tls::ServerTls::from_files(cert, key)?))
}

#[cfg(not(feature = "tls"))]
fn with_tls(
    _: ServerBuilder,
    _: &str,
    _: &str,
) -> Result<ServerBuilder, Box<dyn std::error::Error>> {
    Err("built without TLS: run it with `cargo run --features tls --example interop_server`".into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::read(std::env::args().skip(1))?;
    let mut config = Server::builder()
        .route("/echo", handler_fn(echo))
        .route("/echo_benchmark", handler_fn(echo))
        .route("/slow", handler_fn(slow))
        .route("/fail", handler_fn(fail))
        .route("/empty", handler_fn(empty))
        .route("/panic", handler_fn(panic))
        .route("/big", handler_fn(big))
        .route("/digest", handler_fn(digest));
    config = match (options.tls_cert, options.tls_key) {
        (Some(cert), Some(key)) => with_tls(config, &cert, &key)?,
        (None, None) => config,
        _ => return Err(format!("--tls-cert and --tls-key go together; {USAGE}").into()),
    };
    let server = config.bind(options.listen.ok_or(USAGE)?).await?;
    println!("{}", server.target());

    server.shutdown_on_signal(Duration::from_secs(10)).await?;
    Ok(())
}
