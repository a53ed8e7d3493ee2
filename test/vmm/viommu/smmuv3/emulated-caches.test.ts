import { describe, expect, it } from "vitest";
import {
  CR0_ATSCHK,
  CR0_CMDQEN,
  CR0_EVENTQEN,
  CR0_PRIQEN,
  CR0_SMMUEN,
  REG,
} from "../../../../host/arch/smmuv3/registers.ts";
import { type AtsTarget, DMA_ABORTED, DMA_OK, type DmaPort, NO_PASID } from "../../../../host/devices/ports.ts";
import { Guest, type GuestCommand, type GuestOptions, MSI_PAGE, PLACE } from "./guest.ts";

const SID = 5;
const PAGE = 0x7;
const CONTEXT = PLACE.contexts;
const LEVEL3 = PLACE.tables + 0x1000n;
const CERROR_ATC_INV_SYNC = 3;
/** A page, valid, accessed, writable by unprivileged requests, not global. */
const leaf = (address: bigint, bits = 0n) => address | 0xc43n | bits;

interface Setup {
  readonly guest: Guest;
  readonly dma: DmaPort;
  /** What the device reads at page `PAGE` of its address space: null if refused. */
  read(pasid?: number): number | null;
}

/** Device model `SID` behind stage 1 with ASID 1: page 7 of its addresses is `PLACE.free`, which holds 1; the page behind it 2. */
function ready(
  options: GuestOptions = {},
  stream: Parameters<Guest["writeStage1Stream"]>[2] = {},
  target?: AtsTarget,
): Setup {
  const guest = new Guest({ host: null, ...options });
  guest.plug(SID, { emulated: true, ats: true });
  guest.bringUp();
  guest.store64(PLACE.free, 1n);
  guest.store64(PLACE.free + 0x1000n, 2n);
  guest.store64(PLACE.tables, LEVEL3 | 3n);
  guest.store64(LEVEL3 + 8n * BigInt(PAGE), leaf(PLACE.free));
  guest.writeContext(CONTEXT, context(1));
  guest.writeStage1Stream(SID, CONTEXT, stream);
  guest.run(["CFGI_STE", { SID }]);
  const dma = guest.smmu.emulatedDma(() => SID, target);
  const byte = new Uint8Array(1);
  const read = (pasid: number = NO_PASID) => (dma.read(PAGE, 0, byte, 0, 1, pasid) === DMA_OK ? byte[0]! : null);
  return { guest, dma, read };
}

const context = (ASID: number) => ({
  ...{ V: 1, AA64: 1, T0SZ: 39, EPD1: 1, IPS: 5, A: 1, R: 1, ASID, TTB0: PLACE.tables >> 4n },
});

describe("what a device model is refused with", () => {
  it("V = 0 is C_BAD_STE, which an assigned device never hears of (§5.2)", () => {
    const { guest, read } = ready();
    guest.writeStream(SID, {});
    guest.run(["CFGI_STE", { SID }]);
    expect(read()).toBeNull();
    expect(guest.takeEvents()).toMatchObject([{ number: 0x04, streamId: SID }]);
  });

  it("a StreamID outside of the table is C_BAD_STREAMID under RECINVSID (§6.3.12)", () => {
    const { guest } = ready();
    guest.plug(100, { emulated: true });
    expect(guest.smmu.emulatedDma(() => 100).write(0, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeEvents()).toMatchObject([{ number: 0x02, streamId: 100 }]);
  });

  it("Config 0 is silence (§5.2)", () => {
    const { guest, read } = ready();
    guest.writeStream(SID, { V: 1 });
    guest.run(["CFGI_STE", { SID }]);
    expect([read(), guest.takeEvents()]).toEqual([null, []]);
  });

  it("what memory aborts behind a sound translation is nobody's event (§7.3)", () => {
    const { guest, read } = ready();
    guest.store64(LEVEL3 + 8n * BigInt(PAGE), leaf(0x1000_0000n));
    expect([read(), guest.takeEvents()]).toEqual([null, []]);
  });

  it("a transfer ends at the first page that is refused; what went before stays done", () => {
    const { guest, dma } = ready();
    expect(dma.write(PAGE, 0xffc, new Uint8Array(8).fill(9), 0, 8, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.load64(PLACE.free + 0xff8n) >> 32n).toBe(0x09090909n);
    expect(guest.takeEvents()).toMatchObject([{ number: 0x10, inputAddress: 0x8000n, read: false }]);
  });

  it("with S a model cannot wait: refused, the record says that it stalls, CMD_RESUME ends that", () => {
    const { guest, read } = ready({ hardware: null, stalls: true });
    // Own walks alone never stall: S is ILLEGAL (§5.4.2).
    guest.writeContext(CONTEXT, { ...context(1), S: 1 });
    guest.run(["CFGI_CD", { SID }]);
    expect(read()).toBeNull();
    expect(guest.takeEvents()).toMatchObject([{ number: 0x0a }]);
    const beside = ready({ host: undefined!, stalls: true });
    beside.guest.writeContext(CONTEXT, { ...context(1), S: 1 });
    beside.guest.store64(LEVEL3 + 8n * BigInt(PAGE), 0n);
    beside.guest.run(["CFGI_CD", { SID }], ["TLBI_NH_ALL"]);
    expect(beside.read()).toBeNull();
    const [event] = beside.guest.takeEvents();
    expect(event).toMatchObject({ number: 0x10, stall: true });
    beside.guest.run(["RESUME", { SID, STAG: event!.stag, Ac: 1 }]);
    expect([beside.guest.commandError, beside.guest.host.responses]).toEqual([0, []]);
  });

  it("plugged out under a running model nothing reaches memory", () => {
    const { guest, read } = ready();
    guest.smmu.unplug(SID);
    expect([read(), guest.takeEvents()]).toEqual([null, []]);
  });

  it("a store to the message page is a message", () => {
    const { guest, dma } = ready();
    guest.store64(LEVEL3 + 8n * BigInt(PAGE), leaf(MSI_PAGE));
    expect(dma.write(PAGE, 0x40, Uint8Array.of(7, 0, 0, 0), 0, 4, NO_PASID)).toBe(DMA_OK);
    expect(guest.messages).toEqual([[0x40, 7]]);
  });
});

describe("what is cached stays until the guest says otherwise (§3.17, §4.3, §4.4)", () => {
  const commands: readonly [string, GuestCommand, boolean][] = [
    ["TLBI_NH_VA of its page and ASID", ["TLBI_NH_VA", { ASID: 1, Address: PAGE, Leaf: 1 }], true],
    ["TLBI_NH_VA of another ASID", ["TLBI_NH_VA", { ASID: 2, Address: PAGE, Leaf: 1 }], false],
    ["TLBI_NH_VA of another page", ["TLBI_NH_VA", { ASID: 1, Address: PAGE + 1 }], false],
    ["TLBI_NH_VAA of its page", ["TLBI_NH_VAA", { Address: PAGE }], true],
    ["TLBI_NH_ASID", ["TLBI_NH_ASID", { ASID: 1 }], true],
    ["TLBI_NH_ASID of another", ["TLBI_NH_ASID", { ASID: 9 }], false],
    ["TLBI_NH_ALL", ["TLBI_NH_ALL"], true],
    ["TLBI_NSNH_ALL", ["TLBI_NSNH_ALL"], true],
    ["a range around it", ["TLBI_NH_VA", { ASID: 1, TG: 1, NUM: 3, SCALE: 1, TTL: 3, Leaf: 1, Address: 0 }], true],
    ["a range beside it", ["TLBI_NH_VA", { ASID: 1, TG: 1, NUM: 3, SCALE: 1, TTL: 3, Leaf: 1, Address: 8 }], false],
    ["CFGI_STE, which leaves the TLB alone", ["CFGI_STE", { SID }], false],
  ];
  for (const [what, command, drops] of commands) {
    it(`a translation: ${what} ${drops ? "drops" : "leaves"} it`, () => {
      const { guest, read } = ready();
      expect(read()).toBe(1);
      guest.store64(LEVEL3 + 8n * BigInt(PAGE), leaf(PLACE.free + 0x1000n));
      expect(read()).toBe(1);
      guest.run(command);
      expect(read()).toBe(drops ? 2 : 1);
    });
  }

  it("whatever the VMID field says: there is no second stage to tag by (§4.4.1)", () => {
    const { guest, read } = ready();
    expect(read()).toBe(1);
    guest.store64(LEVEL3 + 8n * BigInt(PAGE), leaf(PLACE.free + 0x1000n));
    guest.run(["TLBI_NH_ASID", { ASID: 1, VMID: 77 }]);
    expect(read()).toBe(2);
  });

  const other = PLACE.tables + 0x2000n;
  const contexts: readonly [string, GuestCommand, boolean][] = [
    ["CFGI_CD", ["CFGI_CD", { SID }], true],
    ["CFGI_CD of another SubstreamID", ["CFGI_CD", { SID, SSID: 1 }], false],
    ["CFGI_CD of another stream", ["CFGI_CD", { SID: SID + 1 }], false],
    ["CFGI_CD_ALL", ["CFGI_CD_ALL", { SID }], true],
    ["CFGI_STE", ["CFGI_STE", { SID }], true],
    ["CFGI_STE_RANGE", ["CFGI_STE_RANGE", { SID: 4, Range: 0 }], true],
    ["CFGI_STE_RANGE beside it", ["CFGI_STE_RANGE", { SID: 6, Range: 0 }], false],
    ["CFGI_ALL", ["CFGI_STE_RANGE", { Range: 31 }], true],
    ["TLBI_NSNH_ALL, which leaves configuration alone", ["TLBI_NSNH_ALL"], false],
  ];
  for (const [what, command, drops] of contexts) {
    it(`a context descriptor: ${what} ${drops ? "drops" : "leaves"} it`, () => {
      const { guest, read } = ready();
      expect(read()).toBe(1);
      guest.store64(other, (other + 0x1000n) | 3n);
      guest.store64(other + 0x1000n + 8n * BigInt(PAGE), leaf(PLACE.free + 0x1000n));
      guest.writeContext(CONTEXT, { ...context(2), TTB0: other >> 4n });
      guest.run(command);
      expect(read()).toBe(drops ? 2 : 1);
    });
  }
});

describe("ATS of device models", () => {
  class Target implements AtsTarget {
    readonly invalidations: [number, number, number, boolean][] = [];
    readonly responses: [number, number, number][] = [];
    answersAtOnce = true;
    lastTag = -1;
    told: (tag: number) => void = () => {};
    invalidate(pfn: number, pages: number, pasid: number, global: boolean, itag: number): boolean {
      this.invalidations.push([pfn, pages, pasid, global]);
      this.lastTag = itag;
      this.told(itag);
      return this.answersAtOnce;
    }
    pageResponse(pasid: number, group: number, code: number): void {
      this.responses.push([pasid, group, code]);
    }
  }

  function withAts(options: GuestOptions = {}): Setup & { target: Target } {
    const target = new Target();
    const setup = ready(options, { EATS: 1 }, target);
    setup.guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN | CR0_ATSCHK);
    return { ...setup, target };
  }

  it("a translation request is answered from the guest's tables, a translated one passes under EATS = 1 (§3.9)", () => {
    const { dma } = withAts();
    expect(dma.ats!.translate(PAGE, NO_PASID, false, false, false)).toBe(0);
    expect(dma.ats!.translation).toMatchObject({
      read: true,
      write: true,
      pfn: Number(PLACE.free >> 12n),
      sizeLog2: 12,
    });
    const byte = new Uint8Array(1);
    expect(dma.ats!.readTranslated(Number(PLACE.free >> 12n), 0, byte, 0, 1, NO_PASID)).toBe(DMA_OK);
    expect(byte[0]).toBe(1);
  });

  it("without EATS a request is UR with F_BAD_ATS_TREQ, Translated traffic F_TRANSL_FORBIDDEN (§3.9.1)", () => {
    const { guest, dma } = ready({}, {}, new Target());
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN | CR0_ATSCHK);
    expect(dma.ats!.translate(PAGE, NO_PASID, false, false, false)).toBe(1);
    expect(dma.ats!.readTranslated(1, 0, new Uint8Array(1), 0, 1, NO_PASID)).toBe(DMA_ABORTED);
    expect(guest.takeEvents().map(({ number }) => number)).toEqual([0x05, 0x07]);
  });

  it("CMD_ATC_INV reaches the model with its range, aligned (§4.5.1)", () => {
    const { guest, target } = withAts();
    guest.run(["ATC_INV", { SID, Size: 3, Address: 0x1d }], ["ATC_INV", { SID, SSV: 1, SSID: 4, Global: 1, Size: 52 }]);
    expect(target.invalidations).toEqual([
      [0x18, 8, NO_PASID, false],
      [0, Number.POSITIVE_INFINITY, 4, true],
    ]);
    expect(guest.cons).toBe(guest.prod);
  });

  it("CMD_SYNC waits for the model, and goes on when it has completed (§4.6.3)", () => {
    const { guest, dma, target } = withAts();
    target.answersAtOnce = false;
    guest.queue(["ATC_INV", { SID, Size: 52 }]);
    const place = guest.prod;
    guest.queue(["SYNC"]);
    guest.ring();
    expect(guest.cons).toBe(place);
    dma.ats!.invalidationCompleted(target.lastTag);
    expect([guest.cons, guest.commandError]).toEqual([guest.prod, 0]);
  });

  it("a model that never completes is CERROR_ATC_INV_SYNC at the CMD_SYNC (§7.1)", () => {
    const { guest, target } = withAts();
    target.answersAtOnce = false;
    guest.queue(["ATC_INV", { SID, Size: 52 }]);
    const place = guest.prod;
    guest.queue(["SYNC"]);
    guest.ring();
    guest.clock.advanceTo(guest.clock.nextDeadline);
    guest.clock.fireDue();
    expect([guest.cons, guest.commandError]).toEqual([place, CERROR_ATC_INV_SYNC]);
  });

  it("no more than 32 are under way, as many as ITags (PCIe 6.0 §10.3.1): the queue waits for the others, and goes on with them", () => {
    const { guest, dma, target } = withAts();
    target.answersAtOnce = false;
    const tags: number[] = [];
    target.told = (tag) => tags.push(tag);
    for (let i = 0; i < 32; i++) guest.queue(["ATC_INV", { SID, Size: 0, Address: i }]);
    const place = guest.prod;
    guest.queue(["ATC_INV", { SID, Size: 0, Address: 32 }], ["SYNC"]);
    guest.ring();
    expect([target.invalidations.length, guest.cons]).toEqual([32, place]);
    for (const tag of tags.slice()) dma.ats!.invalidationCompleted(tag);
    expect([target.invalidations.length, guest.cons]).toEqual([33, place + 1]);
    dma.ats!.invalidationCompleted(target.lastTag);
    expect([guest.cons, guest.commandError]).toEqual([guest.prod, 0]);
  });

  it("one that is completed within the call that tells of it is none of those that a CMD_SYNC waits for", () => {
    const { guest, dma, target } = withAts();
    target.answersAtOnce = false;
    guest.queue(["ATC_INV", { SID, Size: 0 }]);
    guest.ring();
    const first = target.lastTag;
    target.told = (tag) => dma.ats!.invalidationCompleted(tag);
    guest.queue(["ATC_INV", { SID, Size: 1 }]);
    const place = guest.prod;
    guest.queue(["SYNC"]);
    guest.ring();
    expect([target.lastTag === first, guest.cons]).toEqual([false, place]);
    dma.ats!.invalidationCompleted(first);
    expect([guest.cons, guest.commandError]).toEqual([guest.prod, 0]);
  });

  it("one that is plugged out completes nothing any more: the same", () => {
    const { guest, target } = withAts();
    target.answersAtOnce = false;
    guest.run(["ATC_INV", { SID, Size: 52 }]);
    guest.smmu.unplug(SID);
    expect(guest.commandError).toBe(CERROR_ATC_INV_SYNC);
  });

  it("without PRI page requests are refused (§8.1)", () => {
    const { dma, target } = withAts();
    dma.ats!.pageRequest(PAGE, 3, 9, 1 | 4);
    dma.ats!.pageRequest(PAGE, 3, 9, 1);
    dma.ats!.stopMarker(3);
    expect(target.responses).toEqual([[3, 9, 15]]);
  });

  it("with PRI they come in a queue of their own and are answered by CMD_PRI_RESP (§8, §4.5.2)", () => {
    const { guest, dma, target } = withAts({ configuration: { pri: true } });
    const queue = PLACE.free + 0x8000n;
    guest.write64(REG.PRIQ_BASE, queue | 4n);
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN | CR0_ATSCHK | CR0_PRIQEN);
    dma.ats!.pageRequest(PAGE, 3, 9, 2 | 4);
    expect(guest.read32(REG.PRIQ_PROD)).toBe(1);
    expect(guest.load64(queue)).toBe((1n << 63n) | (1n << 62n) | (1n << 61n) | (3n << 32n) | BigInt(SID));
    expect(guest.load64(queue + 8n)).toBe((BigInt(PAGE) << 12n) | 9n);
    guest.run(["PRI_RESP", { SID, SSV: 1, SSID: 3, PRGIndex: 8, Resp: 2 }]);
    expect(target.responses).toEqual([]);
    guest.run(["PRI_RESP", { SID, SSV: 1, SSID: 3, PRGIndex: 9, Resp: 2 }]);
    expect(target.responses).toEqual([[3, 9, 0]]);
  });
});
