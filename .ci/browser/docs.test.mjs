// The documentation page of the gateway, in a browser.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { browser, open, screenshot, serve, until } from './support.mjs';
import { call, gateway, place, shop } from './shop.mjs';

/** The number of the first order. */
const FIRST = 9007199254740993n;

/** What a browser reports when a method fails, or a connection is lost. */
const FAILED = /the server responded with a status of/;
const LOST = /net::ERR_/;

/** Starts the shop, a gateway and a browser, and returns a function that opens the page of a method. */
async function started(t, options) {
    const { url, address, kill } = await gateway(t, await shop(t), options);
    const window = await browser(t);
    const visit = (method, options) => open(t, window, `${url}docs/${method && `#/shop.v1.Orders/${method}`}`, options);
    return { url, address, kill, window, visit };
}

/** Serves the page of the gateway at `url` before services that are made up; calls get `reply`. Returns the page's address. */
async function madeUp(t, url, services, reply = '') {
    const real = await fetch(`${url}docs/`);
    const page = await real.text();
    const replies = { '/docs/': page, '/description.json': JSON.stringify({ services }) };
    return `${await serve(t, (request, response) => {
        response.setHeader('content-type', request.url === '/docs/' ? 'text/html' : 'application/json');
        response.setHeader('content-security-policy', real.headers.get('content-security-policy'));
        response.end(replies[request.url] ?? reply);
    })}/docs/`;
}

const send = page => page.getByRole('button', { name: 'Send' }).click();
const answer = page => page.locator('.answer pre').first();
const messages = page => page.locator('.answer li > :nth-child(3)');
const status = page => page.getByRole('status').first();

/** Waits until the element has a text that matches. */
async function reads(locator, pattern) {
    await locator.filter({ hasText: pattern }).first().waitFor();
}

/** Waits until there are this many messages; returns their texts. */
async function received(page, count) {
    await messages(page).nth(count - 1).waitFor();
    return messages(page).allTextContents();
}

test('services and methods are listed, found and linked', async t => {
    const { url, visit } = await started(t);
    const page = await visit('');
    assert.equal(await page.title(), 'Services');
    await reads(page.locator('main'), /Orders of a shop\./);
    const list = page.locator('#list a');
    assert.equal(await list.count(), 9);
    await page.keyboard.press('/');
    await page.keyboard.type('find');
    assert.deepEqual(await list.locator('span').allTextContents(), ['find']);
    await page.keyboard.press('Enter');
    await reads(page.getByRole('heading', { level: 1 }), /^find$/);
    assert.equal(page.url(), `${url}docs/#/shop.v1.Orders/find`);
    const text = await page.locator('main').innerText();
    assert.match(text, /async fn find\(&self, id: u64\) -> Result<Order, OrderError>/);
    assert.match(text, /idempotent\s+timeout 2000 ms/);
    assert.match(text, /\/\/\/ How an order is paid\.\nenum Payment \{/);
    await page.goto(`${url}docs/#/shop.v1.Orders/echo`);
    await reads(page.locator('.note'), /Deprecated: use `find`/);
});

test('a method is called by its form, and numbers keep their digits', async t => {
    const { visit } = await started(t);
    const page = await visit('place', { allow: [FAILED] });
    await page.getByLabel('article', { exact: true }).fill('bread');
    await page.getByLabel('count', { exact: true }).fill('101');
    await send(page);
    await reads(status(page), /^500/);
    await reads(answer(page), /"SoldOut": \{\s+"left": 100/);
    await page.getByLabel('count', { exact: true }).fill('4294967296');
    await send(page);
    await reads(page.locator('.error'), /from 0 to 4294967295/);
    await page.getByLabel('count', { exact: true }).fill('2');
    await page.getByLabel('Send note').check();
    await page.getByLabel('note', { exact: true }).fill('it\'s "urgent"');
    await page.getByLabel('Variant').selectOption('card');
    await page.getByLabel('number', { exact: true }).fill('4111');
    await send(page);
    await reads(status(page), /^200 OK.*ended after [\d.]+ ms/);
    assert.equal(await answer(page).textContent(), String(FIRST));

    await page.goto(page.url().replace('place', 'find'));
    await page.getByLabel('id', { exact: true }).fill(String(FIRST));
    await send(page);
    const found = await answer(page).textContent();
    assert.match(found, new RegExp(`"id": ${FIRST},`));
    assert.match(found, /"note": "it's \\"urgent\\""/);
    assert.match(found, /"number": "\(secret\)"/);
    await page.getByText('Options', { exact: true }).click();
    await page.getByLabel('Call by GET').check();
    await send(page);
    await reads(answer(page), /"article": "bread"/);
});

test('what is edited as JSON is sent', async t => {
    const { visit } = await started(t);
    const page = await visit('place', { allow: [FAILED] });
    await page.getByText('Edit as JSON').click();
    const text = page.getByLabel('Arguments as JSON');
    await text.fill('{"order": ');
    await send(page);
    assert.equal(await answer(page).count(), 0);
    await text.fill('{"order": {"article": "bread", "count": 0, "payment": "cash"}}');
    await send(page);
    await reads(page.locator('.answer p'), /INVALID_ARGUMENT: count is 0/);
});

test('the line of curl does what the page does', async t => {
    const { visit } = await started(t);
    const page = await visit('place');
    await page.getByLabel('article', { exact: true }).fill('a\'b"c $HOME `x`');
    await page.getByLabel('count', { exact: true }).fill('1');
    const line = await page.getByLabel('curl').textContent();
    const { stdout } = await promisify(execFile)('sh', ['-c', `${line} -s`]);
    assert.equal(stdout, String(FIRST));
    await page.goto(page.url().replace('place', 'find'));
    await page.getByLabel('id', { exact: true }).fill(String(FIRST));
    await send(page);
    await reads(status(page), /^200 OK/);
    assert.match(await answer(page).textContent(), /"article": "a'b\\"c \$HOME `x`"/);
    assert.equal(await page.getByLabel('iq').textContent(), `iq call SERVER 'shop.v1.Orders/find' '{"id": ${FIRST}}'`);
});

test('a stream from the server is shown line by line', async t => {
    const { url, visit } = await started(t);
    const orders = Array.from({ length: 600 }, (_, index) => ({ article: `article ${index}`, count: 1, payment: 'cash' }));
    assert.equal(await call(url, 'import', ...orders), '600');
    const page = await visit('list');
    await send(page);
    await reads(status(page), /^200 OK\s*600 messages.*ended/);
    const shown = await messages(page).allTextContents();
    assert.equal(shown.length, 500, 'the last ones are shown');
    assert.match(shown.at(-1), new RegExp(`"id": ${FIRST + 599n}, .*article 599`));
});

test('a stream that fails has its failure after its messages', async t => {
    const { visit } = await started(t);
    const page = await visit('list');
    const body = '{"id":1}\n{"error":{"code":"ABORTED","detail":"try again","executed":"maybe"}}\n';
    await page.route('**/list', route => route.fulfill({ contentType: 'application/x-ndjson', body }));
    await send(page);
    await reads(page.locator('.answer p'), /^ABORTED: try again$/);
    assert.deepEqual(await received(page, 1), ['{"id": 1}']);
});

test('a subscription is followed until it is stopped', async t => {
    const { url, visit } = await started(t);
    const page = await visit('watch');
    await send(page);
    await reads(status(page), /^connected/);
    await place(url, 'bread');
    assert.match((await received(page, 1))[0], /bread/);
    await page.getByRole('button', { name: 'Stop' }).click();
    await reads(status(page), /stopped after/);
});

test('a stream to the server has its messages from a form', async t => {
    const { url, visit } = await started(t);
    const page = await visit('import');
    await page.getByLabel('Messages').fill('');
    await page.getByLabel('article', { exact: true }).fill('bread');
    await page.getByRole('button', { name: 'Add the message' }).click();
    await page.getByLabel('article', { exact: true }).fill('milk');
    await page.getByRole('button', { name: 'Add the message' }).click();
    await page.getByLabel('count', { exact: true }).fill('1');
    await page.getByRole('button', { name: 'Add the message' }).click();
    const text = await page.getByLabel('Messages').inputValue();
    await page.getByLabel('Messages').fill(text.replaceAll('"count": 0', '"count": 1'));
    await send(page);
    await reads(status(page), /^200 OK/);
    assert.equal(await answer(page).textContent(), '3');
    assert.match(await call(url, 'find', { id: 'ID' }).catch(String), /400/);
    const found = await fetch(`${url}shop.v1.Orders/list?from=0`).then(response => response.text());
    assert.equal(found.match(/milk/g).length, 2);
});

test('a one-way call is accepted', async t => {
    const { url, visit } = await started(t);
    const page = await visit('seen');
    await page.getByLabel('article', { exact: true }).fill('bread');
    await send(page);
    await reads(status(page), /^202 Accepted/);
    await until('the view', async () => await call(url, 'views', { article: 'bread' }) === '1');
});

test('raw bytes are sent and shown as text', async t => {
    const { visit } = await started(t);
    const page = await visit('echo');
    await page.getByLabel('Body').fill('plain text\nof two lines');
    await send(page);
    await reads(answer(page), /^plain text\nof two lines$/);
});

test('a bidirectional call needs HTTP/2, and works with it', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'tls-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const tls = { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', tls.key, '-out', tls.certificate],
    { stdio: 'ignore' });
    const { visit } = await started(t, { tls });
    const page = await visit('prices', { ignoreHTTPSErrors: true });
    await page.getByLabel('currency', { exact: true }).fill('EUR');
    await page.getByLabel('Messages').fill('"bread"\n"milk"');
    await send(page);
    assert.deepEqual(await received(page, 2), ['"bread: 5 EUR"', '"milk: 4 EUR"']);

    const plain = await (await started(t)).visit('prices');
    await reads(plain.locator('.note'), /needs HTTP\/2/);
    assert.ok(await plain.getByRole('button', { name: 'Send' }).isDisabled());
    const line = await plain.getByLabel('curl').textContent();
    const { stdout } = await promisify(execFile)('sh', ['-c', `${line} -s`]);
    assert.equal(stdout, '": 0 "\n');
});

test('a subscription is resumed after the gateway was killed', async t => {
    const target = await shop(t);
    const [first, other] = [await gateway(t, target), await gateway(t, target)];
    const page = await open(t, await browser(t), `${first.url}docs/#/shop.v1.Orders/watch`, { allow: [LOST, FAILED] });
    await send(page);
    await reads(status(page), /^connected/);
    const order = async count => {
        for (; count > 0; count--) await place(other.url, 'bread');
    };
    await order(3);
    await received(page, 3);
    for (const round of [1, 2]) {
        await first.kill('SIGKILL');
        await reads(status(page), /^reconnecting/);
        await order(5);
        first.kill = (await gateway(t, target, { listen: first.address })).kill;
        await order(2);
        await received(page, 3 + 7 * round);
    }
    await order(1);
    const ids = (await received(page, 18)).map(text => BigInt(text.match(/"id": (\d+)/)[1]));
    assert.deepEqual(ids, Array.from({ length: 18 }, (_, index) => FIRST + BigInt(index)));
});

test('forms write JSON as serde reads it', async t => {
    const { url, window } = await started(t);
    const field = (name, type, more) => ({ name, type, ...more });
    const struct = (...fields) => ({ shape: { struct: { fields } } });
    const choice = (tagging, ...variants) => ({ shape: { enum: { tagging, variants } } });
    const types = {
        Adjacent: choice({ adjacent: { tag: 't', content: 'c' } }, { name: 'A' }, { name: 'B', shape: { tuple: ['u8', 'text'] } }),
        Internal: choice({ internal: { tag: 'k' } }, { name: 'A', shape: { struct: [field('x', 'i8')] } },
            { name: 'B', shape: { newtype: { named: 'Outer' } } }),
        Untagged: choice('untagged', { name: 'A', shape: { newtype: 'u8' } }, { name: 'B', shape: { newtype: 'text' } }),
        External: choice('external', { name: 'A', shape: { newtype: { named: 'External' } } }, { name: 'B' }),
        Inner: struct(field('deep', 'f64'), field('left_out', 'u8', { default: true })),
        Outer: struct(field('own', 'bool'), field('inner', { named: 'Inner' }, { flatten: true }), field('never', 'u8', { write_only: true })),
        Unit: { shape: 'unit' },
    };
    const args = Object.keys(types).map(name => field(name, { named: name })).concat(Object.entries({
        list: { seq: 'u16' }, array: { array: ['u8', 9] }, pair: { tuple: ['i64', 'char'] }, map: { map: ['u8', 'bool'] }, bytes: 'bytes',
        optional: { option: 'u8' }, both: { by_format: { readable: 'text', compact: 'u128' } }, any: 'any',
    }).map(([name, type]) => field(name, type)));
    const methods = [{ name: 'm', path: '/m', args, result: 'unit', http: { path: 's/m', get: false } }];
    const page = await open(t, window, `${await madeUp(t, url, [{ service: 's', methods, types }])}#/s/m`);
    const written = async () => JSON.parse(await page.getByLabel('Arguments as JSON').inputValue());
    assert.deepEqual(await written(), {
        Adjacent: { t: 'A' }, Internal: { k: 'A', x: 0 }, Untagged: 0, External: 'B', Inner: { deep: 0 }, Outer: { own: false, deep: 0 },
        Unit: null, list: [], array: [0, 0, 0, 0, 0, 0, 0, 0, 0], pair: [0, 'x'], map: {}, bytes: [], both: '', any: null,
    });
    for (const index of [0, 1, 2]) await page.getByLabel('Variant').nth(index).selectOption('B');
    for (const add of await page.getByRole('button', { name: 'Add' }).all()) await add.click();
    await page.getByLabel('Key').fill('7');
    await page.getByLabel('Send optional').check();
    const { Adjacent, Internal, Untagged, list, map, optional } = await written();
    assert.deepEqual({ Adjacent, Internal, Untagged, list, map, optional }, {
        Adjacent: { t: 'B', c: [0, ''] }, Internal: { k: 'B', own: false, deep: 0 }, Untagged: '', list: [0], map: { 7: false }, optional: 0,
    });
});

test('what a hostile service says is shown as text', async t => {
    const { url, window } = await started(t);
    const hostile = '<img src=x onerror=alert(1)>\'"</script><script>alert(1)</script>\u202e`${alert(1)}`';
    const type = { named: '__proto__' };
    const method = { name: hostile, path: `/${hostile}`, doc: hostile, deprecated: hostile, auth: hostile, kind: 'hostile',
        args: [{ name: hostile, type }, { name: 'constructor', type: { named: 'constructor' } }],
        result: { opaque: { name: hostile, reason: hostile } }, http: { path: 'javascript:alert(1)', get: true } };
    const shape = { struct: { fields: [{ name: hostile, type: { option: type }, doc: hostile, secret: true }] } };
    const types = JSON.parse('{"__proto__": null}');
    Object.defineProperty(types, '__proto__', { value: { shape, doc: hostile }, enumerable: true });
    const services = [{ service: hostile, doc: hostile, methods: [method], types }];
    const malformed = `]}{${JSON.stringify(hostile)}:{"a":[`;
    const shown = await open(t, window, await madeUp(t, url, services, malformed));
    shown.on('dialog', () => assert.fail('a script of the service has run'));
    await shown.locator('#list a').click();
    await reads(shown.getByRole('heading', { level: 1 }), hostile.slice(0, 20));
    assert.equal(await shown.locator('main img, main script').count(), 0);
    await shown.getByLabel(/^Send </).first().check();
    await send(shown);
    await reads(answer(shown), /"\(secret\)"$/);
});

test('the page fits narrow windows, and its pictures', async t => {
    const { url, visit } = await started(t);
    await place(url, 'bread');
    for (const [name, options] of [
        ['light', {}],
        ['dark', { colorScheme: 'dark' }],
        ['narrow', { viewport: { width: 360, height: 740 } }],
    ]) {
        for (const method of ['', 'place', 'list', 'watch', 'import', 'prices']) {
            const page = await visit(method, { ...options, reducedMotion: 'reduce' });
            await page.getByRole('heading', { level: 1 }).waitFor();
            if (method === 'list') {
                await send(page);
                await received(page, 1);
            }
            const { scrollWidth, clientWidth } = await page.evaluate(() => {
                const { scrollWidth, clientWidth } = document.documentElement;
                return { scrollWidth, clientWidth };
            });
            assert.ok(scrollWidth <= clientWidth, `${name} ${method}: ${scrollWidth}`);
            await screenshot(page, `docs-${name}-${method || 'overview'}`);
        }
    }
});
