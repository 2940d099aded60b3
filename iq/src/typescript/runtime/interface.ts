/** Options of a client. */
export interface ClientOptions {
  /**
   * The URL of the gateway, with its prefix: `https://example.com/api`. In a
   * browser, `/api` is that of the page's own server.
   */
  baseUrl: string;
  /** Headers of each request. A function is called before each request. */
  headers?:
    | Record<string, string>
    | (() => Record<string, string> | Promise<Record<string, string>>);
  /**
   * The timeout in milliseconds of calls that have one reply. Default: that of
   * the method, or of the gateway.
   */
  timeout?: number;
  /** Makes requests. Default: the global `fetch`. */
  fetch?: Fetch;
  /**
   * How messages are sent to a method that takes a stream: `stream` sends each
   * at once, `buffer` sends them together when all are there. Default: `stream`
   * where `fetch` can; in a browser that is so for `https:` only.
   */
  upload?: "stream" | "buffer";
  /**
   * The `json_int64` of the gateway. Default: `number`, with which any gateway
   * reads integers of 64 bits. It reads larger ones only in its own form.
   */
  int64?: "number" | "string";
  /** The maximum length of a message from the gateway. Default: 16 Mi. */
  maxMessageLength?: number;
}

/** Options of one call. */
export interface CallOptions {
  /** Cancels the call, which then fails with the reason of the signal. */
  signal?: AbortSignal;
  /** The timeout of the whole call in milliseconds. */
  timeout?: number;
  /** Headers of the request, in addition to those of the client. */
  headers?: Record<string, string>;
}

/** Options of a subscription. */
export interface SubscribeOptions extends CallOptions {
  /** Begins after this position, which is that of an earlier update. */
  resume?: string;
}

/** What a subscription delivers: a value, or the notice of missing ones. */
export type Update<T> =
  | { kind: "value"; value: T; position: string }
  /** `missed` is null if the number of missing values is not known. */
  | { kind: "gap"; missed: number | null; position: string | undefined };

/** The part of `fetch` that clients use. */
export type Fetch = (url: string, init: FetchInit) => Promise<Response>;

/** What clients pass to `fetch`. */
export interface FetchInit {
  method: "POST";
  headers: Record<string, string>;
  body: any;
  signal: AbortSignal;
  duplex?: "half";
}

/** Whether the handler of a failed call has run. */
export type Executed = "no" | "maybe" | "yes";

/** The code of a failed call. */
export type Code =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** The failure of a call. */
export class RpcError extends Error {
  readonly code: Code;
  /** Whether the handler has run. */
  readonly executed: Executed;
  /** `true` if the same call may succeed later. */
  readonly retryable: boolean;
  /** The milliseconds to wait before that, if the server has named a time. */
  readonly retryAfter: number | undefined;
  /** The status of HTTP; 0 if there was no reply. */
  readonly status: number;
  /** The trace of the request, if it had a `traceparent`. */
  readonly traceId: string | undefined;
  /** The name of the type of `error`. */
  readonly errorType: string | undefined;
  /** The method's own error, if it failed with one; `as..` gives it its type. */
  readonly error: unknown;
  /** The name of the variant of `error`, if it is an enum. */
  readonly variant: string | undefined;

  constructor(
    code: Code,
    message: string,
    more: Partial<
      Pick<
        RpcError,
        | "executed"
        | "retryable"
        | "retryAfter"
        | "status"
        | "traceId"
        | "errorType"
        | "error"
        | "variant"
      >
    > & { cause?: unknown } = {},
  ) {
    super(message);
    this.name = "RpcError";
    if ("cause" in more) {
      // The constructor of ES2020 does not take it.
      const cause = { value: more.cause, configurable: true, writable: true };
      Object.defineProperty(this, "cause", cause);
    }
    this.code = code;
    this.executed = more.executed ?? "maybe";
    this.retryable = more.retryable ?? false;
    this.retryAfter = more.retryAfter;
    this.status = more.status ?? 0;
    this.traceId = more.traceId;
    this.errorType = more.errorType;
    this.error = more.error;
    this.variant = more.variant;
  }
}
