/** Which stale answers the oracle permits: §3.8 and §4.1, case by case. */
import { describe, expect, it } from "vitest";
import { allowedOutcomesWithCaches } from "./allowed.ts";
import { MemoryHistory } from "./cached-tables.ts";
import {
  bothStagesScene,
  CONTEXT,
  DEVICE,
  FIRST,
  FULL,
  firstStageScene,
  GUEST_PAGE,
  IOVA,
  leaf,
  MSI_TABLE,
  PHYSICAL_PAGE,
  PROCESS,
  PTE,
  pointer,
  request,
  type Scene,
  secondStageScene,
  TC,
  withInterruptFiles,
  withProcessDirectory,
} from "./cases/scene.ts";
import { iodirInvalDdt, iodirInvalPdt, iotinvalGvma, iotinvalVma } from "./generate/commands.ts";
import type { Command } from "./invalidation.ts";
import type { Request } from "./outcome.ts";

const OLD = PHYSICAL_PAGE + 0xabcn;
const NEW = 0x90_0abcn;
const PSCID = 7n;
const GSCID = 9n;

/** Changes words of a scene, sends commands, and tells where a request may go (a number is a cause). */
function answersAfter(scene: Scene, words: [bigint, bigint][], commands: Command[], change: Partial<Request> = {}) {
  const history = new MemoryHistory(scene.memory);
  history.change(words);
  for (const command of commands) history.invalidate(command);
  const outcomes = allowedOutcomesWithCaches(scene.implementation, scene.ddtp, history, request(change))!;
  return outcomes.map(({ result }) => {
    if (result.kind === "aborted") return result.cause;
    return result.kind === "translated" ? result.translation.address : result.completion.status;
  });
}

const remap: [bigint, bigint][] = [[FIRST.leaf, leaf(0x90_0000n)]];
const unmap: [bigint, bigint][] = [[FIRST.leaf, 0n]];

describe("a changed first-stage leaf", () => {
  it("may be seen old or new before an invalidation", () => {
    expect(answersAfter(firstStageScene(), remap, [])).toEqual([NEW, OLD]);
    expect(answersAfter(firstStageScene(), unmap, [])).toEqual([13, OLD]);
  });

  it.each<[string, Command]>([
    ["everything of the host", iotinvalVma(null, null)],
    ["its PSCID", iotinvalVma(null, PSCID)],
    ["its address", iotinvalVma(null, null, { address: IOVA })],
    ["its address and PSCID", iotinvalVma(null, PSCID, { address: IOVA })],
    ["a range around it", iotinvalVma(null, PSCID, { address: IOVA - 4096n, range: 0x4000n })],
  ])("is seen new after an invalidation of %s", (_name, command) => {
    expect(answersAfter(firstStageScene(), remap, [command])).toEqual([NEW]);
    expect(answersAfter(firstStageScene(), unmap, [command])).toEqual([13]);
  });

  it.each<[string, Command]>([
    ["another PSCID", iotinvalVma(null, PSCID + 1n)],
    ["another page", iotinvalVma(null, PSCID, { address: IOVA + 4096n })],
    ["a range beside it", iotinvalVma(null, PSCID, { address: IOVA + 0x8000n, range: 0x2000n })],
    ["a guest", iotinvalVma(0n, null)],
    ["second stages", iotinvalGvma(null)],
    ["directories", iodirInvalDdt(null)],
  ])("may be seen old after an invalidation of %s", (_name, command) => {
    expect(answersAfter(firstStageScene(), remap, [command])).toEqual([NEW, OLD]);
  });

  it("is never absent once it is there: V=0 is not cached", () => {
    const scene = firstStageScene().put(FIRST.leaf, 0n);
    expect(answersAfter(scene, remap, [])).toEqual([NEW]);
  });

  it("may forbid what it forbade before", () => {
    const scene = firstStageScene().put(FIRST.leaf, leaf(PHYSICAL_PAGE, FULL & ~PTE.W));
    expect(answersAfter(scene, [[FIRST.leaf, leaf(PHYSICAL_PAGE)]], [], { access: "write" })).toEqual([OLD, 15]);
  });
});

describe("a changed pointer", () => {
  const elsewhere: [bigint, bigint][] = [
    [0x20_5008n, leaf(0x90_0000n)],
    [FIRST.middle + 8n, pointer(0x20_5000n)],
  ];
  const scene = () => {
    const made = firstStageScene();
    made.memory.pages.add(0x205n);
    return made;
  };

  it("stays with an invalidation by address alone, and goes with NL=1 (§4.1)", () => {
    expect(answersAfter(scene(), elsewhere, [iotinvalVma(null, null, { address: IOVA })])).toEqual([NEW, OLD]);
    expect(answersAfter(scene(), elsewhere, [iotinvalVma(null, null, { address: IOVA, nonLeaf: true })])).toEqual([
      NEW,
    ]);
  });

  it("goes with NL=1 of another page below it, which leaves a cached leaf of this page (§4.1)", () => {
    const command = iotinvalVma(null, null, { address: IOVA + 4096n, nonLeaf: true });
    expect(answersAfter(scene(), elsewhere, [command])).toEqual([NEW, OLD]);
    // But a leaf that came or went after the pointer was gone cannot have been reached through it.
    const emptied: [bigint, bigint][] = [
      [FIRST.middle + 8n, 0n],
      [FIRST.leaf, 0n],
    ];
    expect(answersAfter(scene(), emptied, [command])).toEqual([13, OLD]);
    expect(answersAfter(scene(), emptied, [command, iotinvalVma(null, null, { address: IOVA })])).toEqual([13]);
  });

  it("makes leaf entries after one was dropped, until it is dropped itself", () => {
    const emptied: [bigint, bigint][] = [[FIRST.middle + 8n, 0n]];
    const here = iotinvalVma(null, null, { address: IOVA });
    const elsewhere = iotinvalVma(null, null, { address: IOVA + 4096n, nonLeaf: true });
    expect(answersAfter(scene(), emptied, [here, elsewhere])).toEqual([13, OLD]);
    expect(answersAfter(scene(), emptied, [elsewhere, here])).toEqual([13]);
  });

  it("goes with its PSCID", () => {
    expect(answersAfter(scene(), elsewhere, [iotinvalVma(null, PSCID)])).toEqual([NEW]);
  });

  it("may have left a global leaf behind that an invalidation of the PSCID spares", () => {
    const global = scene().change(FIRST.leaf, (pte) => pte | PTE.G);
    expect(answersAfter(global, elsewhere, [iotinvalVma(null, PSCID)])).toEqual([NEW, OLD]);
    expect(answersAfter(global, elsewhere, [iotinvalVma(null, null)])).toEqual([NEW]);
  });

  it("to a superpage: any address in the page drops all of it", () => {
    const large = () => firstStageScene().put(FIRST.middle + 8n, leaf(0x80_0000n));
    const small: [bigint, bigint][] = [[FIRST.middle + 8n, pointer(FIRST.last)]];
    expect(answersAfter(large(), small, [iotinvalVma(null, null, { address: 0x4030_0000n })])).toEqual([OLD]);
    expect(answersAfter(large(), small, [])).toEqual([OLD, 0x80_1abcn]);
  });
});

describe("global mappings", () => {
  it("are spared by PSCV=1, and by nothing else (§4.1)", () => {
    const scene = () => firstStageScene().change(FIRST.leaf, (pte) => pte | PTE.G);
    expect(answersAfter(scene(), unmap, [iotinvalVma(null, PSCID)])).toEqual([13, OLD]);
    expect(answersAfter(scene(), unmap, [iotinvalVma(null, PSCID, { address: IOVA })])).toEqual([13, OLD]);
    expect(answersAfter(scene(), unmap, [iotinvalVma(null, null, { address: IOVA })])).toEqual([13]);
  });
});

describe("a changed second-stage leaf", () => {
  const moved: [bigint, bigint][] = [[0x30_5000n, leaf(0x90_0000n)]];

  it("is seen new after GVMA by guest, by address, or for all", () => {
    for (const command of [iotinvalGvma(GSCID), iotinvalGvma(null), iotinvalGvma(GSCID, { address: GUEST_PAGE })]) {
      expect(answersAfter(bothStagesScene(), moved, [command])).toEqual([NEW]);
    }
  });

  it("may be seen old after VMA, or GVMA of another guest or address", () => {
    for (const command of [
      iotinvalVma(GSCID, null),
      iotinvalGvma(GSCID + 1n),
      iotinvalGvma(GSCID, { address: GUEST_PAGE + 4096n }),
    ]) {
      expect(answersAfter(bothStagesScene(), moved, [command])).toEqual([NEW, OLD]);
    }
  });

  it("ignores AV with GV=0", () => {
    const [low, high] = iotinvalGvma(null, { address: 0x1234_0000n });
    expect(answersAfter(secondStageScene(), [[0x30_5008n, leaf(0x90_0000n)]], [[low, high]])).toEqual([NEW]);
  });
});

describe("changed directories", () => {
  it("a context is seen new after INVAL_DDT of its device or of all, not of another", () => {
    const off: [bigint, bigint][] = [[CONTEXT, 0n]];
    expect(answersAfter(firstStageScene(), off, [])).toEqual([258, OLD]);
    expect(answersAfter(firstStageScene(), off, [iodirInvalDdt(DEVICE)])).toEqual([258]);
    expect(answersAfter(firstStageScene(), off, [iodirInvalDdt(null)])).toEqual([258]);
    expect(answersAfter(firstStageScene(), off, [iodirInvalDdt(DEVICE + 1n)])).toEqual([258, OLD]);
    expect(answersAfter(firstStageScene(), off, [iotinvalVma(null, null), iotinvalGvma(null)])).toEqual([258, OLD]);
  });

  it("a non-leaf entry goes with DV=0 only", () => {
    const scene = () => {
      const made = firstStageScene().put(0x12_0000n, pointer(0x10_0000n));
      made.ddtp = { mode: "2lvl", ppn: 0x120n };
      return made;
    };
    const off: [bigint, bigint][] = [[0x12_0000n, 0n]];
    expect(answersAfter(scene(), off, [iodirInvalDdt(DEVICE)])).toEqual([258, OLD]);
    expect(answersAfter(scene(), off, [iodirInvalDdt(null)])).toEqual([258]);
  });

  it("a process context goes with INVAL_PDT of device and process, and with INVAL_DDT of the device", () => {
    const scene = () => withProcessDirectory(firstStageScene(), 0x11_0000n);
    const off: [bigint, bigint][] = [[0x11_0000n + PROCESS * 16n, 0n]];
    const ask = { processId: PROCESS };
    expect(answersAfter(scene(), off, [iodirInvalPdt(DEVICE, PROCESS)], ask)).toEqual([266]);
    expect(answersAfter(scene(), off, [iodirInvalDdt(DEVICE)], ask)).toEqual([266]);
    expect(answersAfter(scene(), off, [iodirInvalPdt(DEVICE, PROCESS + 1n)], ask)).toEqual([266, OLD]);
  });
});

describe("a changed MSI entry", () => {
  it("goes with GVMA of its guest page", () => {
    const off: [bigint, bigint][] = [[MSI_TABLE, 0n]];
    const ask = { access: "write" } as const;
    const scene = () => withInterruptFiles(bothStagesScene());
    expect(answersAfter(scene(), off, [], ask)).toEqual([262, OLD]);
    expect(answersAfter(scene(), off, [iotinvalGvma(GSCID, { address: GUEST_PAGE })], ask)).toEqual([262]);
    expect(answersAfter(scene(), off, [iotinvalGvma(GSCID, { address: GUEST_PAGE + 4096n })], ask)).toEqual([262, OLD]);
  });
});

describe("A and D updates", () => {
  it("are made to the entry that memory holds, never to a cached one (§3.4)", () => {
    const scene = () =>
      firstStageScene()
        .change(CONTEXT, (tc) => tc | TC.SADE)
        .put(FIRST.leaf, leaf(PHYSICAL_PAGE, FULL & ~PTE.D));
    // The cached entry lacks D, so a write through it must look at memory, and finds the new one. A read need not.
    expect(answersAfter(scene(), remap, [], { access: "write" })).toEqual([NEW]);
    expect(answersAfter(scene(), remap, [], { access: "read" })).toEqual([NEW, OLD]);
  });
});
