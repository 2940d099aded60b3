//! `iq stats`, with recorded replies of a Go server.

use iip_core::{HandlerError, Request, Response, Server, handler_fn};
use serde_json::json;

use crate::common::{Fixture, iq};

const COUNT: &str = r#"{"PacketsSent":3,"PacketReceived":0,"WholePacketSent":3,
    "WholePacketReceived":3,"BytesSent":61,"BytesReceived":0}"#;

/// Starts a server with the statistics of a Go server.
async fn with_statistics() -> Server {
    let reply = |request: Request| async move {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let measure = json!({
            "five_minute_requests": [0, 1, 1],
            "five_minute_duration": [0, 1000, 3000],
            "all_requests": 4,
            "all_duration": 8000,
            "five_minute_timecount": [],
            "all_timecount": {"range_count": []},
        });
        Ok(Response::from(match (request.path(), &*body) {
            ("/sys/statis", body) => format!("total count: 0 {body}\n"),
            ("/sys/server_count", _) | ("/sys/path_count", "/echo") => COUNT.to_owned(),
            ("/sys/server_measure", _) | ("/sys/path_measure", "/echo") => measure.to_string(),
            ("/sys/connection_statis", _) => {
                json!({"127.0.0.1:5": {"WriteQueue": 0}, "127.0.0.1:6": {"WriteQueue": 1}})
                    .to_string()
            }
            _ => return Err(HandlerError::new("path [/sys/path_count] not support")),
        }))
    };
    let paths = [
        "/sys/statis",
        "/sys/server_count",
        "/sys/server_measure",
        "/sys/path_count",
        "/sys/path_measure",
        "/sys/connection_statis",
    ];
    let server = paths.iter().fold(Server::builder(), |server, path| {
        server.route(path, handler_fn(reply))
    });
    server.bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn the_report_is_printed_in_the_unit_that_was_asked_for() {
    let server = with_statistics().await;
    let target = server.target().to_string();
    let report = iq(&["stats", &target, "--unit", "millisecond"])
        .await
        .data();
    assert_eq!(report, "total count: 0 {\"time_unit\":\"millisecond\"}\n");
}

#[tokio::test]
async fn a_path_has_its_figures() {
    let server = with_statistics().await;
    let target = server.target().to_string();
    assert_eq!(
        iq(&["stats", &target, "/echo"]).await.data(),
        "requests\t4, mean 2.0µs\nin 5 minutes\t2, mean 2.0µs\n\
         messages\t3 received, 3 sent\nbytes\t61 sent\n"
    );
    let unknown = iq(&["stats", &target, "/nowhere"]).await.failed(64 + 5);
    assert!(unknown.contains("no statistics of `/nowhere`"), "{unknown}");
    let unknown = iq(&["stats", &target, "shop.Orders.find"]).await.failed(2);
    assert!(
        unknown.contains("`shop.Orders.find` is not a path"),
        "{unknown}"
    );
    let of_server = iq(&["stats", &target, "--json"]).await.json();
    assert_eq!(of_server.len(), 1);
    assert_eq!(
        (
            &of_server[0]["type"],
            &of_server[0]["mean_ns"],
            &of_server[0]["count"]["bytes_sent"]
        ),
        (&json!("stats"), &json!(2000), &json!(61)),
    );
}

#[tokio::test]
async fn connections_are_an_object_each() {
    let server = with_statistics().await;
    let target = server.target().to_string();
    let all = iq(&["stats", &target, "--connections", "--json"])
        .await
        .json();
    assert_eq!(
        all[1],
        json!({"type": "connection", "peer": "127.0.0.1:6", "statistics": {"WriteQueue": 1}})
    );
}

#[tokio::test]
async fn a_server_without_statistics_says_so() {
    let shop = Fixture::with(|server| server).await;
    let ran = iq(&["stats", &shop.target, "/echo"]).await;
    assert_eq!(ran.code, Some(64 + 12), "{ran:?}");
    assert!(
        ran.err.contains("no statistics at /sys/path_count"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_server_of_this_project_has_the_same_statistics() {
    let shop = Fixture::with(|server| server.statistics(|_| true)).await;
    for _ in 0..3 {
        iq(&["call", &shop.target, "shop.Orders.find", "id=7"])
            .await
            .data();
    }
    for name in ["/shop.Orders/find", "shop.Orders.find", "shop.Orders/find"] {
        let path = iq(&["stats", &shop.target, name, "--json"]).await.json();
        assert_eq!(
            (
                &path[0]["of"],
                &path[0]["requests"],
                &path[0]["requests_5m"]
            ),
            (&json!("/shop.Orders/find"), &json!(3), &json!(3))
        );
    }
    let error = iq(&["stats", &shop.target, "shop.Orders.fnd"]).await;
    assert!(error.failed(2).contains("the closest is `find`"));
    let report = iq(&["stats", &shop.target]).await.data();
    assert!(report.contains("/shop.Orders/find count: "), "{report}");
    let connections = iq(&["stats", &shop.target, "--connections", "--json"])
        .await
        .json();
    assert_eq!(connections[0]["type"], "connection", "its own at least");
}
