// Layouts of C structures against DataView, which shares no code with them.

import { describe, expect, it } from "vitest";
import { layout, s32, u8, u16, u32, u64 } from "../../../host/base/layout.ts";

const mixed = layout("mixed", 24, { byte: u8(0), half: u16(2), word: u32(4), sign: s32(8), wide: u64(16) });

const VALUES = [
  { byte: 0, half: 0, word: 0, sign: 0, wide: 0n },
  { byte: 0xff, half: 0xffff, word: 0xffff_ffff, sign: -1, wide: 0xffff_ffff_ffff_ffffn },
  { byte: 0x80, half: 0x8000, word: 0x8000_0000, sign: -0x8000_0000, wide: 0x8000_0000_0000_0000n },
  // Around the largest integers that a double holds exactly.
  { byte: 1, half: 2, word: 3, sign: 4, wide: 0x1f_ffff_ffff_ffffn },
  { byte: 1, half: 2, word: 3, sign: 4, wide: 0x20_0000_0000_0001n },
  { byte: 0x12, half: 0x3456, word: 0x789a_bcde, sign: 0x7fff_ffff, wide: 0x0123_4567_89ab_cdefn },
];

function written({ byte, half, word, sign, wide }: (typeof VALUES)[number]): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, byte);
  view.setUint16(2, half, true);
  view.setUint32(4, word, true);
  view.setInt32(8, sign, true);
  view.setBigUint64(16, wide, true);
  return bytes;
}

describe("a layout", () => {
  it.each(VALUES)("encodes and decodes $wide as the bytes that a DataView writes", (values) => {
    expect(mixed.encode(values)).toEqual(written(values));
    expect(mixed.decode(written(values))).toEqual(values);
  });

  it("encodes a negative 64-bit number as its two's complement", () => {
    expect(mixed.decode(mixed.encode({ wide: -2n })).wide).toBe(0xffff_ffff_ffff_fffen);
  });

  it("reads what lies beyond the end of the bytes as 0, also within a field", () => {
    const bytes = written(VALUES[5]!);
    expect(mixed.decode(bytes.subarray(0, 6))).toEqual({ byte: 0x12, half: 0x3456, word: 0xbcde, sign: 0, wide: 0n });
    expect(mixed.decode(bytes.subarray(0, 21)).wide).toBe(0x67_89ab_cdefn);
    expect(mixed.decode(bytes.subarray(0, 0))).toEqual(VALUES[0]);
  });

  it("decodes and patches from an offset on, and patches only what is named and what there is room for", () => {
    const bytes = new Uint8Array(28).fill(0xee);
    mixed.patch(bytes, { half: 0x1234, wide: 0x0102_0304_0506_0708n }, 8);
    const wanted = new Uint8Array(28).fill(0xee);
    wanted.set([0x34, 0x12], 10);
    wanted.set([8, 7, 6, 5], 24);
    expect(bytes).toEqual(wanted);
    expect(mixed.decode(bytes, 8).half).toBe(0x1234);
  });
});
