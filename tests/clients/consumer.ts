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
