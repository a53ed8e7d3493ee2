/** Translation tables of both stages, their faults and updates (§3.4, §3.13, §5.5, §7.3): each case spoils or adds one thing. */
import {
  abort,
  type Case,
  CLASS_IN,
  CLASS_TT,
  event,
  FETCH,
  PRIVILEGED,
  passes,
  READ,
  S2_CD,
  S2_IN,
  S2_TT,
  STALL,
  stage1Fault,
  stage2Fault,
  TT_READ,
  WRITE,
} from "./expected.ts";
import {
  bothScene,
  CD,
  CD_BITS,
  D,
  FIRST,
  IPA_PAGE,
  LEAF1,
  LEAF2,
  PA_PAGE,
  type Scene,
  SECOND,
  STE,
  STE_BITS,
  stage1Scene,
  stage2Scene,
  VA,
  withSubstreams,
} from "./scene.ts";

const HERE = IPA_PAGE | 0xabcn;
const THERE = PA_PAGE | 0xabcn;
const TABLE_NO_WRITE = 1n << 62n;
const TABLE_NO_EL0 = 1n << 61n;
const TABLE_PXN = 1n << 59n;
/** Physical addresses of the stage-1 descriptors, by level. */
const AT = [...FIRST.tables, FIRST.leaf];

/** A privileged or executing request needs a PASID. */
const substream = () => withSubstreams(stage1Scene(), 0n);
const substreamBoth = () => withSubstreams(bothScene(), 0n);
const s = { ssid: 3n } as const;
const privilegedRead = { ...s, privileged: true } as const;
const privilegedFetch = { ...s, privileged: true, instruction: true } as const;
const fetch = { ...s, instruction: true } as const;
const denied = (access: bigint) => {
  const [dw0, ...rest] = event(0x13n, access | CLASS_IN, VA);
  return abort([dw0 | (1n << 11n) | (3n << 12n), ...rest]);
};

function cdBits(scene: Scene, mask: bigint): Scene {
  return scene.set(CD, mask).set(CD + 192n, mask);
}

function leaf1(scene: Scene, value: bigint): Scene {
  return scene.put(FIRST.leaf, IPA_PAGE | value);
}

/** Hardware updates of both kinds. */
const HTTU1 = CD_BITS.HA | CD_BITS.HD;
const HTTU2 = STE_BITS.S2HA | STE_BITS.S2HD;
const CLEAN1 = LEAF1 | D.READ_ONLY | D.DBM;
const CLEAN2 = (LEAF2 & ~D.S2W) | D.DBM;

/** The stage-1 tables of a 16K granule: level 0 with two entries at 0x20_0000, TTB0 as in the scene. */
function granule16(): Scene {
  const scene = stage1Scene().set(CD, 2n << 6n);
  const index = (level: number) => (VA >> BigInt(14 + 11 * (3 - level))) & 0x7ffn;
  for (let level = 0; level < 3; level++) {
    const table = 0x80_0000n + BigInt(level) * 0x4000n;
    scene.put(table + index(level) * 8n, (table + 0x4000n) | D.TABLE);
  }
  scene.put(0x80_c000n + index(3) * 8n, IPA_PAGE | LEAF1);
  return scene.put(CD + 8n, 0x80_0000n);
}

export const TRANSLATION_CASES: readonly Case[] = [
  // Ranges and bases.
  {
    name: "an address above the range of TTB0: F_TRANSLATION (§3.4)",
    scene: () => stage1Scene().set(CD, 9n),
    expected: stage1Fault(0x10n),
  },
  {
    name: "bits above the range must be zero for TTB0 (§3.4.1)",
    scene: stage1Scene,
    request: { iova: VA | (1n << 56n) },
    expected: abort(event(0x10n, READ | CLASS_IN, VA | (1n << 56n))),
  },
  {
    name: "TBI0: the top byte means nothing (§3.4.1)",
    scene: () => stage1Scene().set(CD, CD_BITS.TBI0),
    request: { iova: VA | (0xa5n << 56n) },
    expected: passes(HERE),
  },
  {
    name: "TBI0: the event holds the top byte as it came (§3.4.1)",
    scene: () => stage1Scene().set(CD, CD_BITS.TBI0).put(FIRST.leaf, 0n),
    request: { iova: VA | (0xa5n << 56n) },
    expected: abort(event(0x10n, READ | CLASS_IN, VA | (0xa5n << 56n))),
  },
  {
    name: "EPD1: the upper half has no translation (§5.4.1)",
    scene: stage1Scene,
    request: { iova: (0xffffn << 48n) | VA },
    expected: abort(event(0x10n, READ | CLASS_IN, (0xffffn << 48n) | VA)),
  },
  {
    name: "TTB1 translates the upper half (§3.4.1); TG1=10 is 4K",
    scene: () =>
      stage1Scene()
        .clear(CD, CD_BITS.EPD1)
        .set(CD, (16n << 16n) | (2n << 22n))
        .put(CD + 16n, 0x20_0000n),
    request: { iova: (0xffffn << 48n) | VA },
    expected: passes(HERE),
  },
  {
    name: "E0PD0: unprivileged accesses have no translation (§5.4)",
    scene: () => stage1Scene().set(CD + 8n, 1n << 2n),
    expected: stage1Fault(0x10n),
  },
  {
    name: "a short table is aligned to its own size (§5.4): T0SZ=39 starts at level 2 with 16 entries",
    scene: () =>
      stage1Scene()
        .clear(CD, 0x3fn)
        .set(CD, 39n)
        .put(CD + 8n, 0x20_2000n | 0x70n),
    request: { iova: VA & 0x1ff_ffffn },
    expected: passes(HERE),
  },
  { name: "16K granule: level 0 resolves one bit (A-profile)", scene: granule16, expected: passes(IPA_PAGE | 0x1abcn) },
  // Descriptors.
  ...AT.map(
    (at, level): Case => ({
      name: `an invalid descriptor at level ${level}: F_TRANSLATION (§7.3.13)`,
      scene: () => stage1Scene().clear(at, 1n),
      expected: stage1Fault(0x10n),
    }),
  ),
  ...AT.map(
    (at, level): Case => ({
      name: `no memory under level ${level}: F_WALK_EABT, CLASS TT (§7.3.12)`,
      scene: () => stage1Scene().abort(at),
      expected: abort(event(0x0bn, READ | CLASS_TT, VA, at)),
    }),
  ),
  ...AT.map(
    (at, level): Case => ({
      name: `level ${level} gives an address beyond IPS: F_ADDR_SIZE (§7.3.14)`,
      scene: () =>
        stage1Scene()
          .clear(CD, 7n << 32n)
          .set(at, 1n << 32n),
      expected: stage1Fault(0x11n),
    }),
  ),
  {
    name: "no block at level 0 of 4K (A-profile)",
    scene: () => stage1Scene().put(AT[0]!, LEAF1 & ~2n),
    expected: stage1Fault(0x10n),
  },
  {
    name: "a block of 1 GiB at level 1 (A-profile)",
    scene: () => stage1Scene().put(AT[1]!, (4n << 30n) | (LEAF1 & ~2n)),
    expected: passes((4n << 30n) | (VA & 0x3fff_ffffn)),
  },
  {
    name: "a block of 2 MiB at level 2 (A-profile)",
    scene: () => stage1Scene().put(AT[2]!, (9n << 21n) | (LEAF1 & ~2n)),
    expected: passes((9n << 21n) | (VA & 0x1f_ffffn)),
  },
  {
    name: "level 3 with bit 1 clear is invalid (A-profile)",
    scene: () => leaf1(stage1Scene(), LEAF1 & ~2n),
    expected: stage1Fault(0x10n),
  },
  // Access flag and permissions.
  { name: "AF=0: F_ACCESS (§7.3.15)", scene: () => leaf1(stage1Scene(), LEAF1 & ~D.AF), expected: stage1Fault(0x12n) },
  {
    name: "F_ACCESS comes before F_PERMISSION (§3.13.1)",
    scene: () => leaf1(stage1Scene(), (LEAF1 | D.READ_ONLY) & ~D.AF),
    request: { write: true },
    expected: stage1Fault(0x12n, WRITE),
  },
  {
    name: "AFFD: AF=0 counts as 1 (§5.4)",
    scene: () => leaf1(stage1Scene().set(CD, CD_BITS.AFFD), LEAF1 & ~D.AF),
    expected: passes(HERE),
  },
  {
    name: "a write to a read-only page: F_PERMISSION (§7.3.16)",
    scene: () => leaf1(stage1Scene(), LEAF1 | D.READ_ONLY),
    request: { write: true },
    expected: stage1Fault(0x13n, WRITE),
  },
  {
    name: "a read of a read-only page passes",
    scene: () => leaf1(stage1Scene(), LEAF1 | D.READ_ONLY),
    expected: passes(HERE),
  },
  {
    name: "AP[1]=0: not for the unprivileged",
    scene: () => leaf1(stage1Scene(), LEAF1 & ~D.EL0),
    expected: stage1Fault(0x13n),
  },
  {
    name: "AP[1]=0: for the privileged",
    scene: () => leaf1(substream(), LEAF1 & ~D.EL0),
    request: privilegedRead,
    expected: passes(HERE),
  },
  {
    name: "UXN: no unprivileged fetch",
    scene: () => leaf1(substream(), LEAF1 | D.UXN),
    request: fetch,
    expected: denied(FETCH),
  },
  {
    name: "UXN says nothing about the privileged",
    scene: () => leaf1(substream(), (LEAF1 & ~D.EL0) | D.UXN),
    request: privilegedFetch,
    expected: passes(HERE),
  },
  {
    name: "PXN: no privileged fetch",
    scene: () => leaf1(substream(), (LEAF1 & ~D.EL0) | D.PXN),
    request: privilegedFetch,
    expected: denied(FETCH | PRIVILEGED),
  },
  {
    name: "what EL0 may write is not executable above it",
    scene: substream,
    request: privilegedFetch,
    expected: denied(FETCH | PRIVILEGED),
  },
  {
    name: "an unprivileged fetch needs no read permission",
    scene: () => leaf1(substream(), LEAF1 & ~D.EL0),
    request: fetch,
    expected: passes(HERE),
  },
  {
    name: "WXN: what may be written is not executable",
    scene: () => cdBits(substream(), CD_BITS.WXN),
    request: fetch,
    expected: denied(FETCH),
  },
  {
    name: "WXN: a read-only page is executable",
    scene: () => leaf1(cdBits(substream(), CD_BITS.WXN), LEAF1 | D.READ_ONLY),
    request: fetch,
    expected: passes(HERE),
  },
  {
    name: "PAN: no privileged data access to pages of EL0",
    scene: () => cdBits(substream(), CD_BITS.PAN),
    request: privilegedRead,
    expected: denied(READ | PRIVILEGED),
  },
  {
    name: "PAN: fetches are no data accesses",
    scene: () => leaf1(cdBits(substream(), CD_BITS.PAN), LEAF1 | D.READ_ONLY),
    request: privilegedFetch,
    expected: passes(HERE),
  },
  {
    name: "EPAN: pages that EL0 may only execute count, too",
    scene: () => leaf1(cdBits(substream(), CD_BITS.PAN).set(CD + 200n, 1n << 59n), LEAF1 & ~D.EL0),
    request: privilegedRead,
    expected: denied(READ | PRIVILEGED),
  },
  {
    name: "APTable[1] at level 0 takes write permission away",
    scene: () => stage1Scene().set(AT[0]!, TABLE_NO_WRITE),
    request: { write: true },
    expected: stage1Fault(0x13n, WRITE),
  },
  {
    name: "APTable[0] at level 1 takes EL0 away",
    scene: () => stage1Scene().set(AT[1]!, TABLE_NO_EL0),
    expected: stage1Fault(0x13n),
  },
  {
    name: "PXNTable at level 2",
    scene: () => leaf1(substream().set(AT[2]!, TABLE_PXN), LEAF1 & ~D.EL0),
    request: privilegedFetch,
    expected: denied(FETCH | PRIVILEGED),
  },
  {
    name: "HAD0: what tables take away does not count (§5.4)",
    scene: () =>
      stage1Scene()
        .set(AT[0]!, TABLE_NO_WRITE)
        .set(CD + 8n, 2n),
    request: { write: true },
    expected: passes(HERE),
  },
  {
    name: "the EL2 world has one privilege level, and TTB1 none (§5.2)",
    scene: () => leaf1(stage1Scene().set(STE + 8n, STE_BITS.STRW(2n)), LEAF1 & ~D.EL0),
    request: { write: true },
    expected: passes(HERE),
  },
  {
    name: "the EL2 world ignores EPD0 (§5.4)",
    scene: () =>
      stage1Scene()
        .set(STE + 8n, STE_BITS.STRW(2n))
        .set(CD, CD_BITS.EPD0),
    expected: passes(HERE),
  },
  // A, R, S.
  {
    name: "R=0: an abort without an event (§5.5)",
    scene: () => stage1Scene().put(FIRST.leaf, 0n).clear(CD, CD_BITS.R),
    expected: abort(null),
  },
  {
    name: "A=0: reads as zero, writes ignored, recorded (§5.5)",
    scene: () => stage1Scene().put(FIRST.leaf, 0n).clear(CD, CD_BITS.A),
    expected: { result: "raz-wi", event: event(0x10n, READ | CLASS_IN, VA) },
  },
  {
    name: "A=0 and R=0: reads as zero, silently (§5.5)",
    scene: () =>
      stage1Scene()
        .put(FIRST.leaf, 0n)
        .clear(CD, CD_BITS.A | CD_BITS.R),
    expected: { result: "raz-wi", event: null },
  },
  {
    name: "S=1: a stall, recorded whatever R says (§5.5)",
    scene: () => stage1Scene().put(FIRST.leaf, 0n).clear(CD, CD_BITS.R).set(CD, CD_BITS.S),
    expected: { result: "stall", event: event(0x10n, READ | CLASS_IN | STALL, VA) },
  },
  {
    name: "R=0 does not silence F_WALK_EABT, S=1 does not stall it (§5.5)",
    scene: () => stage1Scene().abort(AT[3]!).clear(CD, CD_BITS.R).set(CD, CD_BITS.S),
    expected: abort(event(0x0bn, READ | CLASS_TT, VA, AT[3]!)),
  },
  {
    name: "S2R=0: an abort without an event (§5.5)",
    scene: () =>
      bothScene()
        .put(SECOND.leaf, 0n)
        .clear(STE + 16n, STE_BITS.S2R),
    expected: abort(null),
  },
  {
    name: "S2S=1: a stage-2 stall, although CD.S=0 (§5.5)",
    scene: () =>
      bothScene()
        .put(SECOND.leaf, 0n)
        .set(STE + 16n, STE_BITS.S2S),
    expected: { result: "stall", event: event(0x10n, READ | S2_IN | STALL, VA, IPA_PAGE) },
  },
  {
    name: "CD.A=0 has no say over stage 2 (§5.5)",
    scene: () => bothScene().put(SECOND.leaf, 0n).clear(CD, CD_BITS.A),
    expected: stage2Fault(0x10n, S2_IN, IPA_PAGE),
  },
  // Stage 2.
  {
    name: "an IPA beyond S2T0SZ: stage-2 F_TRANSLATION, CLASS IN (§3.4)",
    scene: () => leaf1(bothScene(), (1n << 40n) | LEAF1),
    expected: stage2Fault(0x10n, S2_IN, (1n << 40n) | IPA_PAGE),
  },
  {
    name: "the second of two tables side by side (A-profile)",
    scene: () =>
      bothScene()
        .put(SECOND.root + 0x1000n, (5n << 30n) | (LEAF2 & ~2n))
        .put(FIRST.leaf, (1n << 39n) | LEAF1),
    expected: passes((5n << 30n) | 0xabcn),
  },
  {
    name: "stage 2 of the output: no translation (§7.3.13)",
    scene: () => bothScene().put(SECOND.leaf, 0n),
    expected: stage2Fault(0x10n, S2_IN, IPA_PAGE),
  },
  {
    name: "stage 2 of the output: AF=0 (§7.3.15)",
    scene: () => bothScene().clear(SECOND.leaf, D.AF),
    expected: stage2Fault(0x12n, S2_IN, IPA_PAGE),
  },
  {
    name: "stage 2 of the output: S2AFFD (§5.2)",
    scene: () =>
      bothScene()
        .clear(SECOND.leaf, D.AF)
        .set(STE + 16n, STE_BITS.S2AFFD),
    expected: passes(THERE),
  },
  {
    name: "stage 2 of the output: not readable (§7.3.16)",
    scene: () => bothScene().clear(SECOND.leaf, D.S2R),
    expected: stage2Fault(0x13n, S2_IN, IPA_PAGE),
  },
  {
    name: "stage 2 of the output: not writable (§7.3.16)",
    scene: () => bothScene().clear(SECOND.leaf, D.S2W),
    request: { write: true },
    expected: stage2Fault(0x13n, S2_IN, IPA_PAGE, WRITE),
  },
  {
    name: "stage 2 alone: the address is the IPA (§7.3.13)",
    scene: () => stage2Scene().clear(SECOND.leaf, 1n),
    request: { iova: HERE },
    expected: abort(event(0x10n, READ | S2_IN, HERE, IPA_PAGE)),
  },
  {
    name: "stage 2 gives an address beyond S2PS (§7.3.14)",
    scene: () =>
      bothScene()
        .clear(STE + 16n, 7n << 48n)
        .set(SECOND.leaf, 1n << 32n),
    expected: stage2Fault(0x11n, S2_IN, IPA_PAGE),
  },
  {
    name: "XN[1:0]=01: executable by EL0 only (§7.3.16)",
    scene: () => leaf1(substreamBoth().set(SECOND.leaf, 1n << 53n), LEAF1 & ~D.EL0),
    request: privilegedFetch,
    expected: abort([0x13n | (1n << 11n) | (3n << 12n) | (5n << 32n), FETCH | PRIVILEGED | S2_IN, VA, IPA_PAGE]),
  },
  {
    name: "XN[1:0]=11: executable by EL1 only",
    scene: () => leaf1(substreamBoth().set(SECOND.leaf, 3n << 53n), LEAF1 & ~D.EL0),
    request: privilegedFetch,
    expected: passes(THERE),
  },
  {
    name: "a stage-1 fault is not translated at stage 2 (§5)",
    scene: () => leaf1(bothScene().put(SECOND.leaf, 0n), LEAF1 | D.READ_ONLY),
    request: { write: true },
    expected: stage1Fault(0x13n, WRITE),
  },
  ...SECOND.stage1.map(
    (at, level): Case => ({
      name: `stage 2 of the level-${level} descriptor: no translation, CLASS TT (§7.3.13)`,
      scene: () => bothScene().put(at, 0n),
      expected: stage2Fault(0x10n, S2_TT, AT[level]! & ~0xfffn),
    }),
  ),
  {
    name: "stage 2 of a descriptor: not readable; TTRnW says read, RnW the request (§7.3.16)",
    scene: () => bothScene().clear(SECOND.stage1[2]!, D.S2R),
    request: { write: true },
    expected: stage2Fault(0x13n, S2_TT | TT_READ, AT[2]! & ~0xfffn, WRITE),
  },
  {
    name: "no memory under stage 2 of a descriptor (§7.3.12)",
    scene: () => bothScene().abort(SECOND.stage1[1]!),
    expected: abort(event(0x0bn, READ | S2_TT, VA, SECOND.stage1[1]!)),
  },
  {
    name: "no memory where stage 2 puts a descriptor: S2=0, CLASS TT, the physical address (§7.3.12)",
    scene: () => bothScene().put(SECOND.stage1[3]!, 0x40_0000n | LEAF2),
    expected: abort(event(0x0bn, READ | CLASS_TT, VA, 0x40_0008n)),
  },
  {
    name: "no memory under stage 2 of the output (§7.3.12)",
    scene: () => bothScene().abort(SECOND.leaf),
    expected: abort(event(0x0bn, READ | S2_IN, VA, SECOND.leaf)),
  },
  {
    name: "S2PTW: a stage-1 table in Device memory is a stage-2 F_PERMISSION (§5.2)",
    scene: () =>
      bothScene()
        .set(STE + 16n, STE_BITS.S2PTW)
        .clear(SECOND.stage1[3]!, D.NORMAL),
    expected: stage2Fault(0x13n, S2_TT | TT_READ, AT[3]! & ~0xfffn),
  },
  {
    name: "S2PTW: a context descriptor in Device memory (§5.2)",
    scene: () =>
      bothScene()
        .set(STE + 16n, STE_BITS.S2PTW)
        .clear(SECOND.contexts, D.NORMAL),
    expected: stage2Fault(0x13n, S2_CD, CD),
  },
  {
    name: "S2PTW=0: Device memory may hold tables (§5.2)",
    scene: () => bothScene().clear(SECOND.stage1[3]!, D.NORMAL),
    expected: passes(THERE),
  },
  // Updates.
  {
    name: "HA: AF is set, no F_ACCESS (§3.13.2)",
    scene: () => leaf1(stage1Scene().set(CD, CD_BITS.HA), LEAF1 & ~D.AF),
    expected: { ...passes(HERE), stored: [[FIRST.leaf, IPA_PAGE | LEAF1]] },
  },
  {
    name: "HA is set, AFFD means nothing (§5.4)",
    scene: () => leaf1(stage1Scene().set(CD, CD_BITS.HA | CD_BITS.AFFD), LEAF1 & ~D.AF),
    expected: { ...passes(HERE), stored: [[FIRST.leaf, IPA_PAGE | LEAF1]] },
  },
  {
    name: "HD: a write makes a writable-clean page writable (§3.13.3)",
    scene: () => leaf1(stage1Scene().set(CD, HTTU1), CLEAN1),
    request: { write: true },
    expected: { ...passes(HERE), stored: [[FIRST.leaf, IPA_PAGE | LEAF1 | D.DBM]] },
  },
  {
    name: "HD: a read leaves it clean (§3.13.3)",
    scene: () => leaf1(stage1Scene().set(CD, HTTU1), CLEAN1),
    expected: { ...passes(HERE), stored: [[FIRST.leaf, IPA_PAGE | CLEAN1]] },
  },
  {
    name: "HD=0: DBM means nothing (§3.13.3)",
    scene: () => leaf1(stage1Scene().set(CD, CD_BITS.HA), CLEAN1),
    request: { write: true },
    expected: stage1Fault(0x13n, WRITE),
  },
  {
    name: "HD without HA counts as neither (§5.4)",
    scene: () => leaf1(stage1Scene().set(CD, CD_BITS.HD), CLEAN1),
    request: { write: true },
    expected: stage1Fault(0x13n, WRITE),
  },
  {
    name: "what APTable takes away is not marked dirty (§3.13.3)",
    scene: () => leaf1(stage1Scene().set(CD, HTTU1), CLEAN1).set(AT[1]!, TABLE_NO_WRITE),
    request: { write: true },
    expected: { ...stage1Fault(0x13n, WRITE), stored: [[FIRST.leaf, IPA_PAGE | CLEAN1]] },
  },
  {
    name: "a writable-clean page counts as writable for WXN (§3.13.8)",
    scene: () => leaf1(cdBits(substream(), HTTU1 | CD_BITS.WXN), CLEAN1),
    request: fetch,
    expected: denied(FETCH),
  },
  {
    name: "S2HA and S2HD: a write marks the stage-2 page (§3.13.3)",
    scene: () =>
      bothScene()
        .set(STE + 16n, HTTU2)
        .put(SECOND.leaf, PA_PAGE | (CLEAN2 & ~D.AF)),
    request: { write: true },
    expected: { ...passes(THERE), stored: [[SECOND.leaf, PA_PAGE | CLEAN2 | D.S2W | D.AF]] },
  },
  {
    name: "S2HA: the page of the context descriptor is accessed, never dirty (§3.13.3)",
    scene: () =>
      bothScene()
        .set(STE + 16n, HTTU2)
        .put(SECOND.contexts, CD | (CLEAN2 & ~D.AF)),
    request: { write: true },
    expected: { ...passes(THERE), stored: [[SECOND.contexts, CD | CLEAN2]] },
  },
  {
    name: "an update of stage 1 is a write at stage 2, which must permit it: TTRnW=0 (§3.13.5)",
    scene: () => leaf1(bothScene().set(CD, CD_BITS.HA).clear(SECOND.stage1[3]!, D.S2W), LEAF1 & ~D.AF),
    expected: stage2Fault(0x13n, S2_TT, AT[3]! & ~0xfffn),
  },
  {
    name: "an update of stage 1 marks the stage-2 page of its table dirty (§3.13.5)",
    scene: () =>
      leaf1(
        bothScene()
          .set(CD, CD_BITS.HA)
          .set(STE + 16n, HTTU2)
          .put(SECOND.stage1[3]!, 0x20_3000n | CLEAN2),
        LEAF1 & ~D.AF,
      ),
    expected: {
      ...passes(THERE),
      stored: [
        [FIRST.leaf, IPA_PAGE | LEAF1],
        [SECOND.stage1[3]!, 0x20_3000n | CLEAN2 | D.S2W],
      ],
    },
  },
];
