import { describe, expect, it } from "vitest";
import { decodeCapabilities } from "../../../host/arch/riscv/capabilities.ts";
import { REG } from "../../../host/arch/riscv/registers.ts";
import { Clock } from "../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../host/base/memory.ts";
import { Trace } from "../../../host/base/trace.ts";
import { iommuHwptRiscv } from "../../../host/uapi/riscv-nesting.ts";
import { RiscvViommu } from "../../../vmm/viommu/riscv/viommu.ts";
import { Guest, PLACE, SV39, TC } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

const TABLE = PLACE.tables >> 12n;

function ready(options: ConstructorParameters<typeof Guest>[0] = {}): { guest: Guest; host: RecordingHost } {
  const host = new RecordingHost();
  const guest = new Guest({ host, ...options });
  guest.plug(1);
  guest.plug(2, { ats: true, pri: true });
  guest.enableDirectory();
  guest.enableQueues({ quiet: true });
  host.calls.length = 0;
  return { guest, host };
}

const disposition = (guest: Guest, id: number) => guest.viommu.dispositions.find(id)!.disposition;
const installed = (host: RecordingHost) => iommuHwptRiscv.decode(host.calls.at(-1)!.data!);

/** The cause a transaction of a blocked device is given. */
function causeOf(guest: Guest, id: number): number {
  guest.hostFault({ cause: 258, deviceId: id, ttyp: 2, iotval: 0x5000n });
  return guest.takeFaults().at(-1)!.cause;
}

describe("dispositions", () => {
  it("a device is plugged in blocked, with cause 256 while ddtp is Off (§3.3 step 1)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1);
    guest.enableQueues();
    expect(disposition(guest, 1)).toBe("blocked");
    expect(causeOf(guest, 1)).toBe(256);
  });

  it("ddtp Bare makes every device bypass, Off blocks them again (§6.5)", () => {
    const { guest, host } = ready();
    guest.write64(REG.ddtp, 1n);
    expect(host.calls.map(({ call }) => call)).toEqual(["setBypass", "setBypass"]);
    guest.write64(REG.ddtp, 0n);
    expect([1, 2].map((id) => disposition(guest, id))).toEqual(["blocked", "blocked"]);
    expect(host.calls.slice(2).map(({ call }) => call)).toEqual(["setBlocked", "setBlocked"]);
  });

  it("a context with a first stage is nested with the guest's own words", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V, ta: 7n << 12n, fsc: SV39 | TABLE });
    expect(disposition(guest, 1)).toBe("nested");
    expect(installed(host)).toEqual({ tc: 1n, fsc: SV39 | TABLE, ta: 7n << 12n });
    expect(guest.viommu.dispositions.nestedInstalled).toBe(1);
  });

  it("a valid context with fsc Bare is bypass", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V });
    expect(disposition(guest, 1)).toBe("bypass");
    expect(installed(host)).toEqual({ tc: 1n, fsc: 0n, ta: 0n });
    expect(guest.viommu.dispositions.nestedInstalled).toBe(0);
  });

  it("bypass with DTF keeps DTF: it is installed with the guest's tc", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V | TC.DTF });
    expect(disposition(guest, 1)).toBe("bypass");
    expect(installed(host)).toEqual({ tc: 17n, fsc: 0n, ta: 0n });
  });

  it("a context is read at IODIR.INVAL_DDT, not before", () => {
    const { guest, host } = ready();
    guest.storeContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(host.done(1)).toEqual([]);
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 1 }], ["IOFENCE.C", {}]);
    expect(host.done(1)).toEqual(["setNested"]);
  });

  it("a context is installed before the fence behind its IODIR completes, and before the batch is invalidated", () => {
    const { guest, host } = ready();
    const order: string[] = [];
    const setNested = host.setNested.bind(host);
    host.setNested = (device, data) => {
      order.push("setNested");
      return setNested(device, data);
    };
    host.invalidate = (_batch, count) => {
      order.push(`invalidate ${count}`);
      return { done: count, errno: 0 };
    };
    guest.storeContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 1 }], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(order).toEqual(["setNested", "invalidate 2"]);
  });

  it("IODIR.INVAL_DDT without DV reads every device's context again", () => {
    const { guest, host } = ready();
    guest.storeContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    guest.storeContext(2, { tc: TC.V });
    guest.run(["IODIR.INVAL_DDT", {}], ["IOFENCE.C", {}]);
    expect(host.calls.map(({ call }) => call)).toEqual(["setNested", "setNested"]);
  });

  it("an unchanged context costs no host call beyond the forwarded command", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    host.calls.length = 0;
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 1 }], ["IOFENCE.C", {}]);
    expect(host.calls).toEqual([]);
    expect(host.batches.length).toBe(2);
  });

  it("clearing V blocks the device; its cause is 258, reported when a transaction arrives and not before", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    guest.installContext(1, { tc: 0n });
    expect(host.done(1)).toEqual(["setNested", "setBlocked"]);
    expect(guest.takeFaults()).toEqual([]);
    expect(causeOf(guest, 1)).toBe(258);
  });

  it.each([
    ["a reserved bit of tc", { tc: TC.V | (1n << 12n) }],
    ["a reserved bit of fsc", { tc: TC.V, fsc: SV39 | (1n << 44n) }],
    ["an iosatp mode that does not exist", { tc: TC.V, fsc: 5n << 60n }],
    ["a second stage, which the guest's IOMMU does not have", { tc: TC.V, iohgatp: 8n << 60n }],
    ["EN_PRI without EN_ATS", { tc: TC.V | TC.EN_PRI }],
    ["DPE without PDTV", { tc: TC.V | TC.DPE }],
    ["an RCID without QOSID", { tc: TC.V, ta: 1n << 40n }],
    ["T2GPA", { tc: TC.V | TC.EN_ATS | 8n }],
    ["Sv32 by SXL", { tc: TC.V | (1n << 11n), fsc: SV39 }],
    ["big-endian tables", { tc: TC.V | (1n << 10n) }],
  ] as const)("%s is misconfigured: blocked with 259, the host is not asked (§3.1.4)", (_name, words) => {
    const { guest, host } = ready();
    guest.installContext(1, words);
    expect(disposition(guest, 1)).toBe("blocked");
    expect(host.calls.filter(({ call }) => call === "setNested")).toEqual([]);
    expect(causeOf(guest, 1)).toBe(259);
  });

  it("EN_ATS and SADE are misconfigured where the capability is not promised (§3.1.4)", () => {
    const { guest } = ready({ capabilities: { ATS: false, AMO_HWAD: false } });
    guest.installContext(1, { tc: TC.V | TC.EN_ATS });
    expect(causeOf(guest, 1)).toBe(259);
    guest.installContext(1, { tc: TC.V | TC.SADE, fsc: SV39 | TABLE });
    expect(causeOf(guest, 1)).toBe(259);
  });

  it("a directory entry that is not valid, has reserved bits, or lies outside memory gives 258, 259, 257 (§3.3.1)", () => {
    const { guest } = ready();
    const refresh = () => guest.run(["IODIR.INVAL_DDT", {}], ["IOFENCE.C", {}]);
    guest.store64(PLACE.root, 0n);
    refresh();
    expect(causeOf(guest, 1)).toBe(258);
    guest.store64(PLACE.root, ((PLACE.middle >> 12n) << 10n) | 3n);
    refresh();
    expect(causeOf(guest, 1)).toBe(259);
    guest.store64(PLACE.root, (0x1000n << 10n) | 1n);
    refresh();
    expect(causeOf(guest, 1)).toBe(257);
  });

  it("a device id wider than the directory gives 260 (§3.3 step 2)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(0x100);
    guest.enableQueues();
    guest.enableDirectory(1);
    expect(causeOf(guest, 0x100)).toBe(260);
  });

  it("a corrupted directory gives 268", () => {
    const { guest } = ready();
    guest.memory.faults = { at: (pfn) => (pfn === Number(PLACE.leaf >> 12n) ? 2 : 0) };
    guest.run(["IODIR.INVAL_DDT", {}], ["IOFENCE.C", {}]);
    guest.memory.faults = null;
    expect(causeOf(guest, 1)).toBe(268);
  });

  it("the kept cause is reported whatever DTF says: no context was found to set it (§4.2)", () => {
    const { guest } = ready();
    guest.installContext(1, { tc: TC.V | TC.DTF | (1n << 12n) });
    expect(causeOf(guest, 1)).toBe(259);
  });

  it("a context the host refuses is blocked with 259; the other device goes on", () => {
    const { guest, host } = ready();
    guest.installContext(2, { tc: TC.V, fsc: SV39 | TABLE });
    host.refuse = { setNested: -22 };
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    expect(disposition(guest, 1)).toBe("blocked");
    expect(host.done(1)).toEqual(["setNested", "setBlocked"]);
    expect(guest.viommu.dispositions.find(1)!.refusal).toBe(-22);
    expect(causeOf(guest, 1)).toBe(259);
    expect(disposition(guest, 2)).toBe("nested");
    // The queue is not stopped by it: the command was legal.
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(0);
  });

  it("a refused context is tried again at the next IODIR", () => {
    const { guest, host } = ready();
    host.refuse = { setNested: -12 };
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    host.refuse = {};
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    expect(disposition(guest, 1)).toBe("nested");
  });

  it("a host that cannot block a device is asked to detach it; one that cannot do that either is reported", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    host.refuse = { setBlocked: -16 };
    guest.installContext(1, { tc: 0n });
    expect(host.done(1)).toEqual(["setNested", "setBlocked", "detach"]);
    expect(guest.reports).toEqual([]);
    // While it is detached the host knows no such device: commands for it are done without it.
    host.refuse = { setBlocked: -16, attach: -12 };
    guest.installContext(1, { tc: TC.V });
    host.batches.length = 0;
    guest.run(["IODIR.INVAL_PDT", { DV: 1, DID: 1 }], ["IOFENCE.C", {}]);
    expect(host.batches).toEqual([]);
    // Detached, it is attached again before it gets a context.
    host.refuse = {};
    guest.installContext(1, { tc: TC.V });
    expect(host.calls.map(({ call }) => call).slice(-2)).toEqual(["attach", "setNested"]);
    host.refuse = { setBlocked: -16, detach: -16 };
    guest.installContext(2, { tc: TC.V });
    guest.installContext(2, { tc: 0n });
    expect(guest.viommu.dispositions.find(2)!.lost).toBe(true);
    expect(guest.reports.length).toBe(1);
  });

  it("a device that was blocked by detaching is attached again at the next IODIR, so that its faults are relayed", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
    host.refuse = { setBlocked: -12 };
    guest.installContext(1, { tc: 0n });
    expect(guest.viommu.dispositions.find(1)!.detached).toBe(true);
    host.refuse = {};
    host.calls.length = 0;
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 1 }], ["IOFENCE.C", {}]);
    expect(host.calls.map(({ call }) => call)).toEqual(["attach"]);
    expect(guest.viommu.dispositions.find(1)!).toMatchObject({ disposition: "blocked", detached: false });
    expect(causeOf(guest, 1)).toBe(258);
  });

  describe("canonical contexts", () => {
    it("custom bits and GADE are dropped: they mean nothing behind this IOMMU", () => {
      const { guest, host } = ready();
      guest.installContext(1, { tc: TC.V | TC.GADE | TC.SADE | (0xffn << 24n), fsc: SV39 | TABLE });
      expect(installed(host).tc).toBe(TC.V | TC.SADE);
    });

    it("EN_ATS is honoured only for a device that has ATS, EN_PRI only for one that has page requests", () => {
      const { guest, host } = ready();
      const tc = TC.V | TC.EN_ATS | TC.EN_PRI | TC.PRPR;
      guest.installContext(2, { tc, fsc: SV39 | TABLE });
      expect(installed(host).tc).toBe(tc);
      guest.installContext(1, { tc, fsc: SV39 | TABLE });
      expect(installed(host).tc).toBe(TC.V);
      guest.plug(3, { ats: true, pri: false });
      guest.installContext(3, { tc, fsc: SV39 | TABLE });
      expect(installed(host).tc).toBe(TC.V | TC.EN_ATS);
    });

    it("a process directory is nested with its root; the PSCID is the process contexts' (§3.1.3)", () => {
      const { guest, host } = ready();
      guest.installContext(1, { tc: TC.V | TC.PDTV | TC.DPE, ta: 9n << 12n, fsc: (3n << 60n) | TABLE });
      expect(disposition(guest, 1)).toBe("nested");
      expect(installed(host)).toEqual({ tc: TC.V | TC.PDTV | TC.DPE, fsc: (3n << 60n) | TABLE, ta: 0n });
    });

    it("of a context that is read again each word counts, and one that says the same is installed once", () => {
      const { guest, host } = ready();
      const contexts = [
        { tc: TC.V, ta: 9n << 12n, fsc: SV39 | 0x100n },
        { tc: TC.V, ta: 9n << 12n, fsc: SV39 | 0x101n },
        { tc: TC.V, ta: 9n << 12n, fsc: SV39 | 0x101n | (1n << 40n) },
        { tc: TC.V, ta: 10n << 12n, fsc: SV39 | 0x101n | (1n << 40n) },
        { tc: TC.V | TC.DTF, ta: 10n << 12n, fsc: SV39 | 0x101n | (1n << 40n) },
      ];
      for (const context of contexts) {
        guest.installContext(1, context);
        expect(installed(host)).toEqual(context);
        host.calls.length = 0;
        guest.installContext(1, context);
        expect(host.calls).toEqual([]);
      }
    });

    it("a PPN or PSCID beside fsc Bare means nothing, so changing it changes nothing", () => {
      const { guest, host } = ready();
      guest.installContext(1, { tc: TC.V });
      host.calls.length = 0;
      guest.installContext(1, { tc: TC.V, ta: 5n << 12n, fsc: 0x123n });
      expect(host.calls).toEqual([]);
    });
  });

  describe("plugging", () => {
    it("an id the host refuses is not plugged", () => {
      const host = new RecordingHost();
      const guest = new Guest({ host });
      host.refuse = { attach: -17 };
      expect(guest.plug(1)).toBe(-17);
      expect(guest.viommu.dispositions.find(1)).toBeUndefined();
    });

    it("an id that is taken is refused, and who has it keeps it", () => {
      const { guest, host } = ready();
      expect(guest.plug(1, { handle: 50 })).toBe(-17);
      expect(guest.plug(1, { handle: 51, emulated: true })).toBe(-17);
      expect(guest.viommu.dispositions.find(1)!.device.handle).toBe(1);
      expect(host.calls).toEqual([]);
    });

    it("an assigned device is refused by a vIOMMU without a host", () => {
      const guest = new Guest({ host: null });
      expect(guest.plug(1)).toBe(-19);
      expect(guest.viommu.dispositions.find(1)).toBeUndefined();
    });

    it("a host that does not say what its hardware can do gets a guest IOMMU without a first stage", () => {
      const viommu = new RiscvViommu({
        ...{ name: "viommu0", memory: new PhysicalMemory(), host: new RecordingHost(), hardware: null },
        interrupt: { wire: () => {}, message: () => 0 },
        clock: new Clock(),
        trace: new Trace(new Clock()),
      });
      const { Sv39, ATS, PD8 } = decodeCapabilities(viommu.capabilities);
      expect([Sv39, ATS, PD8]).toEqual([false, false, false]);
    });

    it("a device plugged into a running IOMMU gets the context that is there already", () => {
      const { guest } = ready();
      guest.storeContext(5, { tc: TC.V });
      guest.plug(5);
      expect(disposition(guest, 5)).toBe("bypass");
    });

    it("unplugging detaches", () => {
      const { guest, host } = ready();
      guest.viommu.unplug(1);
      expect(host.done(1)).toEqual(["detach"]);
      expect(guest.viommu.dispositions.find(1)).toBeUndefined();
      // What the guest still says of it is legal and reaches nobody.
      guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 1 }], ["IOFENCE.C", {}]);
      expect(guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    });

    it("renumbering makes the vDEVICE anew under the new id and reads that id's context", () => {
      const { guest, host } = ready();
      guest.storeContext(0x21, { tc: TC.V, fsc: SV39 | TABLE });
      guest.viommu.renumber(1, 0x21);
      expect(host.calls.map(({ call }) => call)).toEqual(["detach", "attach", "setNested"]);
      expect(host.calls.every(({ device }) => device === 1)).toBe(true);
      expect(disposition(guest, 0x21)).toBe("nested");
      expect(guest.viommu.dispositions.find(1)).toBeUndefined();
    });
  });
});
