import { describe, expect, it } from "vitest";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import { iommuHwptArmSmmuv3 } from "../../../../host/uapi/smmuv3-nesting.ts";
import type { RecordingHost } from "../hosts.ts";
import { Guest, type GuestOptions, PLACE } from "./guest.ts";

function ready(options: GuestOptions = {}): { guest: Guest; host: RecordingHost } {
  const guest = new Guest(options);
  guest.plug(1);
  guest.plug(2, { ats: true });
  guest.bringUp();
  guest.host.calls.length = 0;
  return { guest, host: guest.host };
}

const disposition = (guest: Guest, sid: number) => guest.smmu.dispositions.find(sid)!.disposition;
const cause = (guest: Guest, sid: number) => guest.smmu.dispositions.find(sid)!.cause;
const installed = (host: RecordingHost) => iommuHwptArmSmmuv3.decode(host.calls.at(-1)!.data!);

describe("dispositions", () => {
  it("while SMMUEN is 0 GBPA decides, which aborts after reset (§6.3.14)", () => {
    const guest = new Guest();
    guest.plug(1);
    expect(disposition(guest, 1)).toBe("blocked");
    guest.write32(REG.GBPA, 0x8000_1000);
    expect(disposition(guest, 1)).toBe("bypass");
    expect(guest.host.done(101)).toEqual(["setBypass"]);
    guest.write32(REG.GBPA, 0x8010_1000);
    expect(disposition(guest, 1)).toBe("blocked");
  });

  it("a write of GBPA without Update changes nothing (§6.3.14)", () => {
    const guest = new Guest();
    guest.plug(1);
    guest.write32(REG.GBPA, 0x1000);
    expect(disposition(guest, 1)).toBe("blocked");
  });

  it("Config 5 is nested with the guest's words, from the CFGI_STE on (§5.2)", () => {
    const { guest, host } = ready();
    guest.writeStage1Stream(1);
    expect(host.calls).toEqual([]);
    guest.run(["CFGI_STE", { SID: 1, Leaf: 1 }]);
    expect(disposition(guest, 1)).toBe("nested");
    // S1STALLD: the hardware could stall, the guest was told that nothing does.
    expect(installed(host)).toEqual({ ste0: PLACE.contexts | 0b1011n, ste1: 1n << 27n });
  });

  it("V = 0 is C_BAD_STE, Config 0 silence, Config 4 bypass (§5.2)", () => {
    const { guest } = ready();
    expect(cause(guest, 1)).toBe(4);
    guest.writeStream(1, { V: 1 });
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect([disposition(guest, 1), cause(guest, 1)]).toEqual(["blocked", 0]);
    guest.writeStream(1, { V: 1, Config: 4 });
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(disposition(guest, 1)).toBe("bypass");
  });

  it("bits that the host takes from no guest never reach it (§5.2: MEV, CONT, PPAR, software's)", () => {
    const { guest, host } = ready();
    guest.writeStage1Stream(1, PLACE.contexts, {
      MEV: 1,
      CONT: 15,
      PPAR: 1,
      DRE: 1,
      DCP: 1,
      S1CIR: 1,
      S1COR: 1,
      S1CSH: 3,
    });
    guest.store64(PLACE.streams + 64n + 8n, guest.load64(PLACE.streams + 64n + 8n) | (15n << 20n));
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(installed(host).ste1).toBe((1n << 27n) | 0b11010100n);
  });

  it("EATS of 2 and 3 abort the stream, and the queue goes on", () => {
    const { guest } = ready();
    for (const EATS of [2, 3]) {
      guest.writeStage1Stream(2, PLACE.contexts, { EATS });
      guest.run(["CFGI_STE", { SID: 2 }]);
      expect([disposition(guest, 2), cause(guest, 2)]).toEqual(["blocked", 4]);
      expect([guest.commandError, guest.cons]).toEqual([0, guest.prod]);
    }
  });

  it("EATS = 1 reaches the host for a device with ATS alone", () => {
    const { guest, host } = ready();
    guest.writeStage1Stream(1, PLACE.contexts, { EATS: 1 });
    guest.writeStage1Stream(2, PLACE.contexts, { EATS: 1 });
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(installed(host).ste1 & (3n << 28n)).toBe(0n);
    guest.run(["CFGI_STE", { SID: 2 }]);
    expect(installed(host).ste1 & (3n << 28n)).toBe(1n << 28n);
  });

  it("what SSIDSIZE = 0 makes IGNORED is not ignored by the hardware, and so left out (§5.2)", () => {
    const { guest, host } = ready({ configuration: { pasid: false } });
    guest.writeStage1Stream(1, PLACE.contexts, { S1CDMax: 8, S1Fmt: 2, S1DSS: 2 });
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(installed(host)).toEqual({ ste0: PLACE.contexts | 0b1011n, ste1: 1n << 27n });
  });

  it("a host that refuses leaves the stream aborting, its errno kept, and the queue goes on", () => {
    const { guest, host } = ready();
    host.refuse = { setNested: -5 };
    guest.writeStage1Stream(1);
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(guest.smmu.dispositions.find(1)).toMatchObject({ disposition: "blocked", cause: 4, refusal: -5 });
    expect([guest.commandError, guest.cons]).toEqual([0, guest.prod]);
  });

  it("a CFGI_STE that finds the same entry drops the stream's contexts in the host (§4.3.1)", () => {
    const { guest, host } = ready();
    guest.writeStage1Stream(1);
    guest.run(["CFGI_STE", { SID: 1 }]);
    host.calls.length = host.batches.length = 0;
    guest.run(["CFGI_STE", { SID: 1 }]);
    expect(host.calls).toEqual([]);
    expect(host.batches).toEqual([[[0x1_0000_0006n, 0n]]]);
  });

  it("CFGI_STE_RANGE reads the streams of its range, CFGI_ALL every one (§4.3.2)", () => {
    const { guest } = ready();
    for (const sid of [1, 2]) guest.writeStage1Stream(sid);
    guest.run(["CFGI_STE_RANGE", { SID: 2, Range: 0 }]);
    expect([disposition(guest, 1), disposition(guest, 2)]).toEqual(["blocked", "nested"]);
    guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
    expect(disposition(guest, 1)).toBe("nested");
  });

  it("two levels: a level-1 descriptor that gets its leaf later needs no command of its own (§5.1)", () => {
    const guest = new Guest();
    guest.plug(0x101);
    guest.bringUp({ enable: false });
    guest.write32(REG.STRTAB_BASE_CFG, 16 | (8 << 6) | (1 << 16));
    guest.write32(REG.CR0, 0xd);
    expect(cause(guest, 0x101)).toBe(2);
    const leaf = PLACE.free;
    guest.store64(PLACE.streams + 8n, leaf | 9n);
    guest.writeStage1Stream(1, PLACE.contexts);
    guest.writeStream(0, { V: 1, Config: 5, S1ContextPtr: PLACE.contexts >> 6n }, leaf + 64n);
    guest.run(["CFGI_STE", { SID: 0x101, Leaf: 1 }]);
    expect(disposition(guest, 0x101)).toBe("nested");
  });

  it("turning SMMUEN off and on reads all streams again", () => {
    const { guest } = ready();
    guest.writeStage1Stream(1);
    guest.write32(REG.CR0, 0xc);
    expect(disposition(guest, 1)).toBe("blocked");
    guest.write32(REG.CR0, 0xd);
    expect(disposition(guest, 1)).toBe("nested");
  });

  it("a device whose StreamID the guest cannot use is said to do no DMA", () => {
    const guest = new Guest({ configuration: { sidBits: 8 } });
    guest.plug(0x100);
    expect(guest.reports).toEqual([expect.stringContaining("StreamIDs have 8 bits (sidBits)")]);
  });
});

describe("devices of one iommu group are one stream", () => {
  function grouped() {
    const guest = new Guest();
    const allowed = new Map<number, boolean>();
    for (const sid of [1, 2]) guest.plug(sid, { stream: "iommu group 3", allowDma: (is) => allowed.set(sid, is) });
    guest.bringUp();
    guest.host.calls.length = 0;
    return { guest, allowed };
  }

  it("one entry for all of them is installed once", () => {
    const { guest } = grouped();
    for (const sid of [1, 2]) guest.writeStage1Stream(sid);
    guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
    expect([disposition(guest, 1), disposition(guest, 2)]).toEqual(["nested", "nested"]);
    expect(guest.host.calls.map(({ call }) => call)).toEqual(["setNested"]);
  });

  it("one without an entry is kept from DMA while its neighbour has one", () => {
    const { guest, allowed } = grouped();
    guest.writeStage1Stream(1);
    guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
    expect([disposition(guest, 1), disposition(guest, 2)]).toEqual(["nested", "blocked"]);
    expect([allowed.get(1), allowed.get(2)]).toEqual([true, false]);
  });

  it("entries that differ block all of it, which is said once", () => {
    const { guest } = grouped();
    guest.writeStage1Stream(1);
    guest.writeStage1Stream(2, PLACE.contexts + 64n);
    guest.run(["CFGI_STE_RANGE", { Range: 31 }], ["CFGI_STE", { SID: 1 }]);
    expect([disposition(guest, 1), disposition(guest, 2)]).toEqual(["blocked", "blocked"]);
    expect([cause(guest, 1), cause(guest, 2)]).toEqual([4, 4]);
    expect(guest.reports).toEqual([expect.stringContaining("all of it is blocked, with C_BAD_STE, until they agree")]);
  });
});
