import { describe, expect, it } from "vitest";
import {
  encodeIdentification,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  type SmmuFeatures,
} from "../../../../host/arch/smmuv3/identification.ts";
import { deriveCapabilities, type Smmuv3Configuration } from "../../../../vmm/viommu/smmuv3/capabilities.ts";
import { FULL_HOST } from "./guest.ts";

const derive = (features: Partial<SmmuFeatures> = {}, configuration: Smmuv3Configuration = {}, stalls = false) =>
  deriveCapabilities(encodeIdentification({ ...FULL_HOST, ...features }), configuration, stalls);

describe("what the guest is promised", () => {
  it("has a reason for every field of every identification register", () => {
    const { sheet } = derive();
    for (const [register, { fields }] of Object.entries({ IDR0, IDR1, IDR3, IDR5 })) {
      for (const { name, high, low } of Object.values(fields)) {
        const row = sheet.rows.find((each) => each.register === register && each.name === name);
        expect(row, `${register}.${name}`).toMatchObject({ high, low });
        expect(row!.rule.length).toBeGreaterThan(5);
      }
    }
  });

  it("its rows and its registers say the same", () => {
    const { sheet } = derive({}, {}, true);
    for (const { register, low, high, guest } of sheet.rows) {
      const value = sheet.registers[register!]! >> BigInt(low);
      expect(Number(value & ((1n << BigInt(high - low + 1)) - 1n)), register).toBe(guest);
    }
  });

  it("is stage 1 alone: nothing that a second stage, EL2, broadcast or the host's registers would need", () => {
    const { features } = derive();
    for (const name of ["S2P", "Hyp", "BTM", "VMW", "VMID16", "NS1ATS", "ATSRECERR", "XNX", "FWB", "PTWNNC"] as const)
      expect([name, features[name]]).toEqual([name, false]);
    for (const name of ["ATTR_PERMS_OVR", "ATTR_TYPES_OVR", "PRI", "SEV"] as const)
      expect([name, features[name]]).toEqual([name, false]);
  });

  const copied = ["HTTU", "ASID16", "TERM_MODEL", "HAD", "STT", "RIL", "BBML", "E0PD", "EPAN"] as const;
  const granules = ["GRAN4K", "GRAN16K", "GRAN64K"] as const;
  for (const name of [...copied, ...granules, "ATS", "CD2L", "SSIDSIZE"] as const) {
    it(`${name} is never more than the host's`, () => {
      const none = typeof FULL_HOST[name] === "boolean" ? false : 0;
      expect(derive({ [name]: none }).features[name]).toBe(none);
      expect(derive().features[name]).toBe(FULL_HOST[name]);
    });
  }

  it("needs both stages below: without the host's stage 2 there is nothing to nest over", () => {
    expect(derive({ S2P: false }).features.S1P).toBe(false);
    expect(derive({ S1P: false }).features.S1P).toBe(false);
  });

  it("addresses are no wider than the host's second stage takes, and 48 bits", () => {
    expect(derive({ OAS: 2 }).features.OAS).toBe(2);
    expect(derive({ OAS: 6 }).features.OAS).toBe(5);
  });

  it("the machine turns off ATS and PASIDs, chooses interrupts, and how wide a StreamID is", () => {
    expect(derive({}, { ats: false }).features.ATS).toBe(false);
    expect(derive({}, { pasid: false }).features).toMatchObject({ SSIDSIZE: 0, CD2L: false });
    expect(derive({}, { interrupts: "wired" }).features.MSI).toBe(false);
    expect(derive({}, { interrupts: "msi" }).features.MSI).toBe(true);
    expect(derive({}, { sidBits: 24 }).features.SIDSIZE).toBe(24);
    expect(derive({}, { sidBits: 99 }).features.SIDSIZE).toBe(32);
  });

  it("STALL_MODEL is 0 only where a device can stall and the hardware lets it", () => {
    expect(derive({}, {}, true).features).toMatchObject({ STALL_MODEL: 0, STALL_MAX: 16 });
    expect(derive({}, {}, false).features).toMatchObject({ STALL_MODEL: 1, STALL_MAX: 0 });
    expect(derive({ STALL_MODEL: 1 }, {}, true).features).toMatchObject({ STALL_MODEL: 1, STALL_MAX: 0 });
  });

  it("PRI is there only if asked for, with ATS", () => {
    expect(derive({}, { pri: true }).features).toMatchObject({ PRI: true, PRIQS: 13 });
    expect(derive({}, { pri: true, ats: false }).features.PRI).toBe(false);
  });

  it("a host that says nothing promises nothing that needs it", () => {
    const { features } = deriveCapabilities({ IDR0: 0n, IDR1: 0n, IDR3: 0n, IDR5: 0n, AIDR: 0n });
    expect(features).toMatchObject({ S1P: false, ATS: false, SSIDSIZE: 0, HTTU: 0, RIL: false });
  });
});
