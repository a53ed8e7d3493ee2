// A guest-visible SMMUv3 that is saved and taken back goes on as the one it was.

import { describe, expect, it } from "vitest";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import { restoreTree, saveTree } from "../../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../../host/base/state-text.ts";
import { type AtsTarget, DMA_OK, NO_PASID } from "../../../../host/devices/ports.ts";
import { RESPONSE_SUCCESS } from "../../../../vmm/viommu/host-port.ts";
import { Guest, PLACE, RAM } from "./guest.ts";

const EMULATED = 5;
const STALLING = 3;

class Target implements AtsTarget {
  tags: number[] = [];
  responses: [number, number, number][] = [];
  invalidate(_pfn: number, _pages: number, _pasid: number, _global: boolean, itag: number): boolean {
    this.tags.push(itag);
    return false;
  }
  pageResponse(pasid: number, group: number, code: number): void {
    this.responses.push([pasid, group, code]);
  }
}

function build() {
  const guest = new Guest({ stalls: true, configuration: { pri: true } });
  guest.plug(1);
  guest.plug(STALLING, { canStall: true });
  guest.plug(EMULATED, { emulated: true, ats: true });
  const target = new Target();
  const dma = guest.smmu.emulatedDma(() => EMULATED, target);
  return { guest, target, dma };
}

/** A machine of the same make that has the memory and the state of `from`. */
function takenBack(from: Guest) {
  const twin = build();
  for (let at = RAM; at < RAM + 0x10_0000n; at += 8n) {
    const value = from.load64(at);
    if (value !== 0n) twin.guest.store64(at, value);
  }
  restoreTree(twin.guest.smmu, decodeState(encodeState(saveTree(from.smmu))));
  twin.guest.takeOver();
  return twin;
}

function running() {
  const machine = build();
  const { guest } = machine;
  guest.bringUp();
  for (const sid of [1, STALLING]) guest.writeStage1Stream(sid);
  const nothing = {
    ...{ V: 1, AA64: 1, T0SZ: 39, EPD1: 1, IPS: 5, A: 1, R: 1, S: 1 },
    TTB0: (PLACE.free + 0x4000n) >> 4n,
  };
  guest.writeContext(PLACE.contexts, nothing);
  guest.store64(PLACE.free, 7n);
  guest.store64(PLACE.tables, (PLACE.tables + 0x1000n) | 3n);
  guest.store64(PLACE.tables + 0x1000n, PLACE.free | 0xc43n);
  guest.writeContext(PLACE.contexts + 64n, {
    ...{ V: 1, AA64: 1, T0SZ: 39, EPD1: 1, IPS: 5, A: 1, R: 1, ASID: 1, TTB0: PLACE.tables >> 4n },
  });
  guest.writeStage1Stream(EMULATED, PLACE.contexts + 64n, { EATS: 1 });
  guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
  return machine;
}

const read = ({ dma }: ReturnType<typeof build>) => {
  const byte = new Uint8Array(1);
  return dma.read(0, 0, byte, 0, 1, NO_PASID) === DMA_OK ? byte[0]! : null;
};

describe("an SMMUv3 that is saved and taken back", () => {
  it("reads the same, and has the same devices in the same dispositions", () => {
    const before = running().guest;
    before.hostEvent({ number: 0x10, SID: 1, RnW: 1, CLASS: 2 });
    const { guest } = takenBack(before);
    for (const offset of Object.values(REG))
      expect([offset, guest.read32(offset)]).toEqual([offset, before.read32(offset)]);
    for (const sid of [1, STALLING, EMULATED])
      expect(guest.smmu.dispositions.find(sid)!.context).toEqual(before.smmu.dispositions.find(sid)!.context);
    expect(guest.takeEvents()).toMatchObject([{ number: 0x10, streamId: 1 }]);
    // What was installed is known to be: the same entry costs no host call.
    guest.host.calls.length = 0;
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(guest.host.calls).toEqual([]);
  });

  it("looks streams up where the registers say that it had not looked up before", () => {
    const before = running();
    expect(read(takenBack(before.guest))).toBe(7);
  });

  it("keeps what it cached until it is told otherwise", () => {
    const before = running();
    expect(read(before)).toBe(7);
    const after = takenBack(before.guest);
    after.guest.store64(PLACE.tables + 0x1000n, 0n);
    expect(read(after)).toBe(7);
    after.guest.run(["TLBI_NH_ALL"]);
    expect(read(after)).toBeNull();
  });

  it("answers a transaction that was stalled before", () => {
    const { guest: before } = running();
    before.host.deliver({
      ...({
        kind: "page-request",
        device: 103,
        guestId: STALLING,
        cookie: 41,
        pasid: null,
        group: 9,
        last: true,
      } as const),
      ...{ permissions: 1, address: 0x7000n },
    });
    before.smmu.service();
    const { guest } = takenBack(before);
    const [event] = guest.takeEvents();
    guest.run(["RESUME", { SID: STALLING, STAG: event!.stag, Ac: 1 }]);
    expect(guest.host.responses).toEqual([{ cookie: 41, code: RESPONSE_SUCCESS }]);
  });

  it("waits on for a model's completion, and for the answer to its page request", () => {
    const before = running();
    before.guest.write64(REG.PRIQ_BASE, (PLACE.free + 0x8000n) | 4n);
    before.guest.write32(REG.CR0, 0x1f);
    before.dma.ats!.pageRequest(0, 2, 6, 1 | 4);
    before.guest.queue(["ATC_INV", { SID: EMULATED, Size: 52 }], ["SYNC"]);
    before.guest.ring();
    expect(before.guest.cons).not.toBe(before.guest.prod);
    const after = takenBack(before.guest);
    expect(after.guest.cons).toBe(before.guest.cons);
    after.dma.ats!.invalidationCompleted(before.target.tags[0]!);
    expect([after.guest.cons, after.guest.commandError]).toEqual([before.guest.prod, 0]);
  });
});
