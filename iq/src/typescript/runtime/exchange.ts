/** The time in which a call may run. Its end releases what the call holds. */
class Scope {
  readonly #controller = new AbortController();
  readonly #signal: AbortSignal | undefined;
  readonly #timeout: number | undefined;
  readonly #abort = () => this.#controller.abort(this.#signal?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #isWatched = false;

  constructor(signal: AbortSignal | undefined, timeout: number | undefined) {
    this.#signal = signal;
    this.#timeout = timeout === Infinity ? undefined : timeout;
    if (signal?.aborted) this.#abort();
    signal?.addEventListener("abort", this.#abort);
    if (this.#timeout === undefined) return;
    const late = () => {
      const text = `no reply within ${timeout} ms`;
      this.#controller.abort(new RpcError("DEADLINE_EXCEEDED", text));
    };
    const wait = Math.min(Math.max(this.#timeout, 0) + GRACE, 0x7fffffff);
    this.#timer = setTimeout(late, wait);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The headers that tell the gateway of the timeout. */
  headers(): Record<string, string> {
    const timeout = this.#timeout;
    if (timeout === undefined) return {};
    if (timeout > 0) return { "request-timeout": String(timeout / 1000) };
    const text = "there is no time left for the call";
    throw new RpcError("DEADLINE_EXCEEDED", text, { executed: "no" });
  }

  /** From now on, a connection without a sign of life is given up. */
  watchSilence(): void {
    this.#isWatched = true;
    this.alive();
  }

  /** No sign of life is expected for now. */
  pauseSilence(): void {
    clearTimeout(this.#silence);
  }

  /** Notes a sign of life. */
  alive(): void {
    if (!this.#isWatched) return;
    clearTimeout(this.#silence);
    const silent = () => this.#controller.abort(cutOff());
    this.#silence = setTimeout(silent, SILENCE);
  }

  /** The failure to report for one of the call. */
  fault(cause: unknown): unknown {
    const { signal } = this.#controller;
    if (signal.aborted) return signal.reason;
    if (cause instanceof RpcError) return cause;
    if (!(cause instanceof Error)) return cause;
    const text = `the gateway cannot be reached: ${cause.message}`;
    return new RpcError("UNAVAILABLE", text, { retryable: true, cause });
  }

  end(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#controller.abort(new RpcError("CANCELLED", "the call has ended"));
  }
}

/** The lines of JSON that are sent: arguments, if there are any, and messages. */
class Upload {
  readonly #args: unknown;
  readonly #messages: AsyncIterator<unknown> | Iterator<unknown>;
  readonly #write: (value: unknown) => string;
  #hasBegun = false;
  #isDone = false;
  /** What the caller's messages have failed with. */
  failure: { cause: unknown } | undefined;

  constructor(
    args: unknown,
    messages: Messages<unknown>,
    write: (value: unknown) => string,
  ) {
    this.#args = args;
    this.#write = write;
    this.#messages =
      Symbol.asyncIterator in messages
        ? messages[Symbol.asyncIterator]()
        : messages[Symbol.iterator]();
  }

  async #line(): Promise<string | undefined> {
    try {
      if (!this.#hasBegun && this.#args !== undefined) {
        this.#hasBegun = true;
        return `${this.#write(this.#args)}\n`;
      }
      const next = await this.#messages.next();
      if (!next.done) return `${this.#write(next.value)}\n`;
      this.#isDone = true;
      return undefined;
    } catch (cause) {
      this.failure = { cause };
      throw cause;
    }
  }

  stream(): ReadableStream<Uint8Array> {
    const encoder = new TextEncoder();
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const line = await this.#line();
        if (line === undefined) controller.close();
        else controller.enqueue(encoder.encode(line));
      },
    });
  }

  async text(): Promise<string> {
    let text = "";
    for (let line; (line = await this.#line()) !== undefined;) text += line;
    return text;
  }

  /** Tells the caller's messages that no more of them are needed. */
  async end(): Promise<void> {
    if (this.#isDone || this.failure) return;
    this.#isDone = true;
    // One that waits for its next message cannot end before that.
    void Promise.resolve(this.#messages.return?.()).catch(() => {});
  }
}

/** An event of `text/event-stream`. */
interface ServerEvent {
  name: string;
  id?: string;
  data?: string;
}

const JSON_TYPE = "application/json";
const NDJSON = "application/x-ndjson";
const EVENTS = "text/event-stream";
const BINARY = "application/octet-stream";
const UTF8 = new TextDecoder();

/** Returns `true` if requests can have bodies that are sent bit by bit. */
function canStream(url: string): boolean {
  if ("document" in globalThis || "importScripts" in globalThis) {
    const secure =
      new URL(url, (globalThis as any).location?.href).protocol === "https:";
    if (!secure) return false;
  }
  let isRead = false;
  const init = {
    method: "POST",
    body: new ReadableStream(),
    get duplex() {
      isRead = true;
      return "half";
    },
  };
  // Where streams are not supported, they are converted to text.
  const request = new Request("http://localhost", init as RequestInit);
  return isRead && !request.headers.has("content-type");
}

async function pause(
  attempts: number,
  failure: RpcError,
  signal: AbortSignal | undefined,
): Promise<void> {
  const most = Math.min(100 * 2 ** attempts, MAX_PAUSE);
  const wait = Math.max(most * Math.random(), failure.retryAfter ?? 0);
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, wait);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

function cutOff(): RpcError {
  const text = "the reply was cut off";
  return new RpcError("UNAVAILABLE", text, { retryable: true });
}

function tooLong(): RpcError {
  const text = "a message is too long (option maxMessageLength)";
  return new RpcError("RESOURCE_EXHAUSTED", text);
}

/** The codes of replies that are not those of the gateway, as gRPC has them. */
const CODES: Record<number, Code> = {
  400: "INTERNAL",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "UNIMPLEMENTED",
  429: "UNAVAILABLE",
  502: "UNAVAILABLE",
  503: "UNAVAILABLE",
  504: "UNAVAILABLE",
};

/** The error of a body with a problem, or of a reply of something else. */
function problem(
  text: string,
  { status, headers }: Response,
  errorType: string | undefined,
): RpcError {
  let body: any;
  try {
    body = readJson(text);
  } catch {
    // It is handled below.
  }
  if (typeof body?.code !== "string") {
    const code = CODES[status] ?? "UNKNOWN";
    const retryable = code === "UNAVAILABLE";
    const message = `the reply is not of the gateway: status ${status}`;
    return new RpcError(code, message, { retryable, status });
  }
  const seconds = headers.get("retry-after");
  return new RpcError(body.code, String(body.detail), {
    executed: body.executed,
    retryable: body.retryable === true,
    retryAfter: seconds ? 1000 * Number(seconds) || 0 : undefined,
    status: body.status,
    traceId: body.trace_id,
    ...typed(body.error, errorType),
    variant: body.variant,
  });
}

/** A method's own error with its type, unless it is not of that. */
function typed(
  error: any,
  errorType: string | undefined,
): Pick<RpcError, "error" | "errorType"> {
  if (error !== undefined && errorType !== undefined) {
    try {
      return { error: read.named(errorType).read(error), errorType };
    } catch {
      // It is of another build.
    }
  }
  return { error, errorType: undefined };
}

/** The body of a reply. */
async function readAll(response: Response, max: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body(response)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > max) throw tooLong();
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

async function* lines(
  scope: Scope,
  response: Response,
  max: number,
): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body(response)) {
    scope.alive();
    const parts = decoder.decode(chunk, { stream: true }).split("\n");
    parts[0] = rest + parts[0];
    rest = parts.pop() ?? "";
    for (const line of parts) {
      yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
    if (rest.length > max) throw tooLong();
  }
}

async function* body(
  response: Response,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = response.body?.getReader();
  for (;;) {
    const next = await reader?.read();
    if (next === undefined || next.done) return;
    yield next.value;
  }
}
