"""Traffic for the dissector: a writer of captures, recordings, and the vectors of docs/wire.md."""

import hashlib
import json
import random
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SERVER_PORT = 7070

RANDOM = random.Random(1)


class Connection:
    """The bytes of a connection: pieces with their direction (`c2s` or `s2c`), in order."""

    def __init__(self, name, pieces=(), server_port=SERVER_PORT):
        self.name, self.pieces, self.server_port = name, list(pieces), server_port

    def sent(self, direction):
        return b"".join(piece for sender, piece in self.pieces if sender == direction)

    def size(self):
        return sum(len(piece) for _, piece in self.pieces)

    def joined(self):
        """Returns the pieces with those of one direction that follow each other joined."""
        pieces = []
        for direction, piece in self.pieces:
            if pieces and pieces[-1][0] == direction:
                piece = pieces.pop()[1] + piece
            pieces.append((direction, piece))
        return pieces


# Captures -------------------------------------------------------------------------------------


def whole(piece):
    """Cuts only what is too long for a segment."""
    return [piece[at:at + 60000] for at in range(0, len(piece), 60000)]


def cuts(longest):
    """Returns a function that cuts at random boundaries."""

    def cut(piece):
        segments = []
        while piece:
            size = RANDOM.randint(1, longest)
            segments.append(piece[:size])
            piece = piece[size:]
        return segments

    return cut


class Capture:
    """A writer of a file in pcap format with IPv4 and TCP, without checksums."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.file.write(bytes.fromhex("d4c3b2a1 02000400 00000000 00000000 00000400 65000000"))
        self.micros = 0

    def packet(self, connection, direction, flags, payload, captured=None):
        client, server = connection.client, (bytes([10, 0, 0, 2]), connection.server_port)
        here, there = (client, server) if direction == "c2s" else (server, client)
        other = "s2c" if direction == "c2s" else "c2s"
        seqs = connection.seqs
        tcp = here[1].to_bytes(2, "big") + there[1].to_bytes(2, "big")
        tcp += seqs[direction].to_bytes(4, "big") + seqs[other].to_bytes(4, "big")
        tcp += bytes([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]) + payload
        ip = bytes([0x45, 0]) + (20 + len(tcp)).to_bytes(2, "big")
        ip += bytes([0, 0, 0, 0, 64, 6, 0, 0]) + here[0] + there[0]
        packet = ip + tcp
        self.micros += 10
        kept = packet[:captured]
        for number in (*divmod(self.micros, 1_000_000), len(kept), len(packet)):
            self.file.write(number.to_bytes(4, "little"))
        self.file.write(kept)
        seqs[direction] += len(payload) + (1 if flags & 3 else 0)

    def write(self, connections, cut=whole, captured=None):
        """Writes the connections one after the other, and numbers them."""
        for number, connection in enumerate(connections):
            connection.client = (bytes([10, 1, number >> 8, number & 255]), 40000 + number % 20000)
            connection.seqs = {"c2s": 1000, "s2c": 5000}
            self.packet(connection, "c2s", 0x02, b"")
            self.packet(connection, "s2c", 0x12, b"")
            for direction, piece in connection.pieces if cut is whole else connection.joined():
                for segment in cut(piece):
                    self.packet(connection, direction, 0x18, segment, captured)
            for direction in ("c2s", "s2c"):
                self.packet(connection, direction, 0x11, b"")
        self.file.close()


# Recordings -----------------------------------------------------------------------------------


def generated(rule):
    """Returns the bytes of a generator of a transcript."""
    if rule.startswith("hex:"):
        first, rest = rule[4:].split("+", 1)
        return bytes.fromhex(first) + generated(rest)
    if rule.startswith("text:"):
        text, repeat, count = re.fullmatch(r"text:(.*)\+repeat:(.):(\d+)", rule).groups()
        return (text + repeat * int(count)).encode()
    lin = re.fullmatch(r"lin:(\d+):(\d+)(?:\[(\d+)\.\.(\d+)\])?", rule)
    seed, length, start, end = lin.groups()
    at, end = (int(start), int(end)) if start else (0, int(length))
    period = 65536
    block = bytes((int(seed) + i + (i >> 8)) % 256 for i in range(period))
    repeated = block * (end // period + 1)
    return repeated[at:end]


def step_bytes(step):
    """Returns the bytes of a step of a transcript, or `None` if it does not describe them."""
    if "hex" in step:
        return bytes.fromhex(step["hex"])
    if "path_gen" in step:
        data = bytes([step["status"]]) + generated(step["path_gen"])
        data += bytes.fromhex(step["tail_hex"])
    elif step["body_gen"] == "see description":
        return None
    elif step["body_gen"] == "text":
        data = bytes.fromhex(step["head_hex"]) + step["body_text"].encode()
    else:
        data = bytes.fromhex(step["head_hex"]) + generated(step["body_gen"])
    assert hashlib.sha256(data).hexdigest() == step["sha256"], "a generator was not understood"
    return data


def transcript(file):
    """Returns the connections of a recording."""
    recorded, connections = json.loads(file.read_text()), {}
    for step in recorded["steps"]:
        if "dir" in step and (data := step_bytes(step)) is not None:
            name = f"{recorded['name']} {step['conn']}"
            connection = connections.setdefault(step["conn"], Connection(name))
            connection.pieces.append((step["dir"], data))
    return list(connections.values())


def transcripts():
    """Returns the connections of all recordings of the project."""
    files = sorted((ROOT / "tests/transcripts").glob("*.json"))
    assert len(files) > 100, "the transcripts were not found"
    return [connection for file in files for connection in transcript(file)]


# The document of the wire format --------------------------------------------------------------


def vectors(language):
    """Returns the vectors of docs/wire.md in blocks of this language: names and bytes, in order."""
    found = []
    for block in re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/wire.md").read_text(), re.S):
        for line in block.splitlines():
            name, value = (part.strip() for part in line.split("=", 1))
            data = b""
            # A text ends at a quote before a space or the end.
            for text, pair in re.findall(r'"(.*?)"(?= |$)|([0-9a-f]{2})(?= |$)', value):
                data += text.encode() if text else bytes.fromhex(pair)
            found.append((name, data))
    assert found, f"the vectors in blocks of {language} were not found"
    return found
