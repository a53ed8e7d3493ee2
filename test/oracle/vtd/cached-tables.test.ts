/** Which stale answers a cache may give, by §6.1, §6.2 and §6.5: hand-made cases. */
import { describe, expect, it } from "vitest";
import { allowedInterrupts, allowedOutcomesWithCaches } from "./allowed.ts";
import { MemoryHistory } from "./cached-tables.ts";
import {
  ADDRESS,
  CONTEXT,
  DID,
  DIRECTORY,
  ENTRY,
  FIRST,
  FPD,
  FS,
  FS_ALL,
  firstScene,
  GUEST_PAGE,
  IRT,
  LEAF_OF_DATA,
  LEGACY_CONTEXT,
  legacyScene,
  nestedScene,
  PAGE,
  PASID,
  PWSNP,
  passScene,
  ROOT,
  request,
  type Scene,
  SECOND,
  SID,
  SS,
  SS_ALL,
  SSADE,
  secondScene,
} from "./cases/scene.ts";
import {
  contextDevice,
  contextDomain,
  contextGlobal,
  interruptGlobal,
  interruptIndex,
  iotlbDomain,
  iotlbGlobal,
  iotlbPages,
  pasidCacheDomain,
  pasidCacheGlobal,
  pasidCacheOne,
  pasidIotlb,
  pasidIotlbPages,
} from "./generate/descriptors.ts";
import type { Descriptor } from "./invalidation.ts";
import type { Request } from "./outcome.ts";

const OLD = GUEST_PAGE | 0xabcn;
const NEW_PAGE = 0x90_0000n;
const NEW = NEW_PAGE | 0xabcn;
const HERE = PAGE | 0xabcn;
type Words = readonly (readonly [bigint, bigint])[];

/** Every permitted answer after a change and descriptors: an address, or a fault reason; "silent" without a record. */
function answersAfter(
  scene: Scene,
  words: Words,
  descriptors: readonly Descriptor[],
  change: Partial<Request> = {},
): (bigint | "silent")[] {
  const history = new MemoryHistory(scene.memory);
  history.change(words);
  for (const descriptor of descriptors) history.invalidate(descriptor);
  const outcomes = allowedOutcomesWithCaches(scene.identification, scene.programming, history, request(change))!;
  const answers = outcomes.map(({ result, record }) =>
    result.kind === "translated" ? result.address : record === null ? "silent" : (record.quadwords[1] >> 32n) & 0xffn,
  );
  return [...new Set(answers)];
}

const LEAF = FS_ALL | FS.A | FS.D;
const remap: Words = [[FIRST[1], NEW_PAGE | LEAF]];
const unmap: Words = [[FIRST[1], 0n]];
const at = { address: ADDRESS };
const far = { address: ADDRESS + (1n << 30n) };
const nextPage = { address: ADDRESS + 4096n };

describe("a changed leaf of the first stage", () => {
  it("may be seen old or new before an invalidation", () => {
    expect(answersAfter(firstScene(), remap, [])).toEqual([NEW, OLD]);
    expect(answersAfter(firstScene(), unmap, [])).toEqual([0x71n, OLD]);
  });

  const drops: [string, Descriptor][] = [
    ["PASID-IOTLB of the page", pasidIotlbPages(DID, 0n, at)],
    ["the same, leaves only", pasidIotlbPages(DID, 0n, { ...at, leafOnly: true })],
    ["PASID-IOTLB of a range around", pasidIotlbPages(DID, 0n, { address: ADDRESS + 0x3000n, mask: 4n })],
    ["PASID-IOTLB of the PASID", pasidIotlb(DID, 0n)],
    ["IOTLB of the domain", iotlbDomain(DID)],
    ["IOTLB of everything", iotlbGlobal()],
    ["IOTLB of another page of the domain: it drops all with a first stage (§6.5.2.3)", iotlbPages(DID, far)],
  ];
  it.each(drops)("is gone after %s", (_name, descriptor) => {
    expect(answersAfter(firstScene(), remap, [descriptor])).toEqual([NEW]);
  });

  const leaves: [string, Descriptor][] = [
    ["PASID-IOTLB of the next page", pasidIotlbPages(DID, 0n, nextPage)],
    ["PASID-IOTLB of another PASID", pasidIotlb(DID, 1n)],
    ["PASID-IOTLB of another domain", pasidIotlb(DID + 1n, 0n)],
    ["IOTLB of another domain", iotlbDomain(DID + 1n)],
    ["PASID-cache", pasidCacheGlobal()],
    ["context cache", contextGlobal()],
  ];
  it.each(leaves)("may stay after %s", (_name, descriptor) => {
    expect(answersAfter(firstScene(), remap, [descriptor])).toContain(OLD);
  });

  it("is not known from when it was absent, even with CM=1 (§6.1)", () => {
    const scene = () => {
      const made = firstScene().put(FIRST[1], 0n);
      return made.identify({ CAP: made.identification.CAP | (1n << 7n) });
    };
    expect(answersAfter(scene(), remap, [])).toEqual([NEW]);
  });

  it("is known by its own PASID", () => {
    expect(answersAfter(firstScene(), remap, [pasidIotlb(DID, PASID)], { pasid: PASID })).toEqual([NEW]);
    expect(answersAfter(firstScene(), remap, [pasidIotlb(DID, 0n)], { pasid: PASID })).toEqual([NEW, OLD]);
  });

  it("a dirty flag that software takes back may stay 0 (§3.6.3)", () => {
    const history = new MemoryHistory(firstScene().memory);
    history.change([[FIRST[1], GUEST_PAGE | FS_ALL | FS.A]]);
    const { identification, programming } = firstScene();
    const outcomes = allowedOutcomesWithCaches(identification, programming, history, request({ access: "write" }))!;
    expect(outcomes.map(({ updates }) => updates.length).sort()).toEqual([0, 1]);
  });
});

describe("a changed table of the first stage", () => {
  const table: Words = [
    [FIRST[2], 0x21_0000n | FS_ALL | FS.A],
    [0x21_0008n, NEW_PAGE | LEAF],
  ];
  const scene = () => firstScene().put(0x21_0000n, 0n);

  it("may be known until the page is invalidated with what leads to it", () => {
    expect(answersAfter(scene(), table, [])).toContain(OLD);
    expect(answersAfter(scene(), table, [pasidIotlbPages(DID, 0n, at)])).toEqual([NEW]);
  });

  it("stays where only leaves were invalidated (IH)", () => {
    expect(answersAfter(scene(), table, [pasidIotlbPages(DID, 0n, { ...at, leafOnly: true })])).toContain(OLD);
  });

  it("goes with another page below it, whose own leaf may stay", () => {
    expect(answersAfter(scene(), table, [pasidIotlbPages(DID, 0n, nextPage)])).toEqual([NEW, OLD]);
    // A leaf that came after the table was dropped cannot be known through it.
    const history = new MemoryHistory(scene().memory);
    history.change(table);
    history.invalidate(pasidIotlbPages(DID, 0n, nextPage));
    history.change([[FIRST[1], 0xa0_0000n | LEAF]]);
    const { identification, programming } = scene();
    const outcomes = allowedOutcomesWithCaches(identification, programming, history, request())!;
    const addresses = outcomes.map(({ result }) => (result.kind === "translated" ? result.address : 0n));
    expect([...new Set(addresses)]).toEqual([NEW, OLD]);
  });
});

describe("tables that the domain had earlier", () => {
  const moved: Words = [
    [LEGACY_CONTEXT, 0x31_1000n | 1n],
    [0x31_1008n, 0x31_2000n | SS_ALL],
    [0x31_2008n, 0x31_3000n | SS_ALL],
    [0x31_3008n, 0x31_4000n | SS_ALL],
    [0x31_4008n, NEW_PAGE | SS_ALL],
  ];
  /** The context has moved on to others, of the earlier ones the page's leaf was dropped, but not what leads to it. */
  const movedOn = () => {
    const scene = legacyScene();
    for (const table of [0x31_1000n, 0x31_2000n, 0x31_3000n, 0x31_4000n]) scene.put(table, 0n);
    const history = new MemoryHistory(scene.memory);
    const ask = () => {
      const outcomes = allowedOutcomesWithCaches(scene.identification, scene.programming, history, request())!;
      return [...new Set(outcomes.map(({ result }) => (result.kind === "translated" ? result.address : null)))];
    };
    expect(ask()).toEqual([HERE]);
    history.change(moved);
    for (const descriptor of [contextDomain(DID), iotlbPages(DID, { ...at, leafOnly: true })])
      history.invalidate(descriptor);
    return { history, ask };
  };

  it("give their leaf again, which may stay when what led to it goes (§6.2)", () => {
    const { history, ask } = movedOn();
    expect(ask()).toEqual([NEW, HERE]);
    history.invalidate(iotlbPages(DID, nextPage));
    expect(ask()).toEqual([NEW, HERE]);
    history.invalidate(iotlbPages(DID, at));
    expect(ask()).toEqual([NEW]);
  });

  it("give nothing that was not asked for before that", () => {
    const { history, ask } = movedOn();
    history.invalidate(iotlbPages(DID, nextPage));
    expect(ask()).toEqual([NEW]);
  });
});

describe("a changed leaf of the second stage", () => {
  const changed: Words = [[SECOND[1], NEW_PAGE | SS_ALL]];

  it("is gone after IOTLB invalidations of its domain", () => {
    for (const descriptor of [iotlbPages(DID, at), iotlbDomain(DID), iotlbGlobal()])
      expect(answersAfter(secondScene(), changed, [descriptor])).toEqual([NEW]);
  });

  it("may stay after others", () => {
    for (const descriptor of [iotlbPages(DID, far), iotlbDomain(DID + 1n), pasidIotlb(DID, 0n), pasidCacheGlobal()])
      expect(answersAfter(secondScene(), changed, [descriptor])).toEqual([NEW, HERE]);
  });

  it("under a first stage goes by its guest address, not by the device's", () => {
    const nested: Words = [[LEAF_OF_DATA, NEW_PAGE | SS_ALL]];
    expect(answersAfter(nestedScene(), nested, [iotlbPages(DID, { address: GUEST_PAGE })])).toEqual([NEW]);
    expect(answersAfter(nestedScene(), nested, [iotlbPages(DID, at)])).toEqual([NEW, HERE]);
    expect(answersAfter(nestedScene(), nested, [pasidIotlb(DID, 0n)])).toEqual([NEW, HERE]);
  });

  it("is not known from when it was absent, but with CM=1 (§6.1)", () => {
    const absent = () => secondScene().put(SECOND[1], 0n);
    expect(answersAfter(absent(), changed, [])).toEqual([NEW]);
    const cm = absent();
    expect(answersAfter(cm.identify({ CAP: cm.identification.CAP | (1n << 7n) }), changed, [])).toEqual([NEW, 0x79n]);
  });

  it("marks no flag by an entry that memory no longer holds", () => {
    const scene = secondScene();
    scene.set(ENTRY, SSADE);
    expect(answersAfter(scene, [[SECOND[1], NEW_PAGE | SS_ALL]], [])).toEqual([NEW]);
    expect(answersAfter(scene.set(SECOND[1], SS.A), [[SECOND[1], 0xa0_0000n | SS_ALL]], [])).toContain(NEW);
  });
});

describe("a changed PASID entry", () => {
  const gone: Words = [[ENTRY, 0n]];
  const silent: Words = [
    [ENTRY, 0n | FPD],
    [ENTRY + 8n, DID | PWSNP],
  ];

  it("is gone after PASID-cache invalidations", () => {
    expect(answersAfter(firstScene(), gone, [])).toEqual([0x59n, OLD]);
    for (const descriptor of [pasidCacheOne(DID, 0n), pasidCacheDomain(DID), pasidCacheGlobal()])
      expect(answersAfter(firstScene(), gone, [descriptor])).toEqual([0x59n]);
    expect(answersAfter(firstScene(), silent, [pasidCacheGlobal()])).toEqual(["silent"]);
  });

  it("may stay after others", () => {
    for (const descriptor of [
      pasidCacheOne(DID, 1n),
      pasidCacheOne(DID + 1n, 0n),
      pasidIotlb(DID, 0n),
      iotlbGlobal(),
      contextGlobal(),
    ])
      expect(answersAfter(firstScene(), gone, [descriptor])).toContain(OLD);
  });

  it("a directory entry goes with it", () => {
    expect(answersAfter(firstScene(), [[DIRECTORY, 0n]], [])).toEqual([0x51n, OLD]);
    expect(answersAfter(firstScene(), [[DIRECTORY, 0n]], [pasidCacheOne(DID, 0n)])).toEqual([0x51n]);
  });

  it("other tables: the IOTLB goes on until it is told (§6.5.3)", () => {
    const scene = () => firstScene().put(0x21_1008n, (FIRST[3] & ~0xfffn) | FS_ALL | FS.A);
    const moved: Words = [
      [ENTRY + 16n, 0x21_1000n],
      [0x21_1008n, 0x21_2000n | FS_ALL | FS.A],
      [0x21_2008n, 0x21_3000n | FS_ALL | FS.A],
      [0x21_3008n, 0x21_4000n | FS_ALL | FS.A],
      [0x21_4008n, NEW_PAGE | LEAF],
    ];
    const whole = () => scene().put(0x21_2000n, 0n).put(0x21_3000n, 0n).put(0x21_4000n, 0n);
    expect(answersAfter(whole(), moved, [pasidCacheOne(DID, 0n)])).toEqual([NEW, OLD]);
    expect(answersAfter(whole(), moved, [pasidCacheOne(DID, 0n), pasidIotlb(DID, 0n)])).toEqual([NEW]);
    // The entry itself may stay, whatever is told to the IOTLB.
    expect(answersAfter(whole(), moved, [pasidIotlb(DID, 0n)])).toEqual([NEW, OLD]);
  });

  it("pass-through has no tables: presence is all there is", () => {
    expect(answersAfter(passScene(), gone, [pasidCacheDomain(DID)])).toEqual([0x59n]);
    expect(answersAfter(passScene(), gone, [iotlbGlobal()])).toEqual([0x59n, ADDRESS]);
  });
});

describe("a changed context", () => {
  const gone: Words = [[CONTEXT, 0n]];

  it("of scalable mode goes by Source-ID, whatever the DID (§6.5.2.1)", () => {
    for (const descriptor of [contextDevice(DID + 3n, SID), contextDevice(0n, SID ^ 7n, 3n), contextGlobal()])
      expect(answersAfter(firstScene(), gone, [descriptor])).toEqual([0x41n]);
    for (const descriptor of [contextDevice(DID, SID ^ 8n, 3n), contextDevice(DID, SID ^ 1n), contextDomain(DID)])
      expect(answersAfter(firstScene(), gone, [descriptor])).toEqual([0x41n, OLD]);
  });

  it("function masks take away bit 2, bits 2:1, bits 2:0 (§6.5.2.1)", () => {
    const leftWith = (other: bigint, functions: bigint) =>
      answersAfter(firstScene(), gone, [contextDevice(DID, SID ^ other, functions)]).length;
    expect([leftWith(4n, 1n), leftWith(2n, 1n), leftWith(2n, 2n), leftWith(1n, 2n), leftWith(1n, 3n)]).toEqual([
      1, 2, 1, 2, 1,
    ]);
  });

  it("of legacy mode goes by domain too", () => {
    const words: Words = [[LEGACY_CONTEXT, 0n]];
    for (const descriptor of [contextDomain(DID), contextDevice(DID, SID), contextGlobal()])
      expect(answersAfter(legacyScene(), words, [descriptor])).toEqual([0x02n]);
    for (const descriptor of [contextDomain(DID + 1n), contextDevice(DID + 1n, SID), iotlbGlobal()])
      expect(answersAfter(legacyScene(), words, [descriptor])).toEqual([0x02n, HERE]);
  });

  it("the root entry goes with it", () => {
    expect(answersAfter(firstScene(), [[ROOT, 0n]], [])).toEqual([0x39n, OLD]);
    expect(answersAfter(firstScene(), [[ROOT, 0n]], [contextDevice(DID, SID)])).toEqual([0x39n]);
  });

  it("an absent one is known with CM=1 only, under domain 0 (§6.1)", () => {
    const absent = () => legacyScene().clear(LEGACY_CONTEXT, 1n);
    const came: Words = [[LEGACY_CONTEXT, 0x30_1000n | 1n]];
    expect(answersAfter(absent(), came, [])).toEqual([HERE]);
    const cm = () => absent().identify({ CAP: absent().identification.CAP | (1n << 7n) });
    expect(answersAfter(cm(), came, [])).toEqual([HERE, 0x02n]);
    expect(answersAfter(cm(), came, [contextDevice(0n, SID)])).toEqual([HERE]);
  });
});

describe("a changed interrupt remapping entry", () => {
  const scene = () =>
    firstScene()
      .put(IRT + 16n, 1n | (0x30n << 16n), 0n)
      .program({ IRES: true, IRTA: IRT | 3n });
  const vectorsAfter = (descriptors: readonly Descriptor[]) => {
    const { identification, programming, memory } = scene();
    const history = new MemoryHistory(memory);
    history.change([[IRT + 16n, 1n | (0x31n << 16n)]]);
    for (const descriptor of descriptors) history.invalidate(descriptor);
    const asked = { sid: SID, address: 0xfee0_0030n, data: 0n };
    return allowedInterrupts(identification, programming, history, asked)!.map(({ result }) =>
      result.kind === "remapped" ? result.interrupt.vector : result.kind,
    );
  };

  it("is gone after IEC of everything, of its index, of a block around it", () => {
    expect(vectorsAfter([])).toEqual([0x31n, 0x30n]);
    for (const descriptor of [interruptGlobal(), interruptIndex(1n), interruptIndex(0n, 1n), interruptIndex(6n, 3n)])
      expect(vectorsAfter([descriptor])).toEqual([0x31n]);
  });

  it("may stay after others", () => {
    for (const descriptor of [interruptIndex(0n), interruptIndex(2n, 1n), iotlbGlobal(), contextGlobal()])
      expect(vectorsAfter([descriptor])).toEqual([0x31n, 0x30n]);
  });
});
