// What goes where: standard output that others read, a reader that goes away, a terminal, and what --help says.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { wrapLine } from "../../../vmm/cli/terminal.ts";
import { UART_BASE } from "../../../vmm/memory-map.ts";
import { Program } from "../rv64-program.ts";
import { fixture, nestbox, nestboxFile, report } from "./command-line.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const SCENARIO = "test/scenarios/outside-ram.scenario.ts";
const WALK = ["walk", "--scenario", SCENARIO, "--device", "00:02.0", "--iova", "0x2000", "--write", "--why"];

let folder: string;
let trace: string;
let chatty: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-output-"));
  trace = join(folder, "boot.jsonl");
  expect(nestbox("boot", "--trace", trace).status).toBe(0);
  chatty = join(folder, "chatty.image");
  const program = new Program();
  const start = program.here;
  writeFileSync(chatty, program.print(UART_BASE, "on and on\n").jump(start).imageFile);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the command with nobody reading its standard output, or standard error either. */
async function unread(args: readonly string[], both = false): Promise<{ status: number | null; errors: string }> {
  const child = spawn(process.execPath, [nestboxFile, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  if (both) child.stderr.destroy();
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { status, errors };
}

describe("a reader that goes away", () => {
  it.each<[string, () => string[]]>([
    ["--help", () => ["--help"]],
    ["boot --help", () => ["boot", "--help"]],
    ["hosts", () => ["hosts"]],
    ["hosts --json", () => ["hosts", "--json"]],
    ["caps", () => ["caps"]],
    ["inspect", () => ["inspect"]],
    ["ids", () => ["ids", "--trace", trace]],
    ["walk", () => WALK],
    ["walk --all", () => ["walk", "--trace", trace, "--all"]],
    ["trace export", () => ["trace", "export", trace]],
  ])("ends %s without a word", async (_verb, args) => {
    expect(await unread(args())).toEqual({ status: 0, errors: "" });
  });

  it.each<[string, () => string[]]>([
    ["boot", () => ["boot"]],
    // It never stops printing: only the reader ends it.
    ["boot --kernel", () => ["boot", "--memory", "4M", "--wall-limit", "10m", "--kernel", chatty]],
    ["scenario", () => ["scenario", SCENARIO, "test/scenarios/pasids.scenario.ts"]],
  ])("ends %s, whose verdict nobody knows then: as SIGPIPE would", async (_verb, args) => {
    expect(await unread(args())).toEqual({ status: 141, errors: "" });
  });

  it("of a report that was made takes nothing from its status", async () => {
    const { status } = await unread(["boot", "--fail-on-fault", "--report", "json"]);
    expect(status).toBe(3);
  });

  it("of both streams ends it as well", async () => {
    expect((await unread(["boot", fixture("error-mmio-to-nothing")], true)).status).toBe(141);
  });
});

describe("--report json", () => {
  it("has standard output to itself: the machine's tree is a part of it", () => {
    const result = nestbox("boot", fixture("hello"), "--report", "json", "--inspect", "vm/bus");
    expect(report(result)).toMatchObject({ result: "pass", inspect: { ecam: expect.stringMatching(/^0x/) } });
    expect(result.errors).toContain("hello from a component guest\n");
  });

  it("--console puts what the guest prints into a file", () => {
    const file = join(folder, "console");
    const result = nestbox("boot", fixture("hello"), "--report", "json", "--console", file);
    expect(result.errors).toBe("");
    expect(report(result).result).toBe("pass");
    expect(readFileSync(file, "utf8")).toMatch(/^hello from a component guest\n/);
  });

  it("--console without it, too: what is left is the summary", () => {
    const file = join(folder, "console");
    const result = nestbox("boot", fixture("hello"), "--console", file);
    expect(result.output).toMatch(/^result {5}pass\n/);
    expect(readFileSync(file, "utf8")).toMatch(/^hello from a component guest\n/);
  });
});

describe("mistakes", () => {
  it.each([
    [["trace", "export"], /missing required argument 'file'/],
    [["trace", "export", "x", "--no-such"], /unknown option '--no-such'/],
    [["trace", "no-such"], /unknown command 'no-such'/],
    [["trace"], /Usage: nestbox trace/],
    [["no-such"], /unknown command 'no-such'/],
  ] as const)("of usage are exit status 2: %j", (args, message) => {
    const result = nestbox(...args);
    expect(result.errors).toMatch(message);
    expect(result.status).toBe(2);
  });

  it.each([
    ["boot", "no/such"],
    ["boot", "--kernel", "no/such"],
    ["boot", "--kernel", "KERNEL", "--initrd", "no/such"],
    ["boot", "--host", "no/such"],
    ["boot", "--trace", "no/such/file"],
    ["boot", "--console", "no/such/file"],
    ["scenario", "no/such"],
    ["scenario", SCENARIO, "--junit", "no/such/file"],
    ["ids", "--trace", "no/such"],
    ["walk", "--trace", "no/such"],
    ["trace", "export", "no/such"],
    ["hosts", "no/such"],
    ["inspect", "--host", "no/such"],
    ["caps", "--host", "no/such"],
    ["walk", "--scenario", "no/such", "--device", "00:01.0", "--iova", "0"],
  ])("a file that is not there is one line: %s %s %s", (...args) => {
    const result = nestbox(...args.map((word) => (word === "KERNEL" ? chatty : word)));
    expect(result.errors).toMatch(/^nestbox: .*no\/such(\/file)?: no such file.*\n$/);
    expect(result.status).toBe(2);
  });

  it.each([
    ["boot", "/dev/zero"],
    ["boot", "--host", "/dev/zero"],
  ])("a file without an end is refused: %s %s %s", (...args) => {
    const result = nestbox(...args);
    expect(result.errors).toMatch(/^nestbox: .*\/dev\/zero: longer than \d+ bytes\n$/);
    expect(result.status).toBe(2);
  });
});

describe("--help", () => {
  const commands = ["boot", "scenario", "walk", "ids", "inspect", "caps", "trace", "hosts", "host"];
  it.each([...commands.map((command) => [command]), ["trace", "export"]])("of %s %s is for people", (...command) => {
    const { output, status } = nestbox(...command.filter((word) => word !== undefined), "--help");
    expect(status).toBe(0);
    // Not as JSON: no lists in brackets, no durations in nanoseconds, no quoted words.
    expect(output).not.toMatch(/default: (\[|"|\d{4,})|choices: /);
  });

  it("names units and defaults", () => {
    expect(nestbox("scenario", "--help").output).toMatch(/--wall-limit <time>[^-]*\(default:\s+60s\)/);
    expect(nestbox("boot", "--help").output).toMatch(/\(text, json;\s+default:\s+text\)/);
  });
});

const hasScript = spawnSync("script", ["--version"]).stdout?.toString().includes("util-linux") === true;
if (!hasScript) console.warn("SKIPPED: no util-linux script here, so nothing runs on a terminal");

/** Lines that the command prints on a terminal of 80 columns, as they are on the screen at the end, and all bytes. */
function onTerminal(...args: string[]): { lines: string[]; raw: string } {
  const words = [process.execPath, nestboxFile, ...args].map((word) => `'${word}'`).join(" ");
  const { NO_COLOR: _, ...env } = process.env;
  const { stdout } = spawnSync("script", ["-qec", `stty cols 80; ${words}`, "/dev/null"], {
    cwd: root,
    encoding: "utf8",
    env: { ...env, TERM: "xterm" },
  });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  const plain = stdout.replace(/\u001b\[[0-9;]*m/g, "").replaceAll("\r\n", "\n");
  // What a carriage return wrote over is gone.
  return { lines: plain.split("\n").map((line) => line.replace(/^[^\n]*\r/, "")), raw: stdout };
}

describe.skipIf(!hasScript)("on a terminal", () => {
  it.each<[string, () => string[]]>([
    ["boot", () => ["boot"]],
    ["boot --inspect", () => ["boot", "--inspect"]],
    ["hosts", () => ["hosts"]],
    ["caps", () => ["caps"]],
    ["inspect", () => ["inspect"]],
    ["ids", () => ["ids", "--trace", trace]],
    ["scenario", () => ["scenario", SCENARIO]],
    ["walk", () => WALK],
    ["a mistake", () => ["boot", "--assign", "0000:00:1f.0@00:01.0"]],
    ["a mistake of usage", () => ["boot", "--time-limit", "quite some time after the end of the world as we know it"]],
  ])("lines of %s fit 80 columns", (_verb, args) => {
    const long = onTerminal(...args()).lines.filter((line) => [...line].length > 80);
    expect(long).toEqual([]);
  });

  it("no word is cut, none is lost", () => {
    const words = (text: string) => text.split(/\s+/).filter((word) => word !== "");
    const withoutTime = (text: string) => words(text.replace(/time +\S+ ms virtual.*/, ""));
    expect(withoutTime(onTerminal("boot").lines.join("\n"))).toEqual(withoutTime(nestbox("boot").output));
  });

  it("pass is green, and what fails is red; nothing is coloured in a pipe", () => {
    const green = "\u001b[32m";
    const red = "\u001b[31m";
    expect(onTerminal("boot", fixture("hello")).raw).toContain(green);
    expect(onTerminal("boot", fixture("error-exit-status")).raw).toContain(red);
    expect(nestbox("boot", fixture("hello")).output).not.toContain(green);
  });

  it("a kernel that runs long without a word shows that it runs", async () => {
    const silent = join(folder, "silent.image");
    const program = new Program();
    writeFileSync(silent, program.jump(program.here).imageFile);
    const command = `${process.execPath} ${nestboxFile} boot --memory 4M --wall-limit 60m --kernel ${silent}`;
    const child = spawn("script", ["-qec", command, "/dev/null"], {
      stdio: ["ignore", "pipe", "inherit"],
      detached: true,
    });
    let shown = "";
    for await (const chunk of child.stdout) {
      shown += String(chunk);
      if (/\rrunning: [\d.]+ s virtual, \d+ s wall/.test(shown)) break;
    }
    process.kill(-child.pid!);
    expect(shown).toMatch(/^\rrunning: /);
  });
});

describe("a line that is too long", () => {
  it("is broken between words, and what follows is indented", () => {
    expect(wrapLine("  a name and another one", 14, 2)).toBe("  a name and\n    another\n    one");
  });
  it("keeps a word that is longer than the line", () => {
    expect(wrapLine("see /a/very/long/path/indeed now", 10, 2)).toBe("see\n  /a/very/long/path/indeed\n  now");
  });
});
