import { describe, expect, it } from "vitest";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, IRQ_EVENTQ, REG } from "../../../../host/arch/smmuv3/registers.ts";
import { RESPONSE_INVALID, RESPONSE_SUCCESS } from "../../../../vmm/viommu/host-port.ts";
import { EVENTS_LOG2, Guest, type GuestOptions, PLACE } from "./guest.ts";

const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;

function ready(options: GuestOptions = {}, up: Parameters<Guest["bringUp"]>[0] = {}): Guest {
  const guest = new Guest(options);
  guest.plug(1);
  guest.bringUp(up);
  guest.writeStage1Stream(1);
  guest.run(["CFGI_STE", { SID: 1 }]);
  return guest;
}

const fault = { number: F_TRANSLATION, SID: 1, RnW: 1, CLASS: 2, InputAddr: 0x5008 } as const;

describe("records that the host relays", () => {
  it("have the guest's StreamID and what their number has (§7.3.13)", () => {
    const guest = ready();
    guest.hostEvent({ ...fault, SSV: 1, SSID: 3, PnU: 1 });
    expect(guest.takeEvents()).toEqual([
      {
        ...{ number: F_TRANSLATION, streamId: 1, substreamId: 3, stag: 0, stall: false, privileged: true },
        ...{ instruction: false, read: true, stage2: false, class: 2, tableRead: false },
        ...{ inputAddress: 0x5008n, address: 0n },
      },
    ]);
  });

  it("never say what only the host's second stage could say, nor that something stalls", () => {
    const guest = ready();
    guest.hostEvent({ ...fault, S2: 1, IPA: 0x1234000 });
    expect(guest.takeEvents()).toEqual([]);
    guest.hostEvent({ ...fault, Stall: 1, STAG: 9, GPCF: 1, NSIPA: 1, IPA: 0x1234000 });
    expect(guest.takeEvents()).toMatchObject([{ stall: false, stag: 0, address: 0n }]);
    guest.hostEvent({ number: 4, SID: 1, InputAddr: 0xdead, IPA: 0xbeef, STAG: 7 });
    expect(guest.takeEvents()).toMatchObject([{ number: 4, inputAddress: 0n, address: 0n, stag: 0 }]);
  });

  it("of numbers that are the host's own, or of nobody, are dropped", () => {
    const guest = ready();
    for (const number of [0x01, 0x02, 0x03, 0x05, 0x07, 0x20, 0x21, 0x24, 0x25, 0xe0])
      guest.hostEvent({ number, SID: 1 });
    guest.hostEvent({ ...fault, SID: 77 });
    guest.host.deliver({ kind: "fault", record: new Uint8Array(5) });
    guest.smmu.service();
    expect(guest.takeEvents()).toEqual([]);
    expect(guest.reports).toHaveLength(2);
  });

  it("are none under GBPA, whatever the hardware's entry for it records (§6.3.14)", () => {
    const guest = ready();
    guest.write32(REG.GBPA, 0x8000_1000);
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN);
    guest.hostEvent({ number: 0x11, SID: 1, RnW: 1, CLASS: 2, InputAddr: (1n << 52n) - 4096n });
    expect(guest.takeEvents()).toEqual([]);
  });

  it("of tables outside of the guest's memory, where the kernel relays them, have the guest's own address (§7.3.12)", () => {
    const guest = ready();
    guest.hostEvent({ number: 0x0b, SID: 1, CLASS: 1, RnW: 1, InputAddr: 0x5000, IPA: 0x9999_0008 });
    expect(guest.takeEvents()).toMatchObject([
      { number: 0x0b, class: 1, address: 0x9999_0008n, inputAddress: 0x5000n },
    ]);
  });
});

describe("the event queue", () => {
  it("interrupts as it becomes non-empty, by message (§3.18)", () => {
    const guest = ready({}, { messages: true });
    guest.hostEvent(fault);
    guest.hostEvent(fault);
    expect(guest.messages).toEqual([[0, 1]]);
    guest.takeEvents();
    guest.hostEvent(fault);
    expect(guest.messages).toHaveLength(2);
  });

  it("by wire: up until it is empty", () => {
    const guest = ready();
    guest.hostEvent(fault);
    expect(guest.wires.get(0)).toBe(true);
    guest.takeEvents();
    expect(guest.wires.get(0)).toBe(false);
  });

  it("the wire comes down too when the interrupt is turned off, and does not come back by itself", () => {
    const guest = ready();
    guest.hostEvent(fault);
    guest.write32(REG.IRQ_CTRL, 0);
    expect(guest.wires.get(0)).toBe(false);
    guest.write32(REG.IRQ_CTRL, IRQ_EVENTQ);
    expect(guest.wires.get(0)).toBe(false);
  });

  it("full: the record is lost and OVFLG says so; there is room again: records come, OVFLG stands until acknowledged (§7.4)", () => {
    const guest = ready();
    for (let i = 0; i < 2 ** EVENTS_LOG2; i++) guest.hostEvent(fault);
    expect(guest.eventsLost).toBe(false);
    guest.hostEvent({ ...fault, InputAddr: 0xbad000 });
    expect(guest.eventsLost).toBe(true);
    expect(guest.takeEvents()).toHaveLength(2 ** EVENTS_LOG2);
    guest.hostEvent(fault);
    expect(guest.takeEvents()).toMatchObject([{ inputAddress: 0x5008n }]);
    expect(guest.eventsLost).toBe(true);
    guest.write32(REG.EVENTQ_CONS, guest.read32(REG.EVENTQ_PROD));
    expect(guest.eventsLost).toBe(false);
  });

  it("LOST_EVENTS of the host is OVFLG, after the records that did come", () => {
    const guest = ready();
    const record = new Uint8Array(32);
    new DataView(record.buffer).setBigUint64(0, 0x1_0000_000an, true);
    guest.host.waiting.push({ kind: "lost", count: 3 }, { kind: "fault", record });
    guest.smmu.service();
    expect(guest.takeEvents()).toHaveLength(1);
    expect(guest.eventsLost).toBe(true);
  });

  it("while it is off nothing is recorded and nothing is lost (§7.2)", () => {
    const guest = ready();
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_SMMUEN);
    guest.hostEvent(fault);
    guest.host.deliver({ kind: "lost", count: 1 });
    guest.smmu.service();
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_SMMUEN | CR0_EVENTQEN);
    expect([guest.takeEvents(), guest.eventsLost]).toEqual([[], false]);
  });

  it("memory that refuses a record is EVENTQ_ABT_ERR, until acknowledged (§7.2)", () => {
    const guest = ready();
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_SMMUEN);
    guest.write64(REG.EVENTQ_BASE, 0x1000_0000n | BigInt(EVENTS_LOG2));
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_SMMUEN | CR0_EVENTQEN);
    guest.hostEvent(fault);
    expect((guest.read32(REG.GERROR) ^ guest.read32(REG.GERRORN)) & 4).toBe(4);
    expect(guest.read32(REG.EVENTQ_PROD)).toBe(0);
    expect(guest.wires.get(3)).toBe(true);
    guest.acknowledgeErrors();
    expect(guest.wires.get(3)).toBe(false);
  });

  it("a host that never runs dry does not hold the VM", () => {
    const guest = ready();
    const record = new Uint8Array(32);
    guest.host.events = () => new Array(1_000_000).fill({ kind: "fault", record });
    guest.smmu.service();
    expect(guest.eventsLost).toBe(true);
  });
});

describe("stalled transactions of a device that can stall", () => {
  function stalling(): Guest {
    const guest = new Guest({ stalls: true });
    guest.plug(1);
    guest.plug(3, { canStall: true, name: "platform edu" });
    guest.bringUp();
    guest.writeStage1Stream(1);
    // Contexts 0 and 5 of the device that can stall, with tables that map nothing: 4K, T0SZ 39 starts at level 2.
    guest.writeStage1Stream(3, PLACE.contexts + 0x200n, { S1CDMax: 3, S1DSS: 2 });
    for (const ssid of [0n, 5n]) {
      guest.writeContext(PLACE.contexts + 0x200n + ssid * 64n, {
        ...{ V: 1, AA64: 1, T0SZ: 39, TG0: 0, EPD1: 1, IPS: 5, A: 1, R: 1, S: 1, TTB0: PLACE.tables >> 4n },
      });
    }
    guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
    return guest;
  }

  /** The host's fault queue tells of a stalled transaction of device 3. */
  function stall(guest: Guest, cookie: number, permissions = 1, pasid: number | null = null): void {
    guest.host.deliver({
      ...({ kind: "page-request", device: 103, guestId: 3, cookie, pasid, group: 900 + cookie, last: true } as const),
      ...{ permissions, address: 0x7000n },
    });
    guest.smmu.service();
  }

  const abortStream = (guest: Guest): void => {
    guest.writeStream(3, { V: 1 });
    guest.run(["CFGI_STE", { SID: 3 }]);
  };

  const only = (guest: Guest) => {
    const events = guest.takeEvents();
    expect(events).toHaveLength(1);
    return events[0]!;
  };

  it("only a machine with such a device says that it can (IDR0.STALL_MODEL, IDR5.STALL_MAX)", () => {
    const model = (guest: Guest) => (guest.read32(REG.IDR0) >>> 24) & 3;
    expect(model(stalling())).toBe(0);
    expect(stalling().read32(REG.IDR5) >>> 16).toBe(16);
    const plain = ready();
    expect([model(plain), plain.read32(REG.IDR5) >>> 16]).toEqual([1, 0]);
  });

  it("S1STALLD is the guest's for such a device, and set for every other, whose stalls could not be waited for", () => {
    const guest = stalling();
    const ste1 = (device: number) =>
      new DataView(guest.host.calls.filter((call) => call.device === device).at(-1)!.data!.buffer).getUint32(8, true);
    expect(ste1(101) & (1 << 27)).not.toBe(0);
    expect(ste1(103) & (1 << 27)).toBe(0);
  });

  it("the guest reads an event with Stall, its StreamID and a STAG; CMD_RESUME with Retry is success", () => {
    const guest = stalling();
    stall(guest, 41, 2, 5);
    const event = only(guest);
    expect(event).toMatchObject({
      stall: true,
      streamId: 3,
      substreamId: 5,
      read: false,
      inputAddress: 0x7000n,
      class: 2,
    });
    expect(guest.host.responses).toEqual([]);
    guest.run(["RESUME", { SID: 3, STAG: event.stag, Ac: 1 }]);
    expect(guest.host.responses).toEqual([{ cookie: 41, code: RESPONSE_SUCCESS }]);
    expect([guest.smmu.stalls.waiting, guest.commandError]).toEqual([0, 0]);
  });

  it("CMD_RESUME with Abort, and without either, is failure", () => {
    const guest = stalling();
    for (const [cookie, fields] of [
      [1, { Ab: 1 }],
      [2, {}],
    ] as const) {
      stall(guest, cookie);
      guest.run(["RESUME", { SID: 3, STAG: only(guest).stag, ...fields }]);
      expect(guest.host.responses.at(-1)).toEqual({ cookie, code: RESPONSE_INVALID });
    }
  });

  it("CMD_RESUME of another stream's STAG, of none, or twice answers nothing (§4.6.1)", () => {
    const guest = stalling();
    stall(guest, 1);
    const { stag } = only(guest);
    guest.run(["RESUME", { SID: 1, STAG: stag, Ac: 1 }], ["RESUME", { SID: 3, STAG: stag ^ 1, Ac: 1 }]);
    expect(guest.host.responses).toEqual([]);
    guest.run(["RESUME", { SID: 3, STAG: stag, Ac: 1 }], ["RESUME", { SID: 3, STAG: stag, Ab: 1 }]);
    expect(guest.host.responses).toEqual([{ cookie: 1, code: RESPONSE_SUCCESS }]);
  });

  it("CMD_STALL_TERM ends all of a stream (§4.6.2)", () => {
    const guest = stalling();
    stall(guest, 1);
    stall(guest, 2);
    guest.run(["STALL_TERM", { SID: 1 }]);
    expect(guest.host.responses).toEqual([]);
    guest.run(["STALL_TERM", { SID: 3 }]);
    expect(guest.host.responses.map(({ code }) => code)).toEqual([RESPONSE_INVALID, RESPONSE_INVALID]);
  });

  it("what the guest invalidated before CMD_RESUME is done when the transaction is made anew", () => {
    const guest = stalling();
    stall(guest, 1);
    const { stag } = only(guest);
    guest.host.batches.length = 0;
    let before = -1;
    guest.host.respond = () => {
      before = guest.host.batches.length;
      return 0;
    };
    guest.queue(["TLBI_NH_ALL"], ["RESUME", { SID: 3, STAG: stag, Ac: 1 }]);
    guest.ring();
    expect(before).toBe(1);
  });

  it("a full queue loses no stall record, nor does it overflow: it comes when there is room (§7.2)", () => {
    const guest = stalling();
    for (let i = 0; i < 2 ** EVENTS_LOG2; i++) guest.hostEvent({ ...fault });
    stall(guest, 1);
    expect(guest.eventsLost).toBe(false);
    expect(guest.takeEvents().at(-1)).toMatchObject({ stall: true, streamId: 3 });
  });

  it("one without a record yet is made anew by a CMD_SYNC behind an invalidation (§4.6.3)", () => {
    const guest = stalling();
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_SMMUEN);
    stall(guest, 1);
    guest.run();
    expect(guest.host.responses).toEqual([]);
    guest.run(["TLBI_NH_ALL"]);
    expect(guest.host.responses).toEqual([{ cookie: 1, code: RESPONSE_SUCCESS }]);
  });

  /** The level-3 entry of page 7, where the stalled transactions go. */
  const page = (guest: Guest, entry: bigint) => {
    guest.store64(PLACE.tables, (PLACE.tables + 0x1000n) | 3n);
    guest.store64(PLACE.tables + 0x1000n + 7n * 8n, entry);
  };

  it("which of the four faults it was is what the guest's tables say (§7.3.16)", () => {
    const guest = stalling();
    stall(guest, 1, 2);
    expect(only(guest).number).toBe(F_TRANSLATION);
    page(guest, PLACE.free | 0x4c3n);
    stall(guest, 2, 2);
    expect(only(guest).number).toBe(F_PERMISSION);
  });

  it("a page that the guest has mapped meanwhile is told of all the same: it is for the guest to resume", () => {
    const guest = stalling();
    page(guest, PLACE.free | 0x443n);
    stall(guest, 1, 2);
    expect(only(guest)).toMatchObject({ number: F_TRANSLATION, stall: true });
  });

  it("what the host's second stage stalled is nothing that the guest could mend: refused, silently", () => {
    const beyond = stalling();
    page(beyond, 0x1000_0000n | 0x443n);
    const tables = stalling();
    tables.store64(PLACE.tables, 0x1000_0000n | 3n);
    const contexts = stalling();
    contexts.writeStage1Stream(3, 0x1000_0000n);
    contexts.run(["CFGI_STE", { SID: 3 }]);
    for (const guest of [beyond, tables, contexts]) {
      stall(guest, 1);
      expect([guest.takeEvents(), guest.host.responses]).toEqual([[], [{ cookie: 1, code: RESPONSE_INVALID }]]);
    }
  });

  it("more than STALL_MAX at once are answered for the guest", () => {
    const guest = stalling();
    for (let i = 0; i < 17; i++) stall(guest, i);
    expect(guest.host.responses).toEqual([{ cookie: 16, code: RESPONSE_INVALID }]);
  });

  for (const [what, end] of [
    ["unplugged", (guest: Guest) => void guest.smmu.unplug(3)],
    ["reset", (guest: Guest) => guest.smmu.deviceReset(3)],
    ["given another context", (guest: Guest) => abortStream(guest)],
    ["cut off with SMMUEN (§6.3.9)", (guest: Guest) => guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN)],
    ["behind an SMMU that is reset", (guest: Guest) => guest.smmu.reset()],
  ] as const) {
    it(`are void when the device is ${what}`, () => {
      const guest = stalling();
      stall(guest, 7);
      end(guest);
      expect(guest.host.responses).toEqual([{ cookie: 7, code: RESPONSE_INVALID }]);
      expect(guest.smmu.stalls.waiting).toBe(0);
    });
  }

  it("page requests of a PCI function are refused: PRI is not the guest's", () => {
    const guest = stalling();
    guest.host.deliver({
      ...({ kind: "page-request", device: 101, guestId: 1, cookie: 9, pasid: 1, group: 4, last: true } as const),
      ...{ permissions: 1, address: 0n },
    });
    guest.smmu.service();
    expect(guest.host.responses).toEqual([{ cookie: 9, code: RESPONSE_INVALID }]);
    expect(guest.takeEvents()).toEqual([]);
  });
});
