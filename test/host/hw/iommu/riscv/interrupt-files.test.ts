/**
 * Messages into memory-resident interrupt files on the hardware model (§3.3.3; AIA, "MSI PTE, MRIF mode"), and their faults 264 and 271 (§4.2).
 */
import { describe, expect, it } from "vitest";
import {
  bothStagesScene,
  CONTEXT,
  DEVICE,
  IOVA,
  leaf,
  MSI_TABLE,
  request,
  type Scene,
  TC,
  withInterruptFiles,
} from "../../../../oracle/riscv-iommu/cases/scene.ts";
import { hardware } from "../../../../oracle/riscv-iommu/hardware-adapter.ts";

const FILE = 0x70_0200n;
const NOTICE = 0x71_0000n;
const NOTICE_IDENTITY = 0x405n;
/** The doorbell: the first word of the interrupt file's page. */
const DOORBELL = IOVA & ~0xfffn;

function scene(): Scene {
  const made = withInterruptFiles(bothStagesScene());
  made.put(MSI_TABLE, ((FILE >> 9n) << 7n) | 0b011n, (1n << 60n) | ((NOTICE >> 12n) << 10n) | 5n);
  made.memory.pages.add(FILE >> 12n);
  made.memory.pages.add(NOTICE >> 12n);
  return made;
}

function write(made: Scene, data: number, iova = DOORBELL) {
  const subject = hardware(made.implementation, made.ddtp, made.memory, "default")!;
  return { subject, ...subject.request(request({ access: "write", iova }), data) };
}

describe("a message to a memory-resident interrupt file", () => {
  it("sets the pending bit of its identity: doubleword 2 × (identity / 64)", () => {
    for (const identity of [0, 1, 31, 32, 63, 64, 77, 2047]) {
      const { subject, result } = write(scene(), identity);
      expect(result).toEqual({ kind: "message" });
      const at = FILE + BigInt(Math.floor(identity / 64)) * 16n;
      expect(subject.word(at)).toBe(1n << BigInt(identity % 64));
    }
  });

  it("keeps the pending bits that are there", () => {
    const { subject } = write(scene().put(FILE, 0x8000_0000_0000_0001n), 4);
    expect(subject.word(FILE)).toBe(0x8000_0000_0000_0011n);
  });

  it("sends the notice, whether the identity is enabled or not", () => {
    for (const enable of [0n, (1n << 64n) - 1n]) {
      const { subject } = write(scene().put(FILE + 8n, enable), 4);
      expect(subject.word(NOTICE)).toBe(NOTICE_IDENTITY);
    }
  });

  it("with an identity above 2047, or written elsewhere in the page, is taken and discarded", () => {
    for (const [data, iova] of [
      [2048, DOORBELL],
      [4, DOORBELL + 8n],
    ] as const) {
      const { subject, storedPages } = write(scene(), data, iova);
      expect(storedPages).toEqual([]);
      expect(subject.word(NOTICE)).toBe(0n);
    }
  });

  it("faults with 264 where the file is not memory or lies beyond PAS, with 271 where it is poisoned, and is not noticed then", () => {
    const missing = scene();
    missing.memory.pages.delete(FILE >> 12n);
    const beyond = scene().put(MSI_TABLE, (((1n << 46n) >> 9n) << 7n) | 0b011n);
    const cases: [Scene, number][] = [
      [missing, 264],
      [scene().inject(FILE, "access"), 264],
      [beyond, 264],
      [scene().inject(FILE, "corrupt"), 271],
    ];
    for (const [made, cause] of cases) {
      const { subject, result, records } = write(made, 4);
      expect(result).toEqual({ kind: "aborted" });
      expect(records).toMatchObject([{ cause, ttyp: 3, did: DEVICE, pv: false, iotval: DOORBELL, iotval2: 0n }]);
      expect(subject.word(NOTICE)).toBe(0n);
    }
  });

  it("leaves no record of 264 and 271 with DTF", () => {
    const made = scene()
      .inject(FILE, "access")
      .change(CONTEXT, (tc) => tc | TC.DTF);
    expect(write(made, 4)).toMatchObject({ result: { kind: "aborted" }, records: [] });
  });

  it("is fetched from by nobody: an instruction access fault", () => {
    const made = scene();
    const subject = hardware(made.implementation, made.ddtp, made.memory, "default")!;
    expect(subject.request(request({ access: "execute", iova: DOORBELL }), 0)).toMatchObject({
      result: { kind: "aborted" },
      records: [{ cause: 1, ttyp: 1 }],
    });
  });

  it("cannot be asked of the debug interface: cause 260 (§5)", () => {
    const made = scene();
    const subject = hardware(made.implementation, made.ddtp, made.memory, "default")!;
    expect(subject.debug(request({ iova: DOORBELL }))).toMatchObject({
      debug: { fault: true },
      records: [{ cause: 260 }],
    });
  });

  it("is answered with R, W and U, and its page goes untranslated, where ATS asks (§3.6)", () => {
    const made = scene();
    const subject = hardware(made.implementation, made.ddtp, made.memory, "default")!;
    expect(subject.request(request({ type: "ats", iova: DOORBELL }), 0)).toMatchObject({
      result: { kind: "ats", completion: { status: "success", r: true, w: true, exe: false, u: true } },
      records: [],
    });
  });

  it("moves with its entry once GVMA has named its page, not before it must", () => {
    const made = scene().put(MSI_TABLE + 16n, leaf(0x70_0000n, 0b111n));
    const subject = hardware(made.implementation, made.ddtp, made.memory, "default")!;
    subject.request(request({ access: "write", iova: DOORBELL }), 4);
    subject.store([[MSI_TABLE, leaf(0x72_0000n, 0b111n)]]);
    // IOTINVAL.GVMA, GV=AV=1, GSCID 9, of guest page 0x600 (§4.1)
    subject.invalidate([1n | (1n << 7n) | (1n << 10n) | (1n << 33n) | (9n << 44n), 0x600n << 10n]);
    expect(subject.request(request({ access: "write", iova: DOORBELL }), 4).result).toEqual({
      kind: "translated",
      address: 0x72_0000n,
    });
  });
});
