// Which stream table entries and context descriptors are ILLEGAL, rule by rule (IHI 0070 §5.2.2, §5.4.2), and formats against each other.

import { describe, expect, it } from "vitest";
import { commandName, decodeCommand, describeCommand, encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { CD_FAULTS, cdFault, WORLD_EL1, WORLD_EL2 } from "../../../../host/arch/smmuv3/context-descriptor.ts";
import { describeEvent } from "../../../../host/arch/smmuv3/event-records.ts";
import type { SmmuFeatures } from "../../../../host/arch/smmuv3/identification.ts";
import { registerAt } from "../../../../host/arch/smmuv3/registers.ts";
import { STE_FAULTS, steFault } from "../../../../host/arch/smmuv3/stream-table-entry.ts";
import { DEFAULT_FEATURES } from "../../../../host/hw/iommu/smmuv3/options.ts";
import { CONTEXT, cdWords, type Fields, halves, SECOND_STAGE, steWords } from "../../hw/iommu/smmuv3/machine.ts";

const S1: Fields = { Config: 5, S1ContextPtr: 0x200_0000 };
const S2: Fields = { ...SECOND_STAGE, Config: 6, S2TTB: 0x800_0000 };
const BOTH: Fields = { ...S1, ...S2, Config: 7 };

const ste = (fields: Fields, features: Partial<SmmuFeatures> = {}) =>
  STE_FAULTS[steFault(halves(steWords(fields)), { ...DEFAULT_FEATURES, ...features })];

describe("stream table entries (§5.2.2)", () => {
  it.each([
    ["abort, whatever else it says", { Config: 3, S1CDMax: 31, S2TG: 3, S2T0SZ: 0 }, {}],
    ["bypass, with stage fields", { Config: 4, S1CDMax: 31, S2TG: 3, EATS: 2 }, {}],
    ["stage 1", S1, {}],
    ["stage 2", S2, {}],
    ["both", BOTH, {}],
    ["both with split ATS", { ...BOTH, EATS: 2 }, {}],
    ["stage 1 with stage-2 fields that are not looked at", { ...S1, S2TG: 3, S2T0SZ: 0, S2S: 1 }, {}],
    ["STRW where it has no meaning", { ...BOTH, STRW: 1 }, {}],
    ["EATS without ATS", { ...S1, EATS: 2 }, { ATS: false }],
    ["S1Fmt 3", { ...S1, S1CDMax: 4, S1Fmt: 3 }, { CD2L: false }],
    ["S2PS above OAS", { ...S2, S2PS: 7 }, { OAS: 4 }],
    ["4K small tables", { ...S2, S2T0SZ: 43, S2SL0: 3 }, {}],
    ["4K level 0 with 44 bits", { ...S2, S2T0SZ: 20, S2SL0: 2 }, { OAS: 4 }],
  ] as const)("legal: %s", (_name, fields, features) => {
    expect(ste(fields as Fields, features as Partial<SmmuFeatures>)).toBe("");
  });

  it.each([
    ["V is 0", { ...S1, V: 0 }, {}],
    ["Config asks for stage 1", S1, { S1P: false, Hyp: false }],
    ["Config asks for stage 2", S2, { S2P: false, Hyp: false }],
    ["Config asks for stage 2", BOTH, { S2P: false, Hyp: false }],
    ["EATS asks for split-stage", { ...S1, EATS: 2 }, {}],
    ["EATS asks for split-stage", { ...BOTH, EATS: 2, S2S: 1 }, {}],
    ["EATS asks for split-stage", { ...BOTH, EATS: 2 }, { NS1ATS: true }],
    ["EATS asks for full ATS with stalls", { ...S2, EATS: 1, S2S: 1 }, {}],
    ["STRW is reserved", { ...S1, STRW: 1 }, {}],
    ["STRW is reserved", { ...S1, STRW: 3 }, {}],
    ["S1STALLD", { ...S1, S1STALLD: 1 }, { STALL_MODEL: 1 }],
    ["S1STALLD", { ...S1, S1STALLD: 1 }, { STALL_MODEL: 2 }],
    ["S1CDMax", { ...S1, S1CDMax: 9 }, { SSIDSIZE: 8 }],
    ["S1Fmt", { ...S1, S1CDMax: 4, S1Fmt: 1 }, { CD2L: false }],
    ["S1Fmt", { ...S1, S1CDMax: 4, S1Fmt: 2 }, { CD2L: false }],
    ["S1ContextPtr", { ...S1, S1ContextPtr: 2 ** 38 }, { OAS: 4 }],
    ["S2S disagrees", { ...S2, S2S: 1 }, { STALL_MODEL: 1 }],
    ["S2S disagrees", S2, { STALL_MODEL: 2 }],
    ["S2AA64", { ...S2, S2AA64: 0 }, {}],
    ["S2HA or S2HD", { ...S2, S2HA: 1 }, { HTTU: 0 }],
    ["S2HA or S2HD", { ...S2, S2HD: 1, S2HA: 1 }, { HTTU: 1 }],
    ["S2HAFT", { ...S2, S2HAFT: 1 }, { HTTU: 3 }],
    ["S2TG", { ...S2, S2TG: 3 }, {}],
    ["S2TG", { ...S2, S2TG: 1 }, { GRAN64K: false }],
    ["S2TTB", { ...S2, S2TTB: 2 ** 44 }, {}],
    ["S2TTB", { ...S2, S2TTB: 2 ** 32, S2PS: 1 }, {}],
    ["S2T0SZ", { ...S2, S2T0SZ: 15, S2SL0: 2 }, {}],
    ["S2T0SZ", { ...S2, S2T0SZ: 19, S2SL0: 2 }, { OAS: 4 }],
    ["S2T0SZ", { ...S2, S2T0SZ: 40, S2SL0: 0 }, { STT: false }],
    ["S2T0SZ", { ...S2, S2T0SZ: 48, S2TG: 1, S2SL0: 0 }, {}],
    ["S2SL0", { ...S2, S2SL0: 0 }, {}],
    ["S2SL0", { ...S2, S2T0SZ: 36, S2SL0: 3 }, { STT: false }],
    ["S2SL0", { ...S2, S2TG: 1, S2SL0: 3 }, {}],
    ["S2SL0", { ...S2, S2T0SZ: 24, S2SL0: 2 }, { OAS: 3 }],
    ["S2ENDI", { ...S2, S2ENDI: 1 }, {}],
    ["S2ENDI", S2, { TTENDIAN: 3 }],
    ["S2VMID", { ...S1, S2VMID: 0x100 }, { VMID16: false }],
    ["S2VMID", { ...BOTH, S2VMID: 0x100 }, { VMID16: false }],
  ] as const)("ILLEGAL: %s (%j, %j)", (why, fields, features) => {
    expect(ste(fields as Fields, features as Partial<SmmuFeatures>)).toContain(why);
  });

  it("S2VMID has no meaning in EL2", () => {
    expect(ste({ ...S1, STRW: 2, S2VMID: 0x100 }, { VMID16: false })).toBe("");
  });
});

const C: Fields = { ...CONTEXT, TTB0: 0x800_0000 };
const cd = (fields: Fields, features: Partial<SmmuFeatures> = {}, world: 0 | 1 | 2 = WORLD_EL1, stalld = false) =>
  CD_FAULTS[cdFault(halves(cdWords(fields)), world, stalld, { ...DEFAULT_FEATURES, ...features })];

describe("context descriptors (§5.4.2)", () => {
  it.each([
    ["what Linux writes", C, {}],
    ["IPS above OAS", { ...C, IPS: 7 }, { OAS: 4 }],
    ["EPD0 with a table that is none", { ...C, EPD0: 1, TG0: 3, T0SZ: 0 }, {}],
    ["the other half alone", { ...C, EPD0: 1, EPD1: 0, T1SZ: 16, TG1: 2 }, {}],
    ["ENDI where both halves are off", { ...C, EPD0: 1, ENDI: 1 }, {}],
    ["small tables", { ...C, T0SZ: 48 }, {}],
  ] as const)("legal: %s", (_name, fields, features) => {
    expect(cd(fields as Fields, features as Partial<SmmuFeatures>)).toBe("");
  });

  it.each([
    ["V is 0", { ...C, V: 0 }, {}],
    ["A is 0", { ...C, A: 0 }, {}],
    ["S disagrees", { ...C, S: 1 }, { STALL_MODEL: 1 }],
    ["S disagrees", C, { STALL_MODEL: 2 }],
    ["ENDI", { ...C, ENDI: 1 }, {}],
    ["AA64", { ...C, AA64: 0 }, {}],
    ["HA or HD", { ...C, HA: 1 }, { HTTU: 0 }],
    ["HA or HD", { ...C, HA: 1, HD: 1 }, { HTTU: 1 }],
    ["HAFT", { ...C, HAFT: 1 }, { HTTU: 3 }],
    ["ASID", { ...C, ASID: 0x100 }, { ASID16: false }],
    ["T0SZ", { ...C, T0SZ: 15 }, {}],
    ["T0SZ", { ...C, T0SZ: 40 }, { STT: false }],
    ["T0SZ", { ...C, T0SZ: 48, TG0: 1 }, {}],
    ["TG0", { ...C, TG0: 3 }, {}],
    ["TG0", { ...C, TG0: 2 }, { GRAN16K: false }],
    ["TTB0", { ...C, TTB0: 2 ** 32, IPS: 1 }, {}],
    ["T1SZ", { ...C, EPD1: 0, T1SZ: 0, TG1: 2 }, {}],
    ["TG1", { ...C, EPD1: 0, T1SZ: 16, TG1: 0 }, {}],
    ["TTB1", { ...C, EPD1: 0, T1SZ: 16, TG1: 2, TTB1: 2 ** 44 }, {}],
  ] as const)("ILLEGAL: %s (%j, %j)", (why, fields, features) => {
    expect(cd(fields as Fields, features as Partial<SmmuFeatures>)).toContain(why);
  });

  it("S against S1STALLD; EPDx and ASID have no meaning in EL2", () => {
    expect(cd({ ...C, S: 1 }, {}, WORLD_EL1, true)).toContain("S1STALLD");
    expect(cd({ ...C, ASID: 0x100 }, { ASID16: false }, WORLD_EL2)).toBe("");
    expect(cd({ ...C, EPD0: 1, TG0: 3 }, {}, WORLD_EL2)).toContain("TG0");
  });
});

describe("formats", () => {
  it("commands encode, decode and describe themselves (§4)", () => {
    const words = encodeCommand("TLBI_NH_VA", { VMID: 3, ASID: 5, Leaf: 1, Address: 0x12, TG: 1, NUM: 7 });
    expect(words).toEqual([0x0005_0003_0000_7012n, 0x1_2401n]);
    expect(decodeCommand(...words)).toMatchObject({ name: "TLBI_NH_VA", reservedBits: false, fields: { ASID: 5n } });
    expect(describeCommand(...words)).toBe("CMD_TLBI_NH_VA NUM=0x7 VMID=0x3 ASID=0x5 Leaf=1 TG=4K Address=0x12");
    expect(commandName(0xffn)).toBeNull();
    expect(() => encodeCommand("SYNC", { VMID: 1 })).toThrow(RangeError);
  });

  it("events and registers say what they are", () => {
    const stalled = [(8n << 32n) | 0x3813n, (0x80n << 32n) | 0x200_8000_0004n, 0x1000n, 0x2000n];
    expect(describeEvent(stalled)).toBe(
      "F_PERMISSION of stream 0x8, SSID 3: write at 0x1000, stage 2 (IN), IPA 0x2000, stalled as 4",
    );
    expect(registerAt(0x84)?.name).toBe("STRTAB_BASE");
    expect(registerAt(0x100ac)?.name).toBe("EVENTQ_CONS");
    expect(registerAt(0xa8)).toBeUndefined();
  });
});
