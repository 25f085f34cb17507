// Canonical JSON in another language: reads one JSON text a line, writes one canonical form a line.
// JavaScript compares strings by UTF-16 code units, which is the order RFC 8785 asks for.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}

// Where a module is what was started and not what another one imports: a line of output for each
// of input.
export async function answerLines(module, answer) {
  if (module !== pathToFileURL(process.argv[1]).href) return;
  const lines = [];
  for await (const line of createInterface({ input: process.stdin })) lines.push(answer(line));
  process.stdout.write(lines.map((line) => `${line}\n`).join(""));
}

await answerLines(import.meta.url, (line) => canonical(JSON.parse(line)));
