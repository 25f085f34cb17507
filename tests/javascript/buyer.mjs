// Buys by x402 with the npm packages: `@x402/fetch`, and viem for the signature.
//
//     node buyer.mjs < {"urls": ["http://…"], "key": "0x…", "network": "eip155:…", "asset": "0x…"}
//
// It may pay 10,000 of the asset's smallest unit for each. Prints what each answered, as JSON.
import { readFileSync } from "node:fs";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

const { urls, key, network, asset } = JSON.parse(readFileSync(0, "utf8"));
const client = new x402Client();
client.register(network, new ExactEvmScheme(privateKeyToAccount(key)));
client.setSpendControls({ allowedAssets: [{ network, asset, maxAmountPerPayment: "10000" }] });

const pay = wrapFetchWithPayment(fetch, client);
const answers = [];
for (const url of urls) {
  const answer = await pay(url);
  const told = answer.headers.get("PAYMENT-RESPONSE");
  const receipt = told === null ? null : decodePaymentResponseHeader(told);
  answers.push({ status: answer.status, body: await answer.text(), receipt });
}
console.log(JSON.stringify(answers));
