//! Requests that two parsers may read differently: each is rejected, or forwarded in only one way.

use crate::common::{Backend, Http, before, bound, get, serves};

/// A request that a backend sees only if it was smuggled.
const HIDDEN: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// The expected outcome of the bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The status of the rejection, after which the connection ends.
    Refused(u16),
    /// The connection ends without a request for a backend.
    Closed,
    /// One request with this body, and the connection continues.
    Body(&'static str),
}

use Fate::{Body, Closed, Refused};

fn chunked(head: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}")
}

/// Returns the requests, each with a name and its outcome.
pub(crate) fn cases() -> Vec<(&'static str, String, Fate)> {
    let te = "Transfer-Encoding: chunked";
    let plain_chunks = "2\r\nab\r\n0\r\n\r\n";
    let hidden_chunks = format!("0\r\n\r\n{HIDDEN}");
    vec![
        // The control: the requests below are rejected only for their faults.
        ("chunks", chunked(te, plain_chunks), Body("ab")),
        (
            "case of chunked",
            chunked("transfer-encoding: CHUNKED", plain_chunks),
            Body("ab"),
        ),
        (
            "CL.TE",
            chunked(&format!("Content-Length: 6\r\n{te}"), &hidden_chunks),
            Refused(400),
        ),
        (
            "TE.CL",
            chunked(&format!("{te}\r\nContent-Length: 4"), &hidden_chunks),
            Refused(400),
        ),
        (
            "CL 0 and TE",
            chunked(&format!("Content-Length: 0\r\n{te}"), &hidden_chunks),
            Refused(400),
        ),
        (
            "TE.TE",
            chunked(
                &format!("{te}\r\nTransfer-Encoding: identity"),
                &hidden_chunks,
            ),
            Refused(400),
        ),
        (
            "TE twice",
            chunked(&format!("{te}\r\n{te}"), &hidden_chunks),
            Refused(400),
        ),
        (
            "TE list",
            chunked("Transfer-Encoding: gzip, chunked", &hidden_chunks),
            Refused(400),
        ),
        (
            "TE other",
            chunked("Transfer-Encoding: xchunked", &hidden_chunks),
            Refused(400),
        ),
        (
            "TE identity",
            chunked("Transfer-Encoding: identity", HIDDEN),
            Refused(400),
        ),
        (
            "TE vertical tab",
            chunked("Transfer-Encoding: \x0bchunked", &hidden_chunks),
            Refused(400),
        ),
        (
            "TE and a space",
            chunked("Transfer-Encoding : chunked", &hidden_chunks),
            Refused(400),
        ),
        (
            "TE in HTTP/1.0",
            format!("POST /echo HTTP/1.0\r\n{te}\r\n\r\n{hidden_chunks}"),
            Refused(400),
        ),
        (
            "CL twice",
            chunked("Content-Length: 0\r\nContent-Length: 3", "abc"),
            Refused(400),
        ),
        (
            "CL twice, equal",
            chunked("Content-Length: 3\r\nContent-Length: 3", "abc"),
            Refused(400),
        ),
        (
            "CL list",
            chunked("Content-Length: 3, 3", "abc"),
            Refused(400),
        ),
        (
            "CL sign",
            chunked("Content-Length: +3", "abc"),
            Refused(400),
        ),
        (
            "CL hex",
            chunked("Content-Length: 0x3", "abc"),
            Refused(400),
        ),
        (
            "CL huge",
            chunked("Content-Length: 99999999999999999999", "abc"),
            Refused(400),
        ),
        (
            "folded",
            chunked("X: a\r\n b\r\nContent-Length: 0", ""),
            Refused(400),
        ),
        (
            "folded TE",
            chunked("Transfer-Encoding:\r\n chunked", &hidden_chunks),
            Refused(400),
        ),
        (
            "bare line feed",
            "GET /echo HTTP/1.1\nHost: a\n\n".into(),
            Refused(400),
        ),
        (
            "one bare line feed",
            "GET /echo HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "bare carriage return",
            "GET /echo HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "NUL in a value",
            "GET /echo HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "NUL in a name",
            "GET /echo HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "NUL in the target",
            "GET /ec\0ho HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "space before the colon",
            "GET /echo HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "no name",
            "GET /echo HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "no colon",
            "GET /echo HTTP/1.1\r\nHost: a\r\nX\r\n\r\n".into(),
            Refused(400),
        ),
        ("no Host", "GET /echo HTTP/1.1\r\n\r\n".into(), Refused(400)),
        (
            "two Hosts",
            "GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "another Host",
            "GET http://b/echo HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "CONNECT",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".into(),
            Refused(501),
        ),
        (
            "version",
            "GET /echo HTTP/3.7\r\nHost: a\r\n\r\n".into(),
            Refused(400),
        ),
        (
            "reserved parameter",
            get("/echo?__http_hdr__=e30="),
            Refused(400),
        ),
        (
            "extensions",
            chunked(te, "2;a=b;c=\"d\"\r\nab\r\n0;e\r\n\r\n"),
            Body("ab"),
        ),
        (
            "trailers",
            chunked(te, "2\r\nab\r\n0\r\nX-Trailer: 1\r\n\r\n"),
            Body("ab"),
        ),
        (
            "extension, line feed",
            chunked(te, "2;a\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "size, line feed",
            chunked(te, "2\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "size, sign",
            chunked(te, "+2\r\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "size, prefix",
            chunked(te, "0x2\r\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "size, overflow",
            chunked(te, "fffffffffffffffff\r\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "size, empty",
            chunked(te, "\r\nab\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "data too long",
            chunked(te, "2\r\nabc\r\n0\r\n\r\n"),
            Refused(400),
        ),
        (
            "many extensions",
            chunked(te, &format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(20_000))),
            Refused(400),
        ),
        (
            "long line",
            format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "x".repeat(70_000)
            ),
            Refused(431),
        ),
        (
            "large head",
            format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(90) + &format!("Z: {}\r\n", "z".repeat(17_000))
            ),
            Refused(431),
        ),
        (
            "many headers",
            format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(101)
            ),
            Refused(431),
        ),
        ("IIP", "\x01/echo\0\0\0\0\x01\0\0\0\x02{}".into(), Closed),
        (
            "small letters",
            "get /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            Closed,
        ),
        ("nonsense", "\x7f\x7f\x7f\x7f".into(), Closed),
    ]
}

#[tokio::test]
async fn ambiguous_requests_are_refused_or_forwarded_in_one_way() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    for (name, bytes, fate) in cases() {
        let before = backend.seen().len();
        let mut http = Http::connect(address).await;
        http.send(&bytes).await;
        match fate {
            Refused(status) => {
                let reply = http.try_reply().await;
                let found = reply.as_ref().map(|reply| reply.status);
                assert_eq!(found, Some(status), "{name}: {reply:?}");
                let rest = http.closed().await;
                assert!(rest.is_empty(), "{name}: {}", rest.escape_ascii());
            }
            Closed => assert!(http.closed().await.is_empty(), "{name}"),
            Body(body) => {
                let reply = http.reply().await;
                assert_eq!((reply.status, reply.body.as_str()), (200, body), "{name}");
                http.send(get("/echo")).await;
                assert_eq!(http.reply().await.status, 200, "{name}");
            }
        }
        let seen = backend.seen().split_off(before);
        assert!(
            !seen.iter().any(|path| path.starts_with("/x")),
            "{name}: {seen:?}"
        );
        let forwarded = if matches!(fate, Body(_)) { 2 } else { 0 };
        assert_eq!(seen.len(), forwarded, "{name}: {seen:?}");
    }
    serves(address).await;
}

#[tokio::test]
async fn a_fault_in_a_later_request_does_not_touch_the_earlier_ones() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    let mut http = Http::connect(address).await;
    let good = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    let bad = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
               Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    http.send(format!("{good}{good}{bad}{HIDDEN}")).await;
    assert_eq!(http.reply().await.body, "ok");
    assert_eq!(http.reply().await.body, "ok");
    assert_eq!(http.reply().await.status, 400);
    assert!(http.closed().await.is_empty());
    assert_eq!(backend.seen().len(), 2);
}

#[tokio::test]
async fn headers_of_the_connection_do_not_reach_backends() {
    let backend = Backend::new().await;
    let (_gateway, address) = bound(before(&backend)).await;
    let request = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
                   Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\n\
                   X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n\r\n";
    let mut http = Http::connect(address).await;
    http.send(request).await;
    assert_eq!(http.reply().await.status, 200);
    assert!(http.closed().await.is_empty());
    assert_eq!(backend.seen(), ["/echo?__http_hdr__=e30="]);
}
