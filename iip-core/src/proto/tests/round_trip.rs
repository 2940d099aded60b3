//! The round trips that both sides measure.

use super::*;

const WAY: Duration = Duration::from_millis(20);

/// A side reads what the other one has written, `WAY` later.
fn carry(now: &mut Instant, from: &mut End, to: &mut End) {
    let bytes = from.write(*now);
    *now += WAY;
    to.machine.timers().on_batch(Some(*now));
    to.feed(*now, &bytes).expect("it keeps to the protocol");
}

/// A client and a server that have said hello at a distance.
fn acquainted() -> (Instant, End, End) {
    let mut now = Instant::now();
    let mut client = End::new(Side::Client, Limits::default(), now);
    let mut server = End::new(Side::Server, Limits::default(), now);
    client.machine.say_hello();
    client.machine.open_channel();
    for _ in 0..3 {
        carry(&mut now, &mut client, &mut server);
        carry(&mut now, &mut server, &mut client);
    }
    (now, client, server)
}

#[test]
fn both_sides_measure_the_round_trip_when_a_connection_begins() {
    let (_, client, server) = acquainted();
    assert_eq!(client.machine.round_trip(), Some(2 * WAY));
    assert_eq!(server.machine.round_trip(), Some(2 * WAY));
}

#[test]
fn a_client_measures_each_ping_until_its_own_reply() {
    let (mut now, mut client, mut server) = acquainted();
    let silence = Limits::default().get_keepalive_interval();
    now += silence;
    client.machine.keep_alive(now, true).unwrap();
    let ping = client.write(now);
    // Something else shows that the server is alive, and the next silence leads to the next ping.
    now += SECOND;
    client.machine.timers().on_read(now, false, true);
    now += silence;
    client.machine.keep_alive(now, true).unwrap();
    let pings = [ping, client.write(now)].concat();
    server.feed(now, &pings).unwrap();
    carry(&mut now, &mut server, &mut client);
    assert_eq!(client.machine.round_trip(), Some(SECOND + silence + WAY));
}

#[test]
fn a_server_measures_no_channel_but_that_of_the_control_stream() {
    let mut now = Instant::now();
    let mut server = End::new(Side::Server, Limits::default(), now);
    let grant = frame(1, "/sys/new_channel", 0, b"{}");
    let control = frame(0, "/sys/control", 1, b"\0");
    for bytes in [&grant, &grant, &control] {
        now += SECOND;
        server.machine.timers().on_batch(Some(now));
        server.feed(now, bytes).unwrap();
    }
    // Its channel was granted before the last one, at a time that is not kept.
    assert_eq!(server.machine.round_trip(), None);
}
