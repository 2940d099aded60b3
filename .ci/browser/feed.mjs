// A server of the live page with invented numbers: as many methods and connections as a test wants, with a policy that is
// made of the page itself.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { serve } from './support.mjs';

const PAGE = new URL('../../iip-gateway/src/live/live.html', import.meta.url);
const SERVICES = ['Orders', 'Users', 'Inventory', 'Payments', 'Shipping', 'Search', 'Pricing', 'Mail'];
const VERBS = ['place', 'get', 'list', 'cancel', 'update', 'watch', 'reserve', 'refund', 'count', 'find'];
const CODES = ['NOT_FOUND', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'INVALID_ARGUMENT'];
const STATES = ['ready', 'ready', 'ejected', 'slow start', 'down'];

/** The name of a method that would be markup if it were not a text. */
export const HOSTILE = 'Orders/<img src=x onerror=alert(1)>';

/** The same numbers in each run. */
function generator() {
    let seed = 1;
    return () => {
        seed = (seed * 48271) % 2147483647;
        return seed / 2147483647;
    };
}

function policy(html) {
    const hash = tag => {
        const text = html.split(`<${tag}>`)[1].split(`</${tag}>`)[0];
        return `${tag}-src 'sha256-${createHash('sha256').update(text).digest('base64')}'`;
    };
    return `default-src 'none'; ${hash('script')}; ${hash('style')}; connect-src 'self'; img-src data:; base-uri 'none'; `
        + "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
}

/** The numbers of a busy process. */
class Numbers {
    constructor(methods, connections) {
        const start = Date.now();
        Object.assign(this, { random: generator(), start, tick: 0, calls: 0, draining: false });
        this.methods = Array.from({ length: methods }, (_, id) => ({
            id,
            source: id % 5 === 4 ? 1 : 0,
            name: id === 3 ? HOSTILE : `${SERVICES[id % 8]}/${VERBS[Math.floor(id / 8) % 10]}${id >= 80 ? id : ''}`,
            mean: 4000 / (1 + id),
            failing: id % 7 === 2 ? 0.02 : 0,
            calls: 0,
            failed: 0,
        }));
        this.connections = Array.from({ length: connections }, (_, id) => ({
            id, source: 0, peer: `10.0.${id >> 8}.${id & 255}:${40000 + id}`, since: start - id * 7919,
            received: id * 1000, sent: id * 3000, unsent: 0, calls: 0, ...(id % 3 ? { rtt: 150 + id } : {}),
            credit_stalls: id % 5 ? 0 : id * 7, build: id % 2 ? 'q7f3A91c' : 'b0_d55e0',
        }));
    }

    row(method) {
        const wave = 1 + 0.3 * Math.sin(Date.now() / 20000 + method.id);
        const rate = Math.round(method.mean * (0.8 + 0.4 * this.random()) * wave);
        const errors = Math.round(rate * method.failing * this.random());
        method.calls += rate;
        method.failed += errors;
        const p50 = rate ? Math.round(300 + 40 * (method.id % 20) + 50 * this.random()) : null;
        const { id, source, name, calls, failed } = method;
        return {
            id, source, name, calls, failed, rate, errors, p50,
            p99: p50 && Math.round(p50 * (3 + this.random())), p999: p50 && p50 * 9,
            in_flight: Math.round(rate * 0.002), ...(id % 6 === 1 ? { limit: 100 } : {}), codes: errors ? { [CODES[id % 4]]: errors } : {}, second: [rate, errors],
        };
    }

    curve(points, mean) {
        const curve = { rate: [], errors: [], p50: [], p99: [] };
        for (let i = 0; i < points; i += 1) {
            const bad = i > points * 0.6 && i < points * 0.7;
            curve.rate.push(Math.round(mean * (0.9 + 0.2 * this.random() + 0.3 * Math.sin(i / 30))));
            curve.errors.push(bad ? Math.round(mean * 0.08 * this.random()) : 0);
            curve.p50.push(Math.round(320 + 30 * this.random()));
            curve.p99.push(Math.round(1400 + 600 * this.random() + (bad ? 1500 : 0)));
        }
        return curve;
    }

    call() {
        const n = this.calls += 1, slow = n % 3 === 0;
        const text = n % 4 === 0 ? '<b>there is no such order</b>' : 'no reply within 5 s (deadline of the caller)';
        return {
            n, at: Date.now(), source: n % 2, method: this.methods[n % this.methods.length].name,
            code: slow ? 'OK' : CODES[n % 4], took: slow ? 812000 : 5003000, peer: '10.0.3.7:40311',
            trace: '4bf92f3577b34da6a3ce929d0e0e4736', ...(slow ? {} : { text }),
            phases: [{ name: 'queue', us: 1200 }, { name: 'handler', us: slow ? 810000 : 4990000 }],
        };
    }

    backends() {
        const reasons = {
            ejected: ['ejected for another 7.1 s: 5 failures in a row', '11 of 40 calls failed within 10s'],
            down: ['it refuses connections'],
        };
        return STATES.map((state, i) => ({
            source: 1, id: `users-${i + 1}`, address: `10.1.0.${i + 1}:7000`, state, reasons: reasons[state] ?? [],
            weight: state === 'slow start' ? 0.34 : 1, score: state === 'down' ? null : 400 + 90 * i,
            in_flight: state === 'ready' ? 7 + i : 0, connections: state === 'down' ? 0 : 2,
        }));
    }

    common() {
        const text = 'Orders/place of server orders: 2.3 % of 1,820.0 calls/s fail, most with UNAVAILABLE; '
            + '2 of 5 backends of client users get no calls';
        return { now: Date.now(), tick: this.tick, verdict: { level: 'problem', text }, backends: this.backends() };
    }

    snapshot() {
        const total = this.connections.length, half = total >> 1;
        return {
            ...this.common(),
            format: 1, name: 'orders', version: '0.1.0', pid: 4711, started: this.start - 93784000,
            drain: { available: true, draining: this.draining, token: 'secret' },
            sources: [
                { id: 0, kind: 'server', name: 'orders' },
                { id: 1, kind: 'client', name: 'users', target: 'dns://users.:7000' },
            ],
            totals: ['server', 'client'].map((side, i) => ({
                side, in_flight: 31, seconds: this.curve(300, 16000 / (1 + i)), tens: this.curve(360, 15000 / (1 + i)),
            })),
            methods: this.methods.map((method, i) => {
                const { rate, errors } = this.curve(300, method.mean);
                const curve = { rate, errors: method.failing ? errors : [] };
                return { ...this.row(method), ...(i < 200 ? { curve } : {}) };
            }),
            calls: Array.from({ length: 40 }, () => this.call()).reverse(),
            connections: { total, listed: this.connections },
            peers: [{ source: 0, build: 'q7f3A91c', connections: half }, { source: 0, build: 'b0_d55e0', connections: total - half }],
        };
    }

    /** What has changed within a second: everything. */
    change() {
        this.tick += 1;
        for (const connection of this.connections) {
            connection.received += 4000;
            connection.sent += 9000;
            connection.calls = Math.floor(this.random() * 4);
        }
        const second = i => ({
            rate: Math.round(16000 / (1 + i) * (0.9 + 0.2 * this.random())), errors: Math.round(20 * this.random()), p50: 330, p99: 1500,
        });
        return {
            ...this.common(),
            drain: { available: true, draining: this.draining },
            totals: ['server', 'client'].map((side, i) => ({ side, in_flight: 30, second: second(i) })),
            methods: this.methods.map(method => this.row(method)), gone: [],
            calls: this.tick % 3 ? [] : [this.call()],
            connections: { total: this.connections.length, listed: this.connections, gone: [] },
        };
    }
}

/**
 * Serves the page until the test `t` ends. Returns its address, and `cut()`, which ends the connections of all viewers
 * and refuses others until `restore()`.
 */
export async function feed(t, methods, connections) {
    const html = readFileSync(PAGE, 'utf8');
    const numbers = new Numbers(methods, connections);
    const viewers = new Set();
    const event = (name, value) => `event: ${name}\ndata: ${JSON.stringify(value)}\n\n`;
    let refuses = false;
    const respond = {
        '/live': (_, response) => {
            response.writeHead(200, { 'content-type': 'text/html', 'content-security-policy': policy(html) });
            response.end(html);
        },
        '/live/events': (request, response) => {
            if (refuses) return response.writeHead(503).end();
            response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
            response.write(event('snapshot', numbers.snapshot()));
            viewers.add(response);
            request.on('close', () => viewers.delete(response));
        },
        '/live/history': (_, response) => {
            response.writeHead(200, { 'content-type': 'application/json' });
            const curves = { now: Date.now(), seconds: numbers.curve(300, 500), tens: numbers.curve(360, 480) };
            response.end(JSON.stringify(curves));
        },
        '/live/drain': (request, response) => {
            numbers.draining = request.method === 'POST' && request.headers['x-live-token'] === 'secret';
            response.writeHead(numbers.draining ? 202 : 403).end();
        },
    };
    const timer = setInterval(() => {
        if (viewers.size === 0) return;
        const text = event('tick', numbers.change());
        for (const viewer of viewers) viewer.write(text);
    }, 1000);
    t.after(() => clearInterval(timer));
    const address = await serve(t, (request, response) => {
        const handle = respond[request.url.split('?')[0]];
        if (handle) handle(request, response);
        else response.writeHead(404).end();
    });
    const cut = () => {
        refuses = true;
        for (const viewer of viewers) viewer.destroy();
    };
    return { url: `${address}/live`, cut, restore: () => { refuses = false; } };
}
