// Clients that `iq gen ts` generates: the compiler checks them, and they call services through the gateway.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import { gateway, place, shop } from './shop.mjs';
import { browser, built, open, serve, start, until } from './support.mjs';

const FOLDER = new URL('typescript/', import.meta.url).pathname;
const GENERATED = join(FOLDER, 'generated');

/** The modules that the compiler has made. */
let client, orders, values;

/** Runs a program to its end; returns its output. */
async function run(program, ...args) {
    const ran = await promisify(execFile)(program, args).catch(({ stdout, stderr }) => {
        throw new Error(stdout + stderr);
    });
    return ran.stdout;
}

/** Generates a client from a server or a file of descriptions, as the module `name`. */
const generate = (from, name) => run(built('iq'), 'gen', 'ts', from, '-o', join(GENERATED, `${name}.ts`));

/** Starts the server with types of every form; returns its address. */
async function types(t) {
    const { match } = await start(t, built('examples/types'), ['127.0.0.1:0'], /listens on (\S+)/);
    return match[1];
}

/** Starts that server and a gateway, with these options of both; returns clients. */
async function started(t, options, clientOptions) {
    const { url, kill, address } = await gateway(t, await types(t), options);
    const own = { baseUrl: url, ...clientOptions };
    return { url, kill, address, echo: new client.EchoClient(own), calls: new client.CallsClient(own) };
}

/** All that an iterable delivers. */
async function all(iterable) {
    const items = [];
    for await (const item of iterable) items.push(item);
    return items;
}

/** The failure of a promise, which must be one of calls. */
async function failure(promise) {
    const error = await promise.then(value => assert.fail(`${value} is not a failure`), error => error);
    assert.ok(error instanceof client.RpcError, String(error));
    return error;
}

before(async t => {
    rmSync(GENERATED, { recursive: true, force: true });
    mkdirSync(GENERATED, { recursive: true });
    const servers = { after: end => ends.push(end) };
    const ends = [];
    try {
        const target = await types(servers);
        await generate(target, 'types');
        // A service without errors of its own.
        await run(built('iq'), 'gen', 'ts', target, 'types.v1.Echo', '-o', join(GENERATED, 'echo.ts'));
        await generate(await shop(servers), 'shop');
        await generate(join(FOLDER, 'hostile.schema.json'), 'hostile');
        const guide = readFileSync(new URL('../../docs/guide/typescript.md', import.meta.url), 'utf8');
        const snippets = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, snippet]) => snippet);
        writeFileSync(join(GENERATED, 'guide.ts'), snippets.join('\n'));
    } finally {
        for (const end of ends) await end();
    }
    await run('node_modules/.bin/tsc', '--project', FOLDER);
    const clients = ['types', 'echo', 'shop', 'hostile'].map(name => join(GENERATED, `${name}.ts`));
    const oldest = ['--target', 'ES2020', '--lib', 'ES2020,DOM', '--module', 'NodeNext', '--strict', '--noEmit'];
    await run('node_modules/.bin/tsc', ...oldest, ...clients);
    [client, orders, values] = await Promise.all(
        ['generated/types', 'generated/shop', 'values'].map(name => import(`./typescript/generated/built/${name}.js`)),
    );
});

test('values of every type make the round trip, with integers as numbers and as texts', async t => {
    for (const int64 of ['number', 'string']) {
        const { echo, url } = await started(t, { options: `json_int64 = "${int64}"` }, { int64 });
        for (const [name, value] of Object.entries(values)) {
            if (typeof echo[name] === 'function') assert.deepEqual(await echo[name]({ value }), value, name);
        }
        // A client needs no option for integers of 64 bits.
        const plain = new client.EchoClient({ baseUrl: url });
        assert.equal(await plain.largest({ value: values.U64 }), values.U64);
        assert.equal(await echo.optional(), null);
        assert.equal(await echo.optional({ value: 0n }), 0n);
        assert.equal(await echo.then_({ value: 7 }), 7);
        const pages = [{ items: [null, values.tree], next: 1n }];
        assert.deepEqual(await echo.delete({ value: pages }), pages);
    }
});

test('what serde leaves out or reads in another way is as Rust has it', async t => {
    const { echo, url } = await started(t);
    assert.deepEqual(await echo.settings({ value: { 'article-no': 'a', password: 'p' } }),
        { 'article-no': 'a', count: 0n, password: 'p', total: 0n });
    assert.equal(values.label(values.internal[1]), String(values.U64));
    // A later build of the server may send variants that this one does not know.
    const answer = text => ({ baseUrl: url, fetch: async () => new Response(text) });
    const later = new client.EchoClient(answer('["Red", "Green"]'));
    assert.deepEqual(await later.colour({ value: [] }), ['Red', 'Unknown']);
    const nan = new client.EchoClient(answer('{"d": 1, "e": "2", "i": -3, "k": null, "l": 123456789012345678901234567890}'));
    assert.deepEqual(await nan.numbers({ value: values.numbers }), { d: 1n, e: 2n, i: -3n, k: NaN, l: 1.2345678901234568e29 });
    const more = '{"items": [], "next": 7, "added": {"__proto__": [9007199254740993, 1.0, "12345678901234567890"]}}';
    const [page] = await new client.EchoClient(answer(`[${more}]`)).delete({ value: [] });
    assert.deepEqual([page.next, page.added.__proto__], [7n, [9007199254740993n, 1, '12345678901234567890']]);
});

test('replies that are malformed fail with the reason', async t => {
    const { url } = await started(t);
    const deep = '['.repeat(1 << 20);
    const large = '12345678901234567890';
    for (const text of [
        '', '{', '[1,]', '{"a":1,}', '1 2', '"\\u12"', 'nul', '"a', '"x"', '{}', 'null', deep,
        `[${large}`, `[${large},]`, `{"a" ${large}}`, `{"a":${large},}`, `0${large}`, `${large}"`, `${deep}${large}`,
    ]) {
        const fetch = async () => new Response(text);
        const error = await failure(new client.EchoClient({ baseUrl: url, fetch }).largest({ value: 1n }));
        assert.deepEqual([error.code, error.executed], ['INTERNAL', 'maybe'], text);
    }
    const fetch = async () => new Response('x'.repeat(11));
    const error = await failure(new client.EchoClient({ baseUrl: url, fetch, maxMessageLength: 10 }).largest({ value: 1n }));
    assert.deepEqual([error.code, /maxMessageLength/.test(error.message)], ['RESOURCE_EXHAUSTED', true]);
    const proxy = async () => new Response('<html>', { status: 502 });
    const foreign = await failure(new client.EchoClient({ baseUrl: url, fetch: proxy }).largest({ value: 1n }));
    assert.deepEqual([foreign.code, foreign.status, foreign.retryable], ['UNAVAILABLE', 502, true]);
});

test('errors have their code, their type and what has happened', async t => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const { calls, echo, url, kill } = await started(t, {}, { headers: async () => ({ traceparent }) });
    const soldOut = await failure(calls.fail({ how: 'sold out' }));
    assert.deepEqual(client.asTrouble(soldOut), { SoldOut: { until: values.U64 } });
    assert.equal(values.described(client.asTrouble(soldOut)), `sold out until ${values.U64}`);
    const { code, executed, retryable, status, variant, traceId } = soldOut;
    assert.deepEqual({ code, executed, retryable, status, variant, traceId }, {
        code: 'UNKNOWN', executed: 'yes', retryable: false, status: 500, variant: 'SoldOut', traceId: traceparent.slice(3, 35),
    });
    assert.equal(client.asTrouble(await failure(calls.fail({ how: 'empty' }))), 'Empty');
    assert.deepEqual(client.asTrouble(await failure(calls.fail({ how: 'wet' }))), { Text: 'wet' });
    const missing = await failure(calls.fail({ how: 'missing' }));
    assert.deepEqual([missing.code, missing.message, missing.executed, client.asTrouble(missing)],
        ['NOT_FOUND', 'it is missing', 'maybe', undefined]);
    const busy = await failure(calls.fail({ how: 'busy' }));
    assert.deepEqual([busy.code, busy.retryable, busy.retryAfter], ['UNAVAILABLE', true, 2000]);
    const invalid = await failure(echo.largest({ value: -1n }));
    assert.deepEqual([invalid.code, invalid.executed], ['INVALID_ARGUMENT', 'no']);
    await assert.rejects(echo.numbers({ value: { ...values.numbers, l: Infinity } }), TypeError);
    const noToken = new Error('no token');
    const headers = async () => { throw noToken; };
    await assert.rejects(new client.CallsClient({ baseUrl: url, headers }).told(), error => error === noToken);
    await kill('SIGKILL');
    const gone = await failure(calls.told());
    assert.deepEqual([gone.code, gone.retryable, gone.status, gone.executed], ['UNAVAILABLE', true, 0, 'maybe']);
});

test('a call ends by its signal and by its timeout', async t => {
    const { calls } = await started(t, { options: 'metadata = ["x-user"]' }, { timeout: 9000 });
    const abort = new AbortController();
    const hanging = calls.hang({ signal: abort.signal });
    await until('the call', async () => await calls.hanging() === 1n);
    abort.abort('enough');
    await assert.rejects(hanging, error => error === 'enough');
    await until('its end', async () => await calls.hanging() === 0n);
    await assert.rejects(calls.hang({ signal: abort.signal }), error => error === 'enough');
    const late = await failure(calls.hang({ timeout: 50 }));
    assert.deepEqual([late.code, late.status], ['DEADLINE_EXCEEDED', 504]);
    const none = await failure(calls.hang({ timeout: 0 }));
    assert.deepEqual([none.code, none.executed], ['DEADLINE_EXCEEDED', 'no']);
    const [left, user] = await calls.caller({ headers: { 'x-user': 'me' } });
    assert.ok(left > 0n && left <= 9000n, String(left));
    assert.equal(user, 'me');
    // A gateway that says nothing at all.
    const silent = await serve(t, () => {});
    const error = await failure(new client.CallsClient({ baseUrl: silent }).told({ timeout: 1 }));
    assert.deepEqual([error.code, error.executed], ['DEADLINE_EXCEEDED', 'maybe']);
});

test('calls of each kind', async t => {
    const { calls } = await started(t);
    const { U64 } = values;
    await calls.tell({ number: U64 });
    await until('the number', async () => await calls.told() === U64);
    assert.deepEqual(await all(calls.count({ count: 3 })), [U64, U64 - 1n, U64 - 2n]);
    assert.equal((await all(calls.count({ count: 10_000 }))).length, 10_000);
    for await (const number of calls.count({ count: 1 << 30 })) {
        if (number === U64 - 5n) break;
    }
    assert.equal(client.asTrouble(await failure(all(calls.count({ count: 0 })))), 'Empty');
    const received = [];
    const cut = await failure((async () => {
        for await (const number of calls.count({ count: 2, then: 'sold out' })) received.push(number);
    })());
    assert.deepEqual([received, client.asTrouble(cut)], [[U64, U64 - 1n], { SoldOut: { until: U64 } }]);

    assert.equal(await calls.sum({ factor: 2n }, [1n, 2n, 3n]), 12n);
    assert.equal(await calls.sum({ factor: 2n }, []), 0n);
    const first = new Stalled(13n);
    const rejected = await failure(calls.sum({ factor: 1n }, first));
    assert.deepEqual([client.asTrouble(rejected), rejected.executed], [{ SoldOut: { until: 13n } }, 'yes']);
    assert.ok(first.hasEnded);
    const reason = new Error('no more');
    const failing = async function* () {
        yield 1n;
        throw reason;
    };
    await assert.rejects(calls.sum({ factor: 1n }, failing()), error => error === reason);
    const abort = new AbortController();
    const stalled = new Stalled(1n, () => abort.abort());
    await assert.rejects(calls.sum({ factor: 1n }, stalled, { signal: abort.signal }), { name: 'AbortError' });
    assert.ok(stalled.hasEnded);

    assert.deepEqual(await calls.raw(Uint8Array.of(0, 255, 7)), Uint8Array.of(0, 255, 7));
    assert.equal(new TextDecoder().decode(await calls.raw('text')), 'text');
    assert.equal((await failure(all(calls.doubled([1n])))).status, 505);
});

/** Messages of which the second never comes. */
class Stalled {
    hasEnded = false;
    #first;
    #asked;

    /** `asked` is called when the second one is asked for. */
    constructor(first, asked = () => {}) {
        this.#first = { done: false, value: first };
        this.#asked = asked;
    }

    [Symbol.asyncIterator]() {
        return this;
    }

    next() {
        const first = this.#first;
        this.#first = undefined;
        if (first) return Promise.resolve(first);
        setImmediate(this.#asked);
        return new Promise(() => {});
    }

    return() {
        this.hasEnded = true;
        return Promise.resolve({ done: true, value: undefined });
    }
}

test('a bidirectional call runs over HTTP/2', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'tls-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const tls = { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', tls.key, '-out', tls.certificate],
    { stdio: 'ignore' });
    const { calls, address } = await started(t, { tls }, { fetch: (...request) => fetchHttp2(session, ...request) });
    const session = connect(`https://${address}`, { ca: readFileSync(tls.certificate) });
    t.after(() => session.destroy());
    // Each message is sent when the reply to the one before has come.
    let next, replied = 0;
    const messages = async function* () {
        for (let number = 1n; number <= 3n; number++) {
            yield number;
            await new Promise(resolve => { next = resolve; });
        }
    };
    const doubled = [];
    for await (const number of calls.doubled(messages(), { timeout: 30_000 })) {
        doubled.push(number);
        assert.equal(doubled.length, ++replied);
        await until('the next message', async () => next);
        const proceed = next;
        next = undefined;
        proceed();
    }
    assert.deepEqual(doubled, [2n, 4n, 6n]);
    assert.equal(await calls.sum({ factor: 1n }, [values.U64]), values.U64);
});

/** `fetch` over a session of HTTP/2, which that of Node does not use. */
async function fetchHttp2(session, url, { method, headers, body, signal }) {
    const { pathname } = new URL(url);
    const stream = session.request({ ...headers, ':method': method, ':path': pathname }, { signal });
    stream.on('error', () => {});
    const sent = async () => {
        if (typeof body === 'string') return stream.end(body);
        for await (const chunk of body) stream.write(chunk);
        stream.end();
    };
    sent().catch(error => stream.destroy(error));
    const head = await new Promise((resolve, reject) => {
        stream.once('response', resolve);
        stream.once('error', reject);
    });
    const received = new ReadableStream({
        start(controller) {
            stream.on('data', chunk => controller.enqueue(new Uint8Array(chunk)));
            stream.once('end', () => controller.close());
        },
    });
    return new Response(received, { status: head[':status'], headers: { 'content-type': head['content-type'] } });
}

test('a subscription goes on after the gateway was killed, and reports what is missing', async t => {
    const target = await types(t);
    const [first, other] = [await gateway(t, target), await gateway(t, target)];
    const publisher = new client.CallsClient({ baseUrl: other.url });
    const subscriber = new client.CallsClient({ baseUrl: first.url });
    const updates = subscriber.watch()[Symbol.asyncIterator]();
    const received = [];
    const receive = async count => {
        for (; count > 0; count--) received.push((await updates.next()).value);
    };
    const publish = async count => {
        for (; count > 0; count--) await publisher.publish({ number: values.U64 - BigInt(publish.next++) });
    };
    publish.next = 0;
    const begun = receive(1);
    // Values before the subscription are not delivered.
    await until('the first value', async () => {
        await publish(1);
        return received.length === 1;
    });
    await begun;
    const published = update => values.U64 - update.value;
    while (published(received.at(-1)) + 1n < publish.next) await receive(1);
    await publish(2);
    await receive(2);
    for (let round = 0; round < 2; round++) {
        await first.kill('SIGKILL');
        const more = receive(4);
        await publish(3);
        first.kill = (await gateway(t, target, { listen: first.address })).kill;
        await publish(1);
        await more;
    }
    const begin = published(received[0]);
    const numbers = received.map(update => [update.kind, published(update) - begin]);
    const position = received[5].position;
    await updates.return();
    assert.deepEqual(numbers, numbers.map((_, at) => ['value', BigInt(at)]));
    const resumed = subscriber.watch({ resume: position })[Symbol.asyncIterator]();
    assert.equal((await resumed.next()).value.value, received[6].value);
    await resumed.return();
    // The history of the topic has a hundred values.
    await publish(300);
    const behind = subscriber.watch({ resume: position })[Symbol.asyncIterator]();
    const gap = (await behind.next()).value;
    assert.equal(gap.kind, 'gap');
    assert.ok(gap.missed > 100, String(gap.missed));
    await behind.return();
    await assert.rejects(all(subscriber.watch({ resume: 'nonsense' })), { code: 'INVALID_ARGUMENT' });
    const aborted = AbortSignal.abort('not now');
    await assert.rejects(all(subscriber.watch({ signal: aborted })), error => error === 'not now');
});

test('the shop of the examples is called', async t => {
    const { url } = await gateway(t, await shop(t));
    const client = new orders.OrdersClient({ baseUrl: `${url}/` });
    const order = { article: 'bread', count: 2, payment: { card: { number: '4111' } } };
    const id = await client.place({ order });
    assert.deepEqual(await client.find({ id }), { id, order: { ...order, note: null } });
    await place(url, 'milk');
    assert.deepEqual((await all(client.list({ from: 0n, limit: 1 }))).map(({ id }) => id), [id]);
    assert.equal(await client.import([order, order]), 2);
    await client.seen({ article: 'bread' });
    await until('the view', async () => await client.views({ article: 'bread' }) === 1);
});

test('a page of another origin makes calls of each kind', async t => {
    const module = readFileSync(join(GENERATED, 'built/generated/types.js'));
    const origin = await serve(t, (request, response) => {
        const isModule = request.url === '/types.js';
        response.setHeader('content-type', isModule ? 'text/javascript' : 'text/html');
        response.end(isModule ? module : '<!doctype html><link rel=icon href=data:,>');
    });
    const { url } = await gateway(t, await types(t), { options: `origins = ["${origin}"]` });
    const page = await open(t, await browser(t), origin, { allow: [/status of 500/] });
    const seen = await page.evaluate(async url => {
        const { asTrouble, CallsClient, EchoClient } = await import('/types.js');
        const [calls, echo] = [new CallsClient({ baseUrl: url }), new EchoClient({ baseUrl: url, timeout: 5000 })];
        const { value } = await (async () => {
            for await (const update of calls.watch({ resume: '1.1' })) {
                if (update.kind === 'value') return update;
                await calls.publish({ number: 7n });
            }
        })();
        const counted = [];
        for await (const number of calls.count({ count: 2 })) counted.push(String(number));
        const error = await calls.fail({ how: 'sold out' }).catch(asTrouble);
        const sum = await calls.sum({ factor: 2n }, [1n, 2n]);
        const largest = await echo.largest({ value: 2n ** 64n - 1n });
        return [largest, value, sum, error.SoldOut.until, ...counted].map(String);
    }, url);
    const largest = String(values.U64);
    assert.deepEqual(seen, [largest, '7', '6', largest, largest, String(values.U64 - 1n)]);
});

test('the file is the same each time', async t => {
    const target = await types(t);
    const texts = [await run(built('iq'), 'gen', 'ts', target), await run(built('iq'), 'gen', 'ts', target)];
    assert.equal(texts[0], texts[1]);
    assert.equal(texts[0], readFileSync(join(GENERATED, 'types.ts'), 'utf8'));
});
