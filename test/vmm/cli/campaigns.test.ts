// A campaign in four shards, each a process, and the merged report of it: the command lines of vmm/cli/CAMPAIGNS.md, run.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const program = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));
const page = readFileSync(new URL("../../../vmm/cli/CAMPAIGNS.md", import.meta.url), "utf8");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-campaign-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

function start(args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: folder,
    env: { ...process.env, NO_COLOR: "1", ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = { output: "", errors: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said.output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said.errors += text));
  const ended = once(child, "close").then(([status]): Ended => ({ status: status as number | null, ...said }));
  return { child, ended };
}

const nestbox = (args: readonly string[], environment?: NodeJS.ProcessEnv) => start(args, environment).ended;

function recipe(name: string): string {
  const match = new RegExp(`<!-- recipe: ${name} -->\n\`\`\`yaml\n([\\s\\S]*?)\`\`\``).exec(page);
  if (match === null) throw new Error(`CAMPAIGNS.md has no recipe "${name}"`);
  return match[1]!;
}

/** The number that stands behind a key. */
function numberOf(yaml: string, key: string): number {
  return Number(new RegExp(`^ *${key}: (\\d+)$`, "m").exec(yaml)?.[1]);
}

function commandLine(yaml: string, verb: string): string[] {
  const match = new RegExp(`- run: npx nestbox (${verb} .*)$`, "m").exec(yaml);
  if (match === null) throw new Error(`the recipe runs no ${verb}`);
  return match[1]!.split(" ");
}

async function merge(...args: string[]): Promise<Ended & { summary: Record<string, unknown> }> {
  const ended = await nestbox(["report", "merge", "--json", ...args]);
  return { ...ended, summary: ended.status === 2 ? {} : (JSON.parse(ended.output) as Record<string, unknown>) };
}

describe("the recipe for Kubernetes", { timeout: 600_000 }, () => {
  const yaml = recipe("kubernetes");
  const completions = numberOf(yaml, "completions");
  const [, ...command] = JSON.parse(/^ *command: (\[.*\])$/m.exec(yaml)![1]!) as string[];
  const args = () => command.map((word) => (word === "/results/" ? `${folder}/results/` : word));

  it("runs each index in a process, and merges to one report", async () => {
    expect(completions).toBe(4);
    expect(args()).toContain(`auto/${completions}`);
    const indexes = [...Array(completions).keys()];
    const shards = await Promise.all(indexes.map((index) => nestbox(args(), { JOB_COMPLETION_INDEX: String(index) })));
    for (const { status, errors } of shards) expect([status, errors]).toEqual([0, ""]);
    expect(readdirSync(join(folder, "results")).sort()).toEqual(
      indexes.map((index) => `shard-${index + 1}-of-${completions}.json`),
    );
    const { status, summary } = await merge("results", "--junit", "junit.xml");
    expect(status).toBe(0);
    expect(summary).toMatchObject({ shards: 4, missing: [], interrupted: [], failed: 0, counts: { rounds: 40 } });
    const junit = readFileSync(join(folder, "junit.xml"), "utf8");
    expect(junit).toContain('tests="4" failures="0"');
    for (const index of indexes) expect(junit).toContain(`name="shard ${index + 1}/4 from seed 1"`);
  });

  it("does not start without an index, or with one that `completions` does not have", async () => {
    const without = await nestbox(args());
    expect(without.errors).toContain("JOB_COMPLETION_INDEX");
    expect(without.status).toBe(2);
    const beyond = await nestbox(args(), { JOB_COMPLETION_INDEX: String(completions) });
    expect(beyond.errors).toContain("part 5 of 4");
    expect(beyond.status).toBe(2);
    expect(existsSync(join(folder, "results"))).toBe(false);
  });
});

/** Writes `scenarios/`: a scenario that holds for each name, one with three runs, and one that does not hold if it is to. */
function writeScenarios(names: readonly string[], holds: boolean): void {
  mkdirSync(join(folder, "scenarios"));
  for (const name of names) {
    const body = `export default scenario(${JSON.stringify(name)}, (t) => t.expect(true, "it is so"));`;
    writeFileSync(join(folder, "scenarios", `${name}.scenario.ts`), `import { scenario } from "nestbox";\n${body}\n`);
  }
  writeFileSync(
    join(folder, "scenarios/sweep.scenario.ts"),
    `import { scenario } from "nestbox";
export default scenario("sweep", { sweep: [1, 2, 3] }, (t) => {
  t.expect(t.value !== 2 || ${holds}, "two is no exception");
});
`,
  );
}

describe("the recipe for a CI matrix", { timeout: 600_000 }, () => {
  const yaml = recipe("matrix");
  const shards = JSON.parse(/^ *shard: (\[.*\])$/m.exec(yaml)![1]!) as number[];
  const shardArgs = (shard: number) =>
    commandLine(yaml.replaceAll(/\$\{\{ matrix\.shard \}\}/g, String(shard)), "scenario");
  const mergeArgs = () => commandLine(yaml, "report").slice(2);

  it("runs each scenario, and each run of a sweep, in one of the shards", async () => {
    expect(shards).toEqual([1, 2, 3, 4]);
    writeScenarios(["a", "b", "c", "d", "e"], true);
    const ended = await Promise.all(shards.map((shard) => nestbox(shardArgs(shard))));
    expect(ended.map(({ output }) => output.trimEnd().split("\n").at(-1))).toEqual(
      shards.map(() => "2 passed, 0 failed"),
    );
    const { status, summary } = await merge(...mergeArgs());
    expect(status).toBe(0);
    expect(summary).toMatchObject({ shards: 4, missing: [], tests: 8, passed: 8, failed: 0 });
    const names = [...readFileSync(join(folder, "junit.xml"), "utf8").matchAll(/<testcase .*? name="(.*?)"/g)];
    expect(names.map(([, name]) => name).sort()).toEqual(
      ["a", "b", "c", "d", "e", "sweep [1]", "sweep [2]", "sweep [3]"].sort(),
    );
  });

  it("reports a failure with its place in the source, and a shard whose machine was lost", async () => {
    writeScenarios(["a"], false);
    const ended = await Promise.all([1, 2, 3].map((shard) => nestbox(shardArgs(shard))));
    expect(ended.map(({ status }) => status).sort()).toEqual([0, 0, 1]);
    const { status, summary } = await merge(...mergeArgs());
    expect(status).toBe(1);
    expect(summary).toMatchObject({ missing: [4], passed: 2, failed: 2 });
    const junit = readFileSync(join(folder, "junit.xml"), "utf8");
    expect(junit).toMatch(/name="sweep \[2\]" file="[^"]*sweep.scenario.ts" line="3"/);
    expect(junit).toContain("two is no exception");
    expect(junit).toContain('name="shard 4/4"');
  });

  it("leaves no result of a shard that did not start, and merges none of other files", async () => {
    writeScenarios(["a"], true);
    writeFileSync(join(folder, "scenarios/broken.scenario.ts"), "export default 1;\n");
    expect((await nestbox(shardArgs(1))).status).toBe(2);
    expect(readdirSync(join(folder, "results"))).toEqual([]);
    rmSync(join(folder, "scenarios/broken.scenario.ts"));
    await nestbox(shardArgs(1));
    rmSync(join(folder, "scenarios/a.scenario.ts"));
    await nestbox(shardArgs(2));
    const { status, errors } = await merge(...mergeArgs());
    expect(status).toBe(2);
    expect(errors).toContain("are of different campaigns: files is");
  });
});

describe("a shard that was killed", { timeout: 600_000 }, () => {
  const args = (index: number) => ["fuzz", "cpu", "--rounds", "9", "--shard", `${index}/3`, "--result", "results/"];

  it("left nothing, and is missed by the report, which holds the others", async () => {
    const endless = ["fuzz", "cpu", "--seconds", "100000", "--shard", "2/3", "--result", "results/"];
    const killed = start(endless);
    await vi.waitUntil(() => existsSync(join(folder, "results/shard-2-of-3.json.partial")), { timeout: 500_000 });
    killed.child.kill("SIGKILL");
    await killed.ended;
    for (const index of [1, 3]) expect((await nestbox(args(index))).status).toBe(0);
    const { status, summary } = await merge("results", "--junit", "junit.xml");
    expect(status).toBe(1);
    expect(summary).toMatchObject({ shards: 3, missing: [2], passed: 2, failed: 1, counts: { rounds: 6 } });
    expect(readFileSync(join(folder, "junit.xml"), "utf8")).toContain('<failure type="missing"');
    expect((await nestbox(["report", "merge", "results"])).output).toContain("shard 2/3: left no result");
  });

  it("with a signal that can be heard leaves what it has, and the report says that it did not end", async () => {
    const endless = start(["fuzz", "cpu", "--seconds", "100000", "--shard", "1/1", "--result", "results/"]);
    await vi.waitUntil(() => existsSync(join(folder, "results/shard-1-of-1.json.partial")), { timeout: 500_000 });
    // Signals are listened to before the file is made.
    endless.child.kill("SIGTERM");
    const ended = await endless.ended;
    expect(ended.output).toContain("no finding");
    expect(ended.status).toBe(1);
    const { status, summary } = await merge("results");
    expect(status).toBe(1);
    expect(summary).toMatchObject({ missing: [], interrupted: [1], failed: 1 });
  });
});

describe("what is no result", { timeout: 600_000 }, () => {
  it.each<[string, string, string]>([
    ["text", "no JSON at all", "no JSON, so no result of a shard"],
    ["cut off", '{"format":1,"nestbox":"0.1', "no JSON, so no result of a shard"],
    ["something else's JSON", '{"a":1}', "no result of a shard: result.format"],
    ["a later format", '{"format":2}', "no result of a shard: result.format"],
    ["an array", "[]", "no result of a shard: result"],
    ["nothing", "", "no JSON, so no result of a shard"],
  ])("is refused in one line: %s", async (_what, text, words) => {
    writeFileSync(join(folder, "shard.json"), text);
    const { status, errors, output } = await nestbox(["report", "merge", "shard.json"]);
    expect(errors).toContain(`shard.json: ${words}`);
    expect(errors.trimEnd()).not.toContain("\n");
    expect([status, output]).toEqual([2, ""]);
  });

  it("and so is a folder without any, and a place that cannot be written, before anything runs", async () => {
    mkdirSync(join(folder, "results"));
    expect(await nestbox(["report", "merge", "results"])).toMatchObject({
      status: 2,
      errors: "nestbox: results: no result (*.json) in this folder\n",
    });
    writeFileSync(join(folder, "file"), "");
    const started = await nestbox(["fuzz", "cpu", "--seconds", "100000", "--result", "file/result.json"]);
    expect(started.errors).toContain("--result file/result.json: ");
    expect(started.status).toBe(2);
  });
});
