// Every object whose fields change can be written down and read back (host/base/state.ts). A forgotten class or field fails here, not in a
// restored machine; the rules themselves are run against planted classes.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { type SourceText, stateFaults } from "./state-rules.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Not part of a machine: files of the host's, commands, descriptions, views; guest code of the vCPU; the IOMMU driver of Linux's selftests, which
 * no machine has (a kernel with it refuses to be saved).
 */
const OUTSIDE = /^(host\/(adapters|examples|kernel\/iommu\/mock)|vmm\/(cli|scenario|view))\/|\/(assembly|build)\//;

function sources(): SourceText[] {
  const files = ["host", "vmm"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map(
      (name) => `${folder}/${name.replaceAll("\\", "/")}`,
    ),
  );
  return files
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".d.ts") && !OUTSIDE.test(path))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
}

it("classes under host/ and vmm/ are Stateful with every field that changes, and schedule no functions", () => {
  expect(stateFaults(sources())).toEqual([]);
});

describe("the rules", () => {
  const plant = (text: string, ...others: SourceText[]): string[] =>
    stateFaults([{ path: "host/planted.ts", text }, ...others]);
  const stateful = (save: string, restore: string, fields: string, parts = ""): string =>
    `class Planted implements Stateful {
      ${fields}
      saveState(): StateRecord { return { ${save} }; }
      restoreState(state: StateReader): void { ${restore} }
      ${parts}
    }`;

  it.each([
    ["a field that is assigned", "#count = 0;"],
    ["a map", "readonly #map = new Map<string, number>();"],
    ["a list", "readonly list: number[] = [];"],
    ["a typed array", "readonly words = new Uint32Array(4);"],
    ["a typed array made of a list", "readonly words = Uint8Array.of(1, 2);"],
    ["a list made of a list", "readonly #lanes = [1, 2].map((n) => ({ n }));"],
    [
      "a list that the constructor makes",
      "readonly #list: number[]; constructor(n: number) { this.#list = new Array(n); }",
    ],
    ["a record", "readonly #last = { at: 0, valid: false };"],
  ])("refuse a class with %s that is not Stateful", (_name, field) => {
    expect(plant(`// é\nclass Planted { ${field} }`)).toEqual([
      expect.stringMatching(/^host\/planted\.ts:2: Planted has fields that change and is not Stateful: #?\w+$/),
    ]);
  });

  it.each([
    ["a field set once", "readonly #n: number; constructor(n: number) { this.#n = n; }"],
    ["a list that cannot change", "readonly list: readonly number[] = [1];"],
    ["a map that cannot change", "readonly map: ReadonlyMap<number, string> = new Map();"],
    [
      "somebody else's map",
      "readonly map: Map<number, string>; constructor(map: Map<number, string>) { this.map = map; }",
    ],
    ["an event", 'readonly #due: ClockEvent = { owner: "a", name: "b", fire: () => {} };'],
    ["a field with a reason", "// not state: the last hit\n #last = 0;"],
    [
      "fields with one reason",
      "\n// not state, to the blank line: what the last call found\n a = 0;\n readonly b = new Map();",
    ],
    ["a register port", "high = 0; readonly table: MmioPort = { high: 0, mmioRead: () => 0 };"],
    ["a field with a reason behind it", "#last = 0; // not state: the last hit\n"],
  ])("let a class be with %s", (_name, field) => {
    expect(plant(`class Planted { ${field} }`)).toEqual([]);
  });

  it("let be a class with a reason, and errors", () => {
    expect(plant("// Not state: made and dropped within a call\nexport class Planted { x = 0; }")).toEqual([]);
    expect(plant("class Planted extends RangeError { x = 0; }")).toEqual([]);
  });

  it("end what one reason excepts at the blank line", () => {
    const text = "class Planted {\n// not state, to the blank line: scratch\na = 0;\nb = 0;\n\nc = 0;\n}";
    expect(plant(text)).toEqual(["host/planted.ts:1: Planted has fields that change and is not Stateful: c"]);
    expect(plant("class Planted {\n// not state: scratch\na = 0;\nb = 0;\n}")).toHaveLength(1);
  });

  it("want a reason", () => {
    expect(plant("// not state:\nclass Planted { x = 0; }")).toHaveLength(1);
  });

  it("refuse a field that is not saved, or not restored", () => {
    expect(plant(stateful("a: this.#a", 'this.#a = state.number("a");', "#a = 0;\n readonly b = new Map();"))).toEqual([
      "host/planted.ts:3: Planted: b changes and is not in saveState and restoreState",
    ]);
    expect(plant(stateful("a: this.#a", "", "#a = 0;"))).toEqual([
      "host/planted.ts:2: Planted: #a changes and is not in restoreState",
    ]);
    expect(plant(stateful("", "this.#a = 0;", "#a = 0;"))).toEqual([
      "host/planted.ts:2: Planted: #a changes and is not in saveState",
    ]);
  });

  it("follow what saveState and restoreState call", () => {
    const text = stateful(
      "...this.#rest()",
      "this.#take(state);",
      "#a = 0;",
      "#rest() { return { a: this.#a }; } #take() { this.#a = 1; }",
    );
    expect(plant(text)).toEqual([]);
  });

  it("take a map of parts for saved where stateParts names it", () => {
    expect(plant(stateful("", "", "readonly #parts = new Map();", "stateParts() { return this.#parts; }"))).toEqual([]);
  });

  it("refuse a Stateful object that the class makes and does not name, also through an interface of another file", () => {
    const other = {
      path: "host/other.ts",
      text: "export interface Part extends Stateful {}\nexport class Lane implements Part {}",
    };
    const importing = 'import { Lane } from "./other.ts";\n';
    expect(plant(`${importing}class Planted { readonly #lane = new Lane(); }`, other)).toEqual([
      "host/planted.ts:2: Planted has fields that change and is not Stateful: #lane",
    ]);
    expect(plant(importing + stateful("", "", "readonly #lane = new Lane();"), other)).toEqual([
      "host/planted.ts:3: Planted: #lane changes and is not in saveState and restoreState",
    ]);
    const named = stateful("", "", "readonly #lane = new Lane();", 'stateParts() { return [["lane", this.#lane]]; }');
    expect(plant(importing + named, other)).toEqual([]);
  });

  it("refuse new fields of a class that inherits the rest of its state", () => {
    const above = stateful("", "", "").replace("class Planted", "class Above");
    expect(plant(`${above}\nclass Below extends Above { x = 0; }`)).toEqual([
      "host/planted.ts:7: Below: x changes and is not in saveState and restoreState",
    ]);
  });

  it.each([
    ["a closure", "clock.schedule(1, () => this.fire());"],
    ["a method", "clock.schedule(1, this.fire);"],
    ["a field that is a function", "this.clock.schedule(1, this.#later);"],
    ["a function by a local name", "const later = () => {}; clock.schedule(1, later);"],
  ])("refuse to schedule %s", (_name, statement) => {
    expect(plant(`class Planted { readonly #later = () => {}; fire() {} run(clock: Clock) { ${statement} } }`)).toEqual(
      ["host/planted.ts:1: schedule is given a function: a queue that holds one cannot be saved"],
    );
  });

  it.each([
    ["an event of its own", "clock.schedule(1, this.#due, 3);"],
    ["an event that was handed over", "clock.schedule(1, event);"],
    ["something of another kind", "this.#schedule(1, () => {});"],
  ])("let schedule have %s", (_name, statement) => {
    const due = 'readonly #due: ClockEvent = { owner: "a", name: "b", fire: () => {} };';
    expect(plant(`class Planted { ${due} run(clock: Clock, event: ClockEvent) { ${statement} } }`)).toEqual([]);
  });
});
