// Calls the shop through a client whose types are generated from the OpenAPI document of the gateway.

import createClient from 'openapi-fetch';
import type { paths } from './generated/api.js';

/** Returns what the calls have resulted in. 64-bit integers are texts in this gateway. */
export async function run(baseUrl: string) {
    const client = createClient<paths>({ baseUrl });
    const order = { article: 'bread', count: 2, payment: { card: { number: '4111' } } };

    const placed = await client.POST('/shop.v1.Orders/place', { body: { order } });
    const id: string = placed.data!;
    const found = await client.GET('/shop.v1.Orders/find', { params: { query: { id } } });
    const missing = await client.POST('/shop.v1.Orders/find', { body: { id: '7' } });
    const rejected = await client.POST('/shop.v1.Orders/place', { body: { order: { ...order, count: 101, payment: 'cash' } } });
    const seen = await client.POST('/shop.v1.Orders/seen', { body: { article: 'bread' } });
    const list = await client.GET('/shop.v1.Orders/list', { params: { query: { from: '0' } }, parseAs: 'text' });

    // @ts-expect-error: a 64-bit integer is a text.
    const number = () => client.POST('/shop.v1.Orders/find', { body: { id: 7 } });
    // @ts-expect-error: there is no such payment.
    const payment = () => client.POST('/shop.v1.Orders/place', { body: { order: { ...order, payment: 'later' } } });
    // @ts-expect-error: the method may not be called twice.
    const get = () => client.GET('/shop.v1.Orders/place', {});
    void [number, payment, get];

    return {
        id,
        article: found.data?.order.article,
        note: found.data?.order.note,
        missing: [missing.response.status, missing.error?.code],
        rejected: rejected.error && 'error' in rejected.error ? rejected.error.error : undefined,
        seen: seen.response.status,
        list: list.data?.trim().split('\n').length,
    };
}
