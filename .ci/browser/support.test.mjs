// The helpers notice what they are meant to notice.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, record, serve, start } from './support.mjs';

test('errors of a page are recorded', async t => {
    const pages = {
        '/fine': '<p>nothing',
        '/script': '<script>throw new Error("by the script")</script>',
        '/console': '<script>console.error("by the console")</script>',
        '/missing': '<img src="/nowhere.png">',
        '/policy': '<p style="color: red">against the policy',
    };
    const address = await serve(t, ({ url }, response) => {
        response.writeHead(url in pages ? 200 : 404, {
            'content-type': 'text/html',
            'content-security-policy': "style-src 'none'",
        });
        response.end(`<link rel="icon" href="data:,">${pages[url] ?? ''}`);
    });
    const page = await (await browser(t)).newPage();
    const errors = record(page);
    const of = async path => {
        await page.goto(address + path);
        return errors.splice(0).join('\n');
    };
    assert.equal(await of('/fine'), '');
    assert.match(await of('/script'), /by the script/);
    assert.match(await of('/console'), /by the console/);
    assert.match(await of('/missing'), /404.*nowhere\.png/);
    assert.match(await of('/policy'), /Content Security Policy/);
});

test('a program that ends before it is ready is an error with its output', async t => {
    const program = start(t, process.execPath, ['-e', 'console.log("no port is free")'], /listens on (.*)/);
    await assert.rejects(program, /no port is free/);
});

test('a program that is ready is ended by a signal', async t => {
    const source = 'console.log("listens on 127.0.0.1:1"); setInterval(() => {}, 1000)';
    const { match, kill } = await start(t, process.execPath, ['-e', source], /listens on (.*)/);
    assert.equal(match[1], '127.0.0.1:1');
    await kill('SIGKILL');
});
