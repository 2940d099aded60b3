// Values of the types that a generated client has, which the compiler checks, and uses that it must refuse.

import {
    asTrouble, CallsClient, EchoClient,
    type Adjacent, type CallOptions, type Colour, type External, type Flat, type Internal, type Maps, type Mixed, type Numbers,
    type Plain, type Rest, type Settings, type Structs, type Tree, type Trouble, type Untagged, type Update,
} from './generated/types.js';

/** The largest integers of 64 and 128 bits. */
export const U64 = 2n ** 64n - 1n;
export const U128 = 2n ** 128n - 1n;

const content = { x: U64, y: 0.1 };
const named = { a: U64, b: 'very_high' } as const;
const leaf: Tree = { size: U64, children: [], parent: null };

export const numbers: Numbers = {
    a: 255, b: 65535, c: 2 ** 32 - 1, d: U64, e: U128,
    f: -128, g: -32768, h: -(2 ** 31), i: -(2n ** 63n), j: -(2n ** 127n), k: 0.5, l: 1e300,
};
export const plain: Plain = {
    flag: true, letter: '😀', text: '\u0000"\\ 12345678901234567890 é', bytes: Uint8Array.of(0, 255), nothing: null, maybe: U64,
    twice: 'x', list: [0n, 7n, U64], short: [1, 2, 3], long: Array.from({ length: 12 }, (_, at) => BigInt(at) - 2n ** 60n),
    tuple: [1, '', null], single: [U64],
};
export const maps: Maps = {
    by_text: { ['__proto__']: 0n, a: U64, constructor: 1n }, by_number: { '18446744073709551615': [], 7: [U64] },
    by_letter: { é: 1 }, by_flag: { true: 1 }, by_level: { low: U64 }, by_id: { 1: 'low' },
};
export const structs: Structs = {
    id: U64, unit: null, point: [-1, U64], page: { items: [[1, 2n]], next: null }, wait: { secs: U64, nanos: 5 },
    address: '::1', outcome: { Ok: U64 },
};
export const settings: Settings = { 'article-no': 'a', count: U64, tags: ['low'], password: '', total: 0n };
export const tree: Tree = { ...leaf, children: [leaf, leaf], parent: leaf };
export const external: External[] = ['Nil', { One: content }, { Named: named }];
export const internal: Internal[] = [{ kind: 'Nil' }, { kind: 'One', ...content }, { kind: 'Named', ...named }];
export const adjacent: Adjacent[] = [{ t: 'Nil' }, { t: 'One', c: content }, { t: 'Named', c: named }];
export const untagged: Untagged[] = [null, content, { a: 1n, b: null }];
export const mixed: Mixed[] = ['Unit', { Pair: [U64, true] }, U64, 'text'];
export const colour: Colour[] = ['Red', 'Unknown'];
export const flat: Flat = { own: U64, ...content, second: 7n, kind: 'Nil' };
export const rest: Rest = { name: '5', more: U64, other: 0n };

/** A value that is told apart by its variants. */
export function described(error: Trouble): string {
    if (error === 'Empty') return 'empty';
    if ('SoldOut' in error) return `sold out until ${error.SoldOut.until satisfies bigint}`;
    return 'Text' in error ? error.Text : String(error.Rpc.code);
}

export function label(value: Internal): string {
    switch (value.kind) {
        case 'Nil': return value.kind;
        case 'One': return String(value.x satisfies bigint);
        case 'Named': return value.b ?? 'none';
    }
}

export function refused(echo: EchoClient, calls: CallsClient, options: CallOptions) {
    // @ts-expect-error: an integer of 64 bits is a bigint.
    const number = () => echo.largest({ value: 7 });
    // @ts-expect-error: there is no such variant.
    const variant = () => echo.external({ value: ['Two'] });
    // @ts-expect-error: a field is missing.
    const field = () => echo.tree({ value: { children: [] } });
    // @ts-expect-error: an argument is missing.
    const argument = () => calls.tell({});
    // @ts-expect-error: a subscription has updates, not values.
    const update = async () => { for await (const value of calls.watch(options)) void (value satisfies bigint); };
    const value = async () => { for await (const value of calls.watch()) void (value satisfies Update<bigint>); };
    // @ts-expect-error: an error has no type before it was asked for.
    const error = (error: unknown) => error.SoldOut;
    const own = (error: unknown) => asTrouble(error) satisfies Trouble | undefined;
    return [number, variant, field, argument, update, value, error, own];
}
