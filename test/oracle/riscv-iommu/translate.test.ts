/** The oracle against answers computed by hand from the specification. */
import { describe, expect, it } from "vitest";
import { everyOutcome } from "../latitude.ts";
import { allowedOutcomes } from "./allowed.ts";
import {
  bothStagesScene,
  CONTEXT,
  DEVICE,
  FIRST,
  FULL,
  firstStageScene,
  IOVA,
  leaf,
  MSI_TABLE,
  PHYSICAL_PAGE,
  PROCESS,
  PTE,
  request,
  type Scene,
  secondStageScene,
  TC,
  withInterruptFiles,
  withProcessDirectory,
} from "./cases/scene.ts";
import { swapBytes } from "./implementation.ts";
import type { Request } from "./outcome.ts";
import { pageRequest } from "./page-request.ts";
import { DirectTables } from "./tables.ts";

function ask(scene: Scene, change: Partial<Request> = {}) {
  return allowedOutcomes(scene.implementation, scene.ddtp, scene.memory, request(change))!;
}

function translatedTo(address: bigint, more: object = {}) {
  return [{ result: { kind: "translated", translation: { address, ...more } }, record: null }];
}

describe("the oracle translates", () => {
  it("nothing at all with ddtp Bare (§3.3)", () => {
    const scene = firstStageScene();
    scene.ddtp = { mode: "bare", ppn: 0n };
    expect(ask(scene)).toMatchObject(translatedTo(IOVA, { widest: null }));
  });

  it("through a first stage of 4 KiB pages", () => {
    expect(ask(firstStageScene())).toMatchObject(
      translatedTo(PHYSICAL_PAGE + 0xabcn, { widest: 4096n, memoryType: 0n }),
    );
  });

  it("through a 2 MiB page: 21 bits of the address pass", () => {
    const scene = firstStageScene().put(FIRST.middle + 8n, leaf(0x80_0000n));
    expect(ask(scene)).toMatchObject(translatedTo(0x80_1abcn, { widest: 0x20_0000n }));
  });

  it("through a 64 KiB NAPOT page: PPN[3:0] come from the address (Svnapot)", () => {
    const scene = firstStageScene().put(FIRST.leaf, leaf(0x70_8000n) | PTE.N);
    expect(ask(scene)).toMatchObject(translatedTo(0x70_1abcn, { widest: 0x1_0000n }));
  });

  it("through a second stage alone", () => {
    expect(ask(secondStageScene())).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn));
  });

  it("through both stages; the smaller page bounds the range", () => {
    expect(ask(bothStagesScene())).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn, { widest: 4096n }));
  });

  it("with the second stage's root four times as wide: GPA bit 40 is index 1024 (Sv39x4)", () => {
    const scene = secondStageScene().put(0x30_2000n, leaf(0x4000_0000n));
    expect(ask(scene, { iova: (1n << 40n) | 0x123_4567n })).toMatchObject(translatedTo(0x4123_4567n));
  });

  it("high canonical addresses", () => {
    const scene = firstStageScene().put(FIRST.root + 0xff8n, leaf(0xc000_0000n));
    expect(ask(scene, { iova: 0xffff_ffff_c012_3456n })).toMatchObject(translatedTo(0xc012_3456n));
  });

  it("with the first stage's memory type unless that is PMA (Svpbmt)", () => {
    const scene = bothStagesScene().change(0x30_5000n, (pte) => pte | (1n << 61n));
    expect(ask(scene)).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn, { memoryType: 1n }));
    scene.change(FIRST.leaf, (pte) => pte | (2n << 61n));
    expect(ask(scene)).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn, { memoryType: 2n }));
  });

  it("through a process context; DPE gives process 0 to requests without one", () => {
    const scene = withProcessDirectory(firstStageScene(), 0x11_0000n);
    expect(ask(scene, { processId: PROCESS })).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn));
    expect(ask(scene)).toMatchObject(translatedTo(IOVA));
    scene.change(CONTEXT, (tc) => tc | TC.DPE);
    // Process 0 has no context; the record still says that the request had no process_id.
    expect(ask(scene)).toMatchObject([{ result: { cause: 266 }, record: { cause: 266, pv: false, pid: 0n } }]);
  });

  it("translated requests not at all without T2GPA", () => {
    expect(ask(bothStagesScene(), { type: "translated", iova: 0x12_3000n })).toMatchObject(translatedTo(0x12_3000n));
  });

  it("translated requests through the second stage with T2GPA", () => {
    const scene = bothStagesScene().change(CONTEXT, (tc) => tc | TC.T2GPA);
    expect(ask(scene, { type: "translated", iova: 0x60_0123n })).toMatchObject(translatedTo(PHYSICAL_PAGE + 0x123n));
  });

  it("Sv32 over Sv32x4 (GXL=1): four-byte entries, a 4 MiB page, 34-bit GPAs", () => {
    const scene = firstStageScene().withCapabilities("Sv32", "Sv32x4");
    scene.implementation = { ...scene.implementation, gxl: true };
    scene.put(CONTEXT, TC.V | TC.SXL, (8n << 60n) | 0x300n, 0n, (8n << 60n) | 0x200n);
    // The first stage's root is guest page 0x200 (second-stage root index 0); IOVA 0xffc1_2345 has index 1023, in the upper half of the last word.
    scene.put(0x30_0000n, leaf(0x0n) /* first entry: 4 MiB to itself */ | (0n << 32n));
    scene.put(0x20_0ff8n, ((0x3_0000_0000n >> 2n) | FULL) << 32n);
    // Guest 0x3_0001_2345: second-stage index 0xc00, at root + 0x3000.
    scene.put(0x30_3000n, leaf(0x80_0000n));
    expect(ask(scene, { iova: 0xffc1_2345n })).toMatchObject(translatedTo(0x81_2345n, { widest: 0x40_0000n }));
    expect(ask(scene, { iova: 0x1_ffc1_2345n })).toMatchObject([{ result: { cause: 13 } }]);
  });

  it("big-endian process directories and first stages (SBE), little-endian rest", () => {
    const scene = withProcessDirectory(firstStageScene().withCapabilities("END"), 0x11_0000n, TC.SBE);
    scene.implementation = { ...scene.implementation, beWritable: true };
    for (const at of [0x11_0030n, 0x11_0038n, FIRST.root + 8n, FIRST.middle + 8n, FIRST.leaf]) {
      scene.change(at, (value) => swapBytes(value, 8));
    }
    expect(ask(scene, { processId: PROCESS })).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn));
  });
});

describe("the oracle updates A and D (§3.4)", () => {
  it("A on a read, A and D on a write, nothing that is set already", () => {
    const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.SADE);
    const bare = PTE.V | PTE.R | PTE.W | PTE.X | PTE.U;
    scene.put(FIRST.leaf, leaf(PHYSICAL_PAGE, bare));
    const entry = leaf(PHYSICAL_PAGE, bare);
    expect(ask(scene)[0]!.writes).toEqual([{ address: FIRST.leaf, bytes: 8, value: entry | PTE.A }]);
    expect(ask(scene, { access: "write" })[0]!.writes).toEqual([
      { address: FIRST.leaf, bytes: 8, value: entry | PTE.A | PTE.D },
    ]);
    expect(ask(firstStageScene(), { access: "write" })[0]!.writes).toEqual([]);
  });

  it("of the second stage too, D for the write that updates the first", () => {
    const scene = bothStagesScene().change(CONTEXT, (tc) => tc | TC.SADE | TC.GADE);
    scene.change(FIRST.leaf, (pte) => pte & ~PTE.A);
    scene.change(0x30_4008n, (pte) => pte & ~(PTE.A | PTE.D));
    const [outcome] = ask(scene);
    expect(outcome!.writes.map(({ address, value }) => [address, value & (PTE.A | PTE.D)])).toEqual([
      [0x30_4008n, PTE.A],
      [0x30_4008n, PTE.A | PTE.D],
      [FIRST.leaf, PTE.A | PTE.D],
    ]);
  });

  it("not where stores are refused: that is an access fault", () => {
    const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.SADE);
    scene.change(FIRST.leaf, (pte) => pte & ~PTE.A).inject(FIRST.leaf, "read-only");
    expect(ask(scene)).toMatchObject([{ result: { cause: 5 }, writes: [] }]);
  });
});

describe("the oracle translates message writes (§3.3.3)", () => {
  it("by the flat table, numbering files by the masked bits", () => {
    const scene = withInterruptFiles(bothStagesScene());
    expect(ask(scene, { access: "write" })).toMatchObject(translatedTo(PHYSICAL_PAGE + 0xabcn, { widest: 4096n }));
    scene.put(FIRST.leaf, leaf(0x60_1000n)).put(MSI_TABLE + 16n, leaf(0x99_9000n, 0b111n));
    expect(ask(scene, { access: "write" })).toMatchObject(translatedTo(0x99_9abcn));
  });

  it("into a memory-resident file: address[55:9] from bits 53:7, notice from the second doubleword", () => {
    const scene = withInterruptFiles(bothStagesScene());
    scene.put(MSI_TABLE, ((0x70_0200n >> 9n) << 7n) | 0b011n, (1n << 60n) | ((0x71_0000n >> 12n) << 10n) | 5n);
    expect(ask(scene, { access: "write" })).toMatchObject([
      {
        result: {
          translation: {
            interruptFile: { address: 0x70_0200n, noticeAddress: 0x71_0000n, noticeIdentity: 0x405n },
          },
        },
      },
    ]);
  });

  it("refusing fetches with an instruction access fault", () => {
    expect(ask(withInterruptFiles(bothStagesScene()), { access: "execute" })).toMatchObject([{ result: { cause: 1 } }]);
  });

  it("keeping superpages off interrupt-file pages", () => {
    const scene = withInterruptFiles(bothStagesScene());
    scene.put(0x30_4018n, leaf(0x80_0000n)).put(FIRST.middle + 8n, leaf(0x60_0000n));
    // Guest 6 MiB to 8 MiB, files at pages 0x600 and 0x601: page 0x602 stands alone with 0x603, page 0x601 is a file.
    expect(ask(scene, { iova: 0x4020_2000n })).toMatchObject(translatedTo(0x80_2000n, { widest: 0x2000n }));
    expect(ask(scene, { iova: 0x4030_0000n })).toMatchObject(translatedTo(0x90_0000n, { widest: 0x10_0000n }));
  });
});

describe("the oracle answers ATS requests (§3.6)", () => {
  const ats = { type: "ats" } as const;
  const completion = (scene: Scene, change: Partial<Request> = {}) =>
    ask(scene, { ...ats, ...change }).map(({ result }) => (result.kind === "ats" ? result.completion : null));

  it("with the AND of both stages' rights", () => {
    const scene = bothStagesScene().put(0x30_5000n, leaf(PHYSICAL_PAGE, FULL & ~PTE.W));
    expect(completion(scene)).toMatchObject([{ status: "success", r: true, w: false, exe: false, u: false }]);
  });

  it("with Exe only where it was asked", () => {
    const scene = withProcessDirectory(firstStageScene(), 0x11_0000n);
    const [plain] = completion(scene, { processId: PROCESS });
    expect(plain).toMatchObject({ r: true, w: true, exe: false });
    const [asked] = completion(scene, { processId: PROCESS, executeRequested: true });
    expect(asked).toMatchObject({ r: true, w: true, exe: true });
  });

  it("withholding W where D is clear and cannot be set", () => {
    const scene = firstStageScene().change(FIRST.leaf, (pte) => pte & ~PTE.D);
    expect(completion(scene)).toMatchObject([{ status: "success", r: true, w: false }]);
  });

  it("setting D, or withholding W, where it can be set", () => {
    const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.SADE);
    scene.change(FIRST.leaf, (pte) => pte & ~PTE.D);
    const both = ask(scene, ats).map(({ result, writes }) => [
      result.kind === "ats" && result.completion.w,
      writes.length,
    ]);
    expect(both).toEqual([
      [true, 1],
      [false, 0],
    ]);
    expect(completion(scene, { noWrite: true })).toMatchObject([{ r: true, w: false }]);
  });

  it("with the guest physical address under T2GPA", () => {
    const scene = bothStagesScene().change(CONTEXT, (tc) => tc | TC.T2GPA);
    expect(completion(scene)).toMatchObject([{ translation: { address: 0x60_0abcn } }]);
  });

  it("with Global from the first stage, a global pointer included, and only for requests with PASID", () => {
    const scene = withProcessDirectory(firstStageScene(), 0x11_0000n).change(FIRST.root + 8n, (pte) => pte | PTE.G);
    expect(completion(scene, { processId: PROCESS })).toMatchObject([{ global: true }]);
    expect(completion(firstStageScene().change(FIRST.leaf, (pte) => pte | PTE.G))).toMatchObject([{ global: false }]);
  });

  it("with U=1 for memory-resident interrupt files", () => {
    const scene = withInterruptFiles(bothStagesScene()).put(MSI_TABLE, leaf(0x70_0000n, 0b011n));
    expect(completion(scene)).toMatchObject([{ status: "success", r: true, w: true, u: true }]);
  });
});

describe("the oracle handles page requests (§3.7)", () => {
  const plain = {
    deviceId: DEVICE,
    processId: PROCESS,
    privileged: true,
    execute: true,
    read: true,
    write: false,
    last: true,
    group: 0x155n,
    address: 0x1234_5000n,
  };
  const handle = (scene: Scene, change = {}, queue: Parameters<typeof pageRequest>[4] = "ready") =>
    pageRequest(scene.implementation, scene.ddtp, new DirectTables(scene.memory), { ...plain, ...change }, queue);
  const enabled = () => firstStageScene().change(CONTEXT, (tc) => tc | TC.EN_PRI);

  it("queues them", () => {
    expect(handle(enabled())).toEqual({
      kind: "queued",
      record: [(DEVICE << 40n) | (7n << 32n) | (PROCESS << 12n), 0x1234_5000n | (0x155n << 3n) | 0b101n],
    });
  });

  it("answers Invalid Request with a record 260 where EN_PRI=0; the PASID only with PRPR", () => {
    expect(handle(firstStageScene())).toMatchObject({
      kind: "answered",
      code: 1,
      processId: null,
      fault: { cause: 260, ttyp: 9, iotval: 4n },
    });
  });

  it("answers Response Failure, with the PASID, where there is no context", () => {
    expect(handle(firstStageScene(), { deviceId: 6n })).toMatchObject({
      code: 15,
      processId: PROCESS,
      fault: { cause: 258 },
    });
  });

  it("answers Success where the queue is full, Response Failure where it is off; no record", () => {
    expect(handle(enabled(), {}, "full")).toEqual({ kind: "answered", code: 0, processId: null, fault: null });
    expect(handle(enabled(), {}, "off")).toEqual({ kind: "answered", code: 15, processId: PROCESS, fault: null });
    expect(
      handle(
        enabled().change(CONTEXT, (tc) => tc | TC.PRPR),
        {},
        "overflowed",
      ),
    ).toMatchObject({ code: 0, processId: PROCESS });
  });

  it("drops Stop Markers and requests that are not the last of their group", () => {
    expect(handle(enabled(), { last: false }, "off")).toMatchObject({ kind: "dropped" });
    expect(handle(enabled(), { read: false }, "off")).toMatchObject({ kind: "dropped" });
  });
});

describe("latitude", () => {
  it("enumerates every sequence of choices once", () => {
    const seen = everyOutcome((choose) => (choose(2, "") === 0 ? `a${choose(2, "")}` : `b${choose(3, "")}`));
    expect(seen).toEqual(["a0", "a1", "b0", "b1", "b2"]);
  });
  it("gives up beyond a bound", () => {
    expect(everyOutcome((choose) => [choose(4, ""), choose(4, ""), choose(4, "")], 63)).toBeNull();
  });
});
