//! IIP without types, with iip-core: paths and bytes.
//!
//! Run: `cargo run --example raw_echo`
//! Prints: an echo, a reply made from query parameters, the in-band error for an unknown path,
//! replies to pipelined requests in their order, and the chunks of a reply as they arrive.

use std::time::Duration;

use iip_core::{Client, HandlerError, Request, RequestMode, Response, Server, handler_fn};

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(request.into_body().into())
}

/// `/repeat?times=3`: the body, three times.
async fn repeat(request: Request) -> Result<Response, HandlerError> {
    let times = request.query_param("times").ok_or("times is missing")?;
    let times = times
        .parse()
        .map_err(|_| format!("times={times} is no number"))?;
    if times > 1000 {
        return Err(HandlerError::new("times goes up to 1000"));
    }
    Ok(request.body().repeat(times).into())
}

/// Replies in chunks, and never holds more than one of them.
async fn countdown(mut request: Request) -> Result<Response, HandlerError> {
    let mut reply = request.reply().ok_or("not a streaming handler")?;
    for number in ["three", "two", "one"] {
        reply.send(number).await?;
    }
    reply.finish("lift-off")?;
    Ok(Response::streamed())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .route("/echo", handler_fn(echo))
        .route("/repeat", handler_fn(repeat))
        .route(
            "/countdown",
            handler_fn(countdown).request_mode(RequestMode::Parts),
        )
        .bind("127.0.0.1:0")
        .await?;
    let client = Client::connect(server.target()).await?;

    println!("{}", text(&client.request("/echo", "hello").await?));
    println!("{}", text(&client.request("/repeat?times=3", "ho ").await?));
    // Errors of handlers and of the server are data, too: IIP does not distinguish them.
    println!("{}", text(&client.request("/repeat?times=x", "ho ").await?));
    println!("{}", text(&client.request("/unknown", "hello").await?));

    // On one channel, replies come in the order of the requests; no request waits for the reply to
    // the one before.
    let channel = client.open_channel().await?;
    let replies: Vec<_> = (1..=5)
        .map(|n| channel.request("/echo", format!("request {n}")))
        .collect();
    for reply in replies {
        println!("{}", text(&reply.await?));
    }

    let mut parts = client.stream("/countdown", "go").await?;
    while let Some(part) = parts.next().await {
        println!("part: {}", text(&part?));
    }

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
