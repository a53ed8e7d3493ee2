/** Interrupt remapping by §5.1 and §9.10: hand-made cases. */
import { describe, expect, it } from "vitest";
import { allowedInterrupts } from "./allowed.ts";
import type { Programming } from "./capabilities.ts";
import { FPD, IRT, legacyScene, type Scene, SID } from "./cases/scene.ts";

const VECTOR = 0x41n << 16n;
const DESTINATION = 0x22n << 40n;
const ENTRY = 1n | VECTOR | DESTINATION;

function scene(low = ENTRY, high = 0n): Scene {
  return legacyScene()
    .put(IRT + 5n * 16n, low, high)
    .program({ IRES: true, IRTA: IRT | 7n });
}

/** A remappable request for an index; by default no subhandle. */
const address = (index: bigint, more = 0n) => 0xfee0_0010n | ((index & 0x7fffn) << 5n) | ((index >> 15n) << 2n) | more;

function outcomes(from: Scene, change: Partial<Programming> = {}, where = address(5n), data = 0n, sid = SID) {
  const { identification, memory } = from;
  return allowedInterrupts(identification, { ...from.programming, ...change }, memory, { sid, address: where, data })!;
}

function vector(...parts: Parameters<typeof outcomes>): bigint | string {
  const [{ result }] = outcomes(...parts) as [ReturnType<typeof outcomes>[0]];
  return result.kind === "remapped" ? result.interrupt.vector : result.kind;
}

/** Fault reasons that may be recorded; 0 where none is. */
function reasons(...parts: Parameters<typeof outcomes>): bigint[] {
  const all = outcomes(...parts);
  for (const { result } of all) expect(result.kind).toBe("blocked");
  return all.map(({ record }) => (record === null ? 0n : (record.quadwords[1] >> 32n) & 0xffn));
}

describe("a remappable interrupt request", () => {
  it("passes unchanged while IRES=0", () => {
    expect(vector(scene(), { IRES: false })).toBe("unchanged");
  });

  it("gets all that its entry says", () => {
    const low = 1n | (1n << 2n) | (1n << 3n) | (1n << 4n) | (1n << 5n) | VECTOR | DESTINATION;
    expect(outcomes(scene(low))[0]!.result).toEqual({
      kind: "remapped",
      interrupt: {
        vector: 0x41n,
        deliveryMode: 1n,
        logical: true,
        redirectionHint: true,
        level: true,
        destination: 0x22n,
      },
    });
  });

  it("has 32 bits of destination with EIME", () => {
    const { result } = outcomes(scene(1n | (0x1234_5678n << 32n)), { IRTA: IRT | 7n | (1n << 11n) })[0]!;
    expect(result).toMatchObject({ interrupt: { destination: 0x1234_5678n } });
  });

  it("adds the subhandle with SHV, whose upper data bits are reserved (20h)", () => {
    expect(vector(scene(), {}, address(3n, 8n), 2n)).toBe(0x41n);
    expect(reasons(scene(), {}, address(3n, 8n), 2n | (1n << 16n))).toEqual([0x20n]);
    expect(vector(scene(), {}, address(5n), 0xffff_0002n)).toBe(0x41n);
  });

  it("takes bit 15 of the handle from bit 2", () => {
    expect(reasons(scene(), {}, address(0x8005n))).toEqual([0x21n]);
    expect(vector(scene(), { IRTA: IRT | 15n }, address(0x8005n))).toBe("blocked");
  });

  it("beyond the table: 21h, with the index in the record", () => {
    const { record } = outcomes(scene(), {}, address(256n))[0]!;
    expect(record!.quadwords[0]).toBe(256n << 48n);
    expect(record!.quadwords[1]).toBe((1n << 63n) | (0x21n << 32n) | SID);
    expect(vector(scene(), {}, address(255n))).toBe("blocked");
    expect(reasons(scene(), {}, address(255n))).toEqual([0x22n]);
  });

  it("the last index that fits is reached by size 2^(S+1)", () => {
    expect(reasons(scene(), { IRTA: IRT | 1n }, address(5n))).toEqual([0x21n]);
    expect(vector(scene(), { IRTA: IRT | 2n }, address(5n))).toBe(0x41n);
  });

  it("P=0: 22h, or nothing with FPD", () => {
    expect(reasons(scene(0xffffn << 16n))).toEqual([0x22n]);
    expect(reasons(scene(FPD))).toEqual([0n]);
  });

  it("an entry that cannot be read: 23h", () => {
    expect(reasons(scene().fail(IRT + 5n * 16n))).toEqual([0x23n]);
  });

  it("reserved bits: 24h", () => {
    for (const at of [12n, 14n, 24n, 31n]) expect(reasons(scene(ENTRY | (1n << at)))).toEqual([0x24n]);
    for (const at of [20n, 63n]) expect(reasons(scene(ENTRY, 1n << at))).toEqual([0x24n]);
    expect(reasons(scene(ENTRY | FPD, 1n << 20n))).toEqual([0n]);
  });

  it("posted without CAP.PI: 24h", () => {
    expect(reasons(scene(ENTRY | (1n << 15n)))).toEqual([0x24n]);
  });

  it("SVT=1 compares Source-IDs under SQ (26h)", () => {
    const high = (source: bigint, qualifier: bigint) => source | (qualifier << 16n) | (1n << 18n);
    expect(vector(scene(ENTRY, high(SID, 0n)))).toBe(0x41n);
    const rows: [bigint, bigint, boolean][] = [
      [4n, 0n, false],
      [4n, 1n, true],
      [2n, 1n, false],
      [6n, 2n, true],
      [1n, 2n, false],
      [7n, 3n, true],
      [8n, 3n, false],
    ];
    for (const [other, qualifier, good] of rows)
      expect(vector(scene(ENTRY, high(SID ^ other, qualifier)))).toBe(good ? 0x41n : "blocked");
    expect(reasons(scene(ENTRY, high(SID ^ 8n, 0n)))).toEqual([0x26n]);
  });

  it("SVT=2 wants a bus of the range, start in the high byte", () => {
    const high = (start: bigint, end: bigint) => (start << 8n) | end | (2n << 18n);
    const of = (start: bigint, end: bigint) => vector(scene(ENTRY, high(start, end)), {}, address(5n), 0n, 0x0510n);
    expect([of(5n, 5n), of(4n, 6n), of(6n, 9n), of(1n, 4n), of(6n, 4n)]).toEqual([
      0x41n,
      0x41n,
      "blocked",
      "blocked",
      "blocked",
    ]);
  });

  it("SVT=3 is reserved: 26h or 24h, no source settles it", () => {
    expect(reasons(scene(ENTRY, 3n << 18n)).sort()).toEqual([0x24n, 0x26n]);
  });
});

describe("a compatibility format interrupt request", () => {
  const compatible = 0xfee0_1000n;
  it("passes with CFIS=1, is blocked (25h) without, and always with EIME", () => {
    expect(vector(scene(), { CFIS: true }, compatible)).toBe("unchanged");
    expect(reasons(scene(), { CFIS: false }, compatible)).toEqual([0x25n]);
    expect(reasons(scene(), { CFIS: true, IRTA: IRT | 7n | (1n << 11n) }, compatible)).toEqual([0x25n]);
  });
});
