"""A second parser of frames and typed calls, which knows nothing of the dissector."""

from dataclasses import dataclass

MAX_PATH = 524287
MAX_DATA = 16 * 1024 * 1024


@dataclass
class Frame:
    status: int
    path: bytes = None
    channel: int = None
    data: bytes = None


def frame(status, path, channel, data):
    """Returns the bytes of a frame."""
    path = path.encode() if isinstance(path, str) else path
    data = data.encode() if isinstance(data, str) else data
    head = bytes([status]) + path + b"\0"
    return head + channel.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data


def varint(number):
    """Returns the bytes of a number."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def frames(stream):
    """Returns the frames of one direction, and how it ends: `end`, `incomplete` or `malformed`."""
    found = []
    while stream:
        if stream[0] == 8:
            found.append(Frame(8))
            return found, "end"
        if stream[0] > 8:
            return found, "malformed"
        nul = stream.find(0, 1)
        if (nul if nul > 0 else len(stream)) > MAX_PATH + 1:
            return found, "malformed"
        if nul < 0 or len(stream) < nul + 9:
            return found, "incomplete"
        channel = int.from_bytes(stream[nul + 1:nul + 5], "big")
        length = int.from_bytes(stream[nul + 5:nul + 9], "big")
        if not 0 < length <= MAX_DATA:
            return found, "malformed"
        data = stream[nul + 9:nul + 9 + length]
        if len(data) < length:
            return found, "incomplete"
        found.append(Frame(stream[0], stream[1:nul], channel, data))
        stream = stream[nul + 9 + length:]
    return found, "end"


class Bytes:
    """Bytes that are taken from the front."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        if len(taken) < count:
            raise ValueError("too few bytes")
        return taken

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def counted(self):
        return self.take(self.varint())


def envelope(message, is_request):
    """Returns the fields of an envelope by the names of the dissector, each with its values."""
    rest, fields = Bytes(message), {}
    first, codec = rest.take(2)
    fields["iip.rpc.codec"] = [codec & 63]
    fields["iip.rpc.compression"] = [codec >> 6]
    if first & 1:
        names = ["remaining_us"] if is_request else ["queued_us", "handler_us"]
        for name in names:
            fields["iip.rpc." + name] = [rest.varint()]
    if first & 2:
        count = rest.varint()
        entries = [(rest.counted(), rest.counted()) for _ in range(count)]
        fields["iip.rpc.metadata"] = [count]
        fields["iip.rpc.metadata.key"] = [key for key, _ in entries]
        values = [value for _, value in entries]
        fields["iip.rpc.metadata.value"] = [value for value in values if 0 not in value]
        fields["iip.rpc.metadata.value_bytes"] = [value for value in values if 0 in value]
    outcome = first >> 2 & 3
    if not is_request:
        fields["iip.rpc.outcome"] = [outcome]
    if outcome == 2:
        fields["iip.rpc.code"] = [rest.take(1)[0]]
        fields["iip.rpc.execution"] = [rest.take(1)[0]]
        fields["iip.rpc.message"] = [rest.counted()]
        details = rest.counted()
        if details:
            fields["iip.rpc.details"] = [details]
    else:
        if codec >> 6:
            fields["iip.rpc.decompressed_length"] = [rest.varint()]
        if rest.data:
            fields["iip.rpc.body"] = [rest.data]
    return fields


class Side:
    """What is known of the messages of one direction of a channel."""

    def __init__(self, frame):
        self.stream = frame.status in (0, 4) and frame.data[0] >= 0xf8 and len(frame.data) > 1
        self.records, self.accepted = b"", False


def typed(frames):
    """Returns the fields of typed calls in the frames of one direction, each with its values."""
    fields, sides = {}, {}

    def add(found):
        for name, values in found.items():
            fields.setdefault(name, []).extend(values)

    for frame in frames:
        if frame.status == 8 or frame.path.startswith(b"/sys/control"):
            continue
        if frame.status in (0, 1, 4, 5):
            sides[frame.channel] = Side(frame)
        side, is_request = sides[frame.channel], frame.status < 4
        if not side.stream:
            if 0x80 <= frame.data[0] < 0xc0:
                add(envelope(frame.data, is_request))
            continue
        add({"iip.stream.mark": [hex(frame.data[0])]})
        if frame.data[0] == 0xfe:
            side.stream = False
            add(envelope(frame.data[1:], is_request))
        if frame.data[0] in (0xf8, 0xfb):
            side.records += frame.data[1:]
        while len(side.records) >= 4:
            length = int.from_bytes(side.records[:4], "big") & 0x3fffffff
            if len(side.records) < 4 + length:
                break
            add({"iip.stream.message_length": [length]})
            if not side.accepted:
                add(envelope(side.records[4:4 + length], is_request))
            side.accepted = True
            side.records = side.records[4 + length:]
    return fields
