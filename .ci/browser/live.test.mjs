// The live page in a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOSTILE, feed } from './feed.mjs';
import { browser, built, open as openPage, screenshot, start, within } from './support.mjs';

// The server of a test ends before its page, whose requests then fail.
const ENDED = [/net::ERR_.*\/live\//];
const open = (t, browser, url, options) => openPage(t, browser, url, { allow: ENDED, ...options });

const WIDE = { viewport: { width: 1280, height: 900 } };

/** Returns how many milliseconds the next ticks take from their arrival until they are painted. */
function ticks(page, count) {
    const drawn = page.evaluate(count => new Promise(resolve => {
        const all = [];
        addEventListener('drawn', ({ detail }) => {
            all.push(Math.round(detail));
            if (all.length === count) resolve(all);
        });
    }), count);
    return within(`${count} ticks`, drawn);
}

const rows = (page, section) => page.locator(`#${section} tbody tr:not(.spacer)`);

test('500 methods and 1,000 connections are drawn in less than 100 ms a tick', async t => {
    const { url } = await feed(t, 500, 1000);
    const page = await open(t, await browser(t), url, WIDE);
    const times = await ticks(page, 15);
    t.diagnostic(`milliseconds from the arrival of a tick until it is painted: ${times.join(' ')}`);
    // Other programs may slow all of them down, but not each to the same extent.
    assert.ok(Math.min(...times) < 100, times.join(' '));
    assert.equal(await page.locator('#methods .count').textContent(), '500');
    assert.equal(await page.locator('#connections .count').textContent(), '1,000');
    // Rows that are not in sight do not exist.
    assert.ok(await rows(page, 'connections').count() < 60);
});

test('the page looks as it should, light, dark and narrow', async t => {
    const { url } = await feed(t, 500, 1000);
    const started = await browser(t);
    const kinds = { light: WIDE, dark: { ...WIDE, colorScheme: 'dark' }, narrow: { viewport: { width: 360, height: 800 } } };
    for (const [name, options] of Object.entries(kinds)) {
        const page = await open(t, started, url, options);
        await ticks(page, 2);
        if (name !== 'narrow') {
            await page.locator('#methods tbody button').nth(1).click();
            await page.locator('#calls tbody button').first().click();
        }
        await ticks(page, 1);
        await screenshot(page, `live-${name}`);
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= options.viewport.width, `${name}: ${width} pixels wide`);
    }
});

test('what comes from peers is shown as text', async t => {
    const { url } = await feed(t, 10, 10);
    const page = await open(t, await browser(t), url, WIDE);
    await page.getByRole('button', { name: HOSTILE, exact: true }).first().click();
    assert.equal(await page.locator('#method h2').textContent(), HOSTILE);
    assert.equal(await page.locator('img, b > b').count(), 0);
});

test('limits of methods and round trips and stalls of connections are shown', async t => {
    const { url } = await feed(t, 10, 10);
    const page = await open(t, await browser(t), url, { viewport: { width: 1500, height: 900 } });
    const cell = async (section, name, head) => {
        const heads = await page.locator(`#${section} thead th`).allTextContents();
        const row = rows(page, section).filter({ hasText: name });
        return row.locator('td').nth(heads.indexOf(head)).textContent();
    };
    await rows(page, 'connections').first().waitFor();
    assert.match(await cell('methods', 'Users/place', 'In flight'), /^\d+ \/ 100$/);
    assert.match(await cell('methods', 'Orders/place', 'In flight'), /^\d+$/);
    assert.equal(await cell('connections', '10.0.0.5:40005', 'RTT'), '155 µs');
    assert.equal(await cell('connections', '10.0.0.5:40005', 'Stalls'), '35');
    assert.equal(await cell('connections', '10.0.0.3:40003', 'RTT'), '–');
    assert.equal(await cell('connections', '10.0.0.3:40003', 'Stalls'), '0');
    await page.getByRole('button', { name: 'Users/place', exact: true }).click();
    await page.locator('#method dl').getByText(/^\d+ of at most 100$/).waitFor();
});

test('tables are sorted, filtered and opened by the keyboard', async t => {
    const { url } = await feed(t, 100, 10);
    const page = await open(t, await browser(t), url, WIDE);
    await rows(page, 'methods').first().waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('users/');
    assert.match(await page.locator('#methods .count').textContent(), /^\d+ of 100$/);
    const names = await rows(page, 'methods').locator('td:first-child').allTextContents();
    assert.ok(names.length > 3 && names.every(name => name.startsWith('Users/')), names.join(' '));

    const head = page.locator('#methods th').first();
    await head.locator('button').focus();
    await page.keyboard.press('Enter');
    assert.equal(await head.getAttribute('aria-sort'), 'ascending');
    const sorted = await rows(page, 'methods').locator('td:first-child').allTextContents();
    assert.deepEqual(sorted, [...sorted].sort((a, b) => a.localeCompare(b)));

    const button = rows(page, 'methods').locator('button').first();
    await button.focus();
    await page.keyboard.press('Enter');
    await page.locator('#method').waitFor({ state: 'visible' });
    assert.equal(await button.getAttribute('aria-expanded'), 'true');
    await page.locator('#method path.tone-1[d^=M]').first().waitFor({ state: 'attached' });
    await page.keyboard.press('Escape');
    await page.locator('#method').waitFor({ state: 'hidden' });
});

test('the page tells when it is stale, and connects again by itself', async t => {
    const server = await feed(t, 10, 10);
    const allow = [...ENDED, /503.*\/live\/events/];
    const page = await open(t, await browser(t), server.url, { ...WIDE, allow });
    await page.getByText('live', { exact: true }).waitFor();
    server.cut();
    await page.locator('body.is-stale').getByText(/^no data for/).waitFor();
    server.restore();
    await page.getByText('live', { exact: true }).waitFor();
    await ticks(page, 2);
});

test('a pause keeps the page as it is, and what was missed is there afterwards', async t => {
    const { url } = await feed(t, 10, 10);
    const page = await open(t, await browser(t), url, WIDE);
    await ticks(page, 1);
    const pause = page.getByRole('button', { name: 'Pause' });
    await pause.click();
    const shown = await page.locator('#foot').textContent();
    await page.waitForEvent('response', { timeout: 2500 }).catch(() => {});
    assert.equal(await page.locator('#foot').textContent(), shown);
    await pause.click();
    await ticks(page, 2);
});

test('nothing moves for those who do not want it', async t => {
    const { url } = await feed(t, 10, 10);
    const page = await open(t, await browser(t), url, { ...WIDE, reducedMotion: 'reduce' });
    await ticks(page, 1);
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
});

test('a process under load is shown and drained', async t => {
    const { match } = await start(t, built('examples/live'), ['600'], /http:\S+/);
    const page = await open(t, await browser(t), match[0], WIDE);
    await page.getByRole('button', { name: 'orders/place', exact: true }).waitFor();
    const line = page.locator('#totals path.tone-1:not(.fill)').first();
    await within('a curve', page.waitForFunction(() => {
        const path = document.querySelector('#totals path.tone-1:not(.fill)');
        return (path.getAttribute('d').match(/L/g) ?? []).length > 3;
    }));
    assert.match(await line.getAttribute('d'), /^M/);
    await rows(page, 'backends').first().waitFor();
    await rows(page, 'calls').first().waitFor();
    await rows(page, 'connections').first().waitFor();
    await page.getByRole('button', { name: 'stock/reserve', exact: true }).click();
    await ticks(page, 6);
    await screenshot(page, 'live-process');

    await page.getByRole('button', { name: 'Drain …' }).click();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('button', { name: 'Drain …' }).click();
    await page.getByRole('button', { name: 'Yes, drain now' }).click();
    await page.getByText(/^Draining/).first().waitFor();
    await page.getByText(/^no data for/).waitFor();
});
