//! Headers of the PROXY protocol, good and bad.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::header::{MAX_REST_BYTES, SIGNATURE};
use super::*;

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header");
    [
        &SIGNATURE[..],
        &[command, family],
        &length.to_be_bytes(),
        rest,
    ]
    .concat()
}

/// Reads the header of a stream that arrives in pieces. Returns its result and what follows.
async fn read_pieces(bytes: &[u8], piece: usize) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
    let (mut near, mut far) = tokio::io::duplex(piece);
    let bytes = bytes.to_vec();
    let sending = tokio::spawn(async move {
        // The reader may stop in the middle.
        let _ = far.write_all(&bytes).await;
    });
    let result = read_header(&mut near, Duration::from_secs(10)).await;
    let mut left = Vec::new();
    if result.is_ok() {
        near.read_to_end(&mut left).await.expect("memory");
    }
    drop(near);
    sending.await.expect("no panic");
    (result.map_err(|error| error.to_string()), left)
}

const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

#[tokio::test]
async fn the_address_of_the_client_is_read_and_nothing_after_the_header() {
    let v6 = [
        &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..],
        &[0; 16],
        &[0xff, 0xff, 0, 80],
    ]
    .concat();
    let fields = [&V4[..], &vec![7; MAX_REST_BYTES - V4.len()]].concat();
    let table = [
        (header(0x21, 0x11, &V4), Some("192.0.2.1:8080")),
        (header(0x21, 0x11, &fields), Some("192.0.2.1:8080")),
        (header(0x21, 0x21, &v6), Some("[2001:db8::9]:65535")),
        // LOCAL, with and without addresses.
        (header(0x20, 0x00, &[]), None),
        (header(0x20, 0x11, &V4), None),
        // An unknown address, and a Unix socket.
        (header(0x21, 0x00, &[1, 2, 3]), None),
        (header(0x21, 0x31, &[b'x'; 216]), None),
    ];
    for (header, expected) in table {
        for piece in [1, 7, 4096] {
            let sent = [&header[..], b"the first frame"].concat();
            let (result, left) = read_pieces(&sent, piece).await;
            let expected = expected.map(|addr| addr.parse().expect("an address"));
            assert_eq!(result, Ok(expected));
            assert_eq!(left, b"the first frame");
        }
    }
}

#[tokio::test]
async fn what_is_no_header_is_rejected_as_soon_as_that_is_known() {
    let long = [&SIGNATURE[..], &[0x21, 0x11, 0x10, 0x01]].concat();
    let table: [(&[u8], &str); 12] = [
        (b"\0", "does not begin with its header"),
        (b"\r\n\r\n\0\r\nQUIX", "does not begin with its header"),
        (b"PRI * HTTP/2.0", "does not begin with its header"),
        (b"PROXY TCP4 ", "version 1 is not supported"),
        (&header(0x11, 0x11, &V4), "unknown version or command: 0x11"),
        (&header(0x22, 0x11, &V4), "unknown version or command: 0x22"),
        // UDP.
        (&header(0x21, 0x12, &V4), "transport: 0x12"),
        (&header(0x21, 0x41, &V4), "transport: 0x41"),
        (
            &header(0x21, 0x11, &V4[1..]),
            "11 bytes, which is too short",
        ),
        (&header(0x21, 0x21, &V4), "12 bytes, which is too short"),
        (&long, "4097 bytes, the maximum is 4096"),
        (&header(0x21, 0x11, &V4)[..20], "the connection ended"),
    ];
    for (bytes, expected) in table {
        let (result, _) = read_pieces(bytes, 4096).await;
        let error = result.expect_err("no header");
        assert!(
            error.contains(expected),
            "{}: {error}",
            bytes.escape_ascii()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_stops_in_the_middle_is_waited_for_no_longer_than_the_limit() {
    let (mut near, mut far) = tokio::io::duplex(100);
    far.write_all(&header(0x21, 0x11, &V4)[..27])
        .await
        .expect("memory");
    let began = tokio::time::Instant::now();
    let error = read_header(&mut near, Duration::from_secs(3))
        .await
        .expect_err("one byte is missing");
    assert!(matches!(error, HeaderError::Late), "{error}");
    assert!(!error.is_violation());
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(future)
}

proptest! {
    #[test]
    fn every_client_address_is_read_as_it_was_written(
        addr: std::net::IpAddr, port: u16, fields in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1_usize..64,
    ) {
        let (family, addresses) = match addr {
            std::net::IpAddr::V4(addr) => (0x11, [&addr.octets()[..], &[0; 4]].concat()),
            std::net::IpAddr::V6(addr) => (0x21, [&addr.octets()[..], &[0; 16]].concat()),
        };
        let rest = [&addresses[..], &port.to_be_bytes(), &[0, 1], &fields].concat();
        let sent = [header(0x21, family, &rest), b"next".to_vec()].concat();
        let (result, left) = run(read_pieces(&sent, piece));
        prop_assert_eq!(result, Ok(Some(SocketAddr::new(addr, port))));
        prop_assert_eq!(left, b"next");
    }

    #[test]
    fn any_bytes_end_with_an_address_or_an_error(
        has_signature: bool, bytes in prop::collection::vec(any::<u8>(), 0..200),
        piece in 1_usize..64,
    ) {
        let start = if has_signature { &SIGNATURE[..] } else { &[] };
        let sent = [start, &bytes].concat();
        let (result, left) = run(read_pieces(&sent, piece));
        // Whatever was read is followed by the rest of what was sent.
        prop_assert!(result.is_err() || sent.ends_with(&left));
    }

    #[test]
    fn a_header_with_one_changed_byte_is_read_or_rejected_but_never_exceeded(
        at in 0_usize..28, byte: u8,
    ) {
        let mut sent = header(0x21, 0x11, &V4);
        sent[at] = byte;
        sent.extend_from_slice(b"next");
        let (result, left) = run(read_pieces(&sent, 64));
        prop_assert!(result.is_err() || left.len() >= 4 || at == 14 || at == 15);
    }
}
