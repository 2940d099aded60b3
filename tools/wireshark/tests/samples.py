"""Traffic that the checks share."""

import re

import iip
import traffic


def small_and_large():
    """Returns the recorded connections with at most 200 kB, and the others."""
    connections = traffic.transcripts()
    small = [connection for connection in connections if connection.size() <= 200_000]
    return small, [connection for connection in connections if connection not in small]


def short():
    """Returns the recorded connections with less than 5 kB, and the calls of the document."""
    recorded = [connection for connection in small_and_large()[0] if connection.size() < 5000]
    calls = [connection for connection, _ in calls_of_the_document()]
    return recorded + calls + messages_of_the_document()[0]


def exchange(name, request, reply):
    """Returns a connection with these messages in one frame each."""
    path = f"/golden/{name}"
    pieces = [("c2s", iip.frame(1, path, 1, request)), ("s2c", iip.frame(5, path, 1, reply))]
    return traffic.Connection(name, pieces)


def messages_of_the_document():
    """Returns a connection for each envelope in the document, and the fields of each."""
    connections, expected = [], []
    for name, data in traffic.vectors("golden"):
        if not data or not 0x80 <= data[0] < 0xc0 or not ("request" in name or "reply" in name):
            continue
        is_request = "request" in name
        messages = (data, b"ok") if is_request else (b"ok", data)
        connections.append(exchange(name, *messages))
        expected.append(iip.envelope(data, is_request))
    return connections, expected


def calls_of_the_document():
    """Returns a connection with a stream of the document each, and the frames."""
    calls = {}
    for name, data in traffic.vectors("frames"):
        of_call = re.fullmatch("(.*)-(?:request|reply)-([0-7])", name)
        if of_call and of_call[1] != "cancelled":
            calls.setdefault(of_call[1], []).append((int(of_call[2]), data))
    return [
        (traffic.Connection(call, [
            ("c2s" if status < 4 else "s2c",
             iip.frame(status, f"/numbers/{call}" if status in (0, 4) else "", 1, data))
            for status, data in frames]), frames)
        for call, frames in calls.items()
    ]


def peers():
    """Returns a connection that begins as those of this library do."""
    hello = '{"iip":1,"control":1,"stream_window":65536,"rpc":{"envelope":0,"codecs":[1,3]}}'
    call = b"\x80\x01\x05world"
    return traffic.Connection("peers", [
        ("c2s", iip.frame(1, "/sys/hello", 0, hello) + iip.frame(1, "/sys/new_channel", 0, "{}")),
        ("s2c", iip.frame(5, "/sys/hello", 0, '{"iip":1,"code":0,"ping":1}')
         + iip.frame(5, "/sys/new_channel", 0, '{"code":0,"channel_id":1}')),
        ("c2s", iip.frame(0, "/sys/control", 1, b"\0\0")),
        ("s2c", iip.frame(4, "/sys/control", 1, b"\0\0")),
        ("c2s", iip.frame(2, "/sys/control", 1, b"\x01\x04\0\0\0\x07\x03\x04\0\0\0\x02")),
        ("c2s", iip.frame(1, "/greeter/hello", 2, call)),
        ("c2s", iip.frame(1, "/greeter/hello", 2, call) + iip.frame(1, "/sys/ping", 0, "{}")),
        ("s2c", iip.frame(5, "/sys/ping", 0, '{"code":0}')
         + iip.frame(6, "/sys/control", 1, b"\x02\0")),
        ("s2c", iip.frame(8, "", 0, "")),
    ])
