// A receiver of webhooks in Node: reads cases from standard input, prints which of them it believes.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const same = (a, b) => a.length === b.length && timingSafeEqual(a, b);
function verify({ secret, headers, body, now }) {
  const bytes = Buffer.from(body, "base64");
  const at = Number(headers["webhook-timestamp"]);
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${at}.`), bytes]);
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  const wanted = createHmac("sha256", key).update(signed).digest();
  const given = headers["webhook-signature"].split(" ").map((each) => each.split(",")[1]);
  const standard = Math.abs(now - at) <= 300 && given.some((each) => same(Buffer.from(each, "base64"), wanted));
  const bare = createHmac("sha256", secret).update(bytes).digest("hex") === headers["X-ZendFi-Signature"];
  return [standard, bare];
}
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(verify)));
