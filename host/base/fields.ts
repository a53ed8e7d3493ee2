// Bit fields of registers and in-memory structures as tables. The same table gives shifts and masks to hot code, decodes and
// describes at the edges, and feeds property tests (reserved bits, reset values).
//
// A structure is a run of 32- or 64-bit words. `bits(high, low)` names a field of the current word, inclusive, bit 0 least
// significant, as specifications write it. Hot code takes `shift` and `mask` of a field within its 32-bit half:
//
//     (hi >>> TC.fields.X.shift) & TC.fields.X.mask

/** How software may access a register field, in the specifications' words. */
export type FieldAccess = "RO" | "RW" | "WARL" | "WLRL" | "WPRI" | "RW1C" | "RW1S";

export interface FieldSpec {
  /** Word of the structure (register: always 0). */
  readonly word: number;
  readonly high: number;
  readonly low: number;
  readonly access?: FieldAccess;
  readonly reset?: bigint;
  /** Names of values, for traces and the walk view. */
  readonly values?: Readonly<Record<number, string>>;
}

export interface BitField extends FieldSpec {
  readonly name: string;
  readonly width: number;
  /** True if the field lies in the high 32 bits of its word; a field that spans both halves has `half` 0 and `mask` 0. */
  readonly half: 0 | 1;
  /** Shift and mask (after shifting) within that half. */
  readonly shift: number;
  readonly mask: number;
}

export interface Structure<F extends Record<string, FieldSpec>> {
  readonly name: string;
  readonly section: string;
  readonly words: number;
  readonly fields: { readonly [K in keyof F]: BitField };
  /** Bits of word `word` that some field covers. */
  definedBits(word: number): bigint;
  get(words: readonly bigint[], field: keyof F): bigint;
  set(words: bigint[], field: keyof F, value: bigint): void;
  /** "V=1 MODE=Sv39 PPN=0x80012": non-zero fields only, values by their names. */
  describe(words: readonly bigint[]): string;
}

export const bits = (high: number, low: number, more: Partial<FieldSpec> = {}): FieldSpec => ({
  word: 0,
  ...more,
  high,
  low,
});
export const bit = (at: number, more: Partial<FieldSpec> = {}): FieldSpec => bits(at, at, more);

export function structure<const F extends Record<string, FieldSpec>>(
  name: string,
  section: string,
  words: number,
  specs: F,
): Structure<F> {
  const fields = Object.fromEntries(Object.entries(specs).map(([key, spec]) => [key, bitField(key, spec)])) as {
    [K in keyof F]: BitField;
  };
  const all = Object.values(fields) as BitField[];
  const get = (source: readonly bigint[], field: keyof F): bigint => {
    const { word, low, width } = fields[field];
    return ((source[word] ?? 0n) >> BigInt(low)) & ((1n << BigInt(width)) - 1n);
  };
  return {
    name,
    section,
    words,
    fields,
    get,
    definedBits(word) {
      return all
        .filter((field) => field.word === word)
        .reduce((mask, field) => mask | (((1n << BigInt(field.width)) - 1n) << BigInt(field.low)), 0n);
    },
    set(target, field, value) {
      const { word, low, width } = fields[field];
      const mask = (1n << BigInt(width)) - 1n;
      target[word] = ((target[word] ?? 0n) & ~(mask << BigInt(low))) | ((value & mask) << BigInt(low));
    },
    describe(source) {
      return all
        .map((field) => [field, get(source, field.name as keyof F)] as const)
        .filter(([, value]) => value !== 0n)
        .map(([field, value]) => {
          const named = field.values?.[Number(value)];
          return `${field.name}=${named ?? (field.width > 4 ? `0x${value.toString(16)}` : value.toString())}`;
        })
        .join(" ");
    },
  };
}

function bitField(name: string, spec: FieldSpec): BitField {
  const width = spec.high - spec.low + 1;
  const half = spec.low >= 32 ? 1 : 0;
  const spans = spec.low < 32 && spec.high >= 32;
  return {
    ...spec,
    name,
    width,
    half,
    shift: spec.low & 31,
    mask: spans ? 0 : width === 32 ? 0xffffffff : 2 ** width - 1,
  };
}
