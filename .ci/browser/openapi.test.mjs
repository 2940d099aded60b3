// A client that a public generator makes from the OpenAPI document of the gateway.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { gateway, shop } from './shop.mjs';

test('a generated client type-checks and calls the gateway', async t => {
    const { url } = await gateway(t, await shop(t), { options: 'json_int64 = "string"' });
    const run = (program, ...args) => promisify(execFile)(`node_modules/.bin/${program}`, args).catch(({ stdout, stderr }) => {
        throw new Error(stdout + stderr);
    });
    await run('openapi-typescript', `${url}openapi.json`, '--output', 'openapi/generated/api.d.ts');
    await run('tsc', '--project', 'openapi');
    const client = await import('./openapi/generated/client.js');
    assert.deepEqual(await client.run(url.replace(/\/$/, '')), {
        id: '9007199254740993',
        article: 'bread',
        note: null,
        missing: [404, 'NOT_FOUND'],
        rejected: { SoldOut: { left: 100 } },
        seen: 202,
        list: 1,
    });
});
