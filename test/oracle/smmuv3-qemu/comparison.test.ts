import { afterEach, describe, expect, test } from "vitest";
import { qemuHere } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { Qtest } from "../qtest.ts";
import { Random } from "../random.ts";
import { oracleSubject } from "../smmuv3/harness/oracle-subject.ts";
import { Comparison, type ComparisonOptions } from "./comparison.ts";
import { reachable, streamId } from "./machine.ts";

const qemu = qemuHere();

describe.skipIf(qemu === null)("QEMU's SMMUv3 beside our model (needs QEMU)", () => {
  let comparison: Comparison | null = null;
  afterEach(async () => comparison?.stop());

  async function findings(options: ComparisonOptions = {}): Promise<number> {
    comparison = new Comparison(qemu!, { log: () => {}, ...options });
    // Linear and two-level stream tables.
    for (let seed = 1; seed <= 3; seed++) {
      await comparison.world(seed);
      await comparison.sequence(seed);
    }
    return comparison.findings;
  }

  test("both do what the specification permits, but for named gaps", async () => {
    expect(await findings()).toBe(0);
  }, 60_000);

  test("a model that reads every write as a read is found", async () => {
    const model = oracleSubject({ request: (request) => ({ ...request, write: false }) });
    expect(await findings({ model })).toBeGreaterThan(0);
  }, 60_000);

  test("a model that drops nothing when told to is found", async () => {
    comparison = new Comparison(qemu!, { log: () => {}, model: oracleSubject({ obeys: () => false }) });
    for (let seed = 1; seed <= 8 && comparison.findings === 0; seed++) await comparison.sequence(seed);
    expect(comparison.findings).toBeGreaterThan(0);
  }, 60_000);

  test("an event record that QEMU loses is found", async () => {
    expect(await findings({ sees: (seen) => ({ ...seen, records: [] }) })).toBeGreaterThan(0);
  }, 60_000);

  test("data that arrives nowhere is found", async () => {
    expect(await findings({ sees: (seen) => ({ ...seen, arrived: null }) })).toBeGreaterThan(0);
  }, 60_000);
});

describe("a QEMU driven by qtest", () => {
  const machine = (script: string) =>
    new Qtest({ command: [process.execPath, "-e", script, "--"], version: "", environment: {} }, []);

  test("answers come in order, with interrupts in between left out", async () => {
    const qtest = machine(`
      process.stdin.once("data", () => process.stdout.write("OK 0x1f\\nIRQ raise 3\\nOK\\n"));
    `);
    expect(await qtest.send(["readl 0x0", "writel 0x0 0x0"])).toEqual([0x1fn, 0n]);
    await qtest.stop();
  });

  test("a QEMU that ends is an error that says what it said, now and later", async () => {
    const qtest = machine(`process.stdin.once("data", () => { console.error("no such device"); process.exit(1); });`);
    await expect(qtest.send(["readl 0x0"])).rejects.toThrow("no such device");
    await expect(qtest.send(["readl 0x0"])).rejects.toThrow("no such device");
  });
});

test("StreamIDs for worlds are those of functions that are there, where any has so few bits", () => {
  const random = new Random(7);
  for (let round = 0; round < 2000; round++) expect(reachable(streamId(random, 16n))).toBe(true);
  for (let round = 0; round < 200; round++) expect(streamId(random, 7n)).toBeLessThan(128n);
  for (let round = 0; round < 200; round++) expect(streamId(random, 2n)).toBeLessThan(4n);
});
