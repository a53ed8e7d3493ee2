// What the vIOMMU translates itself: DMA of emulated devices, messages of assigned ones, and the debug interface.

import { describe, expect, it } from "vitest";
import { REG, TR_REQ_CTL, TR_RESPONSE } from "../../../host/arch/riscv/registers.ts";
import { DMA_ABORTED, DMA_OK, NO_PASID } from "../../../host/devices/ports.ts";
import { Guest, MSI_PAGE, PLACE, SV39, TC } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

const V = 1n;
const LEAF_RW = 0b1101_0111n;
const LEAF_RO = 0b1101_0011n;

/** Sv39 tables at PLACE.tables: IOVA 0x4000 → free page (read-write), 0x5000 → the next one (read-only), 0x6000 → MSI_PAGE. */
function mapPages(guest: Guest, root = PLACE.tables): void {
  const pointer = (address: bigint) => ((address >> 12n) << 10n) | V;
  guest.store64(root, pointer(root + 0x1000n));
  guest.store64(root + 0x1000n, pointer(root + 0x2000n));
  const leaf = root + 0x2000n;
  guest.store64(leaf + 4n * 8n, ((PLACE.free >> 12n) << 10n) | LEAF_RW);
  guest.store64(leaf + 5n * 8n, (((PLACE.free >> 12n) + 1n) << 10n) | LEAF_RO);
  guest.store64(leaf + 6n * 8n, ((MSI_PAGE >> 12n) << 10n) | LEAF_RW);
}

const NESTED = { tc: TC.V, fsc: SV39 | (PLACE.tables >> 12n) };

function ready(): { guest: Guest; host: RecordingHost; dma: ReturnType<Guest["viommu"]["emulatedDma"]> } {
  const host = new RecordingHost();
  const guest = new Guest({ host });
  guest.plug(1);
  guest.plug(3, { emulated: true, handle: 99 });
  guest.enableDirectory();
  guest.enableQueues({ quiet: true });
  mapPages(guest);
  host.calls.length = 0;
  return { guest, host, dma: guest.viommu.emulatedDma(() => 3) };
}

describe("emulated devices behind the vIOMMU", () => {
  it("DMA goes through the guest's first stage", () => {
    const { guest, dma } = ready();
    guest.installContext(3, NESTED);
    expect(dma.write(4, 0x10, Uint8Array.of(1, 2, 3, 4), 0, 4, NO_PASID)).toBe(DMA_OK);
    expect(guest.load32(PLACE.free + 0x10n)).toBe(0x0403_0201);
    const read = new Uint8Array(4);
    expect(dma.read(4, 0x10, read, 0, 4, NO_PASID)).toBe(DMA_OK);
    expect([...read]).toEqual([1, 2, 3, 4]);
  });

  it("the host hears nothing of an emulated device, not even its invalidations", () => {
    const { guest, host } = ready();
    guest.installContext(3, NESTED);
    guest.run(["IODIR.INVAL_PDT", { DV: 1, DID: 3 }], ["IOFENCE.C", {}]);
    expect(host.calls).toEqual([]);
    expect(host.batches).toEqual([]);
  });

  it("a transfer over a page boundary is two translations; the part before the refused one stays done", () => {
    const { guest, dma } = ready();
    guest.installContext(3, NESTED);
    const bytes = new Uint8Array(16).fill(0xaa);
    expect(dma.write(4, 0xff8, bytes, 0, 16, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.load32(PLACE.free + 0xff8n)).toBe(0xaaaa_aaaa);
    expect(guest.takeFaults()).toEqual([
      expect.objectContaining({ cause: 15, deviceId: 3, ttyp: 3, iotval: 0x5000n, iotval2: 0n }),
    ]);
  });

  it.each([
    ["an IOVA that is not mapped", 7, 13],
    ["a non-canonical IOVA", 2 ** 51, 13],
  ] as const)("%s is a page fault", (_name, pfn, cause) => {
    const { guest, dma } = ready();
    guest.installContext(3, NESTED);
    expect(dma.read(pfn, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]).toMatchObject({ cause, iotval: BigInt(pfn) << 12n });
  });

  it("blocked and bypass are as for assigned devices", () => {
    const { guest, dma } = ready();
    expect(dma.read(4, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]!.cause).toBe(258);
    guest.installContext(3, { tc: TC.V });
    expect(dma.write(Number(PLACE.free >> 12n), 0, Uint8Array.of(9, 0, 0, 0), 0, 4, NO_PASID)).toBe(DMA_OK);
    expect(guest.load32(PLACE.free)).toBe(9);
    expect(dma.read(0x10, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]!.cause).toBe(5);
  });

  it("DTF keeps page faults out of the queue but not the abort (§4.2)", () => {
    const { guest, dma } = ready();
    guest.installContext(3, { ...NESTED, tc: TC.V | TC.DTF });
    expect(dma.read(7, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()).toEqual([]);
  });

  it("a process_id selects its own table; without PDTV it is disallowed (§3.3 step 4)", () => {
    const { guest, dma } = ready();
    guest.installContext(3, NESTED);
    expect(dma.read(4, 0, new Uint8Array(4), 0, 4, 1)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]).toMatchObject({ cause: 260, processId: 1 });
    // PD8 at free + 0x8000: process 1 has the tables, process 2 is not valid.
    const directory = PLACE.free + 0x8000n;
    guest.store64(directory + 16n, V);
    guest.store64(directory + 24n, NESTED.fsc);
    guest.installContext(3, { tc: TC.V | TC.PDTV, fsc: (1n << 60n) | (directory >> 12n) });
    expect(dma.read(4, 0, new Uint8Array(4), 0, 4, 1)).toBe(DMA_OK);
    expect(dma.read(4, 0, new Uint8Array(4), 0, 4, 2)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]).toMatchObject({ cause: 266, processId: 2 });
    expect(dma.read(4, 0, new Uint8Array(4), 0, 4, 0x100)).toBe(DMA_ABORTED);
    expect(guest.takeFaults()[0]!.cause).toBe(260);
  });

  it("a message is a write through the first stage to the message page", () => {
    const { guest, dma } = ready();
    guest.installContext(3, NESTED);
    expect(dma.write(6, 8, Uint8Array.of(5, 0, 0, 0), 0, 4, NO_PASID)).toBe(DMA_OK);
    expect(guest.messages).toEqual([[8, 5]]);
  });

  it("a model that goes on after it was unplugged reaches nothing", () => {
    const { guest, dma } = ready();
    guest.installContext(3, { tc: TC.V });
    guest.viommu.unplug(3);
    expect(dma.read(Number(PLACE.free >> 12n), 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
  });

  it("a vIOMMU without a host serves emulated devices", () => {
    const guest = new Guest({ host: null });
    guest.plug(3, { emulated: true });
    guest.enableDirectory();
    guest.enableQueues({ quiet: true });
    mapPages(guest);
    guest.installContext(3, NESTED);
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    const dma = guest.viommu.emulatedDma(() => 3);
    expect(dma.write(4, 0, Uint8Array.of(1, 0, 0, 0), 0, 4, NO_PASID)).toBe(DMA_OK);
  });
});

describe("messages of assigned devices", () => {
  it("go where the device's first stage says: one to one, elsewhere, or nowhere", () => {
    const { guest } = ready();
    const page = Number(MSI_PAGE >> 12n);
    expect(guest.viommu.messagePage(1, page)).toBe(-1);
    guest.installContext(1, { tc: TC.V });
    expect(guest.viommu.messagePage(1, page)).toBe(page);
    guest.installContext(1, NESTED);
    expect(guest.viommu.messagePage(1, 6)).toBe(page);
    expect(guest.viommu.messagePage(1, page)).toBe(-1);
    // The hardware wrote the record of the device's own write; this look-up adds none.
    expect(guest.takeFaults()).toEqual([]);
  });
});

describe("debug interface", () => {
  const ask = (guest: Guest, iova: bigint, fields: Record<string, number>) => {
    guest.write64(REG.tr_req_iova, iova);
    const control = [0n];
    for (const [name, value] of Object.entries({ go_busy: 1, NW: 1, ...fields })) {
      TR_REQ_CTL.set(control, name as keyof typeof TR_REQ_CTL.fields, BigInt(value));
    }
    guest.write64(REG.tr_req_ctl, control[0]!);
    const response = [guest.read64(REG.tr_response)];
    expect(guest.read64(REG.tr_req_ctl) & 1n).toBe(0n);
    return { fault: TR_RESPONSE.get(response, "fault"), page: TR_RESPONSE.get(response, "PPN") };
  };

  it("translates as an untranslated request of the device would be (§5)", () => {
    const { guest } = ready();
    guest.storeContext(1, NESTED);
    expect(ask(guest, 0x4123n, { DID: 1 })).toEqual({ fault: 0n, page: PLACE.free >> 12n });
    expect(ask(guest, 0x5000n, { DID: 1 })).toEqual({ fault: 0n, page: (PLACE.free >> 12n) + 1n });
  });

  it("asks for write permission unless NW is set (§5)", () => {
    const { guest } = ready();
    guest.storeContext(1, NESTED);
    expect(ask(guest, 0x5000n, { DID: 1, NW: 0 }).fault).toBe(1n);
    expect(guest.takeFaults()[0]).toMatchObject({ cause: 15, ttyp: 3, iotval: 0x5000n, deviceId: 1 });
  });

  it("a fault goes to the fault queue with the context's own cause", () => {
    const { guest } = ready();
    guest.storeContext(1, { tc: 0n });
    expect(ask(guest, 0x4000n, { DID: 1 }).fault).toBe(1n);
    expect(guest.takeFaults()[0]).toMatchObject({ cause: 258, ttyp: 2 });
  });

  it("DTF keeps that record out (§4.2)", () => {
    const { guest } = ready();
    guest.storeContext(1, { ...NESTED, tc: TC.V | TC.DTF });
    expect(ask(guest, 0x7000n, { DID: 1 }).fault).toBe(1n);
    expect(guest.takeFaults()).toEqual([]);
  });

  it("does not exist without DBG (§6.24)", () => {
    const guest = new Guest({ configuration: { debug: false } });
    guest.write64(REG.tr_req_ctl, 1n);
    expect(guest.read64(REG.tr_response)).toBe(0n);
  });
});
