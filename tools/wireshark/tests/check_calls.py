"""Checks of typed calls, and of what peers exchange beside them."""

import os
import pathlib
import re

import iip
import samples
import shark
import traffic
from traffic import RANDOM

# The fields of an envelope, after `iip.rpc.`.
ENVELOPE = ["codec", "compression", "remaining_us", "queued_us", "handler_us", "metadata",
            "metadata.key", "metadata.value", "metadata.value_bytes", "outcome", "code",
            "execution", "message", "details", "decompressed_length", "body"]
# What valid traffic does not have.
WRONG = ["iip.rpc.malformed", "iip.unexpected_frame", "iip.unexpected_reply"]


def text_of(field, value):
    if field.endswith((".body", ".details", ".value_bytes")):
        return value.hex()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def compare_envelopes(connections, expected):
    """Compares the fields of each connection, and returns the packets."""
    fields = [f"iip.rpc.{name}" for name in ENVELOPE]
    capture = shark.write(connections)
    packets = shark.dissect(capture, fields + WRONG)
    found = shark.by_direction(connections, packets, fields + WRONG)
    for connection, sides, of in zip(connections, found, expected):
        for field in fields + WRONG:
            shown = sides["c2s"][field] + sides["s2c"][field]
            if shown != [text_of(field, value) for value in of.get(field, [])]:
                raise shark.Wrong(f"{connection.name}: {field} is {shown}, not {of.get(field)}")
    return packets


def envelopes_of_the_document_are_read():
    connections, expected = samples.messages_of_the_document()
    packets = compare_envelopes(connections, expected)
    json_bodies = sum("json" in packet["frame.protocols"][0] for packet in packets)
    if json_bodies != sum(of.get("iip.rpc.body", [b""])[0].startswith(b"{") for of in expected):
        raise shark.Wrong(f"{json_bodies} bodies were read as JSON")
    return len(connections)


def numbers_of_every_length_are_read():
    connections, expected = [], []
    for bits in range(1, 65):
        for number in (2 ** bits - 1, 2 ** (bits - 1), RANDOM.randrange(2 ** bits)):
            codec = RANDOM.choice([codec for codec in range(64) if codec not in (3, 4, 5)])
            key = iip.varint(bits) + b"k" * bits
            value = iip.varint(2 * bits) + b"v" * 2 * bits
            request = bytes([0x83, codec]) + iip.varint(number) + b"\1" + key + value + b"x"
            reply = bytes([0x81, codec]) + iip.varint(number) + iip.varint(bits) + b"y"
            for message, is_request in ((request, True), (reply, False)):
                messages = (message, b"ok") if is_request else (b"ok", message)
                connections.append(samples.exchange(f"{number}", *messages))
                expected.append(iip.envelope(message, is_request))
    compare_envelopes(connections, expected)
    return len(connections)


def streams_of_the_document_are_read():
    calls = samples.calls_of_the_document()
    connections = [connection for connection, _ in calls]
    fields = ["iip.stream.mark", "iip.stream.message_length", "iip.rpc.codec", "iip.rpc.outcome",
              "iip.request_in", "iip.message_path"]
    packets = shark.dissect(shark.write(connections), fields + WRONG)
    found = shark.by_direction(connections, packets, fields + WRONG)
    for (connection, frames), sides in zip(calls, found):
        for side, is_request in (("c2s", True), ("s2c", False)):
            sent = [data for status, data in frames if (status < 4) == is_request]
            lengths = []
            stream = b"".join(data[1:] for data in sent if data[0] in (0xf8, 0xfb))
            while stream:
                lengths.append(int.from_bytes(stream[:4], "big") & 0x3fffffff)
                stream = stream[4 + lengths[-1]:]
            codec = "5" if connection.name in ("total", "upto") else "1"
            expected = [
                [hex(data[0]) for data in sent], [str(length) for length in lengths],
                [codec] if is_request else [codec] * 2, [] if is_request else ["0"] * 2,
            ]
            shown = [sides[side][field] for field in fields[:4]]
            if shown != expected:
                raise shark.Wrong(f"{connection.name} {side}: {shown}, not {expected}")
            if set(sides[side]["iip.message_path"]) != {f"/numbers/{connection.name}"}:
                raise shark.Wrong(f"{connection.name} {side}: {sides[side]}")
        if len(sides["s2c"]["iip.request_in"]) != 1:
            raise shark.Wrong(f"{connection.name}: the reply is not linked with its request")
        if any(sides[side][field] for side in sides for field in WRONG):
            raise shark.Wrong(f"{connection.name}: {sides}")
    return len(calls)


def marks_without_messages_are_read():
    vectors = dict(traffic.vectors("frames"))
    frames = [(0, vectors["sum-request-0"]), (2, vectors["blocked"]),
              (2, vectors["window-update-32768"]), (3, vectors["cancelled-request-3"])]
    connection = traffic.Connection(
        "marks", [("c2s", iip.frame(status, "/a/b", 1, data)) for status, data in frames])
    fields = ["iip.stream.mark", "iip.stream.credit", "iip.rpc.malformed", "iip.unexpected_frame"]
    [sides] = shark.by_direction(
        [connection], shark.dissect(shark.write([connection]), fields), fields)
    if list(sides["c2s"].values()) != [["0xf8", "0xfa", "0xf9", "0xfc"], ["32768"], [], []]:
        raise shark.Wrong(f"{sides}")
    return len(frames)


def a_record_in_several_frames_has_one_length():
    record = (5).to_bytes(4, "big") + b"\x80\x01abc" + (300).to_bytes(4, "big") + bytes(300)
    for at in range(1, 12):
        parts = [record[:at], record[at:at + 2], record[at + 2:]]
        pieces = [("c2s", iip.frame(status, "/s/m", 1, b"\xf8" + part))
                  for status, part in zip((0, 2, 2), parts)]
        connection = traffic.Connection("records", pieces)
        fields = ["iip.stream.message_length", "iip.rpc.malformed"]
        [sides] = shark.by_direction(
            [connection], shark.dissect(shark.write([connection]), fields), fields)
        if list(sides["c2s"].values()) != [["5", "300"], []]:
            raise shark.Wrong(f"cut at {at}: {sides}")
    return 11


def calls_of_this_library_are_read():
    recording = pathlib.Path(os.environ["IIP_RECORDED_CALLS"])
    connections = traffic.transcript(recording)
    frames = 0
    for cut in (traffic.whole, traffic.cuts(500)):
        capture = shark.write(connections, cut)
        frames += shark.compare_frames(connections, capture)
        fields = ["iip.stream.mark", "iip.stream.message_length"]
        fields += [f"iip.rpc.{name}" for name in ENVELOPE]
        packets = shark.dissect(capture, fields + WRONG)
        for connection, sides in zip(
                connections, shark.by_direction(connections, packets, fields + WRONG)):
            for side, shown in sides.items():
                expected = iip.typed(iip.frames(connection.sent(side))[0])
                for field in fields + WRONG:
                    values = [text_of(field, value) for value in expected.get(field, [])]
                    if shown[field] != values:
                        raise shark.Wrong(f"{connection.name} {side}: {field} is "
                                          f"{shark.brief(shown[field])}, not {shark.brief(values)}")
    return frames


def what_peers_exchange_beside_calls_is_named():
    fields = ["iip.operation", "iip.control.type", "iip.control.channel", "iip.reply_in",
              "iip.unexpected_frame", "iip.unexpected_reply", "iip.code", "iip.response_time"]
    connection = samples.peers()
    [sides] = shark.by_direction(
        [connection], shark.dissect(shark.write([connection]), fields, "-2"), fields)
    control = "Control stream"
    expected = {
        "c2s": [["Hello", "New channel", control, control, "Ping"], ["0", "1", "3"], ["7", "2"],
                ["4", "4", "6", "10"], [], [], [], []],
        "s2c": [["Hello", "New channel", control, "Ping", control], ["0", "2"], [], [], [], [],
                ["0", "0"], ["0.000010000"] * 4],
    }
    for side, values in expected.items():
        shown = list(sides[side].values())
        if shown != values:
            raise shark.Wrong(f"{side}: {shown}, not {values}")
    return 1


def errors_and_http_headers_are_read():
    vectors = dict(traffic.vectors("golden"))
    headers = "eyJBY2NlcHQiOlsiPz4_Il19"
    path = f"/a?x=1&__http_hdr__={headers}&y"
    connection = traffic.Connection("errors", [
        ("c2s", iip.frame(1, path, 1, "{}")),
        ("s2c", iip.frame(5, "/a", 1, vectors["plain-status"])),
        ("c2s", iip.frame(1, "/b%20c?", 1, "{}")),
        ("s2c", iip.frame(5, "/b c", 1, '{"code":-1,"message":"handler fail:x"}')),
        ("c2s", iip.frame(1, "/d", 1, "{}")), ("s2c", iip.frame(5, "/e", 1, ' {"code":5}')),
        ("s2c", iip.frame(5, "/d", 1, "surplus")),
    ])
    fields = ["iip.query.parameter", "iip.http_headers", "iip.code", "iip.unexpected_reply"]
    [sides] = shark.by_direction(
        [connection], shark.dissect(shark.write([connection]), fields), fields)
    expected = [["x=1", f"__http_hdr__={headers}", "y", ""], ['{"Accept":["?>?"]}'], [], []]
    if list(sides["c2s"].values()) != expected or list(sides["s2c"].values())[2:] != [
            ["5", "-1"], ["1", "1"]]:
        raise shark.Wrong(f"{sides}")
    return 1


def fields_and_filters_of_the_readme_exist():
    readme = shark.DISSECTOR.with_name("README.md").read_text()
    fields = sorted(set(re.findall(r"iip\.[a-z_.]*[a-z](?=`)", readme)) - {"iip.lua"})
    table = readme[readme.index("| filter |"):readme.index("## Limits")]
    filters = re.findall(r"^\| `(.*?)` \|", table, re.M)
    if len(fields) < 30 or len(filters) < 8:
        raise shark.Wrong(f"the tables were not found: {fields} {filters}")
    both = " or ".join(f"({filter})" for filter in filters)
    shark.dissect(shark.write([samples.peers()]), fields, "-2", "-Y", both)
    return len(fields) + len(filters)


TESTS = [
    envelopes_of_the_document_are_read,
    numbers_of_every_length_are_read,
    streams_of_the_document_are_read,
    marks_without_messages_are_read,
    a_record_in_several_frames_has_one_length,
    calls_of_this_library_are_read,
    what_peers_exchange_beside_calls_is_named,
    errors_and_http_headers_are_read,
    fields_and_filters_of_the_readme_exist,
]
