//! The peers of a gateway that is measured: the same echo as a server of HTTP and of IIP, and a
//! client that keeps connections idle.
//!
//! `gateway_peer http ADDRESS`, `gateway_peer iip ADDRESS`, `gateway_peer idle ADDRESS COUNT PID`

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use iip_benches::BoxError;
use iip_core::{HandlerError, Server, handler_fn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["http", address] => http(address).await,
        ["iip", address] => iip(address).await,
        ["idle", address, count, pid] => idle(address, count.parse()?, pid).await,
        _ => Err("usage: gateway_peer http|iip ADDRESS, or idle ADDRESS COUNT PID".into()),
    }
}

async fn http(address: &str) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let echo = service_fn(|request: Request<Incoming>| async {
            let body = request.into_body().collect().await;
            let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            let body = if body.is_empty() {
                Bytes::from_static(b"{}")
            } else {
                body
            };
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), echo));
    }
}

async fn iip(address: &str) -> Result<(), BoxError> {
    let echo = handler_fn(|request: iip_core::Request| async move {
        Ok::<_, HandlerError>(iip_core::Response::from(request.into_body()))
    });
    let _server = Server::builder().route("/echo", echo).bind(address).await?;
    std::future::pending().await
}

/// Opens connections, half of which send one request, and prints the memory of the server.
async fn idle(address: &str, count: usize, pid: &str) -> Result<(), BoxError> {
    println!("before: {} KiB", resident(pid)?);
    let mut connections = Vec::new();
    for index in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        if index % 2 == 0 {
            stream
                .write_all(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
                .await?;
            let mut reply = [0; 1024];
            if stream.read(&mut reply).await? == 0 {
                return Err("the server has closed a connection".into());
            }
        }
        connections.push(stream);
    }
    println!("with {count} connections: {} KiB", resident(pid)?);
    // Longer than `park_after`, and shorter than the time for the first byte of the last ones.
    tokio::time::sleep(Duration::from_secs(6)).await;
    println!("6 s later: {} KiB", resident(pid)?);
    Ok(())
}

/// The resident memory of a process and its children, which those of nginx are.
fn resident(pid: &str) -> Result<u64, BoxError> {
    let mut pids = vec![pid.to_owned()];
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    pids.extend(
        children
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned),
    );
    let mut sum = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("no VmRSS")?;
        sum += kib.parse::<u64>()?;
    }
    Ok(sum)
}
