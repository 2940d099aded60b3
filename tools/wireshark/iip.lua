-- Wireshark dissector of IIP and of the typed calls in it. The formats are those of docs/wire.md
-- and iip-core/src/frame.rs; README.md describes the installation and the fields. It is one file,
-- because Wireshark runs every Lua file in its folder of plugins.

local iip = Proto("iip", "IIP")

local MAX_PATH = 524287
local MAX_SENT_PATH = 2048
local MAX_DATA = 16 * 1024 * 1024
-- Longer JSON is not given to the dissector of JSON.
local MAX_JSON = 1024 * 1024
-- Wireshark limits how many dissectors a packet may have.
local MAX_HANDED_OVER = 100
local CLOSE = 8
-- The column has no summaries of further frames of a packet beyond this length.
local MAX_INFO = 500

-- Names of numbers ---------------------------------------------------------------------------

local STATUSES = {
    [0] = "Request, first frame", [1] = "Request", [2] = "Request, further frame",
    [3] = "Request, last frame", [4] = "Reply, first frame", [5] = "Reply",
    [6] = "Reply, further frame", [7] = "Reply, last frame", [8] = "Close",
}
local OPERATIONS = {
    ["/sys/new_channel"] = "New channel", ["/sys/delete_channel"] = "Delete channel",
    ["/sys/hello"] = "Hello", ["/sys/ping"] = "Ping", ["/sys/control"] = "Control stream",
    ["/sys/health/check"] = "Health check", ["/sys/health/watch"] = "Health watch",
    ["/sys/schema/fingerprint"] = "Schema fingerprint", ["/sys/schema/list"] = "Schema list",
    ["/sys/schema/describe"] = "Schema description",
}
local CODES = {
    [0] = "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}
local IN_BAND_CODES = {
    [-1] = "handler failed", [100] = "packet uncompleted", [101] = "handler gave no data",
    [102] = "no handler for the path", [103] = "request timeout", [104] = "unknown",
    [105] = "no handler for the reply", [106] = "no further channel",
    [107] = "no further connection of the server", [108] = "no further connection of the client",
}
for code, name in pairs(CODES) do IN_BAND_CODES[code] = name end
local CODECS = {
    [0] = "raw", "bincode", "postcard", "JSON", "MessagePack", "protobuf",
}
local COMPRESSIONS = { [0] = "none", "zstd", "lz4" }
local OUTCOMES = { [0] = "value", "error of the method", "status" }
local EXECUTIONS = { [0] = "may have executed", "not executed" }
local MARKS = {
    [0xf8] = "data", [0xf9] = "window update", [0xfa] = "blocked", [0xfb] = "last",
    [0xfc] = "cancel", [0xfd] = "over", [0xfe] = "reply",
}
local CONTROLS = { [0] = "no meaning", "cancel", "going away", "one-way channel" }

-- Fields -------------------------------------------------------------------------------------

local field = {
    status = ProtoField.uint8("iip.status", "Status", base.DEC, STATUSES),
    path = ProtoField.string("iip.path", "Path"),
    query = ProtoField.string("iip.query", "Query"),
    parameter = ProtoField.string("iip.query.parameter", "Parameter"),
    http_headers = ProtoField.string("iip.http_headers", "HTTP headers"),
    channel = ProtoField.uint32("iip.channel", "Channel"),
    length = ProtoField.uint32("iip.length", "Length"),
    data = ProtoField.bytes("iip.data", "Data"),
    message_path = ProtoField.string("iip.message_path", "Path of the message"),
    operation = ProtoField.string("iip.operation", "Operation"),
    code = ProtoField.int32("iip.code", "In-band code", base.DEC, IN_BAND_CODES),
    request_in = ProtoField.framenum("iip.request_in", "Request in", base.NONE, frametype.REQUEST),
    reply_in = ProtoField.framenum("iip.reply_in", "Reply in", base.NONE, frametype.RESPONSE),
    response_time = ProtoField.relative_time("iip.response_time", "Response time"),
    continuation = ProtoField.bytes("iip.continuation", "Continuation of a frame"),
    undecoded = ProtoField.bytes("iip.undecoded", "Undecoded bytes"),

    control_type = ProtoField.uint8("iip.control.type", "Control message", base.DEC, CONTROLS),
    control_length = ProtoField.uint8("iip.control.length", "Length"),
    control_channel = ProtoField.uint32("iip.control.channel", "Channel"),
    control_data = ProtoField.bytes("iip.control.data", "Data"),

    mark = ProtoField.uint8("iip.stream.mark", "Mark", base.HEX, MARKS),
    credit = ProtoField.uint32("iip.stream.credit", "Credit"),
    record_head = ProtoField.bytes("iip.stream.record_head", "Part of the head of a record"),
    message_compression = ProtoField.uint32("iip.stream.compression", "Compression", base.DEC,
        COMPRESSIONS, 0xc0000000),
    message_length = ProtoField.uint32("iip.stream.message_length", "Message length", base.DEC,
        nil, 0x3fffffff),
    message = ProtoField.bytes("iip.stream.message", "Message"),

    version = ProtoField.uint8("iip.rpc.version", "Version", base.DEC, nil, 0x30),
    request_flags = ProtoField.uint8("iip.rpc.request_flags", "Flags", base.HEX, nil, 0x0f),
    reply_flags = ProtoField.uint8("iip.rpc.reply_flags", "Flags", base.HEX, nil, 0x03),
    outcome = ProtoField.uint8("iip.rpc.outcome", "Outcome", base.DEC, OUTCOMES, 0x0c),
    codec = ProtoField.uint8("iip.rpc.codec", "Codec", base.DEC, CODECS, 0x3f),
    compression = ProtoField.uint8("iip.rpc.compression", "Compression", base.DEC, COMPRESSIONS,
        0xc0),
    remaining = ProtoField.uint64("iip.rpc.remaining_us", "Remaining time (µs)"),
    queued = ProtoField.uint64("iip.rpc.queued_us", "Time before the handler (µs)"),
    ran = ProtoField.uint64("iip.rpc.handler_us", "Time of the handler (µs)"),
    metadata = ProtoField.uint64("iip.rpc.metadata", "Metadata entries"),
    metadata_length = ProtoField.uint64("iip.rpc.metadata.length", "Length"),
    metadata_key = ProtoField.string("iip.rpc.metadata.key", "Key"),
    metadata_value = ProtoField.string("iip.rpc.metadata.value", "Value"),
    metadata_bytes = ProtoField.bytes("iip.rpc.metadata.value_bytes", "Value"),
    rpc_code = ProtoField.uint8("iip.rpc.code", "Code", base.DEC, CODES),
    execution = ProtoField.uint8("iip.rpc.execution", "Execution", base.DEC, EXECUTIONS),
    message_size = ProtoField.uint64("iip.rpc.message.length", "Length of the message"),
    text = ProtoField.string("iip.rpc.message", "Message"),
    details_size = ProtoField.uint64("iip.rpc.details.length", "Length of the details"),
    details = ProtoField.bytes("iip.rpc.details", "Details"),
    decompressed = ProtoField.uint64("iip.rpc.decompressed_length", "Decompressed length"),
    body = ProtoField.bytes("iip.rpc.body", "Body"),
}
iip.fields = field

local problem = {
    malformed = ProtoExpert.new("iip.malformed", "Malformed frame", expert.group.PROTOCOL,
        expert.severity.ERROR),
    envelope = ProtoExpert.new("iip.rpc.malformed", "Malformed message", expert.group.PROTOCOL,
        expert.severity.ERROR),
    sequence = ProtoExpert.new("iip.unexpected_frame", "Unexpected frame",
        expert.group.SEQUENCE, expert.severity.WARN),
    pairing = ProtoExpert.new("iip.unexpected_reply", "Unexpected reply", expert.group.SEQUENCE,
        expert.severity.WARN),
    partial = ProtoExpert.new("iip.partial", "Frame not captured completely",
        expert.group.REASSEMBLE, expert.severity.NOTE),
    failure = ProtoExpert.new("iip.failure", "Failed call", expert.group.RESPONSE_CODE,
        expert.severity.NOTE),
}
iip.experts = problem

local tcp_stream = Field.new("tcp.stream")

-- Other dissectors ---------------------------------------------------------------------------

-- Gives bytes to the dissector of this name. An error in it is reported in its own part of the
-- tree.
local function hand_over(name, tvb, ctx)
    local number = tonumber(ctx.pinfo.private["iip.handed_over"] or "0") + 1
    if number > MAX_HANDED_OVER then return end
    ctx.pinfo.private["iip.handed_over"] = tostring(number)
    local known, dissector = pcall(Dissector.get, name)
    if known and dissector then pcall(dissector.call, dissector, tvb, ctx.pinfo, ctx.root) end
end

-- Returns `true` if these bytes may be an object or array of JSON. The dissector of JSON reads
-- nothing else.
local function like_json(range)
    if range:len() > MAX_JSON then return false end
    local raw = range:raw()
    return raw:find("^%s*{.*}%s*$") ~= nil or raw:find("^%s*%[.*%]%s*$") ~= nil
end

-- Gives the body to the dissector of its codec, if there is one.
local function hand_over_body(codec, range, ctx)
    if codec == 3 then
        if like_json(range) then hand_over("json", range:tvb(), ctx) end
    elseif codec == 5 then
        hand_over("protobuf", range:tvb(), ctx)
    end
end

-- Returns text for labels: without control characters, and in ASCII if it is not UTF-8.
local function label_text(range)
    local raw = range:raw()
    if range:string(ENC_UTF_8) ~= raw then raw = raw:gsub("[\128-\255]", "?") end
    return (raw:gsub("%c", "?"))
end

-- Reading within bounds ----------------------------------------------------------------------

local Reader = {}
Reader.__index = Reader

local function reader(range)
    return setmetatable({ range = range, pos = 0, len = range:len() }, Reader)
end

function Reader:left() return self.len - self.pos end

-- Returns the next `count` bytes, which must exist and be at least one.
function Reader:take(count)
    local taken = self.range(self.pos, count)
    self.pos = self.pos + count
    return taken
end

-- Returns a varint and its bytes, or `nil` if there is none of the shortest form.
function Reader:varint()
    local value = UInt64(0)
    for index = 0, math.min(self:left(), 10) - 1 do
        local byte = self.range(self.pos + index, 1):uint()
        if index == 9 and byte > 1 then return nil end
        value = value:bor(UInt64(byte % 128):lshift(7 * index))
        if byte < 128 then
            if byte == 0 and index > 0 then return nil end
            return value, self:take(index + 1)
        end
    end
    return nil
end

-- Adds a varint to `tree` and returns it as a number, or `nil` if there is none.
function Reader:add_varint(tree, of)
    local value, range = self:varint()
    if not value then return nil end
    tree:add(of, range, value)
    return value:tonumber()
end

-- Adds a varint and as many bytes: as text, or in the field `bytes_of` if they contain a NUL.
-- Returns them as text, or `nil` if there are too few.
function Reader:add_counted(tree, length_of, text_of, bytes_of)
    local length = self:add_varint(tree, length_of)
    if not length or length > self:left() then return nil end
    if length == 0 then
        if text_of then tree:add(text_of, self.range(self.pos - 1, 1), "") end
        return ""
    end
    local bytes = self:take(length)
    if bytes_of and not (text_of and not bytes:raw():find("\0", 1, true)) then
        tree:add(bytes_of, bytes)
    else
        tree:add_packet_field(text_of, bytes, ENC_UTF_8 + ENC_NA)
    end
    return label_text(bytes)
end

-- Envelopes ----------------------------------------------------------------------------------

local function add_metadata(bytes, tree)
    local value, range = bytes:varint()
    if not value then return false end
    local entries = tree:add(field.metadata, range, value)
    -- Each entry takes at least two bytes, so the loop ends with the message.
    for _ = 1, value:tonumber() do
        if not bytes:add_counted(entries, field.metadata_length, field.metadata_key) then
            return false
        end
        if not bytes:add_counted(entries, field.metadata_length, field.metadata_value,
            field.metadata_bytes) then
            return false
        end
    end
    return true
end

-- Adds a status. Returns `nil`, or what is wrong with it.
local function add_status(bytes, tree, ctx)
    if bytes:left() < 2 then return "the status is incomplete" end
    local code = bytes:take(1)
    local item = tree:add(field.rpc_code, code)
    tree:add(field.execution, bytes:take(1))
    local message = bytes:add_counted(tree, field.message_size, field.text)
    if not message then return "the message of the status is incomplete" end
    local name = CODES[code:uint()] or "UNKNOWN"
    item:add_proto_expert_info(problem.failure, name .. ": " .. message)
    ctx.outcome = name
    if not bytes:add_counted(tree, field.details_size, nil, field.details) then
        return "the details of the status are incomplete"
    end
    if bytes:left() > 0 then
        tree:add(field.undecoded, bytes:take(bytes:left()))
        return "bytes follow the status"
    end
    return nil
end

-- Adds a value, which may be compressed, to the end of `bytes`.
local function add_body(bytes, tree, of, codec, compression, ctx)
    if compression > 0 then
        if not bytes:add_varint(tree, field.decompressed) then
            return "the decompressed length is incomplete"
        end
    end
    if bytes:left() == 0 then return nil end
    local body = bytes:take(bytes:left())
    tree:add(of, body)
    if compression == 0 and ctx.whole then hand_over_body(codec, body, ctx) end
    return nil
end

-- Adds the parts of an envelope. Returns what is wrong with it, or `nil` and the codec.
local function add_envelope_parts(bytes, tree, is_request, ctx)
    local first = bytes:take(1)
    local flags = first:uint() % 16
    local outcome = is_request and 0 or math.floor(flags / 4)
    tree:add(field.version, first)
    tree:add(is_request and field.request_flags or field.reply_flags, first)
    if not is_request then tree:add(field.outcome, first) end
    if first:uint() >= 0x90 then return "the version is not known" end
    if is_request and flags > 3 then return "a flag is not assigned" end
    if outcome == 3 then return "the outcome is not assigned" end
    if bytes:left() == 0 then return "the codec is missing" end
    local codec_byte = bytes:take(1)
    tree:add(field.codec, codec_byte)
    tree:add(field.compression, codec_byte)
    local codec, compression = codec_byte:uint() % 64, math.floor(codec_byte:uint() / 64)
    if flags % 2 == 1 then
        if is_request then
            if not bytes:add_varint(tree, field.remaining) then
                return "the remaining time is incomplete"
            end
        elseif not (bytes:add_varint(tree, field.queued) and bytes:add_varint(tree, field.ran)) then
            return "the timing is incomplete"
        end
    end
    if flags % 4 >= 2 and not add_metadata(bytes, tree) then return "the metadata is incomplete" end
    if outcome == 2 then return add_status(bytes, tree, ctx) end
    if outcome == 1 then
        tree:add_proto_expert_info(problem.failure, "error of the method")
        ctx.outcome = "error"
    end
    return add_body(bytes, tree, field.body, codec, compression, ctx), codec
end

-- Adds an envelope and returns its codec.
local function add_envelope(range, tree, is_request, ctx)
    local title = is_request and "Envelope of a request" or "Envelope of a reply"
    local envelope = tree:add(iip, range, title)
    local bytes = reader(range)
    local wrong, codec = add_envelope_parts(bytes, envelope, is_request, ctx)
    if wrong then
        if bytes:left() > 0 then envelope:add(field.undecoded, bytes:take(bytes:left())) end
        -- What is missing may be in the next frame.
        if ctx.whole then envelope:add_proto_expert_info(problem.envelope, wrong) end
    end
    return codec
end

-- Adds a whole message, or the beginning of one of several frames.
local function add_message(range, tree, is_request, ctx)
    local first = range(0, 1):uint()
    if first >= 0x80 and first < 0xc0 then
        add_envelope(range, tree, is_request, ctx)
        return
    end
    if not (ctx.whole and like_json(range)) then return end
    local start = range:raw(0, math.min(range:len(), 32))
    local code = not is_request and tonumber(start:match('^{"code":(-?%d+)[,}]'))
    if code and math.abs(code) < 2 ^ 31 then
        local item = tree:add(field.code, range, code)
        if code ~= 0 then
            ctx.outcome = IN_BAND_CODES[code] or ("code " .. code)
            item:add_proto_expert_info(problem.failure, ctx.outcome)
        end
    end
    hand_over("json", range:tvb(), ctx)
end

-- Streams ------------------------------------------------------------------------------------

-- The state of the records of one direction: `head` are the bytes of an incomplete head, `left` is
-- the number of bytes that the message still has, `index` the number of records that began.
local function no_records() return { head = "", left = 0, index = 0 } end

-- Adds the records, or parts of them, in these bytes of a stream. Returns the state after them.
local function add_records(range, tree, is_request, start, ctx)
    local state = { head = start.head, left = start.left, index = start.index, codec = start.codec }
    local bytes = reader(range)
    while bytes:left() > 0 do
        if state.left > 0 then
            local part = bytes:take(math.min(state.left, bytes:left()))
            tree:add(field.message, part):append_text(" (continued)")
            state.left = state.left - part:len()
        elseif #state.head > 0 or bytes:left() < 4 then
            local part = bytes:take(math.min(4 - #state.head, bytes:left()))
            state.head = state.head .. part:raw()
            tree:add(field.record_head, part)
            if #state.head == 4 then
                local a, b, c, d = state.head:byte(1, 4)
                local head = ((a * 256 + b) * 256 + c) * 256 + d
                tree:add(field.message_compression, part, head)
                tree:add(field.message_length, part, head)
                state.left = head % 2 ^ 30
                state.head = ""
                state.index = state.index + 1
            end
        else
            local head = bytes:take(4)
            tree:add(field.message_compression, head)
            tree:add(field.message_length, head)
            local compression = math.floor(head:uint() / 2 ^ 30)
            local length = head:uint() % 2 ^ 30
            local index = state.index
            state.index = index + 1
            if length > bytes:left() then
                state.left = length
            elseif length > 0 then
                local message = bytes:take(length)
                if index == 0 then
                    state.codec = add_envelope(message, tree, is_request, ctx)
                else
                    local wrong = add_body(reader(message), tree, field.message, state.codec,
                        compression, ctx)
                    if wrong then tree:add_proto_expert_info(problem.envelope, wrong) end
                end
            end
        end
    end
    return state
end

-- Adds the data of a frame of a stream, which begins with a mark. Returns the state of the records
-- after it.
local function add_stream(range, tree, is_request, start, ctx)
    local mark = range(0, 1):uint()
    local item = tree:add(field.mark, range(0, 1))
    ctx.mark = MARKS[mark]
    local rest = range:len() > 1 and range(1) or nil
    if mark == 0xf8 or mark == 0xfb then
        return rest and add_records(rest, tree, is_request, start, ctx) or start
    elseif mark == 0xf9 and rest and rest:len() == 4 then
        tree:add(field.credit, rest)
    elseif mark == 0xfe and rest then
        ctx.whole = ctx.ends
        add_message(rest, tree, is_request, ctx)
    else
        if rest then tree:add(field.undecoded, rest) end
        if rest or mark == 0xf9 or mark == 0xff then
            item:add_proto_expert_info(problem.envelope, "the mark has other data")
        end
    end
    return start
end

-- Control stream -----------------------------------------------------------------------------

-- Adds the control messages of a frame. Returns the channel that one of them makes one-way.
local function add_control(range, tree, ctx)
    local bytes, one_way, names = reader(range), nil, {}
    while bytes:left() > 0 do
        local kind = bytes:take(1)
        tree:add(field.control_type, kind)
        local length = bytes:left() > 0 and bytes:take(1)
        if length then tree:add(field.control_length, length) end
        if not length or length:uint() > bytes:left() then
            if bytes:left() > 0 then tree:add(field.undecoded, bytes:take(bytes:left())) end
            tree:add_proto_expert_info(problem.envelope, "the control message is incomplete")
            break
        end
        table.insert(names, CONTROLS[kind:uint()] or ("type " .. kind:uint()))
        if length:uint() == 4 then
            local channel = bytes:take(4)
            tree:add(field.control_channel, channel)
            if kind:uint() == 3 then one_way = channel:uint() end
        elseif length:uint() > 0 then
            tree:add(field.control_data, bytes:take(length:uint()))
        end
    end
    ctx.mark = table.concat(names, ", ")
    return one_way
end

-- Connections --------------------------------------------------------------------------------

-- What the first pass over the packets has learnt: connections by the number of their stream, and
-- pieces (frames and undecoded bytes) by the number of their packet and their position in it.
local connections, pieces = {}, {}

function iip.init() connections, pieces = {}, {} end

local function connection_of(pinfo)
    local stream = tcp_stream()
    local key = stream and stream.value or 0
    local connection = connections[key]
    if not connection then
        connection = { channels = {}, sides = {} }
        connections[key] = connection
    end
    return connection
end

local function key_of(addr, port) return tostring(addr) .. " " .. port end

local function side_of(connection, pinfo)
    local key = key_of(pinfo.src, pinfo.src_port)
    local side = connection.sides[key]
    if not side then
        side = { key = key, skip = 0 }
        connection.sides[key] = side
    end
    return side
end

local function channel_of(connection, id)
    local channel = connection.channels[id]
    if not channel then
        channel = { waiting = {}, first = 1, last = 0, requests = {}, replies = {} }
        connection.channels[id] = channel
    end
    return channel
end

-- Returns the path as a Go server labels its reply: decoded, without host, query and fragment.
local function label_of(path)
    local label = path:gsub("[?#].*$", "")
    label = label:gsub("^%a[%w+.-]*://[^/]*", ""):gsub("^//[^/]*", "")
    label = label:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    return label ~= "" and label or "/"
end

-- Links a reply with the oldest request of its channel that has none.
local function pair(channel, piece)
    local request = channel.waiting[channel.first]
    if not request then
        piece.pairing = "no request without a reply was captured on this channel"
        return
    end
    channel.waiting[channel.first] = nil
    channel.first = channel.first + 1
    piece.request, request.reply = request, piece
    if piece.path ~= request.path and piece.path ~= label_of(request.path) then
        piece.pairing = "the path of the request is " .. request.shown
    end
end

-- Checks whether this side may send this frame now, and notes what it begins or ends.
local function follow(connection, side, head, piece)
    local is_request = head.status < 4
    local position = head.status % 4
    local channel = channel_of(connection, head.channel)
    local state = is_request and channel.requests or channel.replies
    local begins = position < 2
    if is_request ~= (side.key == connection.client) then
        piece.sequence = "this side does not send " .. (is_request and "requests" or "replies")
    elseif begins and state.open then
        piece.sequence = "the message before it on this channel has not ended"
    elseif not begins and not state.open then
        piece.sequence = "no message of several frames has begun on this channel"
    end
    state.open = position == 0 or position == 2
    if begins then
        state.path, state.shown = piece.path, piece.shown
        state.records, state.in_reply = no_records(), false
        if is_request then
            channel.stream = position == 0 and head.first == 0xf8 and head.length > 1
            if connection.one_way ~= head.channel then
                channel.last = channel.last + 1
                channel.waiting[channel.last] = piece
            end
        else
            pair(channel, piece)
        end
    end
    return channel, state
end

-- Chooses how the data of a frame is read.
local function form_of(head, channel, state)
    if (state.path or ""):match("^[^?]*") == "/sys/control" then return "control" end
    local position = head.status % 4
    if position == 1 then return "message" end
    -- Of a call whose beginning was not captured, the first byte decides.
    if channel.stream ~= false and not state.in_reply then
        if head.first >= 0xf8 then
            state.in_reply = head.first == 0xfe
            return "stream"
        end
        -- A reply that begins without a mark has none.
        if head.status == 4 then state.in_reply = true end
    end
    return position == 0 and "message" or "more"
end

-- Frames -------------------------------------------------------------------------------------

-- Reads the head of the frame at `offset`. The result has `missing` if bytes are missing,
-- `wrong` if it is no frame, and `size` otherwise.
local function read_head(tvb, offset)
    local captured = tvb:captured_len() - offset
    local raw = tvb:raw(offset, math.min(captured, 4096))
    local head = { status = raw:byte(1) }
    if head.status > CLOSE then
        head.wrong = "the status " .. head.status .. " is not assigned"
        return head
    end
    if head.status == CLOSE then
        -- The status closes the connection as soon as it is read. A sender of whole frames adds
        -- an empty path, channel 0 and length 0.
        head.path_len, head.size = 0, 1
        if raw:sub(2, 10) == ("\0"):rep(9) then head.size = 10 end
        return head
    end
    local nul = raw:find("\0", 2, true)
    if not nul and captured > #raw then
        raw = tvb:raw(offset, math.min(captured, MAX_PATH + 10))
        nul = raw:find("\0", 2, true)
    end
    if (nul or #raw + 1) > MAX_PATH + 2 then
        head.wrong = "the path has more than " .. MAX_PATH .. " bytes"
        return head
    end
    head.path_len = nul and nul - 2
    if not nul or captured < nul + 8 then
        head.missing = true
        return head
    end
    head.channel, head.length = tvb(offset + nul, 4):uint(), tvb(offset + nul + 4, 4):uint()
    if head.length == 0 then head.wrong = "the length is 0" end
    if head.length > MAX_DATA then head.wrong = "the length exceeds 16 MiB" end
    head.data_at, head.size = nul + 8, nul + 8 + head.length
    head.first = captured > nul + 8 and tvb(offset + nul + 8, 1):uint() or nil
    return head
end

local function add_http_headers(value, tree, ctx)
    local standard = value:gsub("-", "+"):gsub("_", "/")
    local json = ByteArray.new(standard, true):base64_decode()
    if json:len() == 0 then return end
    local tvb = json:tvb("HTTP headers")
    tree:add_packet_field(field.http_headers, tvb:range(), ENC_UTF_8 + ENC_NA)
    if like_json(tvb:range()) then hand_over("json", tvb, ctx) end
end

-- Adds text of any length, of which the item covers `covered` bytes. Wireshark replaces what is not
-- UTF-8.
local function add_text(tree, of, range, length, covered)
    local item
    if length > 0 then
        item = tree:add_packet_field(of, range(0, length), ENC_UTF_8 + ENC_NA)
    else
        item = tree:add(of, range(0, covered), "")
    end
    item:set_len(covered)
    return item
end

-- Adds the path field with the NUL after it.
local function add_path(range, tree, ctx)
    local raw = range:raw(0, range:len() - 1)
    local mark = raw:find("?", 1, true)
    local length = mark and mark - 1 or #raw
    -- The item also covers the byte after the path: a question mark or the NUL.
    local item = add_text(tree, field.path, range, length, length + 1)
    if #raw > MAX_SENT_PATH then
        item:add_proto_expert_info(problem.sequence, "senders use at most 2048 bytes")
    end
    if not mark then return end
    local query = range(mark)
    local parameters = add_text(tree, field.query, query, query:len() - 1, query:len())
    for at, parameter, after in raw:sub(mark + 1):gmatch("()([^&]*)&?()") do
        local covered = after - at
        -- The last one also covers the NUL.
        if at + covered > #raw - mark then covered = query:len() - at + 1 end
        add_text(parameters, field.parameter, query(at - 1, covered), #parameter, covered)
        -- A Go adapter names it `?__http_hdr__` if the target ends with `?`.
        local headers = parameter:match("^%??__http_hdr__=(.+)$")
        if headers then add_http_headers(headers, parameters, ctx) end
        if at + covered > query:len() then break end
    end
end

-- Adds the links between a request and its reply, and what was wrong in the order of frames.
local function add_links(piece, tree, item)
    local function generated(of, value)
        tree:add(of, value):set_generated()
    end
    generated(field.message_path, piece.message_path)
    if piece.operation then generated(field.operation, piece.operation) end
    if piece.reply then generated(field.reply_in, piece.reply.number) end
    if piece.request then
        generated(field.request_in, piece.request.number)
        local seconds = math.max(piece.time - piece.request.time, 0)
        local whole = math.floor(seconds)
        generated(field.response_time, NSTime.new(whole, math.floor((seconds - whole) * 1e9)))
    end
    if piece.sequence then item:add_proto_expert_info(problem.sequence, piece.sequence) end
    if piece.pairing then item:add_proto_expert_info(problem.pairing, piece.pairing) end
end

-- Adds the data of a frame in the form that the first pass has chosen.
local function add_data(range, tree, piece, ctx)
    local data = tree:add(field.data, range)
    local is_request, position = piece.status < 4, piece.status % 4
    ctx.ends = position % 2 == 1
    ctx.whole = position == 1
    if piece.form == "message" then
        add_message(range, data, is_request, ctx)
    elseif piece.form == "stream" then
        ctx.whole = true
        return add_stream(range, data, is_request, piece.records, ctx)
    elseif piece.form == "control" then
        piece.one_way = add_control(range, data, ctx)
    end
    return nil
end

-- Adds a frame, of which at least the head was captured. `first_pass` has the side that sent it.
local function add_frame(tvb, offset, head, piece, tree, ctx, first_pass)
    local size = math.min(head.size, tvb:captured_len() - offset)
    local frame = tree:add(iip, tvb(offset, size))
    local status = frame:add(field.status, tvb(offset, 1))
    if head.status == CLOSE then
        if size == 10 then
            frame:add(field.path, tvb(offset + 1, 1), "")
            frame:add(field.channel, tvb(offset + 2, 4))
            frame:add(field.length, tvb(offset + 6, 4))
        end
        frame:set_text("IIP, Close")
        return "Close"
    end
    add_path(tvb(offset + 1, head.path_len + 1), frame, ctx)
    frame:add(field.channel, tvb(offset + head.data_at - 8, 4))
    local length = frame:add(field.length, tvb(offset + head.data_at - 4, 4))
    if head.wrong then
        length:add_proto_expert_info(problem.malformed, head.wrong)
        frame:set_text("IIP, malformed")
        return "Malformed"
    end
    local state
    if first_pass then
        piece.path = tvb:raw(offset + 1, head.path_len)
        piece.shown = head.path_len > 0
            and label_text(tvb(offset + 1, math.min(head.path_len, 200))):match("^[^?]*") or ""
        local channel
        channel, state = follow(first_pass.connection, first_pass.side, head, piece)
        -- Further frames may have no path.
        piece.message_path = state.shown or piece.shown
        piece.operation = OPERATIONS[piece.message_path]
        if head.first then piece.form = form_of(head, channel, state) end
        piece.records = state.records or no_records()
    end
    add_links(piece, frame, status)
    local available = size - head.data_at
    if available == head.length then
        local records = add_data(tvb(offset + head.data_at, available), frame, piece, ctx)
        if first_pass then
            state.records = records or state.records
            first_pass.connection.one_way = piece.one_way or first_pass.connection.one_way
        end
    else
        if available > 0 then frame:add(field.data, tvb(offset + head.data_at, available)) end
        frame:add_proto_expert_info(problem.partial)
    end
    local name = piece.operation or piece.message_path
    local text = STATUSES[head.status] .. " " .. name .. " on " .. head.channel
        .. (ctx.mark and ", " .. ctx.mark or "") .. (ctx.outcome and ", " .. ctx.outcome or "")
    frame:set_text("IIP, " .. text)
    return text
end

-- Adds bytes that are no frame.
local function add_undecoded(tvb, offset, tree, text, is_malformed)
    local frame = tree:add(iip, tvb(offset), "IIP, " .. text)
    frame:add(field.undecoded, tvb(offset))
    if is_malformed then frame:add_proto_expert_info(problem.malformed, text) end
end

-- Notes that a piece ends at `stop`, which may be after the captured bytes.
local function ends_at(stop, tvb, side)
    side.skip = math.max(stop - tvb:reported_len(), 0)
    if stop >= tvb:captured_len() and stop < tvb:reported_len() then
        side.broken = "bytes that were not captured"
    end
end

-- Notes what a head says about the connection.
local function learn(head, offset, tvb, pinfo, connection, side)
    if head.wrong or head.missing then
        side.broken = "a malformed frame"
    elseif head.status == CLOSE then
        side.broken = "the close of the connection"
    else
        ends_at(offset + head.size, tvb, side)
    end
    if connection.client then return end
    local from_client = head.status < 4
    if pinfo.match_uint == pinfo.dst_port then from_client = true end
    if pinfo.match_uint == pinfo.src_port then from_client = false end
    connection.client = from_client and side.key or key_of(pinfo.dst, pinfo.dst_port)
end

-- Adds the frame, or the other bytes, at `offset`. Returns their size and a summary, or `nil` if
-- more bytes are needed.
local function add_piece(tvb, offset, tree, ctx)
    local pinfo = ctx.pinfo
    local left = tvb:captured_len() - offset
    local number = tonumber(pinfo.private["iip.pieces"] or "0") + 1
    local key = pinfo.number .. "." .. number
    local piece, first_pass = pieces[key], nil
    if not piece then
        local connection = connection_of(pinfo)
        local side = side_of(connection, pinfo)
        piece = { number = pinfo.number, time = pinfo.rel_ts }
        piece.broken, piece.skip = side.broken, side.skip
        first_pass = { connection = connection, side = side }
    end
    local in_frame = piece.skip == 0 and not piece.broken
    local head = in_frame and read_head(tvb, offset)
    local incomplete = head and not head.wrong and (head.missing or head.size > left)
    if incomplete and pinfo.can_desegment > 0 then
        pinfo.desegment_offset = offset
        pinfo.desegment_len = head.missing and DESEGMENT_ONE_MORE_SEGMENT or head.size - left
        return nil
    end
    pieces[key] = piece
    pinfo.private["iip.pieces"] = tostring(number)
    if piece.skip > 0 then
        local size = math.min(piece.skip, left)
        if first_pass then ends_at(offset + piece.skip, tvb, first_pass.side) end
        tree:add(iip, tvb(offset, size), "IIP, continuation of a frame")
            :add(field.continuation, tvb(offset, size))
        return size, "Continuation"
    end
    if piece.broken then
        add_undecoded(tvb, offset, tree, "bytes after " .. piece.broken)
        return left, "Undecoded"
    end
    piece.status = head.status
    if first_pass then
        learn(head, offset, tvb, pinfo, first_pass.connection, first_pass.side)
    end
    if head.missing then
        add_undecoded(tvb, offset, tree, "head of a frame", false)
        return left, "Head of a frame"
    end
    if head.wrong and not head.data_at then
        add_undecoded(tvb, offset, tree, head.wrong, true)
        return left, "Malformed"
    end
    if head.wrong then head.size = head.data_at end
    return head.size, add_frame(tvb, offset, head, piece, tree, ctx, first_pass)
end

function iip.dissector(tvb, pinfo, tree)
    local offset, total = 0, tvb:captured_len()
    while offset < total do
        local ctx = { pinfo = pinfo, root = tree }
        local size, summary = add_piece(tvb, offset, tree, ctx)
        if not size then break end
        local before = pinfo.private["iip.info"]
        if not before or #before < MAX_INFO then
            pinfo.private["iip.info"] = before and before .. "; " .. summary or summary
        end
        offset = math.min(offset + size, total)
    end
    -- Dissectors of data have set these columns to their own texts.
    if pinfo.private["iip.info"] then
        pinfo.cols.protocol:set("IIP")
        pinfo.cols.info:set(pinfo.private["iip.info"])
    end
    return total
end

-- Registration -------------------------------------------------------------------------------

-- Returns `true` if these bytes begin with the head of a frame.
local function begins_with_frame(tvb)
    if tvb:captured_len() < 12 then return false end
    local head = read_head(tvb, 0)
    if head.wrong or head.missing or not head.data_at then return false end
    local path = tvb:raw(1, head.path_len)
    return #path <= MAX_SENT_PATH and path:find("^/[^%c ]+$") ~= nil
end

-- Accepts connections on other ports by the head of their first frame.
local function accept_tcp(tvb, pinfo, tree)
    if not begins_with_frame(tvb) then return false end
    pinfo.conversation = iip
    iip.dissector(tvb, pinfo, tree)
    return true
end

-- The same for decrypted data, whose conversation is that of TLS.
local function accept_tls(tvb, pinfo, tree)
    if not begins_with_frame(tvb) then return false end
    iip.dissector(tvb, pinfo, tree)
    return true
end

iip.prefs.ports = Pref.range("TCP ports", "7070",
    "Ports of IIP servers. Servers on other ports are recognized by their first frame.", 65535)
iip.prefs.tls_ports = Pref.range("TLS ports", "", "Ports of IIP servers with TLS.", 65535)

local tcp_ports, tls_ports = DissectorTable.get("tcp.port"), DissectorTable.get("tls.port")
local tls = Dissector.get("tls")

-- Registers a dissector for the ports of a preference in place of those that it had before.
local function change_ports(tables, before, now)
    for ports, dissector in pairs(tables) do
        if before ~= "" then ports:remove(before, dissector) end
        if now ~= "" then ports:add(now, dissector) end
    end
end

local registered = { ports = "", tls_ports = "" }

local function register_ports()
    for name, tables in pairs({
        ports = { [tcp_ports] = iip },
        tls_ports = { [tcp_ports] = tls, [tls_ports] = iip },
    }) do
        if registered[name] ~= iip.prefs[name] then
            change_ports(tables, registered[name], iip.prefs[name])
            registered[name] = iip.prefs[name]
        end
    end
end

tcp_ports:add_for_decode_as(iip)
tls_ports:add_for_decode_as(iip)
iip:register_heuristic("tcp", accept_tcp)
iip:register_heuristic("tls", accept_tls)
iip.prefs_changed = register_ports
register_ports()
