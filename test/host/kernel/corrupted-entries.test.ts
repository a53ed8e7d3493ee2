// Stage-1 entries that are corrupted on purpose: the device's DMA meets the entry as it then stands in memory, and nobody else's does.

import { describe, expect, it } from "vitest";
import { StateReader } from "../../../host/base/state.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { corruptedEntries } from "../../../host/hw/iommu/corrupted-entries.ts";
import { HARDWARE_KINDS } from "../../../host/hw/iommu/kinds.ts";
import { InjectionPlan, InjectionSyntaxError } from "../../../host/kernel/injection-plan.ts";
import { AssignedEdu, IOVA, RID } from "./assigned-edu.ts";

function assigned(kind: string) {
  const edu = new AssignedEdu(kind);
  const { host } = edu;
  const entries = corruptedEntries(edu.iommu, host.memory)!;
  const dma = (address: bigint): number => edu.dma(address, true);
  const map = () => expect(edu.map(0n)).toBe(0);
  const entryAt = (address: bigint): bigint => {
    expect(host.memory.load64(Number(address >> 12n) as never, Number(address & 0xfffn))).toBe(0);
    return (BigInt(host.memory.hi) << 32n) | BigInt(host.memory.lo);
  };
  const write = (address: bigint, entry: bigint): void => {
    host.memory.store64(
      Number(address >> 12n) as never,
      Number(address & 0xfffn),
      Number(entry & 0xffffffffn),
      Number(entry >> 32n),
    );
  };
  return { entries, dma, map, entryAt, write };
}

describe.each(Object.keys(HARDWARE_KINDS))("a stage-1 entry of a %s IOMMU", (kind) => {
  it("with its valid bit turned over refuses the DMA that comes to it, until software writes it anew", () => {
    const { entries, dma, map, entryAt, write } = assigned(kind);
    map();
    const asked: { deviceId: number; address: bigint; entry: bigint }[] = [];
    entries.ask = (deviceId, address, entry) => {
      asked.push({ deviceId, address, entry });
      return asked.length === 1 ? 0 : -1;
    };
    expect(dma(IOVA)).toBe(R.OUTCOME_REFUSED);
    const { deviceId, address, entry } = asked[0]!;
    expect(deviceId).toBe(RID);
    // bit 0 is V (privileged specification §12.3, DDI 0487 D8.3), in VT-d P of a first-stage entry (§9.7)
    expect(entry & 1n).toBe(1n);
    expect(entryAt(address)).toBe(entry ^ 1n);
    expect(dma(IOVA)).toBe(R.OUTCOME_REFUSED);
    write(address, entry);
    expect(dma(IOVA)).toBe(R.OUTCOME_DONE);
  });

  it("can be any half of: bit 63 is turned over alone", () => {
    const { entries, dma, map, entryAt } = assigned(kind);
    map();
    let turned: { address: bigint; entry: bigint } | null = null;
    entries.ask = (_deviceId, address, entry) => {
      if (turned !== null) return -1;
      turned = { address, entry };
      return 63;
    };
    dma(IOVA);
    expect(entryAt(turned!.address)).toBe(turned!.entry ^ (1n << 63n));
  });

  it("is left alone, and not asked about, where nothing is to be corrupted", () => {
    const { entries, dma, map } = assigned(kind);
    map();
    expect(entries.ask).toBe(null);
    expect(dma(IOVA)).toBe(R.OUTCOME_DONE);
    let asked = 0;
    entries.ask = () => {
      asked++;
      return -1;
    };
    expect(dma(IOVA)).toBe(R.OUTCOME_DONE);
    expect(asked).toBeGreaterThan(0);
    // an IOVA without an entry that could be turned over: nothing breaks
    expect(dma(IOVA + 0x1000_0000n)).toBe(R.OUTCOME_REFUSED);
  });
});

describe("a rule about entries", () => {
  const device = "0000:00:01.0";
  const uses = (plan: InjectionPlan, entries: readonly bigint[]) =>
    entries.map((entry, index) => plan.corruptedBit(device, 0x1000n + BigInt(index) * 8n, entry));

  it("counts the entries that its device comes to use", () => {
    expect(uses(new InjectionPlan([`entry:${device}@2=corrupt/10`]), [1n, 1n, 1n])).toEqual([-1, 10, -1]);
    expect(uses(new InjectionPlan([`entry:${device}@2+=corrupt/63`]), [1n, 1n, 1n])).toEqual([-1, 63, 63]);
    expect(uses(new InjectionPlan([`entry:edu0=corrupt/0`]), [1n])).toEqual([-1]);
  });

  it("does not count an entry again that is as it was", () => {
    const plan = new InjectionPlan([`entry:${device}@2=corrupt/10`]);
    const use = (entry: bigint) => plan.corruptedBit(device, 0x1000n, entry);
    expect([use(3n), use(3n), use(5n), use(5n ^ 1024n), use(5n)]).toEqual([-1, -1, 10, -1, -1]);
  });

  it("without a bit takes some, the same ones for the same seed", () => {
    const bits = (seed: number) =>
      uses(
        new InjectionPlan([`entry:${device}=corrupt`], seed),
        Array.from({ length: 200 }, () => 1n),
      );
    expect(bits(1)).toEqual(bits(1));
    expect(bits(1)).not.toEqual(bits(2));
    expect(new Set(bits(1)).size).toBeGreaterThan(50);
    expect(bits(1).every((bit) => bit >= 0 && bit < 64)).toBe(true);
  });

  it("goes on from a saved plan where that was", () => {
    const rules = [`entry:${device}@3=corrupt/10`];
    const first = new InjectionPlan(rules);
    uses(first, [1n, 1n]);
    const second = new InjectionPlan(rules);
    second.restoreState(new StateReader(first.saveState(), "plan"));
    expect(uses(second, [1n, 1n, 7n])).toEqual([-1, -1, 10]);
  });

  it("that cannot be understood is refused with a sentence that quotes it", () => {
    for (const rule of [
      "entry:",
      "entry=corrupt",
      `entry:${device}`,
      `entry:${device}=drop`,
      `entry:${device}=corrupt/64`,
      `entry:${device}@0=corrupt`,
      `entry:${device}%101=corrupt`,
    ]) {
      expect(() => new InjectionPlan([rule])).toThrow(InjectionSyntaxError);
      expect(() => new InjectionPlan([rule])).toThrow(`"${rule}"`);
    }
  });
});
