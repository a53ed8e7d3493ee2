import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bit, bits, structure } from "../../../host/base/fields.ts";
import { layout, s32, u8, u16, u32, u64 } from "../../../host/base/layout.ts";

describe("a bit-field table", () => {
  const shape = structure("example", "§0", 2, {
    V: bit(0),
    MODE: bits(63, 60, { values: { 8: "Sv39" } }),
    PPN: bits(43, 0),
    ID: bits(31, 12, { word: 1 }),
  });

  it("reads back what it wrote and leaves other fields alone", () => {
    fc.assert(
      fc.property(
        fc.bigInt(0n, 15n),
        fc.bigInt(0n, (1n << 44n) - 1n),
        fc.bigInt(0n, (1n << 20n) - 1n),
        (mode, ppn, id) => {
          const words = [0n, 0n];
          shape.set(words, "MODE", mode);
          shape.set(words, "PPN", ppn);
          shape.set(words, "ID", id);
          expect([shape.get(words, "MODE"), shape.get(words, "PPN"), shape.get(words, "ID")]).toEqual([mode, ppn, id]);
        },
      ),
    );
  });

  it("gives hot code the shift and mask within the field's 32-bit half", () => {
    const { MODE, ID } = shape.fields;
    expect([MODE.half, MODE.shift, MODE.mask]).toEqual([1, 28, 15]);
    expect([ID.half, ID.shift, ID.mask]).toEqual([0, 12, 0xfffff]);
    expect(shape.fields.PPN.mask).toBe(0);
  });

  it("knows which bits are defined", () => {
    expect(shape.definedBits(0)).toBe((15n << 60n) | ((1n << 44n) - 1n));
  });

  it("describes non-zero fields, values by name", () => {
    expect(shape.describe([(8n << 60n) | 0x80n, 0n])).toBe("MODE=Sv39 PPN=0x80");
  });
});

describe("a byte layout", () => {
  const example = layout("example", 24, { size: u32(0), id: s32(4), kind: u8(8), op: u16(10), length: u64(16) });

  it("decodes what it encoded, signed fields signed", () => {
    const values = { size: 24, id: -5, kind: 200, op: 65535, length: 0xfedcba9876543210n };
    expect(example.decode(example.encode(values))).toEqual(values);
  });

  it("is little-endian and zero where nothing was given", () => {
    const bytes = example.encode({ size: 0x01020304 });
    expect([...bytes.subarray(0, 8)]).toEqual([4, 3, 2, 1, 0, 0, 0, 0]);
  });

  it("reads zero for what a shorter buffer does not hold", () => {
    expect(example.decode(Uint8Array.of(24, 0, 0, 0)).length).toBe(0n);
  });

  it("patches only the fields given", () => {
    const bytes = example.encode({ size: 24, id: 7 });
    example.patch(bytes, { id: 9 });
    expect(example.decode(bytes)).toMatchObject({ size: 24, id: 9 });
  });
});
