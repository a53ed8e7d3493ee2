// `nestbox scenario` with scenarios that go wrong in every way: each fails in lines of its own that name the user's source, the others run,
// and nothing of it is called a bug of nestbox's.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nestbox, nestboxFile } from "./command-line.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-scenarios-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, source: string): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, source);
  return path;
}

interface Shown {
  readonly name: string;
  readonly passed: boolean;
  readonly kind: string;
  readonly message: string;
  readonly at: string;
  readonly step: string | null;
}

/** What went wrong in each, as a body of a scenario on a line of its own, and the words it fails with. */
const BODIES: readonly (readonly [name: string, body: string, message: RegExp])[] = [
  ["a number", "() => { throw 5; }", /^thrown, though no Error: 5$/],
  ["undefined", "() => { throw undefined; }", /^thrown, though no Error: undefined$/],
  [
    "a proxy",
    "() => { throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } }); }",
    /^thrown, though no Error: object/,
  ],
  ["a revoked proxy", "() => { const p = Proxy.revocable({}, {}); p.revoke(); throw p.proxy; }", /no Error/],
  ["no prototype", "() => { throw Object.create(null); }", /^thrown, though no Error: object without a text$/],
  ["a symbol", "() => { throw Symbol('s'); }", /^thrown, though no Error: Symbol\(s\)$/],
  [
    "a stack that throws",
    "() => { throw Object.defineProperty(new Error('words'), 'stack', { get() { throw 3; } }); }",
    /^words$/,
  ],
  ["a stack that is no text", "() => { throw Object.assign(new Error('words'), { stack: {} }); }", /^words$/],
  ["a message that is no text", "() => { throw Object.assign(new Error(), { message: 7 }); }", /no text/],
  [
    "a message that throws",
    "() => { throw Object.defineProperty(new Error(), 'message', { get() { throw 3; } }); }",
    /no text/,
  ],
  ["a message of lines", "() => { throw new Error('one\\ntwo'); }", /^one; two$/],
  ["a message without an end", "() => { throw new Error('x'.repeat(1e7)); }", /^x{500}…$/],
  ["a promise", "async () => {}", /synchronous/],
  ["a promise that rejects", "async () => { throw new Error('x'); }", /synchronous/],
  ["a thenable", "() => ({ then() { throw 1; } })", /synchronous/],
  ["a generator", "function* () { throw new Error('x'); }", /synchronous/],
  ["a promise nobody catches", "() => { Promise.reject(new Error('rejected')); }", /^rejected$/],
  ["a timer that throws", "() => { setTimeout(() => { throw new Error('late'); }, 5); }", /^late$/],
  ["a microtask that throws", "() => { queueMicrotask(() => { throw new Error('late'); }); }", /^late$/],
  ["a recursion without an end", "() => { const f = (): number => f() + 1; f(); }", /call stack/],
  ["process.exit", "() => { process.exit(0); }", /^ended with process\.exit\(0\)$/],
  ["a mistake in a call", "(t) => { t.vm().device('00:09.0'); }", /^this VM has no device at 00:09\.0$/],
  ["an unknown host", "(t) => { t.host('nowhere'); }", /nowhere: no such file, and no built-in host/],
];

describe("a scenario that throws", () => {
  let lines: readonly Shown[];
  let errors: string;
  let path: string;
  beforeAll(() => {
    const scenarios = BODIES.map(([name, body]) => `  scenario(${JSON.stringify(name)}, (${body}) as never),\n`);
    path = file(
      "bodies.scenario.ts",
      `import { scenario } from "nestbox";\nexport default [\n${scenarios.join("")}  scenario("after them", () => {}),\n];\n`,
    );
    const result = nestbox("scenario", path, "--json", "--trace-dir", join(folder, "traces"));
    errors = result.errors;
    expect(result.status).toBe(1);
    lines = result.output
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Shown);
  });

  it.each(BODIES.map(([name, , message], index) => [name, message, index + 3] as const))(
    "%s fails as a scenario, at its own line",
    (name, message, line) => {
      const shown = lines.find((one) => one.name === name)!;
      expect(shown).toMatchObject({ passed: false, kind: "error" });
      expect(shown.message).toMatch(message);
      expect(shown.at).toMatch(new RegExp(`bodies\\.scenario\\.ts:${line}:\\d+$`));
    },
  );

  it("leaves the others alone, and is no bug of nestbox's", () => {
    expect(lines.at(-1)).toMatchObject({ name: "after them", passed: true });
    expect(errors).toBe("");
  });

  it("shows no stack of ours", () => {
    const { output } = nestbox("scenario", path, "--trace-dir", join(folder, "traces"));
    expect(output).toContain("FAIL a mistake in a call\n");
    expect(output).not.toMatch(/node:|dist\/|file:\/\/|scenario-worker/);
  });
});

describe("the wall limit ends", () => {
  const cases: [what: string, source: string][] = [
    ["an endless loop", "for (;;);"],
    ["an endless loop of promises", "const f = (): void => { Promise.resolve().then(f); }; f();"],
    ["a timer that comes again and again", "setInterval(() => {}, 10);"],
  ];
  for (const [what, statement] of cases) {
    it(`${what} in a body; the step is named, and the next scenario runs`, () => {
      const path = file(
        "endless.scenario.ts",
        `import { scenario } from "nestbox";\nexport default [\n  scenario("endless", (t) => { t.step("here"); ${statement} }),\n  scenario("after it", () => {}),\n];\n`,
      );
      const result = nestbox("scenario", path, "--wall-limit", "3s");
      expect(result.output).toMatch(
        /^FAIL endless\n {5}.*endless\.scenario\.ts:3:3, in step "here": did not end within the wall limit/,
      );
      expect(result.output).toContain("ok   after it\n1 passed, 1 failed\n");
      expect(result.status).toBe(1);
    });

    it(`${what} at the top level`, () => {
      const path = file("top.scenario.ts", `${statement}\nexport default 5;\n`);
      const result = nestbox("scenario", path, "--wall-limit", "1s");
      expect(result.errors).toMatch(/^nestbox: scenario .*top\.scenario\.ts: its top level did not end within.*\n$/);
      expect(result.status).toBe(42);
    });
  }

  it("a top level that awaits for ever", () => {
    const path = file("await.scenario.ts", "await new Promise(() => {});\nexport default 5;\n");
    const result = nestbox("scenario", path, "--wall-limit", "1s");
    expect(result.errors).toMatch(/await\.scenario\.ts: its top level did not end within/);
    expect(result.status).toBe(42);
  });

  it("the scenario of a walk as well", () => {
    const path = file("top.scenario.ts", "for (;;);\nexport default 5;\n");
    const args = ["--device", "00:01.0", "--iova", "0", "--wall-limit", "1s"];
    expect(nestbox("walk", "--scenario", path, ...args).status).toBe(42);
  });
});

describe("a file is refused in one line that", () => {
  const cases: [what: string, source: string, message: RegExp][] = [
    ["throws at its top level", "\n\nthrow new Error('at the top');\nexport default 5;\n", /x\.ts:3:7: at the top$/],
    [
      "throws a proxy there",
      "throw new Proxy({}, { get() { throw 1; } });\nexport default 5;\n",
      /x\.ts: thrown, though/,
    ],
    [
      "throws from a timer",
      "setTimeout(() => { throw new Error('late'); }, 5);\nexport default 5;\n",
      /x\.ts:1:26: late$/,
    ],
    ["ends the process", "process.exit(0);\nexport default 5;\n", /ended with process\.exit\(0\) while it was loaded$/],
    ["exports nothing, without running it", "console.log('ran');\n", /exports no scenario/],
    ["exports what is no scenario", "export default { kind: 'nestbox-scenario', name: 'x' };\n", /exports no scenario/],
    ["exports a proxy", "export default new Proxy({}, { get() { throw new Error('no'); } });\n", /: no$/],
    ["imports a package there is not", "import x from 'no-such-package';\nexport default x;\n", /no package "no-such/],
    ["does not parse", "export default (;\n", /x\.ts:1: Unexpected/],
    [
      "declares a scenario without a body",
      "import { scenario } from 'nestbox';\nexport default scenario('x' as never, undefined as never);\n",
      /x\.ts:2:16: scenario\(name, options\?, body\): the options are an object|the body is a function/,
    ],
    [
      "declares an empty sweep",
      "import { scenario } from 'nestbox';\nexport default scenario('x', { sweep: [] }, () => {});\n",
      /x\.ts:2:16: .*sweep is a list/,
    ],
  ];
  for (const [what, source, message] of cases) {
    it(what, () => {
      const result = nestbox("scenario", file("x.ts", source));
      expect(result.errors.trimEnd()).toMatch(message);
      expect(result.errors).toMatch(/^nestbox: scenario [^\n]*\n$/);
      expect(result.output).toBe("");
      expect(result.status).toBe(2);
    });
  }

  it("is no TypeScript", () => {
    const result = nestbox("scenario", "README.md");
    expect(result.errors).toBe("nestbox: scenario README.md: no TypeScript or JavaScript file\n");
    expect(result.status).toBe(2);
  });

  it("is a test, or the command itself: neither is run", () => {
    for (const path of ["test/vmm/cli/boot.test.ts", "vmm/cli/main.ts"]) {
      const result = nestbox("scenario", path);
      expect(result.errors).toMatch(/^nestbox: scenario .*: exports no scenario.*\n$/);
      expect(result.status).toBe(2);
    }
  });
});

const HELPER = `import type { ScenarioContext } from "nestbox";

export function mustBeOne(t: ScenarioContext, value: number): void {
  t.equal(value, 1, "the value");
}
`;
const TWO_FILES = `import { scenario } from "nestbox";
import { mustBeOne } from "./helper.ts";

export default scenario("two files", (t) => {
  t.step("before");
  t.step("the second <step>");
  mustBeOne(t, 2);
});
`;

describe("a failure", () => {
  it("says file and line of the user's source and the step, in the console and in JUnit", () => {
    file("two/helper.ts", HELPER);
    const path = file("two/two.scenario.ts", TWO_FILES);
    const junit = join(folder, "two.xml");
    const { output } = nestbox("scenario", path, "--junit", junit, "--trace-dir", join(folder, "traces"));
    const [, second, third] = output.split("\n");
    expect(second).toBe(
      `     ${join(folder, "two/helper.ts")}:4:5, in step "the second <step>": the value: expected 1, found 2`,
    );
    expect(third).toMatch(/^ {5}at .*two\.scenario\.ts:7:3\)$/);
    const xml = readFileSync(junit, "utf8");
    expect(xml).toContain(`file="${join(folder, "two/helper.ts")}" line="4"`);
    expect(xml).toContain("helper.ts:4:5, in step &quot;the second &lt;step&gt;&quot;: the value: expected 1, found 2");
    expect(xml).toMatch(/at .*two\.scenario\.ts:7:3\)/);
  });

  it("leaves its trace in one folder, which version control leaves out", () => {
    const traces = join(folder, "one-folder");
    nestbox("scenario", file("two/two.scenario.ts", TWO_FILES), "--trace-dir", traces);
    expect(readdirSync(traces).sort()).toEqual([".gitignore", "two-files.trace.jsonl"]);
    expect(readFileSync(join(traces, ".gitignore"), "utf8")).toBe("*\n");
  });

  it("is all that leaves one", () => {
    const traces = join(folder, "none");
    nestbox("scenario", "test/scenarios/crossed-ids.scenario.ts", "--trace-dir", traces);
    expect(existsSync(traces)).toBe(false);
  });
});

describe("nestbox scenario", () => {
  it("runs a folder: all *.scenario.ts below it, and nothing else", () => {
    const empty = 'import { scenario } from "nestbox";\nexport default scenario("NAME", () => {});\n';
    file("tree/b.scenario.ts", empty.replace("NAME", "b"));
    file("tree/a/a.scenario.ts", empty.replace("NAME", "a"));
    file("tree/other.ts", "throw new Error('not to be run');\n");
    file("tree/node_modules/c.scenario.ts", empty.replace("NAME", "c"));
    const result = nestbox("scenario", join(folder, "tree"));
    expect(result.output).toBe("ok   a\nok   b\n2 passed, 0 failed\n");
    const none = nestbox("scenario", "vmm/cli");
    expect(none.errors).toBe("nestbox: scenario vmm/cli: no file in this folder is named *.scenario.ts\n");
    expect(none.status).toBe(2);
  });

  it("--filter runs those whose name contains it, and says when none does", () => {
    const result = nestbox("scenario", "test/scenarios", "--filter", "invalidation (riscv)");
    expect(result.output).toBe("ok   stale IOTLB after unmap without invalidation (riscv)\n1 passed, 0 failed\n");
    const none = nestbox("scenario", "test/scenarios", "--filter", "no such name");
    expect(none.errors).toBe("nestbox: --filter no such name: no scenario's name contains that\n");
    expect(none.status).toBe(2);
  });

  it("--json keeps what scenarios print off standard output", () => {
    const source =
      'import { scenario } from "nestbox";\nexport default scenario("prints", () => console.log("printed"));\n';
    const result = nestbox("scenario", file("prints.scenario.ts", source), "--json");
    expect(JSON.parse(result.output)).toMatchObject({ name: "prints", passed: true });
    expect(result.errors).toBe("printed\n");
  });

  it("--watch runs again when a file changes, one that is imported, too, and outlives mistakes", async () => {
    file("watch/helper.ts", "export const value = 1;\n");
    const path = file(
      "watch/watch.scenario.ts",
      'import { scenario } from "nestbox";\nimport { value } from "./helper.ts";\nexport default scenario("w", (t) => t.equal(value, 2, "value"));\n',
    );
    const args = [nestboxFile, "scenario", path, "--watch", "--trace-dir", join(folder, "traces")];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    const output = createInterface(child.stdout)[Symbol.asyncIterator]();
    const until = async (pattern: RegExp): Promise<void> => {
      for (;;) {
        const { value: line, done } = await output.next();
        if (done === true) throw new Error(`the command ended before ${pattern}`);
        if (pattern.test(line as string)) return;
      }
    };
    try {
      await until(/^FAIL w/);
      await until(/^waiting for a change/);
      file("watch/helper.ts", "export const value = 2;\n");
      await until(/^ok {3}w/);
      await until(/^waiting for a change/);
      file("watch/helper.ts", "export const value = ;\n");
      await until(/^waiting for a change/);
      file("watch/helper.ts", "export const value = 2;\n");
      await until(/^ok {3}w/);
    } finally {
      child.kill();
      await new Promise((resolve) => child.on("close", resolve));
    }
  });
});
