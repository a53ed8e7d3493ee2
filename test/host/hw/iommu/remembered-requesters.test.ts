// A requester that was let through is remembered (host/base/caches/requesters.ts): what may not be forgotten over it, in each kind. That invalidations reach
// it, test/host/base/requesters.test.ts shows; each case here is asked once before, so that there is something to remember.

import { describe, expect, it } from "vitest";
import { REG as RISCV } from "../../../../host/arch/riscv/registers.ts";
import {
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_SMMUEN,
  REG as SMMU,
} from "../../../../host/arch/smmuv3/registers.ts";
import { GCMD_SRTP, GCMD_TE, REG as VTD } from "../../../../host/arch/vtd/registers.ts";
import * as riscv from "./riscv/machine.ts";
import * as smmuv3 from "./smmuv3/machine.ts";
import * as vtd from "./vtd/machine.ts";

const IOVA = 0x40000n << 12n;
const PFN = 0x40000;
const [TO, ELSEWHERE] = [0x80800, 0x80900];
const at = (pfn: number): bigint => BigInt(pfn) << 12n;

describe("a RISC-V device that is remembered", () => {
  const first = (machine: riscv.Machine, to: number): { fsc_MODE: number; fsc_PPN: number; PSCID: number } => {
    const root = machine.makeRoot();
    machine.map(root, 3, PFN, to, riscv.USER_RW);
    return { fsc_MODE: 8, fsc_PPN: root, PSCID: to & 0xfff };
  };
  const machineWith = (options = {}): riscv.Machine => {
    const machine = new riscv.Machine(options);
    machine.useDirectory(3);
    machine.enableFaultQueue();
    return machine;
  };

  it("passes no more once ddtp is Off, and unchanged once it is Bare", () => {
    const machine = machineWith();
    machine.setDevice(5, first(machine, TO));
    expect(machine.request(5, IOVA)).toBe(at(TO));
    machine.write64(RISCV.ddtp, 1n);
    expect(machine.request(5, IOVA)).toBe(IOVA);
    machine.write64(RISCV.ddtp, 0n);
    expect(machine.request(5, IOVA)).toBeNull();
    expect(machine.takeFaults()).toMatchObject([{ cause: 256 }]);
  });

  it.each([{ devices: 0 }, { processes: 0, devices: 0 }])("is not, where no contexts are cached: %o", (caches) => {
    const machine = machineWith({ caches: { ...caches, translations: 0 } });
    machine.setDevice(5, first(machine, TO));
    expect(machine.request(5, IOVA)).toBe(at(TO));
    machine.setDevice(5, first(machine, ELSEWHERE));
    expect(machine.request(5, IOVA)).toBe(at(ELSEWHERE));
  });

  it("has its processes' contexts read anew, where those are not cached", () => {
    const machine = machineWith({ caches: { processes: 0, translations: 0 } });
    const directory = machine.makeProcessDirectory(1);
    machine.setProcess(directory, 7, first(machine, TO));
    machine.setDevice(5, { PDTV: 1, fsc_MODE: 1, fsc_PPN: directory });
    expect(machine.request(5, IOVA, { pasid: 7 })).toBe(at(TO));
    machine.setProcess(directory, 7, first(machine, ELSEWHERE));
    expect(machine.request(5, IOVA, { pasid: 7 })).toBe(at(ELSEWHERE));
  });

  it("has its translated requests refused without EN_ATS, and a supervisor's without ENS", () => {
    const machine = machineWith();
    const directory = machine.makeProcessDirectory(1);
    machine.setProcess(directory, 7, first(machine, TO));
    machine.setDevice(5, { PDTV: 1, fsc_MODE: 1, fsc_PPN: directory });
    for (let times = 0; times < 2; times++) {
      expect(machine.request(5, IOVA, { pasid: 7 })).toBe(at(TO));
      expect(machine.request(5, IOVA, { pasid: 7, translated: true })).toBeNull();
      expect(machine.request(5, IOVA, { pasid: 7, privileged: true })).toBeNull();
      expect(machine.takeFaults()).toMatchObject([{ cause: 260 }, { cause: 260 }]);
    }
  });
});

describe("an SMMUv3's stream that is remembered", () => {
  const machineWith = (options = {}): smmuv3.Machine => {
    const machine = new smmuv3.Machine(options);
    machine.start({ cr0: CR0_ATSCHK });
    return machine;
  };
  const stream = (machine: smmuv3.Machine, to: number, attributes = smmuv3.USER_RW, fields = {}): void => {
    machine.map(machine.makeFirstStage(5, {}, fields), PFN, to, attributes);
  };

  it("passes unchanged once SMMUEN is clear", () => {
    const machine = machineWith();
    stream(machine, TO);
    expect(machine.request(5, IOVA)).toBe(at(TO));
    machine.write32(SMMU.CR0, CR0_EVENTQEN | CR0_CMDQEN);
    expect(machine.request(5, IOVA)).toBe(IOVA);
    machine.write32(SMMU.CR0, CR0_EVENTQEN | CR0_CMDQEN | CR0_SMMUEN);
    expect(machine.request(5, IOVA)).toBe(at(TO));
  });

  it.each([{ streams: 0 }, { contexts: 0 }])("is not, where not all structures are cached: %o", (caches) => {
    const machine = machineWith({ caches: { ...caches, translations: 0 } });
    const [to, elsewhere] = [TO, ELSEWHERE].map((frame) => {
      const root = machine.allocate();
      machine.map(root, PFN, frame, smmuv3.USER_RW);
      return { ...smmuv3.CONTEXT, TTB0: root * 256, ASID: frame & 0xfff };
    });
    const [before, after] = [machine.makeContextTable(), machine.makeContextTable()];
    machine.setContext(before, 0, to!);
    machine.setContext(after, 0, elsewhere!);
    machine.setStream(5, { Config: 5, S1ContextPtr: before * 64 });
    expect(machine.request(5, IOVA)).toBe(at(TO));
    if ("streams" in caches) machine.setStream(5, { Config: 5, S1ContextPtr: after * 64 });
    else machine.setContext(before, 0, elsewhere!);
    expect(machine.request(5, IOVA)).toBe(at(ELSEWHERE));
  });

  it("has PRIVCFG and INSTCFG override each request", () => {
    const features = { ATTR_PERMS_OVR: true };
    const machine = machineWith({ features });
    // EL0 has no access.
    stream(machine, TO, smmuv3.AF | smmuv3.NG, { PRIVCFG: 3 });
    for (let times = 0; times < 3; times++) expect(machine.request(5, IOVA)).toBe(at(TO));
    const data = machineWith({ features });
    stream(data, TO, smmuv3.USER_RW | smmuv3.UXN, { INSTCFG: 2 });
    for (let times = 0; times < 3; times++) expect(data.request(5, IOVA, { access: smmuv3.EXECUTE })).toBe(at(TO));
  });

  it("has its translated transactions refused without EATS", () => {
    const machine = machineWith();
    stream(machine, TO);
    for (let times = 0; times < 2; times++) {
      expect(machine.request(5, IOVA)).toBe(at(TO));
      expect(machine.request(5, IOVA, { translated: true })).toBeNull();
    }
  });
});

describe("a VT-d source that is remembered", () => {
  const machineWith = (options = {}): vtd.Machine => {
    const machine = new vtd.Machine(options);
    machine.start();
    return machine;
  };

  it("passes unchanged once TE is clear, and goes by the root table that is set", () => {
    const machine = machineWith();
    machine.map(machine.makeFirstStage(0x108), PFN, TO, vtd.FS_LEAF);
    expect(machine.request(0x108, IOVA)).toBe(at(TO));
    machine.command(GCMD_TE, false);
    expect(machine.request(0x108, IOVA)).toBe(IOVA);
    machine.command(GCMD_TE);
    expect(machine.request(0x108, IOVA)).toBe(at(TO));
    // Abort mode.
    machine.write64(VTD.RTADDR, (BigInt(machine.root) << 12n) | (3n << 10n));
    machine.command(GCMD_SRTP);
    expect(machine.request(0x108, IOVA)).toBeNull();
  });

  it.each([{ contexts: 0 }, { pasids: 0 }])("is not, where not all structures are cached: %o", (caches) => {
    const machine = machineWith({ caches: { ...caches, translations: 0 } });
    const [before, after] = [machine.allocate(), machine.allocate()];
    machine.map(before, PFN, TO, vtd.FS_LEAF);
    machine.map(after, PFN, ELSEWHERE, vtd.FS_LEAF);
    const directory = machine.setScalableContext(0x108);
    machine.setPasid(directory, 0, { PGTT: 1, DID: 5, FSPTPTR: before });
    machine.setPasid(directory, 1, { PGTT: 1, DID: 6, FSPTPTR: after });
    expect(machine.request(0x108, IOVA)).toBe(at(TO));
    if ("contexts" in caches) machine.setScalableContext(0x108, { PASIDDIRPTR: directory, RID_PASID: 1 });
    else machine.setPasid(directory, 0, { PGTT: 1, DID: 6, FSPTPTR: after });
    expect(machine.request(0x108, IOVA)).toBe(at(ELSEWHERE));
  });

  it("has its translated requests refused without DTE", () => {
    const machine = machineWith();
    machine.map(machine.makeFirstStage(0x108, {}, { DTE: 0 }), PFN, TO, vtd.FS_LEAF);
    for (let times = 0; times < 2; times++) {
      expect(machine.request(0x108, IOVA)).toBe(at(TO));
      expect(machine.request(0x108, IOVA, { translated: true })).toBeNull();
    }
  });
});
