// A shop that sells by x402 with the npm packages, as anybody's would: Hono and its middleware.
//
//     node shop.mjs '{"facilitator": "http://…", "network": "eip155:…", "asset": "0x…", "payTo": "0x…"}'
//
// Prints its URL, and serves until its standard input ends. `/report` and `/broken` cost 10,000 of
// the asset's smallest unit; the latter answers 500. `/sold` says how often each was asked for with
// a payment that the facilitator had verified.
import { serve } from "@hono/node-server";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/hono";
import { Hono } from "hono";

const { facilitator, network, asset, payTo } = JSON.parse(process.argv[2]);
const price = { amount: "10000", asset, extra: { name: "Test USD Coin", version: "2" } };
const offer = { accepts: { scheme: "exact", network, payTo, price } };
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator }));
server.register(network, new ExactEvmScheme());

const sold = { report: 0, broken: 0 };
const app = new Hono();
app.use(paymentMiddleware({ "GET /report": offer, "GET /broken": offer }, server));
app.get("/report", (context) => context.json({ sold: 7, before: sold.report++ }));
app.get("/broken", (context) => context.json({ before: sold.broken++ }, 500));
app.get("/sold", (context) => context.json(sold));

serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => {
  console.log(`http://127.0.0.1:${port}`);
});
process.stdin.resume().on("end", () => process.exit());
