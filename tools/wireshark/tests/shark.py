"""Runs tshark with the dissector, and reads its output."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import iip
import traffic

DISSECTOR = Path(__file__).resolve().parents[1] / "iip.lua"

# Fields that show that a dissector failed.
FAILURES = ["_ws.lua.text", "_ws.malformed", "_ws.expert.message"]


class Wrong(Exception):
    """A difference between the dissector and what is expected."""


def tshark(capture, *arguments):
    """Returns what tshark prints. Messages of tshark itself are an error."""
    command = ["tshark", "-X", f"lua_script:{DISSECTOR}", "-r", str(capture), "-n", *arguments]
    # Settings and plugins of the user have no influence.
    environment = {"PATH": os.environ["PATH"], "HOME": write.folder, "LC_ALL": "C.UTF-8"}
    run = subprocess.run(command, capture_output=True, timeout=600, env=environment)
    lines = [line for line in run.stderr.decode().splitlines() if "could be dangerous" not in line]
    if run.returncode or lines:
        raise Wrong(f"tshark ended with {run.returncode}: {lines[:5]}")
    return run.stdout


def write(connections, cut=traffic.whole, captured=None):
    """Returns the file of a new capture of these connections."""
    file = Path(tempfile.mkdtemp(dir=write.folder)) / "capture.pcap"
    traffic.Capture(file).write(connections, cut, captured)
    return file


def dissect(capture, fields, *arguments):
    """Returns for each packet the values of these fields. Fails if the dissector has failed."""
    fields = ["tcp.stream", "tcp.srcport", "frame.protocols", *fields, *FAILURES]
    named = [part for field in fields for part in ("-e", field)]
    packets = json.loads(tshark(capture, "-T", "json", *named, *arguments))
    packets = [packet["_source"]["layers"] for packet in packets]
    for packet in packets:
        messages = packet.get("_ws.expert.message", []) + packet.get("_ws.lua.text", [])
        if "_ws.lua.text" in packet or any("Lua Error" in message for message in messages):
            raise Wrong(f"the dissector has failed: {messages}")
    return packets


def by_direction(connections, packets, fields):
    """Returns the values of each field per connection and direction, over all packets."""
    sides = ("c2s", "s2c")
    found = [{side: {field: [] for field in fields} for side in sides} for _ in connections]
    for packet in packets:
        number = int(packet["tcp.stream"][0])
        side = "s2c" if int(packet["tcp.srcport"][0]) == connections[number].server_port else "c2s"
        for field in fields:
            found[number][side][field] += packet.get(field, [])
    return found


def compare_frames(connections, capture, *arguments, with_data=True):
    """Compares every frame of a capture with those that the second parser finds."""
    fields = ["iip.status", "iip.path", "iip.query", "iip.channel", "iip.length", "iip.malformed"]
    fields += ["iip.data"] if with_data else []
    packets = dissect(capture, fields, *arguments)
    for packet in packets:
        if "_ws.malformed" in packet or "data" in packet["frame.protocols"][0].split(":"):
            raise Wrong(f"bytes were not dissected: {packet}")
    count = 0
    for connection, sides in zip(connections, by_direction(connections, packets, fields)):
        for side, values in sides.items():
            frames, end = iip.frames(connection.sent(side))
            count += len(frames)
            try:
                compare_direction(frames, end, values, with_data)
            except Wrong as wrong:
                raise Wrong(f"{connection.name} {side}: {wrong}") from None
    return count


def compare_direction(frames, end, values, with_data):
    expected = {"iip.status": [str(frame.status) for frame in frames]}
    # A frame that closes the connection may have no further fields.
    frames = [frame for frame in frames if frame.status != 8]
    texts = [frame.path.decode(errors="replace") for frame in frames]
    expected["iip.path"] = [text.split("?")[0] for text in texts]
    expected["iip.query"] = [text.split("?", 1)[1] for text in texts if "?" in text]
    expected["iip.channel"] = [str(frame.channel) for frame in frames]
    expected["iip.length"] = [str(len(frame.data)) for frame in frames]
    if with_data:
        expected["iip.data"] = [frame.data.hex() for frame in frames]
    if ("iip.malformed" in values and bool(values["iip.malformed"])) != (end == "malformed"):
        raise Wrong(f"it ends with {end}, but iip.malformed is {values['iip.malformed']}")
    for field, of_frames in expected.items():
        # The fields of the head of a malformed frame may follow.
        shown = values[field][:len(of_frames)] if end == "malformed" else values[field]
        if field not in ("iip.status", "iip.data"):
            shown = shown[:len(of_frames)]
        if shown != of_frames:
            raise Wrong(f"{field}: {brief(shown)} instead of {brief(of_frames)}")


def brief(values):
    return [value if len(value) < 80 else value[:80] + ".." for value in values][:20]
