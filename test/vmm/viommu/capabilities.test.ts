import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CAPABILITIES, decodeCapabilities, encodeCapabilities } from "../../../host/arch/riscv/capabilities.ts";
import { capabilitiesOf, deriveCapabilities } from "../../../vmm/viommu/riscv/capabilities.ts";
import { FULL_HOST } from "./guest.ts";

const full = { capabilities: encodeCapabilities(FULL_HOST), fctl: 0 };

describe("capabilities of the guest-visible IOMMU", () => {
  it("clears what needs a second stage or is the host's own, whatever the host has (§6.3)", () => {
    const guest = decodeCapabilities(deriveCapabilities(full).capabilities);
    for (const name of ["Sv32x4", "Sv39x4", "Sv48x4", "Sv57x4", "MSI_FLAT", "MSI_MRIF", "AMO_MRIF", "T2GPA"] as const) {
      expect(guest[name]).toBe(false);
    }
    for (const name of ["Sv32", "END", "HPM", "QOSID"] as const) expect(guest[name]).toBe(false);
    expect(guest.custom).toBe(0);
  });

  it("hands on what the hardware does with the guest's own tables and commands", () => {
    const guest = decodeCapabilities(deriveCapabilities(full).capabilities);
    const names = [
      "Sv39",
      "Sv48",
      "Sv57",
      "Svpbmt",
      "Svrsw60t59b",
      "AMO_HWAD",
      "ATS",
      "PD8",
      "PD17",
      "PD20",
      "NL",
      "S",
    ];
    for (const name of names) expect(guest[name as keyof typeof guest]).toBe(true);
  });

  it.each(["Sv39", "Svpbmt", "AMO_HWAD", "ATS", "PD8", "PD17", "PD20", "NL", "S", "Svrsw60t59b"] as const)(
    "never promises %s where the host lacks it",
    (name) => {
      const host = encodeCapabilities({ ...FULL_HOST, [name]: false });
      expect(decodeCapabilities(deriveCapabilities({ capabilities: host, fctl: 0 }).capabilities)[name]).toBe(false);
    },
  );

  it("Sv48 needs Sv39 and Sv57 needs Sv48 also where an odd host says otherwise (§6.3)", () => {
    const odd = encodeCapabilities({ ...FULL_HOST, Sv39: false });
    const guest = decodeCapabilities(deriveCapabilities({ capabilities: odd, fctl: 0 }).capabilities);
    expect([guest.Sv39, guest.Sv48, guest.Sv57]).toEqual([false, false, false]);
  });

  it.each([
    ["msi", 0],
    ["wired", 1],
    ["both", 2],
  ] as const)("interrupts %s is IGS %i (§6.3)", (interrupts, igs) => {
    const { capabilities } = deriveCapabilities(full, { interrupts });
    expect(decodeCapabilities(capabilities).IGS).toBe(igs);
  });

  it("the machine can turn off ATS, PASIDs and the debug interface", () => {
    const { capabilities } = deriveCapabilities(full, { ats: false, pasid: false, debug: false });
    const guest = decodeCapabilities(capabilities);
    expect([guest.ATS, guest.PD8, guest.PD17, guest.PD20, guest.DBG]).toEqual([false, false, false, false, false]);
  });

  it("PAS is what the host's widest second stage takes, at most 56 bits", () => {
    const pas = (more: Partial<typeof FULL_HOST>) =>
      decodeCapabilities(
        deriveCapabilities({ capabilities: encodeCapabilities({ ...FULL_HOST, ...more }), fctl: 0 }).capabilities,
      ).PAS;
    expect(pas({})).toBe(56);
    expect(pas({ Sv57x4: false })).toBe(50);
    expect(pas({ Sv57x4: false, Sv48x4: false })).toBe(41);
  });

  it("the table names every field of the register once, with the rule that made its value", () => {
    const { rows } = deriveCapabilities(full);
    expect(rows.map((row) => row.name).sort()).toEqual(Object.keys(CAPABILITIES.fields).sort());
    for (const row of rows) expect(row.rule.length).toBeGreaterThan(5);
  });

  it("the table without hardware shows no host column", () => {
    for (const row of deriveCapabilities(null).rows) expect(row.host).toBeNull();
  });

  it("any 64-bit value a host reports gives a legal guest register: version 1.0, no second stage, no reserved bit", () => {
    const defined = CAPABILITIES.definedBits(0);
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (host) => {
        const { capabilities } = deriveCapabilities({ capabilities: host, fctl: 0 });
        const guest = decodeCapabilities(capabilities);
        expect(capabilities & ~defined).toBe(0n);
        expect(guest.version).toBe(0x10);
        expect(guest.Sv39x4 || guest.Sv48x4 || guest.Sv57x4 || guest.MSI_FLAT).toBe(false);
        expect(!guest.Sv48 || guest.Sv39).toBe(true);
        expect(guest.PAS).toBeGreaterThanOrEqual(41);
      }),
    );
  });

  it("capabilitiesOf sets fields by their names", () => {
    expect(capabilitiesOf({ Sv39: 1, PAS: 41 })).toBe((1n << 9n) | (41n << 32n));
  });
});
