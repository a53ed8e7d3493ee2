// The guest's driver of an SMMUv3 as scenarios play it, on the hardware model: reset, tables of every shape, faults, stalls, page requests.

import { describe, expect, it } from "vitest";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import type { DeviceTranslation } from "../../../../vmm/viommu/guest-driver.ts";
import { SMMUV3_GUEST } from "../../../../vmm/viommu/smmuv3/guest/guest-side.ts";
import { STAGE1_MODES, type Stage1, type Stage1Mode } from "../../../../vmm/viommu/smmuv3/guest/stage1.ts";
import { BareGuest } from "./bare-guest.ts";

const SID = 0x10;
const IOVA = 0x4_1234_0000n;

const through = (whole: DeviceTranslation<Stage1>["whole"], more: Partial<DeviceTranslation<Stage1>> = {}) => ({
  ...{ whole, pasids: new Map(), ats: false, pageRequests: false },
  ...more,
});

function stage1(guest: BareGuest, tag = 1, mode: Stage1Mode = "4K"): Stage1 {
  return SMMUV3_GUEST.stage1(guest.ram, tag, mode);
}

describe("bringing the SMMU up", () => {
  it("goes in Linux's order: CR0 off, tables and queues, caches emptied, each enable by itself, SMMUEN last", () => {
    const { stores } = new BareGuest();
    const cr0 = stores.filter(([offset]) => offset === REG.CR0).map(([, value]) => Number(value));
    // CMDQEN, +EVENTQEN, +PRIQEN, +ATSCHK, +SMMUEN (§6.3.9).
    expect(cr0).toEqual([0, 0x8, 0xc, 0xe, 0x1e, 0x1f]);
    const at = (offset: number) => stores.findIndex(([place]) => place === offset);
    const enable = stores.findIndex(([offset, value]) => offset === REG.CR0 && (value & 8n) !== 0n);
    for (const offset of [REG.CR1, REG.CR2, REG.STRTAB_BASE, REG.STRTAB_BASE_CFG, REG.CMDQ_BASE])
      expect(at(offset)).toBeLessThan(enable);
    expect(at(REG.EVENTQ_BASE)).toBeGreaterThan(enable);
  });

  it("leaves out what there is not: no ATSCHK without ATS, no page requests without PRI, no message address without MSI", () => {
    const guest = new BareGuest({ features: { ATS: false, MSI: false } });
    const cr0 = guest.stores.filter(([offset]) => offset === REG.CR0).map(([, value]) => Number(value));
    expect(cr0).toEqual([0, 0x8, 0xc, 0xd]);
    expect(guest.stores.filter(([offset]) => offset === REG.EVENTQ_IRQ_CFG0)).toEqual([[REG.EVENTQ_IRQ_CFG0, 0n]]);
    expect(guest.driver.offer).toMatchObject({ ats: false, pageRequests: false });
  });

  it.each([
    ["linear, with StreamIDs of 8 bits", 8, 0n],
    ["two levels, with 16", 16, 1n],
  ])("has a stream table that is %s", (_name, SIDSIZE, format) => {
    const { stores } = new BareGuest({ features: { SIDSIZE } });
    const [, configuration] = stores.find(([offset]) => offset === REG.STRTAB_BASE_CFG)!;
    expect(configuration >> 16n).toBe(format);
    expect(configuration & 0x3fn).toBe(BigInt(SIDSIZE));
  });

  it("refuses an SMMU that Linux's driver refuses", () => {
    expect(() => new BareGuest({ features: { TTENDIAN: 3 } })).toThrow(/not little-endian/);
    expect(() => new BareGuest({ features: { CMDQS: 6 } })).toThrow(/command queue is too short/);
  });
});

describe("a stage 1", () => {
  it.each(STAGE1_MODES)("maps pages and blocks with %s, and nothing beside them", (mode) => {
    const guest = new BareGuest();
    const tables = stage1(guest, 1, mode);
    const { granuleBytes } = tables;
    const page = guest.ram.allocate(Number(granuleBytes / 4096n), granuleBytes);
    const at = IOVA & ~(granuleBytes - 1n);
    tables.map(at, page, granuleBytes);
    guest.driver.installTranslation(SID, through(tables));
    expect(guest.access(SID, at + 0x238n)).toBe(page + 0x238n);
    expect(guest.access(SID, at + granuleBytes)).toBeNull();
    expect(guest.driver.takeFaults()).toMatchObject([{ number: 0x10, streamId: SID, inputAddress: at + granuleBytes }]);
    // Blocks of level 2 (DDI 0487 D8.3): 2 MiB, 32 MiB, 512 MiB.
    const block = { 4096: 0x20_0000n, 16384: 0x200_0000n, 65536: 0x2000_0000n }[Number(granuleBytes)]!;
    tables.map(0n, 0x8000_0000n, block, { pageBytes: block });
    expect(guest.access(SID, 0x1_5678n)).toBe(0x8001_5678n);
    expect(tables.leaf(0x1_5678n)).toMatchObject({ pageBytes: block });
  });

  it("says no to what the format cannot say", () => {
    const tables = stage1(new BareGuest(), 1, "4K-39");
    expect(() => tables.map(0n, 0x1000n, 0x1000n, { read: false })).toThrow(/written and not read/);
    expect(() => tables.map(1n << 39n, 0x1000n, 0x1000n)).toThrow(/39 bits/);
    expect(() => tables.map(0n, 0n, 0x10000n, { pageBytes: 0x10000n })).toThrow(/no pages of 65536 bytes/);
  });

  it("has the rights it was given, and marks a clean page as hardware may", () => {
    const guest = new BareGuest();
    const tables = stage1(guest);
    const page = guest.ram.allocate(3);
    tables.map(0x1000n, page, 0x1000n, { write: false });
    tables.map(0x2000n, page, 0x1000n, { dirty: false });
    tables.map(0x3000n, page, 0x1000n, { user: false });
    guest.driver.installTranslation(SID, through(tables), { descriptor: { HA: 1, HD: 1 } });
    expect(guest.access(SID, 0x1000n)).toBe(page);
    expect(guest.access(SID, 0x1000n, { write: true })).toBeNull();
    expect(guest.access(SID, 0x3000n)).toBeNull();
    expect(guest.driver.takeFaults().map(({ number }) => number)).toEqual([0x13, 0x13]);
    const readOnly = (iova: bigint) => (tables.leaf(iova)!.entry >> 7n) & 1n;
    expect(readOnly(0x2000n)).toBe(1n);
    expect(guest.access(SID, 0x2000n, { write: true })).toBe(page);
    expect(readOnly(0x2000n)).toBe(0n);
  });

  it("is stale until it is invalidated, by page, by ASID, or all at once", () => {
    const guest = new BareGuest();
    const [first, second] = [stage1(guest, 1), stage1(guest, 2)];
    const page = guest.ram.allocate();
    for (const [sid, tables] of [[SID, first] as const, [SID + 1, second] as const]) {
      tables.map(0x1000n, page, 0x2000n);
      guest.driver.installTranslation(sid, through(tables));
    }
    const cached = () =>
      [SID, SID + 1].flatMap((sid) => [0x1000n, 0x2000n].map((iova) => guest.access(sid, iova) !== null));
    expect(cached()).toEqual([true, true, true, true]);
    first.unmap(0x1000n, 0x2000n);
    second.unmap(0x1000n, 0x2000n);
    expect(cached()).toEqual([true, true, true, true]);
    guest.driver.invalidate({ stage1: first, iova: 0x1000n });
    guest.driver.fence();
    expect(cached()).toEqual([false, true, true, true]);
    guest.driver.invalidate({ stage1: second });
    guest.driver.fence();
    expect(cached()).toEqual([false, true, false, false]);
    guest.driver.invalidate();
    guest.driver.fence();
    expect(cached()).toEqual([false, false, false, false]);
  });
});

describe("a stream's dispositions", () => {
  it("are abort at first, silently; bypass; stage 1; abort again", () => {
    const guest = new BareGuest();
    expect(guest.access(SID, 0x8000_1000n)).toBeNull();
    guest.driver.installTranslation(SID, through("bypass"));
    expect(guest.access(SID, 0x8000_1000n)).toBe(0x8000_1000n);
    guest.driver.installTranslation(SID, through(stage1(guest)));
    expect(guest.access(SID, 0x8000_1000n)).toBeNull();
    guest.driver.takeFaults();
    guest.driver.installTranslation(SID, through("blocked"));
    expect(guest.access(SID, 0x8000_1000n)).toBeNull();
    expect(guest.driver.takeFaults()).toEqual([]);
  });

  it("can be what the guest writes: an entry with V = 0 is C_BAD_STE to hardware", () => {
    const guest = new BareGuest();
    guest.driver.installContext(SID, { V: 0 });
    expect(guest.access(SID, 0x1000n)).toBeNull();
    expect(guest.driver.takeFaults()).toMatchObject([{ number: 0x04, streamId: SID }]);
  });
});

describe("PASIDs", () => {
  it.each([
    ["a linear table", { format: "linear", cdMax: 6 } as const, 33],
    ["two levels of 4 KiB", { format: "4K", cdMax: 12 } as const, 0x321],
    ["two levels of 64 KiB", { format: "64K", cdMax: 20 } as const, 0xabcde],
  ])("have descriptors of their own in %s", (_name, contexts, pasid) => {
    const guest = new BareGuest();
    const [whole, own] = [stage1(guest, 1), stage1(guest, 2)];
    const pages = [guest.ram.allocate(), guest.ram.allocate()] as const;
    whole.map(0x1000n, pages[0], 0x1000n);
    own.map(0x1000n, pages[1], 0x1000n);
    guest.driver.installTranslation(SID, through(whole, { pasids: new Map([[pasid, own]]) }), { contexts });
    expect(guest.access(SID, 0x1000n)).toBe(pages[0]);
    expect(guest.access(SID, 0x1000n, { pasid })).toBe(pages[1]);
    expect(guest.access(SID, 0x1000n, { pasid: 5 })).toBeNull();
    // C_BAD_CD in a leaf table that is there; the others have one for descriptor 0 (§7.3.11).
    expect(guest.driver.takeFaults()).toMatchObject([{ streamId: SID, substreamId: 5, number: 0x0a }]);
    expect(guest.access(SID, 0x1000n, { pasid: 2 ** contexts.cdMax })).toBeNull();
    // Past the table: C_BAD_SUBSTREAMID (§7.3.9).
    expect(guest.driver.takeFaults()).toMatchObject([{ number: 0x08 }]);
  });

  it("without a stage 1 for requests without one: bypass, or an end with F_STREAM_DISABLED (S1DSS)", () => {
    const guest = new BareGuest();
    const own = stage1(guest, 2);
    const page = guest.ram.allocate();
    own.map(0x1000n, page, 0x1000n);
    const pasids = new Map([[3, own]]);
    guest.driver.installTranslation(SID, through("bypass", { pasids }));
    expect(guest.access(SID, page)).toBe(page);
    expect(guest.access(SID, 0x1000n, { pasid: 3 })).toBe(page);
    guest.driver.installTranslation(SID, through(null, { pasids }));
    expect(guest.access(SID, page)).toBeNull();
    expect(guest.driver.takeFaults()).toMatchObject([{ number: 0x06, streamId: SID }]);
    expect(guest.access(SID, 0x1000n, { pasid: 3 })).toBe(page);
  });

  it("have no bypass of their own, and say so", () => {
    const guest = new BareGuest();
    expect(() => guest.driver.installTranslation(SID, through(null, { pasids: new Map([[3, "bypass"]]) }))).toThrow(
      /no bypass for a PASID/,
    );
  });
});

describe("what the guest hears", () => {
  it("of each fault is what its table says, where hardware alone decides", () => {
    const guest = new BareGuest();
    const tables = stage1(guest);
    tables.map(0x1000n, guest.ram.allocate(), 0x1000n, { write: false });
    guest.driver.installTranslation(SID, through(tables, { pasids: new Map([[1, tables]]) }));
    const heard = (act: () => void) => {
      act();
      return guest.driver.takeFaults().map((event) => SMMUV3_GUEST.faultOf(event));
    };
    const code = (what: Parameters<typeof SMMUV3_GUEST.hears>[0]) => SMMUV3_GUEST.hears(what, false).code;
    expect(heard(() => guest.access(SID, 0x9008n))).toEqual([
      { code: code("not mapped"), deviceId: SID, pasid: null, address: 0x9008n, write: false },
    ]);
    expect(heard(() => guest.access(SID, 0x1000n, { write: true }))).toEqual([
      { code: code("no permission"), deviceId: SID, pasid: null, address: 0x1000n, write: true },
    ]);
    expect(heard(() => guest.access(SID, 0x1000n, { pasid: 9 }))).toEqual([
      { code: code("PASID not set up"), deviceId: SID, pasid: 9, address: null, write: null },
    ]);
    guest.driver.installTranslation(SID, through(tables), { descriptor: { AA64: 0 } });
    expect(heard(() => guest.access(SID, 0x1000n))).toMatchObject([{ code: code("context malformed"), deviceId: SID }]);
  });

  it("comes with the interrupt of the event queue, by message or by wire", () => {
    const guest = new BareGuest();
    guest.driver.installTranslation(SID, through(stage1(guest)));
    guest.access(SID, 0x1000n);
    expect(guest.messages).toEqual([64]);
    const wired = new BareGuest({ features: { MSI: false } });
    wired.driver.installTranslation(SID, through(stage1(wired)));
    wired.access(SID, 0x1000n);
    expect(wired.wires).toEqual([0]);
  });

  it("loses nothing but what overflowed, and hears again after that", () => {
    const guest = new BareGuest();
    guest.driver.installTranslation(SID, through(stage1(guest)));
    for (let i = 0; i < 300; i++) guest.access(SID, 0x1000n + BigInt(i) * 0x1000n);
    expect(guest.driver.takeFaults()).toHaveLength(256);
    guest.access(SID, 0x7000_0000n);
    expect(guest.driver.takeFaults()).toMatchObject([{ inputAddress: 0x7000_0000n }]);
    expect((guest.driver.read32(REG.EVENTQ_PROD) ^ guest.driver.read32(REG.EVENTQ_CONS)) >>> 31).toBe(0);
  });
});

describe("stalled transactions", () => {
  it("are requests: tried again on success, ended otherwise", () => {
    const guest = new BareGuest();
    const ends: number[] = [];
    guest.smmu.onStallEnded = (_device, _tag, end) => void ends.push(end);
    const tables = stage1(guest);
    guest.driver.installTranslation(SID, through(tables, { stalls: true }));
    expect(guest.access(SID, 0x5008n, { write: true })).toBeNull();
    expect(guest.access(SID, 0x6000n)).toBeNull();
    const requests = guest.driver.takeRequests();
    expect(requests).toMatchObject([
      { deviceId: SID, pasid: null, address: 0x5000n, read: false, write: true, last: true },
      { deviceId: SID, address: 0x6000n, read: true, write: false },
    ]);
    expect(guest.driver.takeFaults()).toEqual([]);
    const page = guest.ram.allocate();
    tables.map(0x5000n, page, 0x1000n);
    requests[0]!.answer("success");
    requests[1]!.answer("failure");
    // STALL_RETRY, STALL_ABORT.
    expect(ends).toEqual([0, 1]);
    expect(guest.access(SID, 0x5008n, { write: true })).toBe(page + 8n);
  });

  it("are not for streams that were not asked: S1STALLD is 1, and the transaction ends at once", () => {
    const guest = new BareGuest();
    guest.driver.installTranslation(SID, through(stage1(guest)));
    guest.access(SID, 0x5000n);
    expect(guest.driver.takeRequests()).toEqual([]);
    expect(guest.driver.takeFaults()).toMatchObject([{ number: 0x10, stall: false }]);
  });
});

describe("page requests of PCIe", () => {
  it.each([
    ["without a PASID", -1],
    ["with one", 7],
  ])("%s arrive and are answered, by group", (_name, pasid) => {
    const guest = new BareGuest();
    const answers: unknown[] = [];
    guest.smmu.findTarget = () => ({
      invalidate: () => true,
      pageResponse: (...answer) => void answers.push(answer),
    });
    const tables = stage1(guest);
    const pasids = new Map([[7, tables]]);
    guest.driver.installTranslation(SID, through(tables, { pasids, ats: true, pageRequests: true }));
    // Flags (AtsPort.pageRequest): read 1, write 2, last 4.
    guest.smmu.pageRequest(SID, pasid, 0x7, 4, 7);
    const [request, ...more] = guest.driver.takeRequests();
    expect(more).toEqual([]);
    expect(request).toMatchObject({
      ...{ deviceId: SID, pasid: pasid < 0 ? null : pasid, address: 0x7000n, read: true, write: true },
      ...{ execute: false, last: true },
    });
    request!.answer("success");
    // Code 0 is success (PCIe 6.0 §10.4.2).
    expect(answers).toMatchObject([[pasid, 4, 0]]);
  });
});

describe("a command that is illegal", () => {
  it("stops the queue, is named, and is skipped as Linux skips it", () => {
    const guest = new BareGuest();
    guest.driver.writeCommand(0xffn, 0n);
    expect(() => guest.driver.fence()).toThrow(/CERROR_ILL at illegal command 0xff/);
    guest.driver.skipCommand();
    guest.driver.fence();
    expect(guest.driver.commandError).toBeNull();
  });
});
