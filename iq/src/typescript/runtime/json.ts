/**
 * JSON of a value. Unlike `JSON.stringify`, it writes each `bigint`; `quote` is
 * around those of more than 64 bits.
 */
function write(value: unknown, quote: string): string {
  if (typeof value === "bigint") {
    const isWide = value < -(2n ** 63n) || value >= 2n ** 64n;
    return isWide ? quote + value.toString() + quote : value.toString();
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`${value} has no form in JSON`);
  }
  if (typeof value !== "object" || value === null) {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return text;
    throw new TypeError(`a ${typeof value} has no form in JSON`);
  }
  if (value instanceof Uint8Array) return `[${value.join(",")}]`;
  if (Array.isArray(value)) {
    return `[${value.map((item) => write(item, quote)).join(",")}]`;
  }
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return write(value.toJSON(), quote);
  }
  const members = Object.entries(value).filter(([, of]) => of !== undefined);
  const texts = members.map(
    ([key, of]) => `${JSON.stringify(key)}:${write(of, quote)}`,
  );
  return `{${texts.join(",")}}`;
}

/** Reads JSON with the digits of all integers: large ones become a `bigint`. */
function readJson(text: string): any {
  // Integers of 15 digits are exact as numbers.
  return /\d{16}/.test(text) ? new JsonReader(text).whole() : JSON.parse(text);
}

const TOKEN =
  /[ \t\r\n]*(true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|[[\]{}:,"]|$)/y;

class JsonReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  whole(): unknown {
    const value = this.#value(this.#next());
    if (this.#next() !== "") this.#fail();
    return value;
  }

  #fail(): never {
    throw new SyntaxError(`the JSON is malformed at character ${this.#at}`);
  }

  #next(): string {
    TOKEN.lastIndex = this.#at;
    const token = TOKEN.exec(this.#text)?.[1];
    if (token === undefined) return this.#fail();
    this.#at = TOKEN.lastIndex;
    return token;
  }

  #value(token: string): unknown {
    switch (token) {
      case "{":
        return this.#object();
      case "[":
        return this.#array();
      case '"':
        return this.#string();
      case "":
      case "}":
      case "]":
      case ":":
      case ",":
        return this.#fail();
      default:
        return /^-?\d{16,40}$/.test(token) ? large(token) : JSON.parse(token);
    }
  }

  #string(): string {
    const start = this.#at - 1;
    for (;;) {
      const end = this.#text.indexOf('"', this.#at);
      if (end < 0) this.#fail();
      this.#at = end + 1;
      let escapes = 0;
      while (this.#text[end - 1 - escapes] === "\\") escapes++;
      if (escapes % 2 === 0)
        return JSON.parse(this.#text.slice(start, end + 1));
    }
  }

  #array(): unknown[] {
    const items: unknown[] = [];
    let token = this.#next();
    if (token === "]") return items;
    for (;;) {
      items.push(this.#value(token));
      token = this.#next();
      if (token === "]") return items;
      if (token !== ",") this.#fail();
      token = this.#next();
    }
  }

  #object(): object {
    const members: [string, unknown][] = [];
    let token = this.#next();
    while (token !== "}") {
      if (token !== '"') this.#fail();
      const key = this.#string();
      if (this.#next() !== ":") this.#fail();
      members.push([key, this.#value(this.#next())]);
      token = this.#next();
      if (token === "}") break;
      if (token !== ",") this.#fail();
      token = this.#next();
      if (token === "}") this.#fail();
    }
    return Object.fromEntries(members);
  }
}

function large(digits: string): number | bigint {
  const value = BigInt(digits);
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
