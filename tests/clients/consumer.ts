// A program that uses the generated types, as one of the API's consumers would write it.
//
// usage: node consumer.ts BASE-URL
//
// test_typescript_types.py checks it with tsc, then Node.js, which drops the types, runs it against the stack.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import createClient from "openapi-fetch";

import type { components, operations, paths } from "./schema.d.ts";

type Transaction = components["schemas"]["Transaction"];
type NewTransaction = components["schemas"]["TransactionRequest"];
// The operations have the names of the schema.
type Page = operations["list_transactions"]["responses"]["200"]["content"]["application/json"];

const baseUrl = process.argv[2];
assert(baseUrl, "usage: node consumer.ts BASE-URL");
const credentials = { username: `alice-${randomUUID().slice(-12)}`, password: "correct horse battery staple" };
const coffee: NewTransaction = { amount: "-3.20", description: "Coffee" };

const api = createClient<paths>({ baseUrl });
const as = (token: string) => ({ Authorization: `Bearer ${token}` });

const registered = await api.POST("/auth/users/", { body: credentials });
assert.equal(registered.data?.username, credentials.username, JSON.stringify(registered.error));

const login = await api.POST("/auth/jwt/create/", { body: credentials });
assert(login.data, JSON.stringify(login.error));
const { access, refresh } = login.data;

const recorded = await api.POST("/api/transactions/", { body: coffee, headers: as(access) });
assert(recorded.data, JSON.stringify(recorded.error));
const row: Transaction = recorded.data;
assert.equal(row.amount, coffee.amount);

const listed = await api.GET("/api/transactions/", { params: { query: { search: "coffee" } }, headers: as(access) });
assert(listed.data, JSON.stringify(listed.error));
const page: Page = listed.data;
assert.deepEqual(page.results, [row]);

const next = await api.POST("/auth/jwt/refresh/", { body: { refresh } });
assert(next.data, JSON.stringify(next.error));

const read = await api.GET("/api/transactions/{id}/", {
  params: { path: { id: String(row.id) } },
  headers: as(next.data.access),
});
assert.deepEqual(read.data, row);

const headers = as(next.data.access);

// A request that is sent twice records once; a change counts only as long as nobody else has made one.
const keyed = { body: { amount: "-2.80", description: "Tea" }, headers } as const;
const header = { "Idempotency-Key": randomUUID() };
const first = await api.POST("/api/transactions/", { ...keyed, params: { header } });
const again = await api.POST("/api/transactions/", { ...keyed, params: { header } });
assert(first.data, JSON.stringify(first.error));
assert.deepEqual(again.data, first.data);
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");

const tea = { path: { id: String(first.data.id) }, header: { "If-Match": first.response.headers.get("ETag") ?? "" } };
const change = { params: tea, body: { amount: "-2.90" }, headers };
const changed = await api.PATCH("/api/transactions/{id}/", change);
assert.equal(changed.data?.amount, "-2.90", JSON.stringify(changed.error));
const late = await api.PATCH("/api/transactions/{id}/", change);
assert.equal(late.response.status, 412);

// All rows by cursor, one a page.
const amounts: string[] = [];
for (let cursor: string | null = ""; cursor !== null; ) {
  const query = { cursor, limit: 1 };
  const part: { data?: Page; error?: unknown } = await api.GET("/api/transactions/", { params: { query }, headers });
  assert(part.data, JSON.stringify(part.error));
  amounts.push(...part.data.results.map((each) => each.amount));
  cursor = part.data.next ? new URL(part.data.next).searchParams.get("cursor") : null;
}
assert.deepEqual(amounts, ["-2.90", "-3.20"]);
const summary = await api.GET("/api/transactions/summary/", { headers });
assert.deepEqual([summary.data?.count, summary.data?.sum], [2, "-6.10"], JSON.stringify(summary.error));

// Every session but this one.
const other = await api.POST("/auth/jwt/create/", { body: credentials });
assert(other.data, JSON.stringify(other.error));
const sessions = await api.GET("/auth/sessions/", { headers });
assert(sessions.data, JSON.stringify(sessions.error));
const [ended] = sessions.data.results.filter((session) => !session.current);
assert(ended);
const end = await api.DELETE("/auth/sessions/{id}/", { params: { path: { id: ended.id } }, headers });
assert.equal(end.response.status, 204);
assert.equal((await api.GET("/auth/users/me/", { headers: as(other.data.access) })).response.status, 401);

const missing = await api.GET("/api/transactions/{id}/", {
  params: { path: { id: "999999999999999999" } },
  headers: as(next.data.access),
});
assert.equal(missing.response.status, 404);
assert(missing.error && "detail" in missing.error && missing.error.detail);

const refused = await api.GET("/api/transactions/", { headers: as("not a token") });
assert.equal(refused.response.status, 401);

// What the types refuse; tsc fails where one of these lines is accepted.
// @ts-expect-error a route that the schema does not have
void (() => api.GET("/api/transaction/"));
// @ts-expect-error a transaction without its amount
void (() => api.POST("/api/transactions/", { body: { description: "Coffee" } }));
// @ts-expect-error an amount that is a number, which would lose digits
void ((): Transaction => ({ ...row, amount: -3.2 }));

console.log("done");
