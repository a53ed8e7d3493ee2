/** Paging entries of both stages, their faults, rights and flags (§3.6 to §3.8, §9.7, §9.8, §7.1.3): each case spoils or adds one thing. */
import { type Case, faults, faultsOf, passes } from "./expected.ts";
import {
  ADDRESS,
  ENTRY,
  entryBits,
  FIRST,
  FPD,
  FS,
  FS_ALL,
  firstScene,
  GUEST_PAGE,
  LEAF_OF_DATA,
  LEGACY_CONTEXT,
  leafOfTable,
  legacyScene,
  nestedScene,
  PAGE,
  PASID,
  PWSNP,
  Q2,
  type Scene,
  SECOND,
  SECOND_ABOVE,
  SS,
  SS_ALL,
  SSADE,
  secondScene,
} from "./scene.ts";

const HERE = PAGE | 0xabcn;
const THERE = GUEST_PAGE | 0xabcn;
const BEYOND = 1n << 46n;
const write = { access: "write" } as const;
const atomic = { access: "atomic" } as const;
const supervisor = { pasid: PASID, privileged: true } as const;
const supervised = () => entryBits(firstScene(), 2, Q2.SRE);
const flagged = () => entryBits(secondScene(), 0, SSADE);
const nestedFlagged = () => entryBits(nestedScene(), 0, SSADE);
const LEVELS = [4, 3, 2, 1] as const;
const SC = 1n << 7n;

const of = (name: string, scene: () => Scene, expected: Case["expected"], request: Case["request"] = {}): Case => ({
  name,
  scene,
  expected,
  request,
});

/** A second-stage table of five levels over the four. */
const five = (scene: Scene, at: bigint) =>
  scene
    .put(SECOND[5], (SECOND[4] & ~0xfffn) | SS_ALL)
    .change(at, (before) => (before & ~0xffff_ffff_f000n) | 0x30_0000n);

const secondStageOf = (mode: "legacy" | "scalable"): Case[] => {
  const legacy = mode === "legacy";
  const scene = legacy ? legacyScene : secondScene;
  const code = legacy
    ? {
        absent: { read: 0x06n, write: 0x05n },
        reserved: 0x0cn,
        root: 0x03n,
        access: 0x07n,
        wide: 0x04n,
        w: 0x05n,
        r: 0x06n,
      }
    : {
        absent: { read: 0x79n, write: 0x79n },
        reserved: 0x7an,
        root: 0x7bn,
        access: 0x78n,
        wide: 0x84n,
        w: 0x85n,
        r: 0x86n,
      };
  const name = (what: string) => `${mode} second stage: ${what}`;
  return [
    of(name("translates"), scene, passes(HERE)),
    of(name("writes"), scene, passes(HERE), write),
    of(name("an AtomicOp"), scene, passes(HERE), atomic),
    ...LEVELS.flatMap((level) => [
      of(name(`level ${level} absent, read`), () => scene().put(SECOND[level], 0n), faults(code.absent.read)),
      of(
        name(`level ${level} absent, write`),
        () => scene().put(SECOND[level], 0n),
        faults(code.absent.write, "write"),
        write,
      ),
      of(
        name(`level ${level}: an absent entry's reserved bits do not count (§9.8)`),
        () => scene().put(SECOND[level], SS.TM | BEYOND | SS.PS),
        faults(code.absent.read),
      ),
      of(
        name(`level ${level}: address beyond the HAW`),
        () => scene().set(SECOND[level], BEYOND),
        faults(code.reserved),
      ),
      of(name(`level ${level}: bit 62`), () => scene().set(SECOND[level], SS.TM), faults(code.reserved)),
      of(
        name(`level ${level}: ignored bits (§9.8)`),
        () => scene().set(SECOND[level], (1n << 63n) | (0x3ffn << 52n) | (7n << 8n) | (0x1fn << 2n)),
        passes(HERE),
      ),
      of(name(`level ${level} without W`), () => scene().clear(SECOND[level], SS.W), faults(code.w, "write"), write),
      of(
        name(`level ${level} without W, AtomicOp`),
        () => scene().clear(SECOND[level], SS.W),
        faults(code.w, "atomic"),
        atomic,
      ),
      of(name(`level ${level} without R`), () => scene().clear(SECOND[level], SS.R), faults(code.r)),
      of(
        name(`level ${level} without R, AtomicOp`),
        () => scene().clear(SECOND[level], SS.R),
        faults(code.r, "atomic"),
        atomic,
      ),
      of(name(`level ${level} without R, write`), () => scene().clear(SECOND[level], SS.R), passes(HERE), write),
      of(
        name(`no memory under level ${level}`),
        () => scene().fail(SECOND[level]),
        faults(level === 4 ? code.root : code.access),
      ),
      of(
        name(`level ${level}: SNP ${level === 1 ? "of a leaf (§9.8)" : "of a table"}`),
        () => scene().set(SECOND[level], SS.SNP),
        level === 1 ? passes(HERE) : faults(code.reserved),
      ),
    ]),
    of(name("SNP without SC"), () => scene().set(SECOND[1], SS.SNP).without({ ECAP: SC }), faults(code.reserved)),
    of(name("PS at level 1 is ignored"), () => scene().set(SECOND[1], SS.PS), passes(HERE)),
    of(name("PS at level 4"), () => scene().set(SECOND[4], SS.PS), faults(code.reserved)),
    of(
      name("2 MiB"),
      () => scene().put(SECOND[2], 0xa0_0000n | SS_ALL | SS.PS),
      passes(0xa0_0000n | (ADDRESS & 0x1f_ffffn)),
    ),
    of(
      name("2 MiB, low address bits"),
      () => scene().put(SECOND[2], 0xa1_0000n | SS_ALL | SS.PS),
      faults(code.reserved),
    ),
    of(name("2 MiB, bit 12"), () => scene().put(SECOND[2], 0xa0_1000n | SS_ALL | SS.PS), faults(code.reserved)),
    of(
      name("2 MiB that SSLPS has not"),
      () =>
        scene()
          .put(SECOND[2], 0xa0_0000n | SS_ALL | SS.PS)
          .without({ CAP: 1n << 34n }),
      faults(code.reserved),
    ),
    of(
      name("1 GiB"),
      () => scene().put(SECOND[3], (3n << 30n) | SS_ALL | SS.PS),
      passes((3n << 30n) | (ADDRESS & 0x3fff_ffffn)),
    ),
    of(
      name("1 GiB that SSLPS has not"),
      () =>
        scene()
          .put(SECOND[3], (3n << 30n) | SS_ALL | SS.PS)
          .without({ CAP: 1n << 35n }),
      faults(code.reserved),
    ),
    of(
      name("the whole path is looked at before rights are (§3.6.1)"),
      () => scene().clear(SECOND[4], SS.W).set(SECOND[1], SS.TM),
      faults(code.reserved, "write"),
      write,
    ),
    of(name("an address as wide as the tables"), scene, faults(code.wide, "read", 1n << 48n), { address: 1n << 48n }),
    of(
      name("an address above MGAW (§3.7)"),
      () => scene().identify({ CAP: (scene().identification.CAP & ~(63n << 16n)) | (38n << 16n) }),
      faults(code.wide),
    ),
    of(
      name("five levels (AW=3)"),
      () =>
        legacy
          ? five(scene(), LEGACY_CONTEXT).set(LEGACY_CONTEXT + 8n, 3n)
          : entryBits(five(scene(), ENTRY), 0, 3n << 2n),
      passes(HERE),
    ),
    of(
      name("five levels: the upper bits have their own entries"),
      () =>
        legacy
          ? five(scene(), LEGACY_CONTEXT).set(LEGACY_CONTEXT + 8n, 3n)
          : entryBits(five(scene(), ENTRY), 0, 3n << 2n),
      faults(code.absent.read, "read", ADDRESS | (1n << 48n)),
      { address: ADDRESS | (1n << 48n) },
    ),
    of(
      name("an output in the interrupt range"),
      () => scene().put(SECOND[1], 0xfee0_1000n | SS_ALL),
      faults(legacy ? 0x0en : 0x87n),
    ),
    of(
      name("no flags without SSADE"),
      () => scene().clear(SECOND[1], SS.A | SS.D),
      { ...passes(HERE), stored: [] },
      write,
    ),
  ];
};

export const WALK_CASES: readonly Case[] = [
  ...secondStageOf("legacy"),
  ...secondStageOf("scalable"),
  of("SSADE: a read marks every entry accessed (§3.7.2)", flagged, {
    ...passes(HERE),
    stored: LEVELS.map(
      (level) => [SECOND[level], (level === 1 ? PAGE : SECOND[level - 1]! & ~0xfffn) | SS_ALL | SS.A] as const,
    ),
  }),
  of(
    "SSADE: a write marks the leaf dirty (§3.7.2)",
    () => LEVELS.reduce((scene, level) => scene.set(SECOND[level], SS.A), flagged()),
    { ...passes(HERE), stored: [[SECOND[1], PAGE | SS_ALL | SS.A | SS.D]] },
    write,
  ),
  of(
    "SSADE: flags that are set need no store, so none is refused",
    () => LEVELS.reduce((scene, level) => scene.set(SECOND[level], SS.A).readOnly(SECOND[level]), flagged()),
    { ...passes(HERE), stored: [] },
  ),
  of("SSADE: an entry that cannot be stored: SSS.6", () => flagged().readOnly(SECOND[1]), faults(0x7dn)),
  of("SSADE with PWSNP=0 and a flag to set: SSS.5", () => entryBits(flagged(), 1, 0n, PWSNP), faults(0x7cn)),
  of(
    "SSADE with PWSNP=0 and the flags set",
    () =>
      entryBits(
        LEVELS.reduce((scene, level) => scene.set(SECOND[level], SS.A), flagged()),
        1,
        0n,
        PWSNP,
      ),
    { ...passes(HERE), stored: [] },
  ),
  // First stage.
  of("first stage: translates", firstScene, { ...passes(THERE), stored: [] }),
  of("first stage: a write", firstScene, { ...passes(THERE), stored: [] }, write),
  of("first stage: not canonical: SGN.1", firstScene, faults(0x80n, "read", 1n << 47n), { address: 1n << 47n }),
  of(
    "first stage: a canonical address of the upper half: SFS.2",
    firstScene,
    faults(0x71n, "read", (0x1_ffffn << 47n) & 0xffff_ffff_ffff_ffffn),
    {
      address: (0x1_ffffn << 47n) & 0xffff_ffff_ffff_ffffn,
    },
  ),
  of(
    "first stage: five levels (FSPM=1)",
    () => entryBits(firstScene(), 2, Q2.FIVE | 0x20_0000n, 0x1000n),
    passes(THERE),
  ),
  of(
    "first stage: five levels: bit 47 is an ordinary one (§3.6)",
    () => entryBits(firstScene(), 2, Q2.FIVE | 0x20_0000n, 0x1000n),
    faults(0x71n, "read", ADDRESS | (1n << 47n)),
    { address: ADDRESS | (1n << 47n) },
  ),
  of(
    "first stage: five levels: not canonical: SGN.1",
    () => entryBits(firstScene(), 2, Q2.FIVE | 0x20_0000n, 0x1000n),
    faults(0x80n, "read", 1n << 56n),
    { address: 1n << 56n },
  ),
  of("first stage: FPD of the PASID entry (§7.2.2)", () => entryBits(firstScene(), 0, FPD).put(FIRST[1], 0n), {
    result: "blocked",
    record: null,
  }),
  ...LEVELS.flatMap((level) => [
    of(`first stage: level ${level} P=0: SFS.2`, () => firstScene().clear(FIRST[level], 1n), faults(0x71n)),
    of(
      `first stage: level ${level}: P=0 hides reserved bits`,
      () => firstScene().put(FIRST[level], BEYOND | FS.PS),
      faults(0x71n),
    ),
    of(
      `first stage: level ${level}: address beyond the HAW: SFS.3`,
      () => firstScene().set(FIRST[level], BEYOND),
      faults(0x72n),
    ),
    of(
      `first stage: level ${level}: ignored bits (§9.7)`,
      () => firstScene().set(FIRST[level], (0xfffn << 52n) | (0xen << 8n)),
      passes(THERE),
    ),
    of(`first stage: level ${level} U/S=0: SGN.2`, () => firstScene().clear(FIRST[level], FS.US), faults(0x81n)),
    of(
      `first stage: level ${level} R/W=0: SGN.6`,
      () => firstScene().clear(FIRST[level], FS.RW),
      faults(0x85n, "write"),
      write,
    ),
    of(
      `first stage: level ${level} R/W=0, AtomicOp: SGN.6`,
      () => firstScene().clear(FIRST[level], FS.RW),
      faults(0x85n, "atomic"),
      atomic,
    ),
    of(`first stage: level ${level} R/W=0, read`, () => firstScene().clear(FIRST[level], FS.RW), passes(THERE)),
    of(
      `first stage: level ${level} U/S=0, supervisor (§3.6.2)`,
      () => supervised().clear(FIRST[level], FS.US),
      passes(THERE),
      supervisor,
    ),
    of(
      `first stage: level ${level} R/W=0, supervisor's write, WPE=0 (§3.6.2)`,
      () => supervised().clear(FIRST[level], FS.RW),
      passes(THERE),
      { ...supervisor, ...write },
    ),
    of(
      `first stage: level ${level} R/W=0, supervisor's write, WPE=1: SGN.6`,
      () => entryBits(supervised(), 2, Q2.WPE).clear(FIRST[level], FS.RW),
      faultsOf(0x85n, "write", { privileged: true }),
      { ...supervisor, ...write },
    ),
    of(
      `first stage: no memory under level ${level}`,
      () => firstScene().fail(FIRST[level]),
      faults(level === 4 ? 0x73n : 0x70n),
    ),
    of(`first stage: level ${level} A=0 becomes 1 (§3.6.3)`, () => firstScene().clear(FIRST[level], FS.A), {
      ...passes(THERE),
      stored: [
        [FIRST[level], level === 1 ? GUEST_PAGE | FS_ALL | FS.A | FS.D : (FIRST[level - 1]! & ~0xfffn) | FS_ALL | FS.A],
      ],
    }),
    of(
      `first stage: level ${level}: A cannot be stored: SFS.10`,
      () => firstScene().clear(FIRST[level], FS.A).readOnly(FIRST[level]),
      faults(0x91n),
    ),
    of(
      `first stage: level ${level}: A with PWSNP=0: SFS.9`,
      () => entryBits(firstScene(), 1, 0n, PWSNP).clear(FIRST[level], FS.A),
      faults(0x90n),
    ),
  ]),
  of("first stage: PWSNP=0 and nothing to set", () => entryBits(firstScene(), 1, 0n, PWSNP), {
    ...passes(THERE),
    stored: [],
  }),
  of("first stage: EAFE marks every entry (§3.6.3)", () => entryBits(firstScene(), 2, Q2.EAFE), {
    ...passes(THERE),
    stored: LEVELS.map((level) => [
      FIRST[level],
      (level === 1 ? GUEST_PAGE | FS.D : FIRST[level - 1]! & ~0xfffn) | FS_ALL | FS.A | FS.EA,
    ]),
  }),
  of("first stage: a read does not mark dirty", () => firstScene().clear(FIRST[1], FS.D), {
    ...passes(THERE),
    stored: [],
  }),
  of(
    "first stage: a write marks the leaf dirty (§3.6.3)",
    () => firstScene().clear(FIRST[1], FS.D),
    { ...passes(THERE), stored: [[FIRST[1], GUEST_PAGE | FS_ALL | FS.A | FS.D]] },
    write,
  ),
  of("first stage: PS at level 4: SFS.3", () => firstScene().set(FIRST[4], FS.PS), faults(0x72n)),
  of("first stage: bit 7 at level 1 is PAT", () => firstScene().set(FIRST[1], FS.PS), passes(THERE)),
  of(
    "first stage: 2 MiB",
    () => firstScene().put(FIRST[2], 0xa0_0000n | FS_ALL | FS.PS | FS.A),
    passes(0xa0_0000n | (ADDRESS & 0x1f_ffffn)),
  ),
  of(
    "first stage: 2 MiB: bit 12 is PAT",
    () => firstScene().put(FIRST[2], 0xa0_1000n | FS_ALL | FS.PS | FS.A),
    passes(0xa0_0000n | (ADDRESS & 0x1f_ffffn)),
  ),
  of(
    "first stage: 2 MiB: bit 13: SFS.3",
    () => firstScene().put(FIRST[2], 0xa0_2000n | FS_ALL | FS.PS | FS.A),
    faults(0x72n),
  ),
  of(
    "first stage: 2 MiB: bit 20: SFS.3",
    () => firstScene().put(FIRST[2], 0xb0_0000n | FS_ALL | FS.PS | FS.A),
    faults(0x72n),
  ),
  of(
    "first stage: 1 GiB",
    () => firstScene().put(FIRST[3], (3n << 30n) | FS_ALL | FS.PS | FS.A),
    passes((3n << 30n) | (ADDRESS & 0x3fff_ffffn)),
  ),
  of(
    "first stage: 1 GiB: bit 29: SFS.3",
    () => firstScene().put(FIRST[3], (1n << 29n) | FS_ALL | FS.PS | FS.A),
    faults(0x72n),
  ),
  of(
    "first stage: 1 GiB without FS1GP: SFS.3",
    () =>
      firstScene()
        .put(FIRST[3], (3n << 30n) | FS_ALL | FS.PS | FS.A)
        .without({ CAP: 1n << 56n }),
    faults(0x72n),
  ),
  of(
    "first stage: an output in the interrupt range: SGN.8",
    () => firstScene().put(FIRST[1], 0xfee0_1000n | FS_ALL | FS.A),
    faults(0x87n),
  ),
  // Nested.
  of("nested: translates", nestedScene, { ...passes(HERE), stored: [] }),
  of("nested: a write", nestedScene, { ...passes(HERE), stored: [] }, write),
  ...LEVELS.flatMap((level) => {
    const noRead = level === 4 ? 0x75n : 0x76n;
    return [
      of(
        `nested: table of level ${level} absent: SSS.2`,
        () => nestedScene().put(leafOfTable(level), 0n),
        faults(0x79n),
      ),
      of(
        `nested: table of level ${level} not readable`,
        () => nestedScene().clear(leafOfTable(level), SS.R),
        faults(noRead),
      ),
      of(
        `nested: table of level ${level}, reserved bit: SSS.3`,
        () => nestedScene().set(leafOfTable(level), SS.TM),
        faults(0x7an),
      ),
      of(
        `nested: table of level ${level} not writable, A set`,
        () => nestedScene().clear(leafOfTable(level), SS.W),
        passes(HERE),
      ),
      of(
        `nested: table of level ${level} not writable, A to set: SFS.8`,
        () => nestedScene().clear(leafOfTable(level), SS.W).clear(FIRST[level], FS.A),
        faults(0x77n),
      ),
      of(
        `nested: A of level ${level} through a writable page, no flags of the second stage`,
        () => nestedScene().clear(FIRST[level], FS.A),
        {
          ...passes(HERE),
          stored: [
            [
              FIRST[level],
              level === 1 ? GUEST_PAGE | FS_ALL | FS.A | FS.D : (FIRST[level - 1]! & ~0xfffn) | FS_ALL | FS.A,
            ],
          ],
        },
      ),
      of(`nested: level ${level} P=0: SFS.2`, () => nestedScene().clear(FIRST[level], 1n), faults(0x71n)),
      of(
        `nested: no memory under level ${level}`,
        () => nestedScene().fail(FIRST[level]),
        faults(level === 4 ? 0x73n : 0x70n),
      ),
    ];
  }),
  of(
    "nested: no memory under the second stage's root: SSS.4",
    () => nestedScene().fail(SECOND_ABOVE[4]),
    faults(0x7bn),
  ),
  of(
    "nested: no memory further down the second stage: SSS.1",
    () => nestedScene().fail(SECOND_ABOVE.data),
    faults(0x78n),
  ),
  of(
    "nested: the root of the first stage above the second's input: SFS.5",
    () => {
      const scene = nestedScene().identify({ HAW: 50n });
      return entryBits(scene, 2, 1n << 48n);
    },
    faults(0x74n),
  ),
  of(
    "nested: the output above the second stage's input: SGN.5",
    () =>
      nestedScene()
        .identify({ HAW: 50n })
        .put(FIRST[1], (1n << 48n) | FS_ALL | FS.A),
    faults(0x84n),
  ),
  of("nested: the data absent: SSS.2", () => nestedScene().put(LEAF_OF_DATA, 0n), faults(0x79n)),
  of(
    "nested: the data not writable: SGN.6",
    () => nestedScene().clear(LEAF_OF_DATA, SS.W),
    faults(0x85n, "write"),
    write,
  ),
  of("nested: the data not readable: SGN.7", () => nestedScene().clear(LEAF_OF_DATA, SS.R), faults(0x86n)),
  of(
    "nested: the first stage's R/W=0: SGN.6",
    () => nestedScene().clear(FIRST[1], FS.RW),
    faults(0x85n, "write"),
    write,
  ),
  of("nested: the first stage's U/S=0: SGN.2", () => nestedScene().clear(FIRST[2], FS.US), faults(0x81n)),
  of(
    "nested: records hold the request's address, not the guest's",
    () => nestedScene().put(LEAF_OF_DATA, 0n),
    faults(0x79n, "write"),
    write,
  ),
  of(
    "nested: an output in the interrupt range: SGN.8",
    () => nestedScene().put(LEAF_OF_DATA, 0xfee0_1000n | SS_ALL),
    faults(0x87n),
  ),
  of("nested: SSADE: a read marks every entry of both walks accessed (§3.8)", nestedFlagged, {
    ...passes(HERE),
    stored: [
      [SECOND_ABOVE[4], 0x30_2000n | SS_ALL | SS.A],
      [SECOND_ABOVE[3], 0x30_3000n | SS_ALL | SS.A],
      [SECOND_ABOVE.tables, 0x30_5000n | SS_ALL | SS.A],
      [SECOND_ABOVE.data, 0x30_6000n | SS_ALL | SS.A],
      ...LEVELS.map((level) => [leafOfTable(level), (FIRST[level] & ~0xfffn) | SS_ALL | SS.A] as const),
      [LEAF_OF_DATA, PAGE | SS_ALL | SS.A],
    ],
  }),
  of(
    "nested: SSADE: setting A dirties the page of the first stage's table (§3.8)",
    () => {
      const scene = nestedFlagged().clear(FIRST[1], FS.A);
      for (const at of [...Object.values(SECOND_ABOVE), ...LEVELS.map(leafOfTable), LEAF_OF_DATA]) scene.set(at, SS.A);
      return scene;
    },
    {
      ...passes(HERE),
      stored: [
        [FIRST[1], GUEST_PAGE | FS_ALL | FS.A | FS.D],
        [leafOfTable(1), (FIRST[1] & ~0xfffn) | SS_ALL | SS.A | SS.D],
      ],
    },
  ),
];
