"""Checks that no bytes cause an error in the dissector."""

import pathlib

import iip
import samples
import shark
import traffic
from traffic import RANDOM


def mutated(piece):
    """Returns a copy of these bytes with some changed, missing or additional bytes."""
    piece = bytearray(piece[:3000])
    for _ in range(RANDOM.choice((0, 1, 1, 3))):
        at = RANDOM.randrange(len(piece) + 1)
        missing = RANDOM.choice((0, 1, 1, 4, 20))
        piece[at:at + missing] = RANDOM.choice((
            b"", b"\0", b"\xff", b"\xff" * 4, b"\xff" * 10, b"\x80\0", bytes(4), b"\0\1\0\0",
            RANDOM.randbytes(1), RANDOM.randbytes(20)))
    return bytes(piece)


def mutations(connection, count):
    """Returns copies of a connection with mutated pieces."""
    for _ in range(count):
        pieces = [(direction, mutated(piece)) for direction, piece in connection.pieces]
        yield traffic.Connection(f"{connection.name}, mutated", pieces)


def corrupted(data):
    """Returns every truncation of a message, and copies of it with other bytes."""
    for length in range(1, len(data)):
        yield data[:length]
    for at in range(len(data)):
        for other in (b"\0", b"\x7f", b"\x80", b"\xff", RANDOM.randbytes(1), b"\xff" * 9 + b"\1"):
            yield data[:at] + other + data[at + 1:]


def corrupted_messages():
    """Returns connections with valid frames whose data is corrupted."""
    connections = []

    def add(*frames):
        pieces = [("c2s" if frame[0] < 4 else "s2c", iip.frame(*frame)) for frame in frames]
        connections.append(traffic.Connection("corrupted", pieces))

    for name, data in traffic.vectors("golden"):
        if ("request" in name or "reply" in name or "plain" in name) and len(data) < 100:
            status = 1 if "request" in name else 5
            for message in corrupted(data):
                add((status, "/a/b", 1, message))
    start = b"\xf8\0\0\0\3\x80\1\5"
    for name, data in traffic.vectors("frames"):
        for message in corrupted(data):
            add((0, "/a/b", 1, start), (2, "/a/b", 1, message), (2, "/a/b", 1, start))
            add((0, "/a/b", 1, start), (4, "/a/b", 1, message), (6, "/a/b", 1, start))
    for message in corrupted(b"\1\4\0\0\0\7\3\4\0\0\0\2"):
        add((0, "/sys/control", 1, message))
        add((4, "/sys/control", 1, message))
    return connections


def random_bytes():
    """Returns connections with random bytes, some of them after the beginning of a frame."""
    starts = (b"", b"\0", b"\1/", b"\5/", b"\1/a\0\0\0\0\1\0\0\xff\xff", b"\x08")
    for length in (1, 2, 3, 10, 11, 12, 100, 5000):
        for start in starts:
            data = start + RANDOM.randbytes(length)
            yield traffic.Connection("random", [("c2s", data), ("s2c", data)])


def hostile_bytes_cause_no_error():
    connections = corrupted_messages() + list(random_bytes())
    for connection in samples.short():
        connections += mutations(connection, 3)
    connections += mutations(samples.peers(), 100)
    capture, cut = shark.write(connections), shark.write(connections, traffic.cuts(40))
    shark.dissect(capture, ["iip.status"], "-2")
    shark.dissect(cut, ["iip.status"])
    shark.dissect(cut, ["iip.status"], "-o", "tcp.desegment_tcp_streams:FALSE")
    shark.dissect(shark.write(connections, captured=70), ["iip.status"])
    return len(connections)


def large_hostile_messages_cause_no_error():
    nested = b"[" * 100_000 + b"]" * 100_000
    connections = [
        traffic.Connection("a path without an end", [("c2s", b"\1/" + b"a" * 600_000)]),
        traffic.Connection("nested JSON", [("c2s", iip.frame(1, "/a", 1, nested))]),
        traffic.Connection("empty parameters", [
            ("c2s", iip.frame(1, "/a?" + "&" * 10_000, 1, "{}"))]),
        traffic.Connection("empty records", [
            ("c2s", iip.frame(0, "/a", 1, b"\xf8" + bytes(60_000)))]),
        traffic.Connection("small frames", [("c2s", iip.frame(1, "/a", 1, "{}") * 3000)]),
    ]
    shark.dissect(shark.write(connections), ["iip.malformed"], "-2")
    return len(connections)


def a_failure_of_the_dissector_is_noticed():
    broken = pathlib.Path(shark.write.folder, "broken.lua")
    broken.write_text('local broken = Proto("broken", "Broken")\n'
                      'function broken.dissector() error("broken") end\n'
                      "register_postdissector(broken)\n")
    try:
        shark.dissect(shark.write([samples.peers()]), [], "-X", f"lua_script:{broken}")
    except shark.Wrong:
        return 1
    raise AssertionError("an error in Lua was not noticed")


TESTS = [
    hostile_bytes_cause_no_error,
    large_hostile_messages_cause_no_error,
    a_failure_of_the_dissector_is_noticed,
]
