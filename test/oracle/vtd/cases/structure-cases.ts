/** From the root table to the PASID entry, in both modes (§3.4, §9.1 to §9.6, §7.1.3): each case spoils or adds one thing. */
import { type Case, faults, faultsOf, passes, silent } from "./expected.ts";
import {
  ADDRESS,
  CONTEXT,
  CONTEXT_BITS,
  DID,
  DIRECTORY,
  DIRECTORY_1,
  ENTRY,
  entryBits,
  FPD,
  firstScene,
  GUEST_PAGE,
  LEGACY_CONTEXT,
  legacyScene,
  nestedScene,
  PAGE,
  PASID,
  passScene,
  Q2,
  ROOT,
  ROOT_TABLE,
  type Scene,
  SSADE,
  secondScene,
  withTT,
} from "./scene.ts";

const HERE = PAGE | 0xabcn;
const THERE = GUEST_PAGE | 0xabcn;
const BEYOND = 1n << 46n;
const withPasid = { pasid: PASID };
const ECAPS = {
  DT: 1n << 2n,
  PT: 1n << 6n,
  SC: 1n << 7n,
  NEST: 1n << 26n,
  SRS: 1n << 31n,
  EAFS: 1n << 34n,
  SMTS: 1n << 43n,
  SSADS: 1n << 45n,
  SSTS: 1n << 46n,
  FSTS: 1n << 47n,
  SMPWCS: 1n << 48n,
  RPS: 1n << 49n,
};

function spoiled(name: string, scene: () => Scene, expected: Case["expected"], request = {}): Case {
  return { name, scene, expected, request };
}

const bothEntries = (quadword: number, set: bigint, clear = 0n) => entryBits(firstScene(), quadword, set, clear);

export const STRUCTURE_CASES: readonly Case[] = [
  // Modes.
  spoiled("TES=0 passes (§3.3)", () => legacyScene().program({ TES: false }), passes(ADDRESS)),
  spoiled(
    "TTM=2 is reserved: RTA.1 (§7.1.3)",
    () => legacyScene().program({ RTADDR: ROOT_TABLE | (2n << 10n) }),
    faults(0x30n),
  ),
  spoiled(
    "TTM=3 without ADMS: RTA.1 (§7.1.3)",
    () => legacyScene().program({ RTADDR: ROOT_TABLE | (3n << 10n) }),
    faults(0x30n),
  ),
  spoiled(
    "TTM=3, abort-DMA mode: RTA.4 (§7.1.3)",
    () => {
      const scene = legacyScene().program({ RTADDR: ROOT_TABLE | (3n << 10n) });
      return scene.identify({ ECAP: scene.identification.ECAP | (1n << 52n) });
    },
    faults(0x33n),
  ),
  spoiled("TTM=1 without SMTS: RTA.1 (§7.1.3)", () => firstScene().without({ ECAP: ECAPS.SMTS }), faults(0x30n)),
  spoiled("a PASID in legacy mode: RTA.2 (§7.1.3)", legacyScene, faultsOf(0x31n), withPasid),
  // Legacy root.
  spoiled("legacy: translates (§9.3)", legacyScene, passes(HERE)),
  spoiled("legacy: no memory under the root entry: LRT.1 (§7.1.3)", () => legacyScene().fail(ROOT), faults(0x08n)),
  spoiled("legacy: no memory under its upper half: LRT.1 (§9.1)", () => legacyScene().fail(ROOT + 8n), faults(0x08n)),
  spoiled("legacy: root P=0: LRT.2", () => legacyScene().clear(ROOT, 1n), faults(0x01n)),
  spoiled("legacy: root P=0 hides reserved bits (§9.1)", () => legacyScene().put(ROOT, 0xffen, 1n), faults(0x01n)),
  spoiled("legacy: root bit 1: LRT.3", () => legacyScene().set(ROOT, 2n), faults(0x0an)),
  spoiled("legacy: root bit 11: LRT.3", () => legacyScene().set(ROOT, 1n << 11n), faults(0x0an)),
  spoiled("legacy: root upper quadword: LRT.3", () => legacyScene().set(ROOT + 8n, 1n << 20n), faults(0x0an)),
  spoiled("legacy: CTP beyond the HAW: LRT.3 (§9.1)", () => legacyScene().set(ROOT, BEYOND), faults(0x0an)),
  // Legacy context.
  spoiled("legacy: no memory under the context: LCT.1", () => legacyScene().fail(LEGACY_CONTEXT + 8n), faults(0x09n)),
  spoiled("legacy: context P=0: LCT.2", () => legacyScene().clear(LEGACY_CONTEXT, 1n), faults(0x02n)),
  spoiled("legacy: FPD of an absent context counts (§7.2.2)", () => legacyScene().put(LEGACY_CONTEXT, FPD), silent),
  spoiled("legacy: bit 4: LCT.3", () => legacyScene().set(LEGACY_CONTEXT, 1n << 4n), faults(0x0bn)),
  spoiled(
    "legacy: bit 4 with FPD is blocked silently",
    () => legacyScene().set(LEGACY_CONTEXT, (1n << 4n) | FPD),
    silent,
  ),
  spoiled("legacy: SSPTPTR beyond the HAW: LCT.3", () => legacyScene().set(LEGACY_CONTEXT, BEYOND), faults(0x0bn)),
  spoiled(
    "legacy: bits 6:3 of the upper half are ignored (§9.3)",
    () => legacyScene().set(LEGACY_CONTEXT + 8n, 0x78n),
    passes(HERE),
  ),
  spoiled("legacy: upper bit 7: LCT.3", () => legacyScene().set(LEGACY_CONTEXT + 8n, 1n << 7n), faults(0x0bn)),
  spoiled("legacy: upper bit 24: LCT.3", () => legacyScene().set(LEGACY_CONTEXT + 8n, 1n << 24n), faults(0x0bn)),
  spoiled(
    "legacy: a DID beyond ND: LCT.3 (§9.3)",
    () =>
      legacyScene()
        .without({ CAP: 7n })
        .set(LEGACY_CONTEXT + 8n, 0x10n << 8n),
    faults(0x0bn),
  ),
  spoiled("legacy: AW=0: LCT.4", () => legacyScene().clear(LEGACY_CONTEXT + 8n, 7n), faults(0x03n)),
  spoiled("legacy: AW=4: LCT.4", () => legacyScene().set(LEGACY_CONTEXT + 8n, 4n), faults(0x03n)),
  spoiled("legacy: AW that SAGAW has not: LCT.4", () => legacyScene().without({ CAP: 1n << 10n }), faults(0x03n)),
  spoiled("legacy: TT=3: LCT.4", withTT(3n), faults(0x03n)),
  spoiled("legacy: TT=1 without DT: LCT.4", () => withTT(1n)().without({ ECAP: ECAPS.DT }), faults(0x03n)),
  spoiled("legacy: TT=2 without PT: LCT.4", () => withTT(2n)().without({ ECAP: ECAPS.PT }), faults(0x03n)),
  spoiled("legacy: pass-through (§3.9)", withTT(2n), passes(ADDRESS)),
  spoiled(
    "legacy: pass-through still needs an AW that is there (§9.3)",
    () => withTT(2n)().clear(LEGACY_CONTEXT + 8n, 7n),
    faults(0x03n),
  ),
  spoiled("legacy: pass-through beyond the HAW: LGN.1", withTT(2n), faults(0x04n, "read", BEYOND), { address: BEYOND }),
  spoiled(
    "legacy: a translated request with TT=0: LCT.5",
    legacyScene,
    {
      result: "blocked",
      record: [ADDRESS & ~0xfffn, faults(0x0dn).record![1] | (2n << 60n)],
    },
    { kind: "translated" },
  ),
  spoiled("legacy: a translated request with TT=1 (§4.2.4)", withTT(1n), passes(ADDRESS), { kind: "translated" }),
  // Scalable root and context.
  spoiled("scalable: translates (§3.4.3)", firstScene, passes(THERE)),
  spoiled("scalable: no memory under the root half: SRT.1", () => firstScene().fail(ROOT), faults(0x38n)),
  spoiled("scalable: LP=0: SRT.2", () => firstScene().clear(ROOT, 1n), faults(0x39n)),
  spoiled("scalable: root bit 5: SRT.3", () => firstScene().set(ROOT, 1n << 5n), faults(0x3an)),
  spoiled("scalable: LCTP beyond the HAW: SRT.3", () => firstScene().set(ROOT, BEYOND), faults(0x3an)),
  spoiled("scalable: the other half is not looked at (§9.2)", () => firstScene().put(ROOT + 8n, 0xfffn), passes(THERE)),
  spoiled(
    "scalable: devfn 80h uses the upper half (§9.2)",
    firstScene,
    {
      result: "blocked",
      record: [ADDRESS & ~0xfffn, (faults(0x39n).record![1] & ~0xffffn) | 0x0180n],
    },
    { sid: 0x0180n },
  ),
  spoiled(
    "scalable: devfn 80h has the first context of its half (§9.4)",
    () => {
      const scene = firstScene().put(ROOT + 8n, 0x10_4000n | 1n);
      return scene.put(0x10_4000n, scene.memory.words.get(CONTEXT)!, 0n, 0n, 0n);
    },
    passes(THERE),
    { sid: 0x0180n },
  ),
  spoiled("scalable: no memory under the context: SCT.1", () => firstScene().fail(CONTEXT + 24n), faults(0x40n)),
  spoiled("scalable: context P=0: SCT.2", () => firstScene().clear(CONTEXT, 1n), faults(0x41n)),
  spoiled("scalable: FPD of an absent context counts", () => firstScene().clear(CONTEXT, 1n).set(CONTEXT, FPD), silent),
  ...[5n, 8n].map((at) =>
    spoiled(`scalable: context bit ${at}: SCT.3`, () => firstScene().set(CONTEXT, 1n << at), faults(0x42n)),
  ),
  spoiled("scalable: PASIDDIRPTR beyond the HAW: SCT.3", () => firstScene().set(CONTEXT, BEYOND), faults(0x42n)),
  spoiled(
    "scalable: bit 21 of the second quadword: SCT.3",
    () => firstScene().set(CONTEXT + 8n, 1n << 21n),
    faults(0x42n),
  ),
  spoiled("scalable: third quadword: SCT.3", () => firstScene().set(CONTEXT + 16n, 1n), faults(0x42n)),
  spoiled("scalable: fourth quadword: SCT.3", () => firstScene().set(CONTEXT + 24n, 1n << 63n), faults(0x42n)),
  spoiled(
    "scalable: RID_PASID without RPS: SCT.3 (§9.4)",
    () =>
      firstScene()
        .set(CONTEXT + 8n, PASID)
        .without({ ECAP: ECAPS.RPS }),
    faults(0x42n),
  ),
  spoiled(
    "scalable: RID_PASID names the entry (§9.4)",
    () =>
      firstScene()
        .set(CONTEXT + 8n, PASID)
        .clear(ENTRY, 1n),
    passes(THERE),
  ),
  spoiled(
    "scalable: a record never shows RID_PASID (§11.4.7.6)",
    () => bothEntries(0, 0n, 1n).set(CONTEXT + 8n, PASID),
    faults(0x59n),
  ),
  spoiled(
    "scalable: PASIDE=0: SCT.6",
    () => firstScene().clear(CONTEXT, CONTEXT_BITS.PASIDE),
    faultsOf(0x45n),
    withPasid,
  ),
  spoiled("scalable: PASID 2^13 with PDTS=0: SCT.7", firstScene, faultsOf(0x46n, "read", { pasid: 0x2000n }), {
    pasid: 0x2000n,
  }),
  spoiled(
    "scalable: PASID 2^13 with PDTS=1 finds an entry in the next page of the directory (§9.5)",
    () =>
      firstScene()
        .set(CONTEXT, CONTEXT_BITS.PDTS(1n))
        .put(DIRECTORY + 128n * 8n, ENTRY | 1n),
    passes(THERE),
    { pasid: 0x2000n },
  ),
  spoiled(
    "scalable: a translated request with DTE=0: SCT.5",
    () => firstScene().clear(CONTEXT, CONTEXT_BITS.DTE),
    {
      result: "blocked",
      record: [ADDRESS & ~0xfffn, faults(0x44n).record![1] | (2n << 60n)],
    },
    { kind: "translated" },
  ),
  spoiled("scalable: a translated request with DTE=1 (§4.2.4)", firstScene, passes(ADDRESS), { kind: "translated" }),
  // Directory.
  spoiled("no memory under the directory entry: SPD.1", () => firstScene().fail(DIRECTORY), faults(0x50n)),
  spoiled(
    "SPD.1 is recorded whatever FPD says (§7.1.3)",
    () => firstScene().fail(DIRECTORY).set(CONTEXT, FPD),
    faults(0x50n),
  ),
  spoiled("directory P=0: SPD.2", () => firstScene().put(DIRECTORY, 0xffcn), faults(0x51n)),
  spoiled("FPD of an absent directory entry counts", () => firstScene().put(DIRECTORY, FPD), silent),
  spoiled(
    "FPD of the context counts for the directory",
    () => firstScene().put(DIRECTORY, 0n).set(CONTEXT, FPD),
    silent,
  ),
  spoiled("directory bit 2: SPD.3", () => firstScene().set(DIRECTORY, 4n), faults(0x52n)),
  spoiled("SMPTBLPTR beyond the HAW: SPD.3", () => firstScene().set(DIRECTORY, BEYOND), faults(0x52n)),
  spoiled("a PASID's directory entry is its own", () => firstScene().put(DIRECTORY, 0n), passes(THERE), withPasid),
  spoiled(
    "PASIDs share what FPD of a directory entry says (§9.5)",
    () => bothEntries(0, 0n, 1n).set(DIRECTORY_1, FPD),
    silent,
    withPasid,
  ),
  // PASID entry.
  spoiled("no memory under the PASID entry: SPT.1", () => firstScene().fail(ENTRY + 56n), faults(0x58n)),
  spoiled("PASID entry P=0: SPT.2", () => bothEntries(0, 0n, 1n), faultsOf(0x59n), withPasid),
  spoiled(
    "PASID entry P=0 hides what is reserved and invalid",
    () => bothEntries(0, 7n << 6n, 1n).put(ENTRY + 24n, 1n),
    faults(0x59n),
  ),
  spoiled("FPD of an absent PASID entry counts", () => bothEntries(0, FPD, 1n), silent),
  ...[
    [0, 5n],
    [0, 10n],
    [0, 11n],
    [1, 16n],
    [1, 22n],
    [1, 25n],
    [1, 26n],
    [1, 27n],
    [1, 32n],
    [1, 63n],
    [2, 1n],
    [2, 8n],
    [2, 11n],
    [2, 46n],
    [2, 63n],
    [3, 0n],
    [5, 17n],
    [7, 63n],
  ].map(([quadword, at]) =>
    spoiled(
      `PASID entry quadword ${quadword} bit ${at}: SPT.3 (§9.6)`,
      () => bothEntries(Number(quadword), 1n << BigInt(at!)),
      faults(0x5an),
    ),
  ),
  spoiled(
    "bits 6:5 of quadword 2 are ignored (§9.6; NXE and SMEP once)",
    () => bothEntries(2, 3n << 5n),
    passes(THERE),
  ),
  spoiled("a DID beyond ND: SPT.3", () => bothEntries(1, 0x10n).without({ CAP: 7n }), faults(0x5an)),
  spoiled("SSADE without SSADS: SPT.3", () => bothEntries(0, SSADE).without({ ECAP: ECAPS.SSADS }), faults(0x5an)),
  spoiled("PWSNP without SMPWCS: SPT.3", () => firstScene().without({ ECAP: ECAPS.SMPWCS }), faults(0x5an)),
  spoiled("PGSNP without SC: SPT.3", () => bothEntries(1, 1n << 24n).without({ ECAP: ECAPS.SC }), faults(0x5an)),
  spoiled("PGSNP with SC", () => bothEntries(1, 1n << 24n), passes(THERE)),
  spoiled("SRE without SRS: SPT.3", () => bothEntries(2, Q2.SRE).without({ ECAP: ECAPS.SRS }), faults(0x5an)),
  spoiled("EAFE without EAFS: SPT.3", () => bothEntries(2, Q2.EAFE).without({ ECAP: ECAPS.EAFS }), faults(0x5an)),
  spoiled(
    "AW without SSTS: SPT.3, also where no second stage is asked for (§9.6)",
    () => bothEntries(0, 2n << 2n).without({ ECAP: ECAPS.SSTS | ECAPS.NEST }),
    faults(0x5an),
  ),
  spoiled(
    "FSPTPTR without FSTS: SPT.3, also with pass-through",
    () => entryBits(passScene(), 2, 0x20_1000n).without({ ECAP: ECAPS.FSTS | ECAPS.NEST }),
    faults(0x5an),
  ),
  spoiled(
    "WPE without FSTS: SPT.3, also with pass-through",
    () => entryBits(passScene(), 2, Q2.WPE).without({ ECAP: ECAPS.FSTS | ECAPS.NEST }),
    faults(0x5an),
  ),
  ...[0n, 5n, 6n, 7n].map((value) =>
    spoiled(`PGTT=${value}: SPT.4`, () => bothEntries(0, value << 6n, 7n << 6n), faults(0x5bn)),
  ),
  spoiled(
    "PGTT=1 without FSTS: SPT.4",
    () => entryBits(bothEntries(2, 0n, ~0n), 0, 0n).without({ ECAP: ECAPS.FSTS }),
    faults(0x5bn),
  ),
  spoiled(
    "PGTT=2 without SSTS: SPT.4",
    () => entryBits(secondScene(), 0, 0n, ~0x1c1n).without({ ECAP: ECAPS.SSTS | ECAPS.SSADS }),
    faults(0x5bn),
  ),
  spoiled("PGTT=3 without NEST: SPT.4", () => nestedScene().without({ ECAP: ECAPS.NEST }), faults(0x5bn)),
  spoiled("PGTT=4 without PT: SPT.4", () => passScene().without({ ECAP: ECAPS.PT }), faults(0x5bn)),
  spoiled("AW=0 with PGTT=2: SPT.4", () => entryBits(secondScene(), 0, 0n, 7n << 2n), faults(0x5bn)),
  spoiled("AW=0 with PGTT=1 does not matter", firstScene, passes(THERE)),
  spoiled("AW that SAGAW has not, PGTT=3: SPT.4", () => nestedScene().without({ CAP: 1n << 10n }), faults(0x5bn)),
  spoiled("FSPM=1 without FS5LP: SPT.4", () => bothEntries(2, Q2.FIVE).without({ CAP: 1n << 60n }), faults(0x5bn)),
  spoiled("FSPM=2: SPT.4", () => bothEntries(2, 2n << 2n), faults(0x5bn)),
  spoiled(
    "reserved bits come before an invalid PGTT (§7.1.3)",
    () => bothEntries(0, (7n << 6n) | (1n << 5n)),
    faults(0x5an),
  ),
  spoiled("PR=1 with SRE=0: SPT.6", firstScene, faultsOf(0x5dn, "read", { privileged: true }), {
    ...withPasid,
    privileged: true,
  }),
  spoiled("PR=1 with SRE=1", () => bothEntries(2, Q2.SRE), passes(THERE), { ...withPasid, privileged: true }),
  // Pass-through and ends.
  spoiled("scalable: pass-through (§3.9)", passScene, passes(ADDRESS), withPasid),
  spoiled("pass-through beyond the HAW: SGN.4", passScene, faults(0x83n, "read", BEYOND), { address: BEYOND }),
  spoiled(
    "pass-through of the interrupt range by a PASID: SGN.8 (§3.14)",
    passScene,
    faultsOf(0x87n, "write", { address: 0xfee0_0000n }),
    {
      ...withPasid,
      access: "write",
      address: 0xfee0_0000n,
    },
  ),
  spoiled("the DID has no say over where things lie", () => entryBits(firstScene(), 1, DID ^ 0x99n), passes(THERE)),
];
