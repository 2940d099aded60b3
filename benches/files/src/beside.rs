//! Calls of 16 bytes, one at a time, on the connection of a transfer.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_files::{FileClient, Folder};
use iip_rpc::{Client, Server};

use crate::{Bench, Outcome};

pub(crate) fn run(bench: &Bench) -> Outcome {
    let (sender, target) = mpsc::channel();
    let folder = Folder::open(bench.served())?.writable(true);
    // Server and client have a thread each, as in the benchmarks of calls beside streams.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let echo = handler_fn(|request: Request| async move {
                Ok::<_, HandlerError>(Response::from(request.into_body()))
            });
            let server = Server::builder()
                .route("/echo", echo)
                .service(folder.into_service());
            if let Ok(server) = server.bind("127.0.0.1:0").await {
                let _ = sender.send(server.target().to_string());
                std::future::pending::<()>().await;
            }
        });
    });
    let target = target.recv()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::builder().connections(1).connect(&target).await?;
        let (source, got) = (bench.source.clone(), bench.folder.join("beside-got"));
        bench.remove(&bench.served().join("beside"));
        bench.remove(&got);
        measured(
            &client,
            "nothing",
            tokio::time::sleep(Duration::from_secs(2)),
        )
        .await?;
        let files = FileClient::new(client.clone());
        let put = async { files.put(&source, "beside").await.map(drop) };
        measured(&client, "put", put).await?;
        let get = async { files.get("beside", &got).await.map(drop) };
        measured(&client, "get", get).await?;
        Ok(())
    })
}

/// Makes calls until `other` ends.
async fn measured<T>(client: &Client, name: &str, other: impl Future<Output = T>) -> Outcome {
    let mut times = Vec::new();
    let calls = async {
        loop {
            let begun = Instant::now();
            if client
                .raw()
                .request("/echo", "0123456789abcdef")
                .await
                .is_err()
            {
                return;
            }
            times.push(begun.elapsed());
        }
    };
    let begun = Instant::now();
    tokio::select! {
        _ = other => {}
        () = calls => return Err("a call has failed".into()),
    }
    let took = begun.elapsed();
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 1000).min(times.len() - 1)];
    println!(
        "calls beside {name}: {} in {took:.1?}, p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}",
        times.len(),
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}
