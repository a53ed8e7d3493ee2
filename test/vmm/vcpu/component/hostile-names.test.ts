// A guest image is hostile. Its names reach the code that jco generates; they must not become code. Here is the image with which it was
// shown that they could, every other place where a name may stand, and each layer by itself (vmm/vcpu/component/prepare.ts). Random
// names, and layers left out in turn: test/fuzz/image-names.ts.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { linkingStatements, readGeneratedCode } from "../../../../vmm/vcpu/component/generated-code.ts";
import { linkPlan } from "../../../../vmm/vcpu/component/link-plan.ts";
import { faultOfName, quoted } from "../../../../vmm/vcpu/component/name-grammar.ts";
import { prepareComponent, transpile } from "../../../../vmm/vcpu/component/prepare.ts";
import { utf8 } from "../../../fuzz/image-names/component-encoder.ts";
import { image, POSITIONS, type Position } from "../../../fuzz/image-names/positions.ts";
import { nestbox } from "../../cli/command-line.ts";
import { ScriptedMachine, soundImage } from "./scripted-machine.ts";
import { watGuest } from "./wat-guest.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("an image whose exported function is named so that its name writes a file", () => {
  it("is refused by nestbox boot in one line, with status 2, and writes nothing", () => {
    const written = join(folder, "written");
    const name = `run'];globalThis.process.getBuiltinModule('node:fs').writeFileSync('${written}','');exports1['run`;
    const file = join(folder, "image.wasm");
    writeFileSync(file, image({ "core export, lifted": utf8(name) }));
    const { status, errors, output } = nestbox("boot", file);
    expect(existsSync(written)).toBe(false);
    expect(status).toBe(2);
    expect(output).toBe("");
    expect(errors.trim().split("\n")).toHaveLength(1);
    expect(errors).toContain(`core module 1 exports "run'];globalThis.process.getBuiltinModule(`);
    expect(errors).toContain("rename it");
  });
});

/** Names that say something to JavaScript, to a terminal or to a reader, in any place. */
const HOSTILE: readonly (readonly [name: string, shown: string])[] = [
  ["", '""'],
  ["a'b", `"a'b"`],
  ['a"b', `"a\\"b"`],
  ["a`b", '"a`b"'],
  ["a\\b", '"a\\\\b"'],
  ["a\nb", '"a\\u{a}b"'],
  ["a\rb", '"a\\u{d}b"'],
  ["a\u2028b", '"a\\u{2028}b"'],
  ["a\u2029b", '"a\\u{2029}b"'],
  ["a\0b", '"a\\u{0}b"'],
  ["a$\u{7b}b}", '"a$\u{7b}b}"'],
  ["a*/b", '"a*/b"'],
  ["a//b", '"a//b"'],
  ["__proto__", '"__proto__"'],
  ["constructor", '"constructor"'],
  ["await", '"await"'],
  ["\u001b[2J", '"\\u{1b}[2J"'],
  ["\u202etxt", '"\\u{202e}txt"'],
  ["é", '"\\u{e9}"'],
  ["x".repeat(129), `"${"x".repeat(80)}…" (129 characters)`],
];

/** Places whose names are made plain instead of refused. */
const isCustom = (position: Position) => /section/.test(position);

describe("a hostile name is refused and shown escaped", () => {
  it.each(POSITIONS.filter((position) => !isCustom(position)))("as %s", async (position) => {
    for (const [name, shown] of HOSTILE) {
      const prepared = await prepareComponent(image({ [position]: utf8(name) }));
      // Components within a component are refused whatever their names.
      const said = position.startsWith("nested") ? "several components" : shown;
      expect([name, prepared]).toEqual([name, { error: expect.stringContaining(said) }]);
      expect((prepared as { error: string }).error).toMatch(/^[\x20-\x7e…]+$/);
    }
  });

  it.each(POSITIONS.filter((position) => !isCustom(position) && !position.startsWith("nested")))(
    "as %s, when it is not even UTF-8",
    async (position) => {
      const prepared = await prepareComponent(image({ [position]: [0x61, 0xff, 0xc0] }));
      expect(prepared).toEqual({ error: expect.stringMatching(/a name is not UTF-8$/) });
    },
  );
});

describe("a custom section is made harmless", () => {
  it.each(POSITIONS.filter(isCustom))("whatever it holds: %s", async (position) => {
    for (const [name] of HOSTILE) {
      const machine = new ScriptedMachine();
      const prepared = await soundImage(image({ [position]: utf8(name) }));
      expect(machine.boot(prepared)).toEqual({ kind: "exited", status: 0 });
    }
  });

  it("and the guest's stack still has its functions, with plain names", async () => {
    const prepared = await soundImage(
      await watGuest("(call $f) (i32.const 0)", { fields: `(func $f (@name "a\\u{1b}[2J\${b}//c'd") (unreachable))` }),
    );
    const outcome = new ScriptedMachine().boot(prepared);
    expect(outcome).toMatchObject({
      kind: "trapped",
      stack: [expect.stringMatching(/^a__2J\$_b_\/_c_d \(/), expect.anything()],
    });
  });
});

describe("the grammar of names", () => {
  it.each([
    "memory",
    "run",
    "_initialize",
    "cabi_realloc",
    "__heap_base",
    "_ZN4core3fmt17h0123456789abcdefE",
    "Foo#get:bar",
  ])("admits what compilers make: %s", (name) => {
    expect(faultOfName(name, "core")).toBeNull();
  });

  it.each([
    "$imports",
    "0",
    "~lib/rt/tlsf/__alloc",
    "cm32p2||run",
    "nestbox:guest/mmio@0.1.0",
    "wasi_snapshot_preview1",
  ])("and the tools after them: %s", (name) => {
    expect(faultOfName(name, "core")).toBeNull();
  });

  it.each(["A-B", "-a", "a-", "a--b", "1a", "a_b", "%a"])("has no such label: %s", (name) => {
    expect(faultOfName(name, "label")).not.toBeNull();
  });

  it("shows no character as itself that is not plain", () => {
    for (let code = 0; code < 0x3000; code++) {
      const shown = quoted(String.fromCodePoint(code));
      expect(shown).toMatch(/^"[\x20-\x7e]+"$/);
      if (code < 0x20 || code > 0x7e) expect(shown).toBe(`"\\u{${code.toString(16)}}"`);
    }
  });
});

describe("the code that jco generates", () => {
  const codeOf = async () => {
    const made = await transpile(await watGuest("(call $load8 (i32.const 0) (i32.const 0))"));
    if ("error" in made) throw new Error(made.error);
    return made.source;
  };
  const held = (source: string) => {
    const code = readGeneratedCode(source);
    return typeof code === "string" ? code : linkingStatements(code);
  };

  it("of a guest that uses the whole world is what is expected", async () => {
    expect(held(await codeOf())).toBeInstanceOf(Array);
  });

  const statement = (text: string) => (source: string) => source.replace("let exports0;", `let exports0; ${text};`);
  const inGlue = (text: string) => (source: string) =>
    source.replace("let hostProvided", text).replace("const hostProvided", `${text}; const hostProvided`);
  it.each([
    ["a call", statement("exports0.x()")],
    ["an assignment", statement("exports0 = imports")],
    ["a string's method", statement("''.constructor.constructor('x')()")],
    ["a computed property", statement("imports['constructor']")],
    ["an import", statement("import('node:fs')")],
    ["a loop", statement("for (;;) {}")],
    ["a block", statement("{ x }")],
    ["another export", (source: string) => `${source}\nexport default 1;`],
    ["an import declaration", (source: string) => `import fs from "node:fs";\n${source}`],
    ["a module of itself", (source: string) => `${source}\nimport.meta;`],
    ["eval, deep inside", inGlue("eval('x')")],
    ["Function, deep inside", inGlue("Function('x')()")],
    ["process, deep inside", inGlue("process.exit()")],
    ["require, deep inside", inGlue("require('fs')")],
    ["fetch, deep inside", inGlue("fetch('x')")],
    ["a constructor, deep inside", inGlue("(() => {}).constructor('x')()")],
    ["a constructor taken apart, deep inside", inGlue("const { constructor: make } = () => {}")],
    ["an import, deep inside", inGlue("import('node:fs')")],
    ["a tagged template, deep inside", inGlue("undefined`x`")],
  ])("with %s in it is refused", async (_, change) => {
    const source = await codeOf();
    const changed = change(source);
    expect(changed).not.toBe(source);
    expect(held(changed)).toEqual(expect.stringMatching(/^the code that jco made for it is not what nestbox expects/));
  });

  it("amounts to one plan, whether or not its other statements are left out", async () => {
    const code = readGeneratedCode(await codeOf());
    if (typeof code === "string") throw new Error(code);
    const linking = linkingStatements(code);
    if (typeof linking === "string") throw new Error(linking);
    const plan = linkPlan(linking, code.run);
    expect(plan).toEqual(linkPlan(code.statements, code.run));
    expect(plan).toMatchObject({ run: { name: "run" } });
  });
});

describe("a plan", () => {
  const planOf = (body: string) => {
    const code = readGeneratedCode(
      `export function instantiate(getCoreModule, imports, instantiateCore) {
         const module0 = getCoreModule('a.wasm');
         let gen = (function* () { let exports0, exports0Run; function run() { exports0Run(); } ${body} exports0Run = exports0.run; return { run }; })();
       }`,
    );
    if (typeof code === "string") throw new Error(code);
    return linkPlan(code.statements, code.run);
  };

  it("is what its statements say", () => {
    expect(planOf("({ exports: exports0 } = instantiateCore(module0));")).toEqual({
      instances: [{ module: "a.wasm", imports: [] }],
      run: { instance: 0, name: "run" },
    });
  });

  it.each([
    [
      "a function outside the world",
      "const { x } = imports['nestbox:guest/mmio'];",
      /"x" of "nestbox:guest\/mmio" is no function/,
    ],
    ["what every object has", "const { constructor } = imports['nestbox:guest/mmio'];", /is no function of the world/],
    ["an interface that every object has", "const { x } = imports['__proto__'];", /is no function of the world/],
    [
      "one name for two things",
      "({ exports: exports0 } = instantiateCore(module0)); ({ exports: exports0 } = instantiateCore(module0));",
      /stands for two things/,
    ],
    [
      "an unknown value",
      "({ exports: exports0 } = instantiateCore(module0, { a: { b: globalThis } }));",
      /is not known/,
    ],
    [
      "a computed name",
      "({ exports: exports0 } = instantiateCore(module0, { [globalThis]: {} }));",
      /without a plain name/,
    ],
    [
      "a getter",
      "({ exports: exports0 } = instantiateCore(module0, { get a() { return {}; } }));",
      /without a plain name/,
    ],
    ["a spread", "({ exports: exports0 } = instantiateCore(module0, { ...globalThis }));", /without a plain name/],
    ["no module", "({ exports: exports0 } = instantiateCore(globalThis));", /no core module/],
    ["no instance", "", /no core function/],
  ])("with %s is refused", (_, body, message) => {
    expect(planOf(body)).toEqual(expect.stringMatching(message));
  });
});
