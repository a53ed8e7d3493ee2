import { afterEach, describe, expect, test } from "vitest";
import { qemuHere } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { Random } from "../random.ts";
import { oracleSubject } from "../vtd/harness/oracle-subject.ts";
import { Comparison, type ComparisonOptions } from "./comparison.ts";
import { reachable, sourceId } from "./machine.ts";

const qemu = qemuHere("x86_64");

describe.skipIf(qemu === null)("QEMU's intel-iommu beside our model (needs QEMU)", () => {
  let comparison: Comparison | null = null;
  afterEach(async () => comparison?.stop());

  async function findings(options: ComparisonOptions = {}): Promise<number> {
    comparison = new Comparison(qemu!, { log: () => {}, ...options });
    // One of each unit.
    for (let seed = 1; seed <= 4; seed++) await comparison.world(seed);
    return comparison.findings;
  }

  test("both do what the specification permits, but for named gaps", async () => {
    expect(await findings()).toBe(0);
  }, 120_000);

  test("a model that reads every write as a read is found", async () => {
    const model = oracleSubject({ request: (request) => ({ ...request, access: "read" }) });
    expect(await findings({ model })).toBeGreaterThan(0);
  }, 120_000);

  test("a fault record that QEMU loses is found", async () => {
    expect(await findings({ sees: (seen) => ({ ...seen, records: [] }) })).toBeGreaterThan(0);
  }, 120_000);

  test("data that arrives nowhere is found", async () => {
    const sees: ComparisonOptions["sees"] = (seen) => ({
      ...seen,
      arrived: seen.arrived === undefined ? undefined : null,
    });
    expect(await findings({ sees })).toBeGreaterThan(0);
  }, 120_000);
});

test("Source-IDs for worlds are those of functions that are there", () => {
  const random = new Random(7);
  for (let round = 0; round < 2000; round++) expect(reachable(sourceId(random))).toBe(true);
});
