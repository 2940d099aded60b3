//! Look-ups at a small name server of the test.

use std::sync::Mutex;

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::super::stream::tests::{error, ids, next};
use super::*;

const NAME: &str = "_iip._tcp.orders.";
const A: u16 = 1;
const SRV: u16 = 33;

/// The response of the server to a question: its code, its answers, and its additional records.
#[derive(Clone, Default)]
struct Reply {
    code: u8,
    answers: Vec<Vec<u8>>,
    additional: Vec<Vec<u8>>,
}

type Replies = Arc<Mutex<HashMap<(String, u16), Reply>>>;

/// A name server. Other names than those in its table do not exist.
struct NameServer {
    addr: SocketAddr,
    replies: Replies,
    task: AbortHandle,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let replies = Replies::default();
        let table = Arc::clone(&replies);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, peer) = socket.recv_from(&mut query).await.unwrap();
                let response = respond(&query[..length], &table);
                socket.send_to(&response, peer).await.unwrap();
            }
        });
        Self {
            addr,
            replies,
            task: task.abort_handle(),
        }
    }

    fn source(&self, name: &str) -> DnsSrv {
        DnsSrv::new(name).name_servers([self.addr])
    }

    fn set(&self, name: &str, kind: u16, reply: Reply) {
        let key = (name.to_owned(), kind);
        self.replies.lock().unwrap().insert(key, reply);
    }

    /// Sets the SRV records, as priority, weight, port and target.
    fn records(&self, ttl: u32, records: &[(u16, u16, u16, &str)]) {
        let answers = records.iter().map(|&record| srv(ttl, record)).collect();
        let reply = Reply {
            answers,
            ..Reply::default()
        };
        self.set(NAME, SRV, reply);
    }

    /// Sets the address of a name, which then has no IPv6 address.
    fn address(&self, name: &str, ip: [u8; 4]) {
        let reply = Reply {
            answers: vec![record(name, A, 300, &ip)],
            ..Reply::default()
        };
        self.set(name, A, reply);
        self.set(name, 28, Reply::default());
    }
}

/// Returns the response to a query with one question.
fn respond(query: &[u8], replies: &Replies) -> Vec<u8> {
    let mut name = String::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += &String::from_utf8_lossy(&query[at + 1..end]).to_lowercase();
        name.push('.');
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let reply = replies.lock().unwrap().get(&(name, kind)).cloned();
    let reply = reply.unwrap_or_else(|| Reply {
        code: 3,
        ..Reply::default()
    });
    let mut response = query[..2].to_vec();
    response.extend([0x81, 0x80 | reply.code, 0, 1]);
    let count = |records: &[Vec<u8>]| u16::try_from(records.len()).unwrap().to_be_bytes();
    response.extend(count(&reply.answers));
    response.extend([0, 0]);
    response.extend(count(&reply.additional));
    response.extend(&query[12..at + 5]);
    response.extend(reply.answers.concat());
    response.extend(reply.additional.concat());
    response
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn srv(ttl: u32, (priority, weight, port, target): (u16, u16, u16, &str)) -> Vec<u8> {
    let mut data = [priority, weight, port].map(u16::to_be_bytes).concat();
    match target {
        "." => data.push(0),
        target => data.extend(encoded(target)),
    }
    record(NAME, SRV, ttl, &data)
}

#[tokio::test]
async fn each_record_is_a_backend_with_its_priority_and_weight() {
    let server = NameServer::start().await;
    server.records(300, &[(1, 0, 7001, "B.orders."), (0, 5, 7000, "a.orders.")]);
    server.address("a.orders.", [10, 0, 0, 1]);
    server.address("b.orders.", [10, 0, 0, 2]);
    let source = server.source(NAME);
    assert_eq!(source.describe(), "dns+srv://_iip._tcp.orders.");
    let snapshot = next(&mut source.watch()).await.unwrap();
    let expected = [
        BackendInfo::new("10.0.0.1:7000".parse().unwrap())
            .id("a.orders:7000")
            .host("orders")
            .weight(5),
        BackendInfo::new("10.0.0.2:7001".parse().unwrap())
            .id("b.orders:7001")
            .host("orders")
            .priority(1)
            .weight(1),
    ];
    assert_eq!(*snapshot.backends, expected);
}

#[tokio::test]
async fn a_refresh_sees_records_whose_ttl_has_not_passed() {
    let server = NameServer::start().await;
    server.records(300, &[(0, 1, 7000, "a.orders.")]);
    server.address("a.orders.", [10, 0, 0, 1]);
    let source = server.source(NAME);
    let mut stream = source.watch();
    assert_eq!(ids(&mut stream).await, ["a.orders:7000"]);
    // A server that has moved keeps its id.
    server.address("a.orders.", [10, 0, 0, 9]);
    source.refresh();
    let moved = next(&mut stream).await.unwrap();
    assert_eq!(moved.backends[0].endpoint.to_string(), "10.0.0.9:7000");
    assert_eq!(&*moved.backends[0].id, "a.orders:7000");
}

#[tokio::test]
async fn records_are_looked_up_again_when_their_ttl_has_passed() {
    let server = NameServer::start().await;
    server.records(0, &[(0, 1, 7000, "a.orders.")]);
    server.address("a.orders.", [10, 0, 0, 1]);
    server.address("b.orders.", [10, 0, 0, 2]);
    let mut stream = server.source(NAME).watch();
    assert_eq!(ids(&mut stream).await, ["a.orders:7000"]);
    server.records(0, &[(0, 1, 7000, "a.orders."), (0, 1, 7000, "b.orders.")]);
    assert_eq!(ids(&mut stream).await, ["a.orders:7000", "b.orders:7000"]);
    for (ttl, seconds) in [(0, 1), (1, 1), (30, 30), (300, 300), (u32::MAX, 300)] {
        assert_eq!(pause(ttl), Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn addresses_beside_the_records_are_used() {
    let server = NameServer::start().await;
    let reply = Reply {
        answers: vec![srv(300, (0, 1, 7000, "a.orders."))],
        additional: vec![
            record("A.orders.", A, 300, &[10, 0, 0, 2]),
            record("a.orders.", A, 300, &[10, 0, 0, 1]),
            record("other.orders.", A, 300, &[10, 0, 0, 3]),
        ],
        ..Reply::default()
    };
    server.set(NAME, SRV, reply);
    let expected = ["a.orders:7000/10.0.0.1", "a.orders:7000/10.0.0.2"];
    assert_eq!(ids(&mut server.source(NAME).watch()).await, expected);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_empty_snapshot() {
    let server = NameServer::start().await;
    let source = server.source(NAME);
    let mut stream = source.watch();
    assert_eq!(ids(&mut stream).await, [""; 0]);
    server.records(
        300,
        &[(0, 1, 7000, "a.orders."), (0, 1, 7000, "gone.orders.")],
    );
    server.address("a.orders.", [10, 0, 0, 1]);
    source.refresh();
    assert_eq!(ids(&mut stream).await, ["a.orders:7000"]);
    // No records of this type.
    server.set(NAME, SRV, Reply::default());
    source.refresh();
    assert_eq!(ids(&mut stream).await, [""; 0]);
    // No such service.
    server.records(300, &[(0, 1, 7000, "a.orders.")]);
    source.refresh();
    assert_eq!(ids(&mut stream).await, ["a.orders:7000"]);
    server.records(300, &[(0, 0, 0, ".")]);
    source.refresh();
    assert_eq!(ids(&mut stream).await, [""; 0]);
}

#[tokio::test]
async fn everything_else_is_an_error() {
    let server = NameServer::start().await;
    // For a name without its final dot, search domains may have failed.
    let text = error(&mut server.source("_iip._tcp.orders").watch()).await;
    assert!(text.contains("SRV records of `_iip._tcp.orders`"), "{text}");
    let source = server.source(NAME);
    let refused = Reply {
        code: 5,
        ..Reply::default()
    };
    server.set(NAME, SRV, refused);
    let text = error(&mut source.watch()).await;
    assert!(
        text.contains("SRV records of `_iip._tcp.orders.`"),
        "{text}"
    );
    server.records(300, &[(0, 1, 7000, "a.orders.")]);
    let text = error(&mut source.watch()).await;
    assert!(text.contains("no target of the SRV records"), "{text}");
    let failed = Reply {
        code: 2,
        ..Reply::default()
    };
    server.set("a.orders.", A, failed.clone());
    server.set("a.orders.", 28, failed);
    let mut stream = source.watch();
    let text = error(&mut stream).await;
    assert!(text.contains("addresses of target `a.orders.`"), "{text}");
    server.address("a.orders.", [10, 0, 0, 1]);
    assert_eq!(ids(&mut stream).await, ["a.orders:7000"]);
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_is_an_error() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let source = DnsSrv::new(NAME).name_servers([silent.local_addr().unwrap()]);
    error(&mut source.watch()).await;
    let source = DnsSrv::new(NAME).name_servers([]);
    error(&mut source.watch()).await;
}

#[test]
fn an_address_that_is_there_twice_has_the_lower_priority_number() {
    let target = |name: &str| Name::from_ascii(name).unwrap();
    let record = |name: &str, priority| Record {
        target: target(name),
        port: 1,
        priority,
        weight: 1,
    };
    let v4: IpAddr = "10.0.0.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let addresses = HashMap::from([(target("a."), vec![mapped, v4]), (target("b."), vec![v4])]);
    let found = backends(
        "orders".into(),
        vec![record("a.", 2), record("b.", 1)],
        &addresses,
    )
    .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].id, found[0].priority), ("b:1", 1));
}

#[test]
fn the_number_of_servers_has_a_limit() {
    let target = Name::from_ascii("a.").unwrap();
    let record = |port| Record {
        target: target.clone(),
        port,
        priority: 0,
        weight: 1,
    };
    let ips = (0..100)
        .map(|last| IpAddr::from([10, 0, 0, last]))
        .collect();
    let addresses = HashMap::from([(target.clone(), ips)]);
    assert_eq!(
        backends("orders".into(), (0..100).map(record).collect(), &addresses)
            .unwrap()
            .len(),
        10_000
    );
    let error = backends("orders".into(), (0..101).map(record).collect(), &addresses).unwrap_err();
    assert!(
        error.to_string().contains("more than 10000 servers"),
        "{error}"
    );
}

#[test]
fn a_certificate_must_have_the_name_without_service_and_protocol() {
    for name in ["_iip._tcp.orders.shop.", "orders.shop.", "orders.shop"] {
        assert_eq!(&*host_of(name), "orders.shop");
    }
}
