// The hash of a record, from docs/evidence.md and with nothing but Node: reads one entry of an
// evidence file a line, writes its leaf hash and what is withheld of it, or which opening is wrong.
import { createHash, createHmac } from "node:crypto";
import { answerLines, canonical } from "./canonical.mjs";

export const GROUPS = {
  "session.created": { label: [["label"]], user_wallet: [["user_wallet"]] },
  "payment.decided": {
    merchant: [
      ["request", "merchant"],
      ["request", "terms", "resource"],
      ["request", "terms", "body_sha256"],
      ["request_digest"],
      ["idempotency_key"],
      ["decision", "reason"],
      ["decision", "evidence"],
      ["decision", "remaining", "merchant"],
    ],
  },
  "payment.refused": {
    merchant: [["resource"], ["body_sha256"], ["reasons"], ["idempotency_key"]],
  },
  "approval.requested": { merchant: [["digest"]] },
  "approval.granted": { merchant: [["digest"]] },
  "approval.denied": { merchant: [["digest"], ["reason"]] },
  "approval.expired": { merchant: [["digest"]] },
  "approval.refused": { merchant: [["digest"]] },
};

function commitment(salt, value) {
  return createHash("sha256")
    .update("tallystick/commitment/1\n")
    .update(salt)
    .update(canonical(value))
    .digest("hex");
}

function taken(body, paths) {
  const group = {};
  for (const path of paths) {
    if (path[1] === "terms" && !("terms" in body.request)) continue;
    let [from, to] = [body, group];
    for (const step of path.slice(0, -1)) {
      to[step] ??= {};
      [from, to] = [from[step], to[step]];
    }
    const last = path.at(-1);
    to[last] = from[last];
    delete from[last];
  }
  return group;
}

export function read({ record: text, openings }) {
  const record = JSON.parse(text);
  const groups = GROUPS[record.kind] ?? {};
  let hashed = text;
  let withheld = [];
  if (openings) {
    withheld = Object.keys(groups).filter((name) => !(name in openings));
    for (const [name, { salt, value }] of Object.entries(openings)) {
      if (commitment(Buffer.from(salt, "hex"), value) !== record.commitments[name])
        return { refused: name };
    }
  } else if (record.kind in GROUPS) {
    const key = Buffer.from(record.salt, "hex");
    delete record.salt;
    record.commitments = {};
    for (const [name, paths] of Object.entries(groups)) {
      const salt = createHmac("sha256", key).update(name).digest();
      record.commitments[name] = commitment(salt, taken(record.body, paths));
    }
    hashed = canonical(record);
  }
  const hash = createHash("sha256").update(Buffer.from([0])).update(hashed).digest("hex");
  return { hash, withheld: withheld.sort() };
}

await answerLines(import.meta.url, (line) => JSON.stringify(read(JSON.parse(line))));
