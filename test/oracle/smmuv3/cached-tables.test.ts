/** Which stale answers a cache may give, by §3.17, §4.3 and §4.4: hand-made cases. */
import { describe, expect, it } from "vitest";
import type { Command } from "./adapter.ts";
import { allowedOutcomesWithCaches } from "./allowed.ts";
import { MemoryHistory } from "./cached-tables.ts";
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
  request,
  type Scene,
  SECOND,
  SID,
  STE,
  STE_BITS,
  stage1Scene,
  stage2Scene,
  VA,
  withSubstreams,
} from "./cases/scene.ts";
import {
  cfgiCd,
  cfgiCdAll,
  cfgiSte,
  cfgiSteRange,
  el2All,
  el2Va,
  nhAll,
  nhAsid,
  nhVa,
  nhVaa,
  nsnhAll,
  s2Ipa,
  s12Vmall,
} from "./generate/commands.ts";
import type { Request } from "./outcome.ts";

/** VMID 9 and ASID 7 of the scene. */
const VMID = 9n;
const ASID = 7n;
const OLD = IPA_PAGE | 0xabcn;
const NEW_PAGE = 0x90_0000n;
const NEW = NEW_PAGE | 0xabcn;
type Words = readonly (readonly [bigint, bigint])[];

/** Every permitted answer after a change and commands: an address, or an event number. */
function answersAfter(
  scene: Scene,
  words: Words,
  commands: readonly Command[],
  change: Partial<Request> = {},
): bigint[] {
  const history = new MemoryHistory(scene.memory);
  history.change(words);
  for (const command of commands) history.invalidate(command);
  const outcomes = allowedOutcomesWithCaches(scene.identification, scene.programming, history, request(change))!;
  const answers = outcomes.map(({ result, record }) =>
    result.kind === "translated" ? result.address : record!.doublewords[0]! & 0xffn,
  );
  return [...new Set(answers)];
}

const remap: Words = [[FIRST.leaf, NEW_PAGE | LEAF1]];
const unmap: Words = [[FIRST.leaf, 0n]];
const at = { address: VA };

describe("a changed stage-1 leaf", () => {
  it("may be seen old or new before an invalidation", () => {
    expect(answersAfter(stage1Scene(), remap, [])).toEqual([NEW, OLD]);
    expect(answersAfter(stage1Scene(), unmap, [])).toEqual([0x10n, OLD]);
  });

  it.each<[string, Command]>([
    ["TLBI_NH_VA", nhVa(VMID, ASID, at)],
    ["TLBI_NH_VA of leaves", nhVa(VMID, ASID, { ...at, leaf: true })],
    ["TLBI_NH_VAA", nhVaa(VMID, at)],
    ["TLBI_NH_ASID", nhAsid(VMID, ASID)],
    ["TLBI_NH_ALL", nhAll(VMID)],
    ["TLBI_S12_VMALL", s12Vmall(VMID)],
    ["TLBI_NSNH_ALL", nsnhAll()],
    [
      "a range that ends at it",
      nhVa(VMID, ASID, { address: VA - 0x3000n, range: { granule: 12n, num: 3n, scale: 0n, ttl: 3n } }),
    ],
  ])("is seen new after %s", (_name, command) => {
    expect(answersAfter(stage1Scene(), remap, [command])).toEqual([NEW]);
    expect(answersAfter(stage1Scene(), unmap, [command])).toEqual([0x10n]);
  });

  it.each<[string, Command]>([
    ["another VMID", nhVa(VMID + 1n, ASID, at)],
    ["another ASID", nhVa(VMID, ASID + 1n, at)],
    ["another page", nhVa(VMID, ASID, { address: VA + 0x1000n })],
    [
      "a range that ends before it",
      nhVa(VMID, ASID, { address: VA - 0x3000n, range: { granule: 12n, num: 2n, scale: 0n, ttl: 3n } }),
    ],
    [
      "a range of another granule",
      nhVa(VMID, ASID, { address: VA & ~0xffffn, range: { granule: 16n, num: 1n, scale: 0n, ttl: 0n } }),
    ],
    [
      "a range of blocks",
      nhVa(VMID, ASID, { address: VA & ~0x1f_ffffn, range: { granule: 12n, num: 0n, scale: 9n, ttl: 2n } }),
    ],
    ["EL2", el2All()],
    ["stage 2", s2Ipa(VMID, { address: IPA_PAGE })],
    ["contexts", cfgiCd(SID, 0n, false)],
    ["everything of the configuration", cfgiSteRange(0n, 31n)],
  ])("may be seen old after an invalidation of %s", (_name, command) => {
    expect(answersAfter(stage1Scene(), remap, [command])).toEqual([NEW, OLD]);
  });

  it("that was invalid, or had AF=0, is never seen so again", () => {
    expect(answersAfter(stage1Scene().put(FIRST.leaf, 0n), remap, [])).toEqual([NEW]);
    expect(answersAfter(stage1Scene().clear(FIRST.leaf, D.AF), remap, [])).toEqual([NEW]);
  });

  it("may forbid what it forbade before", () => {
    const scene = stage1Scene().set(FIRST.leaf, D.READ_ONLY);
    expect(answersAfter(scene, [[FIRST.leaf, IPA_PAGE | LEAF1]], [], { write: true })).toEqual([OLD, 0x13n]);
  });

  it("that is global is spared by ASID, and found by any (§4.4.1)", () => {
    const scene = () => stage1Scene().clear(FIRST.leaf, D.NG);
    expect(answersAfter(scene(), unmap, [nhAsid(VMID, ASID)])).toEqual([0x10n, OLD]);
    expect(answersAfter(scene(), unmap, [nhVa(VMID, ASID + 1n, at)])).toEqual([0x10n]);
  });

  it("of the EL2 world goes with EL2 commands only, whatever their ASID", () => {
    const scene = () => stage1Scene().set(STE + 8n, STE_BITS.STRW(2n));
    expect(answersAfter(scene(), unmap, [el2Va(3n, at)])).toEqual([0x10n]);
    expect(answersAfter(scene(), unmap, [el2All()])).toEqual([0x10n]);
    expect(answersAfter(scene(), unmap, [nsnhAll()])).toEqual([0x10n, OLD]);
  });
});

describe("a table descriptor that is gone", () => {
  const gone: Words = [[FIRST.tables[2], 0n]];

  it("may be used until an invalidation that is not of leaves only", () => {
    expect(answersAfter(stage1Scene(), gone, [])).toEqual([0x10n, OLD]);
    expect(answersAfter(stage1Scene(), gone, [nhVa(VMID, ASID, { ...at, leaf: true })])).toEqual([0x10n, OLD]);
    expect(answersAfter(stage1Scene(), gone, [nhVa(VMID, ASID, at)])).toEqual([0x10n]);
  });

  it("leaves entries of other pages behind when it goes by address", () => {
    const elsewhere = nhVa(VMID, ASID, { address: VA + 0x1000n });
    expect(answersAfter(stage1Scene(), gone, [elsewhere])).toEqual([0x10n, OLD]);
    expect(answersAfter(stage1Scene(), [...gone, ...unmap], [elsewhere])).toEqual([0x10n, OLD]);
  });

  it("serves walks until it is dropped, also for leaves that came after it was gone, and not those that come later", () => {
    const came: Words = [[FIRST.leaf, IPA_PAGE | LEAF1]];
    const without = () => stage1Scene().put(FIRST.leaf, 0n);
    const elsewhere = nhVa(VMID, ASID, { address: VA + 0x1000n });
    expect(answersAfter(without(), [...gone, ...came], [elsewhere])).toEqual([0x10n, OLD]);
    const late = without();
    const history = new MemoryHistory(late.memory);
    history.change(gone);
    history.invalidate(elsewhere);
    history.change(came);
    const outcomes = allowedOutcomesWithCaches(late.identification, late.programming, history, request())!;
    expect(outcomes.map(({ result }) => result.kind)).toEqual(["aborted"]);
  });

  it("makes leaf entries after one was dropped, until it is dropped itself", () => {
    const here = nhVa(VMID, ASID, { ...at, leaf: true });
    const elsewhere = nhVa(VMID, ASID, { address: VA + 0x1000n });
    expect(answersAfter(stage1Scene(), gone, [here, elsewhere])).toEqual([0x10n, OLD]);
    expect(answersAfter(stage1Scene(), gone, [elsewhere, here])).toEqual([0x10n]);
  });
});

describe("a changed stage-2 leaf", () => {
  const moved: Words = [[SECOND.leaf, NEW_PAGE | LEAF2]];
  const before = PA_PAGE | 0xabcn;
  const ipa = { address: IPA_PAGE };

  it("of a stage-2 stream goes with its IPA, or its VMID", () => {
    const ask = { iova: IPA_PAGE | 0xabcn };
    expect(answersAfter(stage2Scene(), moved, [], ask)).toEqual([NEW, before]);
    for (const command of [s2Ipa(VMID, ipa), s12Vmall(VMID), nsnhAll()])
      expect(answersAfter(stage2Scene(), moved, [command], ask)).toEqual([NEW]);
    for (const command of [nhAll(VMID), s2Ipa(VMID + 1n, ipa), s2Ipa(VMID, { address: IPA_PAGE + 0x1000n })])
      expect(answersAfter(stage2Scene(), moved, [command], ask)).toEqual([NEW, before]);
  });

  it("stays in entries that combine both stages, until stage 1 is invalidated as well (§4.4.3)", () => {
    expect(answersAfter(bothScene(), moved, [s2Ipa(VMID, ipa)])).toEqual([NEW, before]);
    expect(answersAfter(bothScene(), moved, [nhAll(VMID)])).toEqual([NEW, before]);
    expect(answersAfter(bothScene(), moved, [s2Ipa(VMID, ipa), nhAll(VMID)])).toEqual([NEW]);
    expect(answersAfter(bothScene(), moved, [s2Ipa(VMID, ipa), nhVa(VMID, ASID, at)])).toEqual([NEW]);
    expect(answersAfter(bothScene(), moved, [s12Vmall(VMID)])).toEqual([NEW]);
  });
});

describe("changed configuration", () => {
  it("a stream table entry goes with CFGI_STE of its StreamID, a range or all", () => {
    const off: Words = [[STE, 0n]];
    expect(answersAfter(stage1Scene(), off, [])).toEqual([0x04n, OLD]);
    for (const command of [cfgiSte(SID, true), cfgiSteRange(4n, 0n), cfgiSteRange(0n, 31n)])
      expect(answersAfter(stage1Scene(), off, [command])).toEqual([0x04n]);
    for (const command of [cfgiSte(SID + 1n, false), cfgiSteRange(6n, 0n), cfgiCdAll(SID), nsnhAll()])
      expect(answersAfter(stage1Scene(), off, [command])).toEqual([0x04n, OLD]);
  });

  it("an entry with V=0 may be cached, too (§5.2.1)", () => {
    const scene = stage1Scene();
    const valid = scene.memory.words.get(STE)!;
    scene.clear(STE, 1n);
    expect(answersAfter(scene, [[STE, valid]], [])).toEqual([OLD, 0x04n]);
  });

  it("a context goes with CFGI_CD of its SubstreamID, and with the stream's entry", () => {
    const scene = () => withSubstreams(stage1Scene(), 0n);
    const off: Words = [[CD + 192n, 0n]];
    const ask = { ssid: 3n };
    expect(answersAfter(scene(), off, [], ask)).toEqual([0x0an, OLD]);
    for (const command of [cfgiCd(SID, 3n, true), cfgiCdAll(SID), cfgiSte(SID, true)])
      expect(answersAfter(scene(), off, [command], ask)).toEqual([0x0an]);
    expect(answersAfter(scene(), off, [cfgiCd(SID, 4n, false)], ask)).toEqual([0x0an, OLD]);
    expect(answersAfter(stage1Scene(), [[CD, 0n]], [cfgiCd(SID, 0n, true)])).toEqual([0x0an]);
  });

  it("a level-1 context descriptor stays with Leaf=1", () => {
    const scene = () => {
      const made = withSubstreams(stage1Scene(), 0n).set(STE, STE_BITS.S1FMT(1n));
      for (let offset = 0n; offset < 64n; offset += 8n)
        made.put(0x12_0000n + 192n + offset, made.memory.words.get(CD + offset) ?? 0n);
      return made.put(CD, 0x12_0001n);
    };
    const off: Words = [[CD, 0n]];
    const ask = { ssid: 3n };
    expect(answersAfter(scene(), off, [cfgiCd(SID, 3n, true)], ask)).toEqual([0x08n, OLD]);
    expect(answersAfter(scene(), off, [cfgiCd(SID, 3n, false)], ask)).toEqual([0x08n]);
  });
});

describe("hardware updates", () => {
  it("are made to the descriptor that memory holds, never to a cached one (§3.13)", () => {
    const scene = () =>
      stage1Scene()
        .set(CD, CD_BITS.HA | CD_BITS.HD)
        .set(FIRST.leaf, D.READ_ONLY | D.DBM);
    // The cached page is clean, so a write through it must look at memory, and finds the new one. A read need not.
    expect(answersAfter(scene(), remap, [], { write: true })).toEqual([NEW]);
    expect(answersAfter(scene(), remap, [], { write: false })).toEqual([NEW, OLD]);
  });
});
