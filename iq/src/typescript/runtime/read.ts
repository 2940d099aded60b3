/** Reads JSON as a value of a type. */
function parse(json: string, reader: Reader): any {
  try {
    return reader.read(readJson(json));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const text = `the reply does not fit the description: ${reason}`;
    throw new RpcError("INTERNAL", text, { cause });
  }
}

/**
 * Gives the values within a value of JSON the types that this file has for
 * them: integers of 64 and 128 bits become a `bigint`, whether the gateway
 * writes them as numbers or as texts. Changes the value in place. `fits` tells
 * the variants of untagged enums apart.
 */
interface Reader {
  fits(value: any): boolean;
  read(value: any): any;
}

type Fields = Record<string, Reader>;

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function has(object: object, key: string): boolean {
  return Object.prototype.hasOwnProperty.call(object, key);
}

function leaf(
  fits: (value: any) => boolean,
  convert = (value: any): any => value,
): Reader {
  return { fits, read: convert };
}

function isInteger(value: unknown): boolean {
  if (typeof value === "string") return /^-?\d{1,40}$/.test(value);
  return typeof value === "bigint" || Number.isSafeInteger(value);
}

function toBigInt(value: any): bigint {
  if (isInteger(value)) return BigInt(value);
  throw new Error(`expected an integer, found ${typeof value}`);
}

/** The readers of members that are there, in place. */
function readMembers(value: any, readers: [string, Reader][]): any {
  for (const [key, reader] of readers) {
    if (isObject(value) && has(value, key)) {
      value[key] = reader.read(value[key]);
    }
  }
  return value;
}

function membersFit(value: any, readers: [string, Reader][]): boolean {
  return readers.every(
    ([key, reader]) => has(value, key) && reader.fits(value[key]),
  );
}

const read = {
  any: leaf(() => true),
  unit: leaf((value) => value === null),
  bool: leaf((value) => typeof value === "boolean"),
  text: leaf((value) => typeof value === "string"),
  number: leaf((value) => Number.isSafeInteger(value)),
  bigint: leaf(isInteger, toBigInt),
  float: leaf(
    (value) => typeof value === "number" || typeof value === "bigint",
    // JSON has no NaN: it is written as null.
    (value) => (value === null ? NaN : Number(value)),
  ),
  bytes: leaf(Array.isArray, (value) => Uint8Array.from(value)),
  option(of: Reader): Reader {
    const isNone = (value: any) => value === null || value === undefined;
    return {
      fits: (value) => isNone(value) || of.fits(value),
      read: (value) => (isNone(value) ? value : of.read(value)),
    };
  },
  list(of: Reader): Reader {
    const isList: (value: any) => boolean = Array.isArray;
    return {
      fits: (value) => isList(value) && value.every(of.fits),
      read: (value) => (isList(value) ? value.map(of.read) : value),
    };
  },
  tuple(...of: Reader[]): Reader {
    const isTuple = (value: any) =>
      Array.isArray(value) && value.length === of.length;
    return {
      fits: (value) =>
        isTuple(value) && of.every((part, at) => part.fits(value[at])),
      read: (value) =>
        isTuple(value) ? of.map((part, at) => part.read(value[at])) : value,
    };
  },
  /** The values of all members but these. */
  map(of: Reader, ...except: string[]): Reader {
    const members = (value: any): [string, Reader][] => {
      if (!isObject(value)) return [];
      const keys = Object.keys(value).filter((key) => !except.includes(key));
      return keys.map((key) => [key, of]);
    };
    return {
      fits: (value) => isObject(value) && membersFit(value, members(value)),
      read: (value) => readMembers(value, members(value)),
    };
  },
  /** A struct; `flattened` are readers of the whole object. */
  struct(
    required: Fields,
    optional: Fields = {},
    ...flattened: Reader[]
  ): Reader {
    const must = Object.entries(required);
    const may = Object.entries(optional);
    const present = (value: any) => may.filter(([key]) => has(value, key));
    return {
      fits: (value) =>
        isObject(value) &&
        membersFit(value, must) &&
        membersFit(value, present(value)) &&
        flattened.every((part) => part.fits(value)),
      read(value) {
        readMembers(value, [...must, ...may]);
        for (const part of flattened) part.read(value);
        return value;
      },
    };
  },
  /** An enum whose variants are keys, or texts if they have no content. */
  external(
    variants: Fields,
    other?: string,
    untagged: Reader = read.untagged(),
  ): Reader {
    const variant = (value: any): [string, Reader] | undefined => {
      const keys = typeof value === "string" ? [value] : Object.keys(value);
      const [key = ""] = keys;
      const found = has(variants, key) ? variants[key] : undefined;
      return keys.length === 1 && found ? [key, found] : undefined;
    };
    const tagged = (value: any) =>
      typeof value === "string" || isObject(value) ? variant(value) : undefined;
    return {
      fits: (value) =>
        tagged(value) !== undefined ||
        untagged.fits(value) ||
        (other !== undefined && typeof value === "string"),
      read(value) {
        const found = tagged(value);
        if (found) return readMembers(value, [found]);
        if (untagged.fits(value)) return untagged.read(value);
        return typeof value === "string" ? (other ?? value) : value;
      },
    };
  },
  /** An enum whose variants are named by a member among their own. */
  internal(
    tag: string,
    variants: Fields,
    other?: string,
    untagged: Reader = read.untagged(),
  ): Reader {
    const variant = (value: any): Reader | undefined => {
      const name = isObject(value) ? value[tag] : undefined;
      const isKnown = typeof name === "string" && has(variants, name);
      return isKnown ? variants[name] : undefined;
    };
    const isOther = (value: any) =>
      other !== undefined && isObject(value) && typeof value[tag] === "string";
    return {
      fits: (value) =>
        variant(value)?.fits(value) ?? (isOther(value) || untagged.fits(value)),
      read(value) {
        const found = variant(value);
        if (found) return found.read(value);
        if (isOther(value)) return { ...value, [tag]: other };
        return untagged.read(value);
      },
    };
  },
  /** An enum whose variants are named by a member beside their content. */
  adjacent(
    tag: string,
    content: string,
    variants: Fields,
    other?: string,
    untagged: Reader = read.untagged(),
  ): Reader {
    const within = Object.entries(variants).map(([name, of]) => {
      return [name, read.struct({}, { [content]: of })];
    });
    return read.internal(tag, Object.fromEntries(within), other, untagged);
  },
  /** The first variant that fits. */
  untagged(...variants: Reader[]): Reader {
    const first = (value: any) => variants.find((of) => of.fits(value));
    return {
      fits: (value) => first(value) !== undefined,
      read: (value) => first(value)?.read(value) ?? value,
    };
  },
  /** A type of the table. */
  named(name: string): Reader {
    const find = () => readers[name] ?? read.any;
    return {
      fits: (value) => find().fits(value),
      read: (value) => find().read(value),
    };
  },
};
