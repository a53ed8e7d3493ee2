// The commands that look at something: scenario, walk, ids, inspect, caps, trace.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import { nestbox } from "./command-line.ts";

let folder: string;
let trace: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
  trace = join(folder, "boot.jsonl");
  expect(nestbox("boot", "--trace", trace).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const STALE = "test/scenarios/stale-iotlb.scenario.ts";

function scenarioFile(name: string, source: string): string {
  const file = join(folder, name);
  writeFileSync(file, source);
  return file;
}

const FAILING = `import { scenario } from "nestbox";
export default scenario("a page that was never mapped", (t) => {
  const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
  const device: { dmaRead(iova: bigint, length: number): { ok: boolean } } = vm.device("00:02.0");
  vm.device("00:02.0").installContext(vm.stage1());
  t.expect(device.dmaRead(0x5000n, 4).ok, "the DMA goes through");
});
`;

describe("nestbox scenario", () => {
  it("runs TypeScript files and prints a line each", () => {
    const result = nestbox("scenario", STALE, "test/scenarios/crossed-ids.scenario.ts");
    const kinds = Object.keys(VIOMMU_KINDS);
    const lines = [
      "stale IOTLB after unmap without invalidation",
      "device ids crossed over between guest and host",
    ].flatMap((name) => kinds.map((kind) => `ok   ${name} (${kind})\n`));
    expect(result.output).toBe(`${lines.join("")}${lines.length} passed, 0 failed\n`);
    expect(result.status).toBe(0);
  });

  it("tells what failed, what happened last in plain words, and leaves a trace and a JUnit file", () => {
    const file = scenarioFile("failing.scenario.ts", FAILING);
    const junit = join(folder, "junit.xml");
    const result = nestbox("scenario", file, "--junit", junit, "--trace", folder);
    expect(result.status).toBe(1);
    expect(result.output).toContain("FAIL a page that was never mapped");
    expect(result.output).toContain("expected: the DMA goes through");
    expect(result.output).toMatch(/reads 4 bytes at IOVA 0x5000: aborted/);
    const written = join(folder, "a-page-that-was-never-mapped.trace.jsonl");
    expect(result.output).toContain(written);
    expect(existsSync(written)).toBe(true);
    const xml = readFileSync(junit, "utf8");
    expect(xml).toContain('tests="1" failures="1"');
    expect(xml).toContain('message="expected: the DMA goes through"');
  });

  it("runs the same in every shard together as alone, each scenario once", () => {
    const files = [STALE, "test/scenarios/msi-window.scenario.ts", "test/scenarios/pasids.scenario.ts"];
    const names = (args: string[]) =>
      nestbox("scenario", ...files, "--json", ...args)
        .output.trim()
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => (JSON.parse(line) as { name: string }).name);
    const shards = ["1/3", "2/3", "3/3"].flatMap((shard) => names(["--shard", shard]));
    expect(shards.sort()).toEqual(names([]).sort());
    expect(shards).toHaveLength(4 * Object.keys(VIOMMU_KINDS).length);
  });

  const mistakes: [what: string, source: string, message: RegExp][] = [
    ["exports no scenario", "export const a = 1;\n", /exports no scenario/],
    ["does not parse", "export default scenario(;\n", /broken\.scenario\.ts:1: Unexpected/],
  ];
  for (const [what, source, message] of mistakes) {
    it(`says in one line that a file ${what}`, () => {
      const result = nestbox("scenario", scenarioFile("broken.scenario.ts", source));
      expect(result.errors).toMatch(message);
      expect(result.errors.trim().split("\n")).toHaveLength(1);
      expect(result.status).toBe(2);
    });
  }

  it("gives up a scenario that never ends, and goes on with the next", () => {
    const file = scenarioFile(
      "endless.scenario.ts",
      'import { scenario } from "nestbox";\nexport default [scenario("endless", () => { for (;;); }), scenario("after it", () => {})];\n',
    );
    const result = nestbox("scenario", file, "--wall-limit", "3s");
    expect(result.output).toMatch(/FAIL endless\n.*did not end within the wall limit/);
    expect(result.output).toContain("ok   after it");
    expect(result.status).toBe(1);
  });

  it("names the device a host has not", () => {
    const file = scenarioFile("no-device.scenario.ts", FAILING.replace("0000:00:01.0", "0000:07:01.0"));
    const result = nestbox("scenario", file, "--trace", folder);
    expect(result.status).toBe(1);
    expect(result.output).toMatch(/host two-iommus has no device 0000:07:01\.0 \(it has 0000:00:01\.0, /);
  });
});

describe("nestbox walk", () => {
  it("shows a walk out of a scenario as a grid, every load at its host address", () => {
    const args = ["--device", "00:02.0", "--iova", "0x4008", "--at", "mapped", "--width", "200"];
    const { output, status } = nestbox("walk", "--scenario", STALE, ...args);
    expect(status).toBe(0);
    expect(output).toContain("reads IOVA 0x4008");
    for (const text of ["DDT level 0", "stage 1 level 2", "stage 1 level 0", "final address", "stage 2 level 1"]) {
      expect(output).toContain(text);
    }
    expect(output).toMatch(/-> SPA 0x[0-9a-f]+008/);
  });

  it("blames stage 1 for the guest's fault, says why, and shows the record the guest finds", () => {
    const { output } = nestbox("walk", "--scenario", STALE, "--device", "00:02.0", "--iova", "0x4000", "--why");
    expect(output).toMatch(/-> stage 1: the guest's fault: read page fault \(13\)/);
    expect(output).toContain("§3.3 step 10");
    expect(output).toContain("the guest finds: read page fault (13), untranslated read, device 0x10, iotval 0x4000");
  });

  it("blames stage 2 for the host's, while the guest is told of an access fault without a host address", () => {
    const scenario = "test/scenarios/outside-ram.scenario.ts";
    const args = ["--device", "00:02.0", "--iova", "0x2000", "--write", "--why"];
    const { output } = nestbox("walk", "--scenario", scenario, ...args);
    expect(output).toMatch(/-> stage 2: the host's fault: write\/AMO guest-page fault \(23\)/);
    expect(output).toMatch(
      /the guest finds: write\/AMO access fault \(7\), untranslated write\/AMO, device 0x10, iotval 0x2000$/m,
    );
  });

  it("says what the host had the device go through at that moment", () => {
    const { output } = nestbox("walk", "--trace", trace, "--device", "00:02.0", "--iova", "0x1234567000");
    expect(output).toMatch(/the host had the device 0000:00:02\.0: .*fsc=0x8/);
  });

  it("shows the walk of one DMA, by its number in the trace", () => {
    const dmas = readFileSync(trace, "utf8")
      .split("\n")
      .filter((line) => line.includes('"type":"dma"'))
      .map((line) => JSON.parse(line) as { seq: number; spa?: string });
    const chosen = [dmas[0]!, dmas.at(-1)!];
    for (const { seq, spa } of chosen) {
      const { output, status } = nestbox("walk", "--trace", trace, "--event", `${seq}`, "--why");
      expect(status).toBe(0);
      expect(output).toContain(`(event ${seq}, `);
      if (spa !== undefined) expect(output).toContain(`-> SPA ${spa}\n`);
    }
    expect(nestbox("walk", "--trace", trace, "--event", "1").errors).toContain("no such translation");
  });

  it("finds the walks of a recorded trace, as data for tools", () => {
    const { output, status } = nestbox(
      "walk",
      "--trace",
      trace,
      "--device",
      "00:02.0",
      "--iova",
      "0x1234567000",
      "--all",
      "--json",
    );
    expect(status).toBe(0);
    const grids = output
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { walk: { deviceId: number; iova: string }; rows: unknown[] });
    expect(grids.length).toBeGreaterThan(2);
    for (const { walk } of grids) expect([walk.deviceId, BigInt(walk.iova) >> 12n]).toEqual([0x10, 0x1234567n]);
    expect(Math.max(...grids.map(({ rows }) => rows.length))).toBeGreaterThanOrEqual(4);
  });

  const mistakes: [args: string[], message: RegExp][] = [
    [[], /give either --trace or --scenario/],
    [["--scenario", STALE], /needs --device .* and --iova/],
    [["--scenario", STALE, "--device", "00:02.0", "--iova", "here"], /expected an address/],
    [
      ["--scenario", STALE, "--device", "00:02.0", "--iova", "0", "--filter", "none"],
      /no scenario .* "none" in its name/,
    ],
    [["--scenario", STALE, "--device", "00:09.0", "--iova", "0"], /no such device then \(it has 00:02\.0\)/],
    [["--scenario", STALE, "--device", "00:02.0", "--iova", "0", "--at", "x"], /no such step \(it has 1 "mapped", 2 /],
    [["--trace", "README.md"], /README\.md: /],
  ];
  for (const [args, message] of mistakes) {
    it(`says what is missing: ${args.slice(0, 6).join(" ") || "nothing given"}`, () => {
      const result = nestbox("walk", ...args);
      expect(result.errors).toMatch(message);
      expect(result.status).toBe(2);
    });
  }
});

describe("nestbox ids, inspect, caps, trace", () => {
  it("ids: guest BDF, guest device id, vDEVICE, host BDF, host device id", () => {
    const rows = JSON.parse(nestbox("ids", "--trace", trace, "--json").output) as Record<string, unknown>[];
    expect(
      rows.map(({ guestBdf, guestDeviceId, hostBdf, hostDeviceId }) => [
        guestBdf,
        guestDeviceId,
        hostBdf,
        hostDeviceId,
      ]),
    ).toEqual([
      ["00:02.0", 0x10, "0000:00:01.0", 0x08],
      ["00:01.0", 0x08, "0000:00:02.0", 0x10],
    ]);
  });

  it("inspect: the machine as a tree, or a part of it", () => {
    const all = nestbox("inspect").output;
    for (const text of ["iommu0", "vfio-pci", "viommu0", "ecam", "00:02.0"]) expect(all).toContain(text);
    expect(nestbox("inspect", "vm/viommus/viommu0/base").output).toBe("0x3010000\n");
    expect(nestbox("inspect", "no/such").status).toBe(2);
  });

  it("caps: host bit, guest bit, rule", () => {
    const [caps] = nestbox("caps", "--json")
      .output.trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { rows: { name: string; host: number; guest: number; rule: string }[] });
    const row = (name: string) => caps!.rows.find((candidate) => candidate.name === name)!;
    expect(row("Sv39")).toMatchObject({ host: 1, guest: 1 });
    expect(row("Sv39x4")).toMatchObject({ host: 1, guest: 0 });
    for (const { rule } of caps!.rows) expect(rule).not.toBe("");
  });

  it("trace export: a document for the Perfetto viewer", () => {
    const { output, status } = nestbox("trace", "export", trace, "--perfetto");
    expect(status).toBe(0);
    const document = JSON.parse(output) as { traceEvents: { ph: string; name: string; ts?: number }[] };
    const names = document.traceEvents.filter(({ ph }) => ph === "M").length;
    expect(names).toBeGreaterThan(5);
    expect(document.traceEvents.filter(({ ph }) => ph === "X").length).toBe(
      readFileSync(trace, "utf8").trim().split("\n").length - 1,
    );
  });
});
