"""Checks of frames: recordings, segments, ports, and that no byte is left out."""

import json
import pathlib
import re
from xml.etree import ElementTree

import iip
import samples
import shark
import traffic


def recordings_are_read_frame_by_frame():
    small, large = samples.small_and_large()
    frames = shark.compare_frames(small, shark.write(small))
    return frames + shark.compare_frames(large, shark.write(large), with_data=False)


def frames_are_reassembled_from_segments_of_any_length():
    small, large = samples.small_and_large()
    frames = 0
    for longest in (5, 100, 3000):
        short = [c for c in small if c.size() < 600 * longest]
        frames += shark.compare_frames(short, shark.write(short, traffic.cuts(longest)))
    capture = shark.write(large, traffic.cuts(60000))
    return frames + shark.compare_frames(large, capture, with_data=False)


def frames_are_read_without_reassembly_and_if_they_are_cut_short():
    small, large = samples.small_and_large()
    without = ("-o", "tcp.desegment_tcp_streams:FALSE")
    # Heads must be in one segment, and captured.
    large = [c for c in large if not c.name.startswith("bad_")]
    small = [c for c in small if not c.name.startswith(("bad_", "path_", "http_"))]
    frames = shark.compare_frames(large, shark.write(large), *without, with_data=False)
    for captured in (200, 150):
        short = shark.write(small, captured=captured)
        frames += shark.compare_frames(small, short, with_data=False)
    return frames


def servers_on_other_ports_are_found():
    small = [c for c in samples.small_and_large()[0] if not c.name.startswith("bad_")]
    for connection in small:
        connection.server_port = 12345
    frames = shark.compare_frames(small, shark.write(small))
    for connection in small:
        connection.server_port = 4321
    capture = shark.write(small, traffic.cuts(10))
    return frames + shark.compare_frames(small, capture, "-d", "tcp.port==4321,iip")


def frames_inside_tls_are_read():
    recording = pathlib.Path(__file__).with_name("tls.json")
    [connection] = traffic.transcript(recording)
    connection.server_port = 7443
    keys = pathlib.Path(shark.write.folder, "keys.log")
    keys.write_text("\n".join(json.loads(recording.read_text())["keys"]) + "\n")
    fields = ["iip.status", "iip.path"]
    [sides] = shark.by_direction([connection], shark.dissect(
        shark.write([connection]), fields, "-o", f"tls.keylog_file:{keys}",
        "-o", "iip.tls_ports:7443"), fields)
    for side, shown in sides.items():
        frames = iip.frames(samples.peers().sent(side))[0]
        if shown["iip.status"] != [str(frame.status) for frame in frames]:
            raise shark.Wrong(f"{side}: {shown}")
    return 1


def other_protocols_are_not_taken_for_iip():
    texts = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x05\x01\x00", b"\x01" * 50, bytes(50),
             bytes.fromhex("16030100c8010000c40303") + bytes(40), b"*1\r\n$4\r\nPING\r\n",
             b"\x01/a\0\0\0\0\1\0\0\0\0", b"\x01a\0\0\0\0\1\0\0\0\1x"]
    connections = [traffic.Connection("other", [("c2s", text)], 12345) for text in texts]
    packets = shark.dissect(shark.write(connections), [])
    if any("iip" in packet["frame.protocols"][0] for packet in packets):
        raise shark.Wrong("other bytes were taken for IIP")
    return len(texts)


def span(item):
    """Returns the positions of an item of PDML."""
    at = int(item.get("pos", "0"))
    return set(range(at, at + int(item.get("size", "0"))))


def coverage_holes(frame):
    """Returns the positions in a frame of PDML that no field covers whose parts are elsewhere."""
    covered = set()
    for item in frame.iter():
        inside = [part for part in item if span(part) & span(item)]
        if not inside:
            covered |= span(item)
    return span(frame) - covered


def every_byte_belongs_to_a_field():
    document = shark.tshark(shark.write(samples.short() + [samples.peers()]), "-T", "pdml")
    # tshark does not escape what XML does not allow.
    document = re.sub(rb"[^\n\x20-\xff]", b"?", document)
    count = 0
    for packet in ElementTree.fromstring(document):
        for frame in packet.iter("proto"):
            if frame.get("name") == "iip" and frame.find("field[@name='iip.status']") is not None:
                holes = coverage_holes(frame)
                if holes:
                    raise shark.Wrong(f"{sorted(holes)} of {frame.get('showname')}")
                count += 1
    return count


TESTS = [
    recordings_are_read_frame_by_frame,
    frames_are_reassembled_from_segments_of_any_length,
    frames_are_read_without_reassembly_and_if_they_are_cut_short,
    servers_on_other_ports_are_found,
    frames_inside_tls_are_read,
    other_protocols_are_not_taken_for_iip,
    every_byte_belongs_to_a_field,
]
