// Byte layouts of C structures (uAPI structs, on-disk formats) as tables: name → offset and width in bytes.
// One table encodes, decodes and describes itself. Fields up to 4 bytes are numbers, 8-byte fields bigints; all little-endian.

export interface LayoutField {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly signed?: boolean;
}

type FieldValue<F extends LayoutField> = F["bytes"] extends 8 ? bigint : number;
export type LayoutValues<T extends Record<string, LayoutField>> = { -readonly [K in keyof T]: FieldValue<T[K]> };

export interface Layout<T extends Record<string, LayoutField>> {
  readonly name: string;
  readonly bytes: number;
  readonly fields: T;
  /** All fields, from `at` on in `bytes` (which may be shorter than the struct: what is missing reads 0). */
  decode(bytes: Uint8Array, at?: number): LayoutValues<T>;
  /** A buffer of the struct's size; fields not given are 0. */
  encode(values: Partial<LayoutValues<T>>): Uint8Array;
  /** Writes the given fields only. */
  patch(bytes: Uint8Array, values: Partial<LayoutValues<T>>, at?: number): void;
}

export const u8 = (offset: number) => ({ offset, bytes: 1 }) as const;
export const u16 = (offset: number) => ({ offset, bytes: 2 }) as const;
export const u32 = (offset: number) => ({ offset, bytes: 4 }) as const;
export const s32 = (offset: number) => ({ offset, bytes: 4, signed: true }) as const;
export const u64 = (offset: number) => ({ offset, bytes: 8 }) as const;

export function layout<const T extends Record<string, LayoutField>>(name: string, bytes: number, fields: T): Layout<T> {
  const keys = Object.keys(fields) as (keyof T & string)[];
  const list = keys.map((key) => fields[key]!);
  return {
    name,
    bytes,
    fields,
    decode(source, at = 0) {
      const values: Record<string, number | bigint> = {};
      const whole = at + bytes <= source.length;
      for (let i = 0; i < keys.length; i++) {
        values[keys[i]!] = whole ? load(source, at, list[i]!) : loadPart(source, at, list[i]!);
      }
      return values as LayoutValues<T>;
    },
    encode(values) {
      const target = new Uint8Array(bytes);
      patch(target, values, 0);
      return target;
    },
    patch: (target, values, at = 0) => patch(target, values, at),
  };

  function patch(target: Uint8Array, values: Partial<LayoutValues<T>>, at: number): void {
    for (let i = 0; i < keys.length; i++) {
      const value = values[keys[i]!];
      if (value !== undefined) store(target, at + list[i]!.offset, list[i]!.bytes, value as number | bigint);
    }
  }
}

function load(source: Uint8Array, at: number, { offset, bytes, signed }: LayoutField): number | bigint {
  const start = at + offset;
  if (bytes === 1) return source[start]!;
  if (bytes === 2) return source[start]! | (source[start + 1]! << 8);
  const low = load32(source, start);
  if (bytes === 4) return signed === true ? low | 0 : low;
  return whole64(low, load32(source, start + 4));
}

function load32(source: Uint8Array, at: number): number {
  return (source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16) | (source[at + 3]! << 24)) >>> 0;
}

/** Where the bytes may end within the field. */
function loadPart(source: Uint8Array, at: number, field: LayoutField): number | bigint {
  const part = new Uint8Array(8);
  const start = at + field.offset;
  part.set(source.subarray(start, start + field.bytes));
  return load(part, 0, { ...field, offset: 0 });
}

/** Most are small enough for one conversion of an exact double. */
function whole64(low: number, high: number): bigint {
  return high < 2 ** 21 ? BigInt(high * 2 ** 32 + low) : (BigInt(high) << 32n) | BigInt(low);
}

function store(target: Uint8Array, at: number, bytes: number, value: number | bigint): void {
  if (bytes === 8) {
    const whole = BigInt(value);
    storePart(target, at, 4, Number(BigInt.asUintN(32, whole)));
    storePart(target, at + 4, 4, Number(BigInt.asUintN(32, whole >> 32n)));
  } else {
    storePart(target, at, bytes, Number(value));
  }
}

/** A typed array takes no notice of what lies beyond its end. */
function storePart(target: Uint8Array, at: number, bytes: number, value: number): void {
  for (let i = 0, rest = value >>> 0; i < bytes; i++, rest >>>= 8) target[at + i] = rest;
}
