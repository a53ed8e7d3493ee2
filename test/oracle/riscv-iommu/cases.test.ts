/**
 * The oracle against the table of cases and against examples computed by hand. What the hardware must do with the same table is in
 * `test/host/hw/iommu/riscv/causes.test.ts`.
 */
import { describe, expect, it } from "vitest";
import { allowedOutcomes } from "./allowed.ts";
import { expectedOf, requestsOf } from "./cases/expected.ts";
import { FAULT_CASES } from "./cases/fault-cases.ts";
import { MISCONFIGURED_CONTEXTS } from "./cases/misconfigured-contexts.ts";
import { CONTEXT, DEVICE, IOVA, request, TC } from "./cases/scene.ts";

describe("the oracle on the table of fault causes", () => {
  for (const fault of FAULT_CASES) {
    for (const asked of requestsOf(fault)) {
      for (const dtf of [false, true]) {
        it(`${fault.name}; ${asked.name}${dtf ? "; DTF=1" : ""}`, () => {
          const scene = fault.scene();
          if (dtf) scene.change(CONTEXT, (tc) => tc | TC.DTF);
          const outcomes = allowedOutcomes(scene.implementation, scene.ddtp, scene.memory, asked.request)!;
          const expected = expectedOf(fault, asked.request, dtf);
          for (const outcome of outcomes) {
            expect(outcome.result).toMatchObject(expected.result);
            if (expected.record === null) expect(outcome.record).toBeNull();
            else {
              expect(expected.causes).toContain(outcome.record?.cause);
              expect(outcome.record).toMatchObject(expected.record);
            }
          }
        });
      }
    }
  }
});

describe("the oracle on contexts that §3.1.4 calls misconfigured", () => {
  for (const { name, scene } of MISCONFIGURED_CONTEXTS) {
    it(name, () => {
      const { implementation, ddtp, memory } = scene();
      expect(allowedOutcomes(implementation, ddtp, memory, request())).toMatchObject([
        { result: { kind: "aborted", cause: 259 }, record: { cause: 259, ttyp: 2, did: DEVICE, iotval: IOVA } },
      ]);
    });
  }
});
