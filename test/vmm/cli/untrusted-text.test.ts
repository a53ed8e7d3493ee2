// Files from elsewhere hold text that is shown: nothing in it moves the cursor, ends the line or turns the writing direction.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HostDescriptionError, parseHost } from "../../../host/description.ts";
import { nestbox } from "./command-line.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Clears the screen, in two spellings; ends the line; turns what follows around. */
const HOSTILE = "a\u001b[2J\u009b2J\rb\u2028c\u202ed";
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not come
const HARMFUL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028-\u202e]/;

function run(contents: unknown, name: string, ...verb: string[]) {
  const file = join(folder, name);
  writeFileSync(file, typeof contents === "string" ? contents : JSON.stringify(contents));
  const result = nestbox(...verb, file);
  expect(result.output).not.toMatch(HARMFUL);
  expect(result.errors).not.toMatch(HARMFUL);
  return result;
}

describe("no terminal sequence gets out of", () => {
  const head = { seq: 1, time: 0, cause: 0 };
  it.each(
    [
      [{ ...head, type: "attach", device: HOSTILE, domain: "d", detail: "d" }],
      [{ ...head, type: "injection", point: "p", name: "n", rule: HOSTILE }],
      [{ ...head, type: "ioctl", process: "p", fd: 3, name: "n", result: 0, fields: { [HOSTILE]: 1 } }],
      [{ ...head, type: "ioctl", process: "p", fd: 3, name: "n", result: 0, fields: { a: HOSTILE } }],
    ].map(([event], at) => [at + 1, event]),
  )("a trace, event %i", (_, event) => {
    const text = `{"nestbox-trace":1}\n${JSON.stringify(event)}\n`;
    const { status, errors } = run(text, "trace.jsonl", "walk", "--trace");
    expect(status).toBe(2);
    expect(errors).toMatch(/line 2 is not a trace event/);
  });

  it("a trace that is none", () => {
    expect(run(`${HOSTILE}\n`, "none.jsonl", "walk", "--trace").status).toBe(2);
  });

  it.each([
    ["name", { name: HOSTILE }],
    ["description", { name: "n", description: HOSTILE }],
    ["IOMMU's name", { name: "n", iommus: [{ name: HOSTILE, kind: "riscv" }] }],
    ["IOMMU's kind", { name: "n", iommus: [{ name: "i", kind: HOSTILE }] }],
    ["fields", { name: "n", [HOSTILE]: 1 }],
  ])("a host description: its %s", (_, document) => {
    expect(run(document, "host.json", "boot", "--host")).toMatchObject({
      status: 2,
      errors: expect.stringContaining("nestbox: "),
    });
  });

  it("a host description that is no JSON", () => {
    expect(run(HOSTILE, "text.json", "boot", "--host")).toMatchObject({
      status: 2,
      errors: expect.stringContaining("nestbox: "),
    });
  });

  it("a shard's result", () => {
    const failure = { kind: HOSTILE, message: HOSTILE, text: HOSTILE };
    const result = {
      ...{ format: 1, nestbox: "1", campaign: { verb: "fuzz", fuzzer: HOSTILE, seed: 1, rounds: 1 } },
      ...{ shard: { index: 1, count: 1 }, interrupted: false, seconds: 1, counts: { [HOSTILE]: 1, rounds: 1 } },
      cases: [{ classname: HOSTILE, name: HOSTILE, seconds: 1, failure }],
    };
    const { status, output } = run(result, "result.json", "report", "merge");
    expect(status).toBe(1);
    expect(output).toContain("FAIL a\ufffd[2J");
  });

  it("a shard's result with a field too many", () => {
    expect(run({ format: 1, [HOSTILE]: 1 }, "odd.json", "report", "merge").status).toBe(2);
  });
});

describe("a name that every object has", () => {
  it("is no name of an IOMMU", () => {
    const document = '{ "name": "n", "iommus": [{ "name": "__proto__", "kind": "riscv" }] }';
    const { status, errors } = run(document, "proto.json", "boot", "--host");
    expect(status).toBe(2);
    expect(errors).toMatch(/iommus\.0\.name: another name/);
  });

  it("as a field of a host description changes no other object", () => {
    const options = '{ "__proto__": { "counters": 1 } }';
    const document = JSON.parse(
      `{ "name": "n", "__proto__": { "memory": "1M" }, "iommus": [{ "name": "i", "kind": "riscv", "options": ${options} }] }`,
    ) as unknown;
    try {
      parseHost(document, "here");
    } catch (error) {
      expect(error).toBeInstanceOf(HostDescriptionError);
    }
    expect(({} as Record<string, unknown>).memory).toBeUndefined();
    expect(({} as Record<string, unknown>).counters).toBeUndefined();
  });
});
