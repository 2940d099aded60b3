// What the tests in a browser share: programs that they start, pages that record errors, screenshots.

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

/** Returns the path of a program that cargo has built, such as `examples/shop_server`. */
export const built = name => join(process.env.BUILT, name);

/** Milliseconds after which a test gives up waiting. */
export const GUARD = 60_000;

const ARGUMENTS = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** Fails if `promise` takes longer than `GUARD`. */
export function within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} did not happen within ${GUARD} ms`)), GUARD);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks again and again until `condition` resolves to `true`. */
export function until(what, condition) {
    let isLate = false;
    const met = async () => {
        while (!isLate && !await condition());
    };
    return within(what, met()).finally(() => { isLate = true; });
}

/**
 * Starts a program and waits until a line of its output matches `ready`. Returns the match, and `kill(signal)`, which
 * resolves when the program has ended. It ends with the test `t`.
 */
export async function start(t, program, args, ready) {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = new Promise(resolve => child.once('close', resolve));
    const kill = signal => {
        child.kill(signal);
        return within(`the end of ${program}`, ended);
    };
    t.after(() => kill('SIGKILL'));
    const said = [];
    const match = await within(`the address of ${program}`, new Promise((resolve, reject) => {
        for (const stream of [child.stdout, child.stderr]) {
            createInterface({ input: stream }).on('line', line => {
                said.push(line);
                const found = line.match(ready);
                if (found) resolve(found);
            });
        }
        child.once('error', reject);
        ended.then(() => reject(new Error(`${program} has ended:\n${said.join('\n')}`)));
    }));
    return { match, kill };
}

/** Serves `respond(request, response)` on a port of its own until the test `t` ends; returns the address. */
export async function serve(t, respond) {
    const server = createServer(respond);
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    t.after(() => new Promise(resolve => {
        server.close(resolve);
        server.closeAllConnections();
    }));
    return `http://127.0.0.1:${server.address().port}`;
}

/** Starts a browser, which ends with the test `t`. */
export async function browser(t) {
    const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
    const started = await chromium.launch({ executablePath, args: ARGUMENTS });
    t.after(() => started.close());
    return started;
}

/**
 * Opens `url` in a window of its own. The test `t` fails at its end if the page has reported an error or a violation of
 * its policy, unless it matches a pattern of `allow`. `options` are those of a context of Playwright, such as
 * `colorScheme` and `viewport`.
 */
export async function open(t, browser, url, { allow = [], ...options } = {}) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(GUARD);
    const errors = record(page);
    t.after(async () => {
        await context.close();
        const unexpected = errors.filter(error => !allow.some(pattern => pattern.test(error)));
        if (unexpected.length) throw new Error(`the page has errors:\n${unexpected.join('\n')}`);
    });
    await page.goto(url);
    return page;
}

/** Returns the list to which the errors of a page are added. Violations of its policy are among those of the console. */
export function record(page) {
    const errors = [];
    page.on('pageerror', error => errors.push(String(error)));
    page.on('console', message => {
        if (message.type() === 'error') errors.push(`${message.text()} (${message.location().url})`);
    });
    return errors;
}

/** Saves a picture of the page in the folder that the variable `SCREENSHOTS` names, if there is one. */
export async function screenshot(page, name) {
    const folder = process.env.SCREENSHOTS;
    if (!folder) return;
    mkdirSync(folder, { recursive: true });
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}
