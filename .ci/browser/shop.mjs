// The shop of the examples, and gateways before it.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { built, start } from './support.mjs';

/** Starts the shop; returns its address. */
export async function shop(t) {
    const { match } = await start(t, built('examples/shop_server'), ['127.0.0.1:0'], /listens on (\S+)/);
    return match[1];
}

/**
 * Starts a gateway before the shop at `target`, on the address `listen`; `options` are further ones of the typed group.
 * Returns its address, the URL of its services, and `kill(signal)`.
 */
export async function gateway(t, target, { listen = '127.0.0.1:0', tls, options = '' } = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'gateway-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'gateway.toml');
    writeFileSync(file, `
workers = 1
[[listen]]
address = "${listen}"
${tls ? `tls = { certificate = "${tls.certificate}", key = "${tls.key}" }` : ''}
[groups.shop]
target = "static:${target}"
[groups.shop.typed]
prefix = "/api"
${options}
[[routes]]
group = "shop"
`);
    const { match, kill } = await start(t, built('iip-gateway'), [file], /listens.*?(127\.0\.0\.1:\d+)/);
    return { address: match[1], url: `${tls ? 'https' : 'http'}://${match[1]}/api/`, kill };
}

/**
 * Calls a method of the shop with an object of arguments, or several messages. Returns the reply as text, so that numbers
 * keep their digits.
 */
export async function call(url, method, ...messages) {
    const type = method === 'import' ? 'x-ndjson' : 'json';
    const response = await fetch(`${url}shop.v1.Orders/${method}`, {
        method: 'POST',
        headers: { 'content-type': `application/${type}` },
        body: messages.map(message => JSON.stringify(message)).join('\n'),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method}: ${response.status} ${text}`);
    return text;
}

/** Places an order; returns its number. */
export const place = (url, article) => call(url, 'place', { order: { article, count: 1, payment: 'cash' } });
