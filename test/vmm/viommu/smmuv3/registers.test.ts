import { describe, expect, it } from "vitest";
import { decodeIdentification } from "../../../../host/arch/smmuv3/identification.ts";
import { REG, REGISTER_BYTES } from "../../../../host/arch/smmuv3/registers.ts";
import { Guest, type GuestOptions, MSI_PAGE, PLACE } from "./guest.ts";

/** As Linux 7.2's driver does it (arm_smmu_device_reset): throws where the driver would give up. */
function resetLikeLinux(guest: Guest): void {
  const acknowledged = (register: number, acknowledge: number, value: number) => {
    guest.write32(register, value);
    const read = guest.read32(acknowledge);
    if (read !== value)
      throw new Error(`0x${acknowledge.toString(16)} reads 0x${read.toString(16)}, not 0x${value.toString(16)}`);
  };
  if ((guest.read32(REG.CR0) & 1) !== 0) {
    guest.write32(REG.GBPA, guest.read32(REG.GBPA) | (1 << 20) | 0x80000000);
    if ((guest.read32(REG.GBPA) & 0x80000000) !== 0) throw new Error("GBPA.Update stays");
  }
  acknowledged(REG.CR0, REG.CR0ACK, 0);
  guest.write32(REG.CR1, 0xd75);
  guest.write32(REG.CR2, 4 | 2);
  guest.write64(REG.STRTAB_BASE, PLACE.streams | (1n << 62n));
  guest.write32(REG.STRTAB_BASE_CFG, 6);
  guest.write64(REG.CMDQ_BASE, PLACE.commands | (1n << 62n) | 8n);
  guest.write32(REG.CMDQ_PROD, 0);
  guest.write32(REG.CMDQ_CONS, 0);
  let cr0 = 8;
  acknowledged(REG.CR0, REG.CR0ACK, cr0);
  guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
  guest.run(["TLBI_NSNH_ALL"]);
  if (guest.cons !== guest.prod) throw new Error("CMD_SYNC timeout");
  guest.write64(REG.EVENTQ_BASE, PLACE.events | (1n << 62n) | 4n);
  guest.write32(REG.EVENTQ_PROD, 0);
  guest.write32(REG.EVENTQ_CONS, 0);
  acknowledged(REG.CR0, REG.CR0ACK, (cr0 |= 4));
  const { ATS, MSI } = decodeIdentification(identification(guest));
  if (ATS) acknowledged(REG.CR0, REG.CR0ACK, (cr0 |= 16));
  acknowledged(REG.IRQ_CTRL, REG.IRQ_CTRLACK, 0);
  for (const register of [REG.GERROR_IRQ_CFG0, REG.EVENTQ_IRQ_CFG0, REG.PRIQ_IRQ_CFG0]) guest.write64(register, 0n);
  if (MSI) {
    for (const [i, register] of [REG.EVENTQ_IRQ_CFG0, REG.GERROR_IRQ_CFG0].entries()) {
      guest.write64(register, MSI_PAGE);
      guest.write32(register + 8, i + 1);
      guest.write32(register + 12, 1);
    }
  }
  acknowledged(REG.IRQ_CTRL, REG.IRQ_CTRLACK, 5);
  acknowledged(REG.CR0, REG.CR0ACK, cr0 | 1);
}

function identification(guest: Guest) {
  const read = (register: number) => BigInt(guest.read32(register) >>> 0);
  return {
    ...{ IDR0: read(REG.IDR0), IDR1: read(REG.IDR1), IDR3: read(REG.IDR3), IDR5: read(REG.IDR5) },
    AIDR: read(REG.AIDR),
  };
}

describe("Linux's reset sequence works word for word, acknowledged exactly (§6.3.9)", () => {
  const machines: readonly [string, GuestOptions][] = [
    ["a well-equipped host", {}],
    ["wires alone", { configuration: { interrupts: "wired" } }],
    ["no ATS", { configuration: { ats: false } }],
    ["no PASIDs", { configuration: { pasid: false } }],
    ["a device that can stall", { stalls: true }],
    ["emulated devices alone", { host: null }],
    ["a host of its least", { features: { ATS: false, PRI: false, HTTU: 0, RIL: false, SSIDSIZE: 0, CD2L: false } }],
  ];
  for (const [what, options] of machines) {
    it(what, () => {
      const guest = new Guest(options);
      resetLikeLinux(guest);
      resetLikeLinux(guest);
      expect(guest.read32(REG.CR0) & 1).toBe(1);
      expect(guest.commandError).toBe(0);
    });
  }

  it("what the driver refuses to probe is never offered (arm_smmu_device_hw_probe)", () => {
    for (const [, options] of machines) {
      const features = decodeIdentification(identification(new Guest(options)));
      expect(features.S1P).toBe(true);
      expect([0, 2]).toContain(features.TTENDIAN);
      expect(features.CMDQS).toBeGreaterThan(6);
      expect(features.SIDSIZE < 7 || features.ST_LEVEL === 1).toBe(true);
    }
  });
});

describe("registers", () => {
  it("guarded ones keep their values while what guards them is on (§6.2)", () => {
    const guest = new Guest();
    guest.bringUp();
    const guarded = [REG.STRTAB_BASE_CFG, REG.CR2, REG.CMDQ_CONS, REG.EVENTQ_PROD, REG.EVENTQ_IRQ_CFG1] as const;
    for (const register of guarded) {
      const before = guest.read32(register);
      guest.write32(register, ~before);
      expect([register, guest.read32(register)]).toEqual([register, before]);
    }
    for (const register of [REG.STRTAB_BASE, REG.CMDQ_BASE, REG.EVENTQ_BASE, REG.EVENTQ_IRQ_CFG0]) {
      const before = guest.read64(register);
      guest.write64(register, 0x1234_5000n);
      expect(guest.read64(register)).toBe(before);
    }
  });

  it("never acknowledge what there is not: PRIQEN, VMW, and ATSCHK without ATS", () => {
    const guest = new Guest({ configuration: { ats: false } });
    guest.write32(REG.CR0, 0x1d2);
    expect(guest.read32(REG.CR0ACK)).toBe(0);
  });

  it("every access of any size anywhere is survived, and identification cannot be written", () => {
    const guest = new Guest();
    const before = identification(guest);
    for (let offset = 0; offset < REGISTER_BYTES + 64; offset += offset === 0x400 ? 0xf800 : 1) {
      for (const size of [1, 2, 4, 8] as const) {
        guest.smmu.mmioRead(offset, size);
        guest.smmu.mmioWrite(offset, size, 0xffffffff, 0xffffffff);
      }
    }
    expect(identification(guest)).toEqual(before);
  });

  it("reset is power-on: registers, queues and dispositions", () => {
    const guest = new Guest();
    guest.plug(1);
    guest.bringUp();
    guest.writeStage1Stream(1);
    guest.run(["CFGI_STE", { SID: 1 }]);
    guest.hostEvent({ number: 0x10, SID: 1 });
    guest.smmu.reset();
    expect(guest.smmu.dispositions.find(1)!.disposition).toBe("blocked");
    expect([REG.CR0, REG.CR0ACK, REG.CMDQ_PROD, REG.EVENTQ_PROD, REG.IRQ_CTRL].map((r) => guest.read32(r))).toEqual([
      0, 0, 0, 0, 0,
    ]);
    expect(guest.wires.get(0)).toBe(false);
    resetLikeLinux(guest);
  });
});
