import { describe, expect, it } from "vitest";
import { REG } from "../../../host/arch/riscv/registers.ts";
import { Guest, PLACE } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

describe("registers of the guest-visible IOMMU", () => {
  it("after reset ddtp is Off, queues are off and ipsr is 0 (§6.2)", () => {
    const guest = new Guest();
    expect(guest.read64(REG.ddtp) & 0xfn).toBe(0n);
    for (const register of [REG.cqcsr, REG.fqcsr, REG.pqcsr, REG.ipsr]) expect(guest.read32(register)).toBe(0);
  });

  it("capabilities is read-only (§6.3)", () => {
    const guest = new Guest();
    const before = guest.read64(REG.capabilities);
    guest.write64(REG.capabilities, 0xffff_ffff_ffff_ffffn);
    expect(guest.read64(REG.capabilities)).toBe(before);
    expect(before & 0xffn).toBe(0x10n);
  });

  it.each([0, 1, 2, 3, 4])("ddtp takes iommu_mode %i (§6.5)", (mode) => {
    const guest = new Guest();
    guest.write64(REG.ddtp, BigInt(mode));
    expect(guest.read64(REG.ddtp)).toBe(BigInt(mode));
  });

  it.each([5, 13, 14, 15])("a mode that does not exist (%i) reads back as another legal one (§6.5)", (mode) => {
    const guest = new Guest();
    guest.write64(REG.ddtp, BigInt(mode));
    expect(Number(guest.read64(REG.ddtp) & 0xfn)).toBeLessThanOrEqual(4);
  });

  it("ddtp keeps PPN in bits 53:10, its reserved bits and busy read 0 (§6.5)", () => {
    const guest = new Guest();
    guest.write64(REG.ddtp, 0xffff_ffff_ffff_fff4n);
    expect(guest.read64(REG.ddtp)).toBe(0x003f_ffff_ffff_fc04n);
  });

  it("a driver that writes LOG2SZ = 31 reads back the largest queue, at least what Linux asks for", () => {
    const guest = new Guest();
    guest.write64(REG.cqb, 31n);
    guest.write64(REG.fqb, 31n);
    // 8192 commands and 4096 records: LOG2SZ-1 of 12 and 11.
    expect(guest.read64(REG.cqb) & 31n).toBeGreaterThanOrEqual(12n);
    expect(guest.read64(REG.fqb) & 31n).toBeGreaterThanOrEqual(11n);
  });

  it("a queue base within the limit reads back equal", () => {
    const guest = new Guest();
    const base = ((PLACE.commands >> 12n) << 10n) | 5n;
    guest.write64(REG.cqb, base);
    expect(guest.read64(REG.cqb)).toBe(base);
  });

  it("index registers keep LOG2SZ bits only (§6.8)", () => {
    const guest = new Guest();
    guest.write64(REG.cqb, ((PLACE.commands >> 12n) << 10n) | 2n);
    guest.write32(REG.cqt, 0xffff_ffff);
    expect(guest.read32(REG.cqt)).toBe(7);
    guest.write32(REG.cqh, 3);
    expect(guest.read32(REG.cqh)).toBe(0);
  });

  it("a queue made smaller while it is on keeps its indexes within it, both of them", () => {
    const guest = new Guest();
    guest.plug(1);
    guest.enableDirectory();
    guest.enableQueues({ quiet: true, faultsLog2: 6 });
    for (let i = 0; i < 9; i++) guest.hostFault({ deviceId: 1 });
    expect(guest.read32(REG.fqt)).toBe(9);
    guest.write64(REG.fqb, (PLACE.faults >> 12n) << 10n);
    expect(guest.read32(REG.fqt)).toBeLessThan(2);
    guest.hostFault({ deviceId: 1 });
    expect(guest.load64(PLACE.faults + 32n * 10n)).toBe(0n);
  });

  it("enabling a queue sets its on bit at once and busy never (§6.15)", () => {
    const guest = new Guest();
    guest.enableQueues({ pageRequests: true });
    for (const register of [REG.cqcsr, REG.fqcsr, REG.pqcsr]) {
      expect(guest.read32(register) & ((1 << 16) | (1 << 17) | 1)).toBe((1 << 16) | 1);
      guest.write32(register, 0);
      expect(guest.read32(register) & ((1 << 16) | (1 << 17) | 1)).toBe(0);
    }
  });

  it("cqen 0→1 clears cqh and the error bits but not cqt (§6.15)", () => {
    const guest = new Guest();
    guest.enableQueues({ quiet: true });
    guest.writeRaw([0x7fn, 0n]);
    guest.ringDoorbell();
    expect(guest.read32(REG.cqcsr) & (1 << 10)).not.toBe(0);
    guest.write32(REG.cqcsr, 0);
    guest.write32(REG.cqt, 0);
    guest.write32(REG.cqcsr, 1);
    expect(guest.read32(REG.cqcsr)).toBe(0x10001);
    expect(guest.cqh).toBe(0);
  });

  it("with ATS = 0 the page-request registers read 0 and ignore writes (§6.1)", () => {
    const guest = new Guest({ capabilities: { ATS: false } });
    guest.write64(REG.pqb, 0x1234_5c05n);
    guest.write32(REG.pqh, 1);
    guest.write32(REG.pqcsr, 3);
    expect([guest.read64(REG.pqb), guest.read32(REG.pqh), guest.read32(REG.pqcsr)]).toEqual([0n, 0, 0]);
  });

  it.each([REG.iohpmcycles, REG.iohpmctr1, REG.iohpmevt1])(
    "without HPM the register at %i reads 0 (§6.1)",
    (offset) => {
      const guest = new Guest();
      guest.write64(offset, 0xffff_ffff_ffff_ffffn);
      expect(guest.read64(offset)).toBe(0n);
    },
  );

  it("icvec keeps as many bits a field as there are vectors; pmiv is 0 without HPM (§6.28)", () => {
    const guest = new Guest({ configuration: { vectorsLog2: 2 } });
    guest.write64(REG.icvec, 0xffff_ffff_ffff_ffffn);
    expect(guest.read64(REG.icvec)).toBe(0x3033n);
    const one = new Guest({ configuration: { vectorsLog2: 0 } });
    one.write64(REG.icvec, 0xffffn);
    expect(one.read64(REG.icvec)).toBe(0n);
  });

  it("Linux's icvec 0x2310 leaves every field below the number of vectors", () => {
    const guest = new Guest();
    guest.write64(REG.icvec, 0x2310n);
    expect(guest.read64(REG.icvec)).toBe(0x2010n);
  });

  it("msi_cfg_tbl keeps address bits 55:2, data and the mask bit; entries past the vectors read 0 (§6.29)", () => {
    const guest = new Guest();
    guest.write64(REG.msi_cfg_tbl + 16, 0xffff_ffff_ffff_ffffn);
    guest.write32(REG.msi_cfg_tbl + 24, 0xdead_beef);
    guest.write32(REG.msi_cfg_tbl + 28, 0xffff_ffff);
    expect(guest.read64(REG.msi_cfg_tbl + 16)).toBe(0x00ff_ffff_ffff_fffcn);
    expect(guest.read32(REG.msi_cfg_tbl + 24)).toBe(0xdead_beef);
    expect(guest.read32(REG.msi_cfg_tbl + 28)).toBe(1);
    guest.write32(REG.msi_cfg_tbl + 16 * 4 + 8, 5);
    expect(guest.read32(REG.msi_cfg_tbl + 16 * 4 + 8)).toBe(0);
  });

  it("fctl.WSI is free with IGS = BOTH, fixed otherwise, and stays while a queue is on (§6.4)", () => {
    const both = new Guest();
    both.write32(REG.fctl, 0xffff_ffff);
    expect(both.read32(REG.fctl)).toBe(2);
    both.enableQueues();
    both.write32(REG.fctl, 0);
    expect(both.read32(REG.fctl)).toBe(2);
    const wires = new Guest({ configuration: { interrupts: "wired" } });
    wires.write32(REG.fctl, 0);
    expect(wires.read32(REG.fctl)).toBe(2);
    const messages = new Guest({ configuration: { interrupts: "msi" } });
    messages.write32(REG.fctl, 2);
    expect(messages.read32(REG.fctl)).toBe(0);
  });

  it.each([
    [1, 0],
    [2, 8],
    [4, 9],
    [8, 12],
    [8, 32],
    [4, 1024],
    [4, 628],
  ] as const)("an access of %i bytes at %i, which §6 leaves open, reads 0 and changes nothing", (size, offset) => {
    const guest = new Guest();
    guest.viommu.mmioWrite(offset, size, 0xffff_ffff, 0xffff_ffff);
    expect(guest.viommu.mmioRead(offset, size)).toBe(0);
    expect(guest.read32(REG.cqt)).toBe(0);
  });

  it("a write of an 8-byte register's high half alone has no side effect (§6)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1);
    const before = host.calls.length;
    guest.write32(REG.ddtp + 4, 0);
    expect(host.calls.length).toBe(before);
  });

  it("reset brings registers and dispositions back, whatever was on", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1);
    guest.enableQueues({ pageRequests: true });
    guest.enableDirectory();
    guest.installContext(1, { tc: 1n });
    guest.viommu.reset();
    expect(guest.read64(REG.ddtp)).toBe(0n);
    expect(guest.read32(REG.cqcsr)).toBe(0);
    expect(guest.cqh).toBe(0);
    expect(guest.viommu.dispositions.find(1)?.disposition).toBe("blocked");
    expect(host.done(1).at(-1)).toBe("setBlocked");
  });
});
