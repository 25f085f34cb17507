// What of an evidence file can be checked without an EVM, from docs/evidence.md and with nothing but
// Node: checks 1 to 3, 7 to 9 and 13. Reads a file a line, as {"file": its text, "chain": what the
// auditor knows of the chain: chain_id, registry, anchors, anchored}, and writes the first check that
// does not hold, or null.
import { createHash, createPublicKey, verify } from "node:crypto";

import { answerLines, canonical } from "./canonical.mjs";
import { GROUPS, read } from "./record.mjs";

const FORMAT = "tallystick.evidence/2";

function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const node = (left, right) => sha256(Buffer.from([1]), left, right);
const hashes = (proof) => proof.map((each) => Buffer.from(each, "hex"));
const half = Math.floor;

// Shift until the last node has a sibling (RFC 9162 section 2.1.3.2, step 4b), and once more.
function above(fn, sn) {
  while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, half(sn / 2)];
  return [half(fn / 2), half(sn / 2)];
}

// RFC 9162 section 2.1.3.2: the root that the path leads to, or null if it is not as long as it is to be.
function rootOf(leaf, index, size, path) {
  if (index >= size) return null;
  let [fn, sn, root] = [index, size - 1, leaf];
  for (const sibling of path) {
    if (sn === 0) return null;
    if (fn % 2 === 1 || fn === sn) {
      root = node(sibling, root);
      [fn, sn] = above(fn, sn);
    } else {
      root = node(root, sibling);
      [fn, sn] = [half(fn / 2), half(sn / 2)];
    }
  }
  return sn === 0 ? root.toString("hex") : null;
}

// RFC 9162 section 2.1.4.2: whether the newer of two trees begins with the older.
function extendsIt(older, newer, proof) {
  if (older.size < 1 || older.size >= newer.size) return false;
  const whole = Number.isInteger(Math.log2(older.size));
  const path = whole ? [Buffer.from(older.root, "hex"), ...proof] : proof;
  if (!path.length) return false;
  let [fn, sn] = [older.size - 1, newer.size - 1];
  while (fn % 2 === 1) [fn, sn] = [half(fn / 2), half(sn / 2)];
  let [fr, sr] = [path[0], path[0]];
  for (const sibling of path.slice(1)) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      [fr, sr] = [node(sibling, fr), node(sibling, sr)];
      [fn, sn] = above(fn, sn);
    } else {
      sr = node(sr, sibling);
      [fn, sn] = [half(fn / 2), half(sn / 2)];
    }
  }
  return sn === 0 && fr.toString("hex") === older.root && sr.toString("hex") === newer.root;
}

// The name, id and Ed25519 key of a C2SP verifier key.
function verifierKey(text) {
  const [, name, id, encoded] = /^([!-*,-~]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})$/.exec(text);
  const key = Buffer.from(encoded, "base64");
  if (key[0] !== 1 || sha256(`${name}\n`, key).subarray(0, 4).toString("hex") !== id)
    throw new Error("another key's id");
  const jwk = { kty: "OKP", crv: "Ed25519", x: key.subarray(1).toString("base64url") };
  return { name, id, key: createPublicKey({ key: jwk, format: "jwk" }) };
}

// The size and root of a C2SP checkpoint that the key signed, or null.
function openNote(note, { name, id, key }) {
  const [body, line] = note.split("\n\n");
  const [origin, size, root] = body.split("\n");
  const [dash, signer, encoded] = line.trimEnd().split(" ");
  const signature = Buffer.from(encoded, "base64");
  const ours = dash === "—" && signer === name && signature.subarray(0, 4).toString("hex") === id;
  if (!ours || !verify(null, Buffer.from(`${body}\n`), key, signature.subarray(4))) return null;
  return { origin, size: Number(size), root: Buffer.from(root, "base64").toString("hex") };
}

function anchored({ checkpoint, anchors, consistency, log }, chain, key) {
  const head = openNote(checkpoint, key);
  const last = anchors.at(-1);
  if (head === null || head.origin !== log.origin) return false;
  if (last.size !== head.size || last.root !== head.root) return false;
  const found = chain.anchored.filter(({ size }) => size <= head.size).slice(-anchors.length);
  const same = ({ size, root }, at) => size === found[at]?.size && root === found[at]?.root;
  if (!anchors.every(same) || consistency.length !== anchors.length - 1) return false;
  return consistency.every((proof, at) => extendsIt(anchors[at], anchors[at + 1], hashes(proof)));
}

function follows(entry, hash, before, seq, { log, session, withheld }) {
  const record = JSON.parse(entry.record);
  if (canonical(record) !== entry.record || record.log !== log.origin) return false;
  if (record.workspace !== session.workspace || record.stream !== session.id) return false;
  if (record.seq !== seq || record.prev !== before.hash) return false;
  if (entry.index <= before.index || record.time_ms < before.time_ms) return false;
  const hidden = withheld.filter((name) => name in (GROUPS[record.kind] ?? {}));
  if ("openings" in entry !== hidden.length > 0 || canonical(hash.withheld) !== canonical(hidden))
    return false;
  Object.assign(before, { hash: hash.hash, index: entry.index, time_ms: record.time_ms });
  return true;
}

function refusedBy({ file: text, chain }) {
  let file, key;
  try {
    file = JSON.parse(text);
    if (file.format !== FORMAT || `${canonical(file)}\n` !== text) return "format";
    key = verifierKey(file.log.verifier_key);
  } catch {
    return "format";
  }
  const { signature, ...content } = file;
  const digest = sha256(Buffer.from(canonical(content)));
  const sealed = Buffer.concat([Buffer.from("tallystick/evidence/2\n"), digest]);
  if (!verify(null, sealed, key.key, Buffer.from(signature, "hex"))) return "seal";
  const named = [String(chain.chain_id), chain.registry, chain.anchors];
  const told = [file.chain.chain_id, file.chain.registry, file.chain.anchors];
  if (canonical(named) !== canonical(told)) return "chain";
  if (file.checkpoint === null || !anchored(file, chain, key)) return "anchor";
  const entries = [...file.records, ...file.tail];
  const found = entries.map(read);
  const { size, root } = file.anchors.at(-1);
  const included = ({ index, proof }, at) =>
    "hash" in found[at] &&
    rootOf(Buffer.from(found[at].hash, "hex"), index, size, hashes(proof)) === root;
  if (!file.records.every(included)) return "inclusion";
  const before = { hash: null, index: -1, time_ms: 0 };
  if (!entries.every((entry, at) => follows(entry, found[at], before, at, file))) return "sequence";
  return file.tail.length ? "tail" : null;
}

await answerLines(import.meta.url, (line) => JSON.stringify(refusedBy(JSON.parse(line))));
