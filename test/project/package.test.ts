// What `npm pack` makes, installed in an empty project with what it depends on and nothing else: no test, no compiler, no source tree.
// (CI does the same with a real `npm install`: .ci/package.)

import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UART_BASE } from "../../vmm/memory-map.ts";
import { Program } from "../vmm/rv64-program.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
let files: readonly string[];

/** Runs a command in the project; no registry, no configuration of this machine's. */
function run(command: string, ...args: string[]): { status: number | null; output: string; errors: string } {
  const result = spawnSync(command, args, { cwd: folder, encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } });
  if (result.error !== undefined) throw result.error;
  return { status: result.status, output: result.stdout, errors: result.stderr };
}

const nestbox = (...args: string[]) => run(process.execPath, "node_modules/nestbox/vmm/cli/nestbox.mjs", ...args);

function write(name: string, contents: string | Uint8Array): string {
  writeFileSync(join(folder, name), contents);
  return name;
}

/** The README's example. */
function readmeScenario(): string {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const match = /```ts\n(import \{ scenario \} from "nestbox";[\s\S]*?)```/.exec(readme);
  if (match === null) throw new Error("README.md has no scenario");
  return match[1]!;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-package-"));
  const packed = spawnSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
    cwd: root,
    encoding: "utf8",
  });
  if (packed.status !== 0) throw new Error(packed.stderr);
  const answer = JSON.parse(packed.stdout) as unknown;
  // npm 12 answers with an object by package name, earlier ones with an array.
  const [description] = Object.values(answer as object) as { filename: string; files: { path: string }[] }[];
  files = description!.files.map(({ path }) => path);
  const into = join(folder, "node_modules", "nestbox");
  mkdirSync(into, { recursive: true });
  const untarred = run("tar", "xzf", description!.filename, "-C", into, "--strip-components=1");
  if (untarred.status !== 0) throw new Error(untarred.errors);
  // What `npm install` brings along: everything in the lock file that no development dependency asks for.
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: true }>;
  };
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (path === "" || dev === true || !existsSync(join(root, path))) continue;
    cpSync(join(root, path), join(folder, path), { recursive: true });
  }
  write("package.json", '{ "type": "module" }');
}, 600_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the package", { timeout: 600_000 }, () => {
  it("holds what is compiled, and neither tests nor sources nor what builds it", () => {
    const strays = files.filter((file) =>
      /^(test|dist\/test|dist\/guest-fixtures|\.ci)\/|\.test\.|tsbuildinfo|\.map$/.test(file),
    );
    expect(strays).toEqual([]);
    const typescript = files.filter((file) => /\.ts$/.test(file) && !/\.d\.ts$|\/assembly\//.test(file));
    expect(typescript).toEqual([]);
    expect(files).toContain("LICENSE");
    expect(files).toContain("dist/jco/LICENSE");
  });

  it("builds nothing when it is installed, and takes less than 60 MB with all it depends on", () => {
    const about = JSON.parse(readFileSync(join(folder, "node_modules/nestbox/package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    for (const name of ["preinstall", "install", "postinstall"]) expect(about.scripts[name]).toBeUndefined();
    const entries = readdirSync(join(folder, "node_modules"), { recursive: true, encoding: "utf8" });
    const bytes = entries.reduce((sum, name) => sum + lstatSync(join(folder, "node_modules", name)).size, 0);
    expect(bytes).toBeLessThan(60e6);
  });

  it("boots the default guest", () => {
    const { status, output, errors } = nestbox("boot", "--report", "json");
    expect(errors).not.toContain("nestbox:");
    expect(status).toBe(0);
    expect(JSON.parse(output)).toMatchObject({ result: "pass" });
  });

  it("boots a kernel", () => {
    const kernel = write("kernel", new Program().print(UART_BASE, "a kernel\n").reset().imageFile);
    const { status, output } = nestbox("boot", "--memory", "4M", "--kernel", kernel);
    expect(output).toContain("a kernel\n");
    expect(status).toBe(0);
  });

  it("runs the README's scenario", () => {
    const { status, output } = nestbox("scenario", write("stale.scenario.ts", readmeScenario()));
    expect(output).toContain("1 passed, 0 failed");
    expect(status).toBe(0);
  });

  it("is one library for a scenario, for packages that it imports, and for the command", () => {
    const package_ = join(folder, "node_modules", "expectations");
    mkdirSync(package_);
    writeFileSync(join(package_, "package.json"), '{ "type": "module", "exports": "./index.js" }');
    writeFileSync(
      join(package_, "index.js"),
      'import { ExpectationFailed, parseHost } from "nestbox";\nexport { ExpectationFailed as theirs, parseHost };\n',
    );
    const file = write(
      "packages.scenario.ts",
      `import { ExpectationFailed, HostDescriptionError, scenario } from "nestbox";
       import { parseHost, theirs } from "expectations";
       export default scenario("a package", () => {
         try {
           parseHost({}, "none");
         } catch (error) {
           if (error instanceof HostDescriptionError && theirs === ExpectationFailed) throw new theirs("one copy");
         }
       });`,
    );
    // What the command knows as a failed expectation is reported by its message alone.
    const { status, output } = nestbox("scenario", file);
    expect(output).toContain("one copy");
    expect(status).toBe(1);
  });

  it.each(["nodenext", "preserve"])(
    "has types that hold for target ES2022 with their libraries checked and no other types about (module %s)",
    (module) => {
      write("typed.scenario.ts", readmeScenario());
      const options = { target: "es2022", module, strict: true, noEmit: true, types: [], skipLibCheck: false };
      write("tsconfig.json", JSON.stringify({ compilerOptions: options, files: ["typed.scenario.ts"] }));
      const compiler = join(root, "node_modules/typescript/bin/tsc");
      expect(run(process.execPath, compiler, "-p", ".")).toEqual({ status: 0, output: "", errors: "" });
    },
  );

  it("gives scenarios types that refuse what is wrong", () => {
    write("wrong.scenario.ts", readmeScenario().replace('vm.device("00:02.0")', "vm.device(2)"));
    const options = { target: "es2022", module: "nodenext", strict: true, noEmit: true, types: [] };
    write("tsconfig.json", JSON.stringify({ compilerOptions: options, files: ["wrong.scenario.ts"] }));
    const { status, output } = run(process.execPath, join(root, "node_modules/typescript/bin/tsc"), "-p", ".");
    expect(output).toContain("wrong.scenario.ts");
    expect(status).not.toBe(0);
  });

  it("has every fuzzer with what it needs", () => {
    const index = readFileSync(join(folder, "node_modules/nestbox/dist/fuzz/index.json"), "utf8");
    const names = Object.keys(JSON.parse(index) as object);
    expect(names).toContain("viommu");
    for (const name of names) {
      const { status, output, errors } = nestbox("fuzz", name, "--rounds", "1", "--json");
      expect([name, status, errors]).toEqual([name, 0, ""]);
      expect(JSON.parse(output)).toMatchObject({ fuzzer: name, rounds: 1, findings: 0 });
    }
  });

  it("shows a finding with the line that repeats it, keeps its test, and fails", () => {
    const fuzzers = join(folder, "node_modules/nestbox/dist/fuzz");
    const index = readFileSync(join(fuzzers, "index.json"), "utf8");
    writeFileSync(
      join(fuzzers, "planted.js"),
      `const problem = (seed) => ({ problem: "seed " + seed + " is odd\\nin detail", test: { file: seed + ".test.ts", text: "//" } });
       export const fuzzer = { about: "planted", round: (seed) => (seed % 2 === 1 ? problem(seed) : null) };`,
    );
    writeFileSync(join(fuzzers, "index.json"), JSON.stringify({ ...JSON.parse(index), planted: "planted" }));
    try {
      const text = nestbox("fuzz", "planted", "--seed", "4", "--rounds", "9", "--found", "found", "--result", "r.json");
      expect(text.output).toContain("fuzz planted: seed 5: seed 5 is odd\nin detail\n");
      expect(text.output).toContain("again: nestbox fuzz planted --seed 5 --rounds 1\n");
      expect(text.output).toContain(`as a test: ${join("found", "5.test.ts")}\n`);
      expect(text.output).toContain("1 FINDING in 2 rounds from seed 4");
      expect(text.status).toBe(1);
      expect(readFileSync(join(folder, "found/5.test.ts"), "utf8")).toBe("//");
      const merged = nestbox("report", "merge", "r.json");
      expect(merged.output).toContain("fuzz planted: seed 5: seed 5 is odd\n");
      expect(merged.status).toBe(1);
      const json = nestbox("fuzz", "planted", "--seed", "4", "--rounds", "4", "--keep-going", "--json");
      const objects = json.output
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      expect(objects.map(({ seed, problem, findings }) => [seed, problem ?? findings])).toEqual([
        [5, "seed 5 is odd\nin detail"],
        [7, "seed 7 is odd\nin detail"],
        [4, 2],
      ]);
      expect(json.status).toBe(1);
    } finally {
      writeFileSync(join(fuzzers, "index.json"), index);
    }
  });

  it.each<[string[], string]>([
    [[], "fuzz: which fuzzer?"],
    [["nosuch"], "fuzz nosuch: no such fuzzer"],
    [["cpu", "--seed", "-1"], "whole number"],
    [["cpu", "--seed", "4294967296"], "a seed is below 2^32"],
    [["cpu", "--seconds", "0"], "a number above 0"],
    [["cpu", "--rounds", "1.5"], "whole number"],
    [["cpu", "--shard", "5/4"], "part 5 of 4"],
  ])("refuses nestbox fuzz %j", (args, words) => {
    const { status, output, errors } = nestbox("fuzz", ...args);
    expect(errors).toContain(words);
    expect([status, output]).toEqual([2, ""]);
  });

  it("makes an image of a core module, and of AssemblyScript says how to get the compiler", () => {
    const text = `(module
      (import "env" "memory" (memory 1))
      (func (export "run") (result i32) i32.const 0))`;
    expect(nestbox("make-image", write("guest.wat", text), "guest.wasm")).toMatchObject({ status: 0, errors: "" });
    expect(nestbox("boot", "guest.wasm").status).toBe(0);
    const missing = nestbox("make-image", write("guest.ts", "export function run(): u32 { return 0; }"), "guest.wasm");
    expect(missing.errors).toMatch(
      /AssemblyScript compiler is not installed; run: npm install --save-dev assemblyscript@\d/,
    );
    expect(missing.status).toBe(77);
  });

  it("builds nothing where the development dependencies are left out, and says so", () => {
    mkdirSync(join(folder, "clone/vmm/cli"), { recursive: true });
    cpSync(join(root, "vmm/cli/build.mjs"), join(folder, "clone/vmm/cli/build.mjs"));
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      scripts: { prepare: string };
    };
    expect(scripts.prepare).toBe("node vmm/cli/build.mjs --if-possible");
    const { status, errors } = run(process.execPath, "clone/vmm/cli/build.mjs", "--if-possible");
    expect(errors).toContain("nothing built");
    expect(status).toBe(0);
    expect(run(process.execPath, "clone/vmm/cli/build.mjs").status).toBe(1);
  });

  it("names the registry of nobody in its lock file", () => {
    expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toContain('"resolved"');
  });
});
