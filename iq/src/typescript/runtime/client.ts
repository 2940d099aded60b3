/** A method at the gateway. */
interface Method {
  path: string;
  result: Reader;
  /** The name of the type of its own errors, if that has a name. */
  error?: string;
  /** The same for errors that end its stream. */
  streamError?: string;
  /** The type of bodies that are no JSON. */
  binary?: string;
}

/** The messages of a stream from the client. */
type Messages<T> = AsyncIterable<T> | Iterable<T>;

/** The time in milliseconds that the gateway has to report a timeout itself. */
const GRACE = 1000;

/** Without a sign of life for so long, a subscription is resumed. */
const SILENCE = 45_000;

/** The longest time between two attempts to resume a subscription. */
const MAX_PAUSE = 5000;

/** Makes the calls of services. */
class Client {
  readonly #options: ClientOptions;
  readonly #baseUrl: string;
  readonly #maxLength: number;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#baseUrl = options.baseUrl.replace(/\/+$/, "");
    this.#maxLength = options.maxMessageLength ?? 1 << 24;
  }

  async unary<T>(
    method: Method,
    args: unknown,
    options: CallOptions = {},
  ): Promise<T> {
    const body = this.#write(args);
    const bytes = await this.#single(method, JSON_TYPE, body, options);
    return parse(UTF8.decode(bytes), method.result);
  }

  async oneWay(
    method: Method,
    args: unknown,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#single(method, JSON_TYPE, this.#write(args), options);
  }

  async binary(
    method: Method,
    body: Uint8Array | string,
    options: CallOptions = {},
  ): Promise<Uint8Array> {
    return this.#single(method, method.binary ?? BINARY, body, options);
  }

  async clientStream<T>(
    method: Method,
    args: unknown,
    messages: Messages<unknown>,
    options: CallOptions = {},
  ): Promise<T> {
    const upload = this.#upload(args, messages);
    try {
      const body = await this.#uploadBody(upload);
      const bytes = await this.#single(method, NDJSON, body, options);
      return parse(UTF8.decode(bytes), method.result);
    } catch (error) {
      throw upload.failure ? upload.failure.cause : error;
    } finally {
      await upload.end();
    }
  }

  async *serverStream<T>(
    method: Method,
    args: unknown,
    options: CallOptions = {},
  ): AsyncGenerator<T, void, undefined> {
    yield* this.#stream<T>(method, JSON_TYPE, this.#write(args), options);
  }

  async *bidirectional<T>(
    method: Method,
    args: unknown,
    messages: Messages<unknown>,
    options: CallOptions = {},
  ): AsyncGenerator<T, void, undefined> {
    const upload = this.#upload(args, messages);
    try {
      const body = await this.#uploadBody(upload);
      yield* this.#stream<T>(method, NDJSON, body, options);
    } catch (error) {
      throw upload.failure ? upload.failure.cause : error;
    } finally {
      await upload.end();
    }
  }

  async *subscribe<T>(
    method: Method,
    args: unknown,
    options: SubscribeOptions = {},
  ): AsyncGenerator<Update<T>, void, undefined> {
    const { signal, timeout } = options;
    const end = timeout === undefined ? undefined : Date.now() + timeout;
    const body = this.#write(args);
    let position = options.resume;
    let isFirst = true;
    let attempts = 0;
    for (;;) {
      const left = end === undefined ? undefined : end - Date.now();
      const headers = await this.#headers(JSON_TYPE, options);
      headers["accept"] = EVENTS;
      if (position !== undefined) headers["last-event-id"] = position;
      const scope = new Scope(signal, left);
      let failure: unknown;
      try {
        scope.watchSilence();
        const response = await this.#open(scope, method, headers, body);
        isFirst = false;
        for await (const event of this.#events(scope, response)) {
          attempts = 0;
          position = event.id ?? position;
          if (event.data === undefined) continue;
          if (event.name === "end") return;
          if (event.name === "error") {
            throw problem(event.data, response, method.streamError);
          }
          // While the caller is busy, nothing is read.
          scope.pauseSilence();
          if (event.name === "gap") {
            const missed = parse(event.data, read.any)?.missed;
            const known = missed === null ? null : Number(missed);
            yield { kind: "gap", missed: known, position };
          } else {
            const value: T = parse(event.data, method.result);
            yield { kind: "value", value, position: position ?? "" };
          }
          scope.alive();
        }
        failure = cutOff();
      } catch (cause) {
        failure = scope.fault(cause);
      } finally {
        scope.end();
      }
      const mayResume = failure instanceof RpcError && failure.retryable;
      if (isFirst || !mayResume) throw failure;
      await pause(attempts++, failure as RpcError, signal);
    }
  }

  /** Makes a call that has one reply; returns the body of that. */
  async #single(
    method: Method,
    type: string,
    body: unknown,
    options: CallOptions,
  ): Promise<Uint8Array> {
    const timeout = options.timeout ?? this.#options.timeout;
    const headers = await this.#headers(type, options);
    const scope = new Scope(options.signal, timeout);
    try {
      const response = await this.#open(scope, method, headers, body);
      return await readAll(response, this.#maxLength);
    } catch (cause) {
      throw scope.fault(cause);
    } finally {
      scope.end();
    }
  }

  /** Makes a call that has a stream of replies. */
  async *#stream<T>(
    method: Method,
    type: string,
    body: unknown,
    options: CallOptions,
  ): AsyncGenerator<T, void, undefined> {
    const headers = await this.#headers(type, options);
    headers["accept"] = EVENTS;
    const scope = new Scope(options.signal, options.timeout);
    try {
      const response = await this.#open(scope, method, headers, body);
      for await (const event of this.#events(scope, response)) {
        if (event.data === undefined) continue;
        if (event.name === "end") return;
        if (event.name === "error") {
          throw problem(event.data, response, method.streamError);
        }
        yield parse(event.data, method.result);
      }
      throw cutOff();
    } catch (cause) {
      throw scope.fault(cause);
    } finally {
      scope.end();
    }
  }

  /** The headers of a request whose body has this type. */
  async #headers(
    type: string,
    options: CallOptions,
  ): Promise<Record<string, string>> {
    const own = this.#options.headers ?? {};
    const common = typeof own === "function" ? await own() : own;
    return { ...common, ...options.headers, "content-type": type };
  }

  /** Sends a request; returns the reply if it is not a failure. */
  async #open(
    scope: Scope,
    method: Method,
    headers: Record<string, string>,
    body: unknown,
  ): Promise<Response> {
    scope.signal.throwIfAborted();
    const init: FetchInit = {
      method: "POST",
      headers: { ...headers, ...scope.headers() },
      body,
      signal: scope.signal,
    };
    if (body instanceof ReadableStream) init.duplex = "half";
    const send = this.#options.fetch ?? (globalThis.fetch as Fetch);
    const response = await send(this.#baseUrl + method.path, init);
    if (response.ok) return response;
    const text = UTF8.decode(await readAll(response, this.#maxLength));
    throw problem(text, response, method.error);
  }

  /** The events of a reply. An event without data is a sign of life. */
  async *#events(
    scope: Scope,
    response: Response,
  ): AsyncGenerator<ServerEvent, void, undefined> {
    let event: ServerEvent = { name: "" };
    for await (const line of lines(scope, response, this.#maxLength)) {
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const start = line[colon + 1] === " " ? colon + 2 : colon + 1;
      const value = colon < 0 ? "" : line.slice(start);
      if (line === "") {
        yield event;
        event = { name: "" };
      } else if (field === "event") {
        event.name = value;
      } else if (field === "id") {
        event.id = value;
      } else if (field === "data") {
        const { data } = event;
        event.data = data === undefined ? value : `${data}\n${value}`;
        if (event.data.length > this.#maxLength) throw tooLong();
      }
    }
  }

  #write(value: unknown): string {
    return write(value, this.#options.int64 === "string" ? '"' : "");
  }

  #upload(args: unknown, messages: Messages<unknown>): Upload {
    return new Upload(args, messages, (value) => this.#write(value));
  }

  /** The body of an upload: a stream, or all of it if there is no way to send one. */
  async #uploadBody(upload: Upload): Promise<unknown> {
    const how = this.#options.upload;
    const streams = how ? how === "stream" : canStream(this.#baseUrl);
    return streams ? upload.stream() : upload.text();
  }
}
