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
  const entries = Object.entries(fields) as [keyof T & string, LayoutField][];
  return {
    name,
    bytes,
    fields,
    decode(source, at = 0) {
      const values: Record<string, number | bigint> = {};
      for (const [key, field] of entries) values[key] = load(source, at, field);
      return values as LayoutValues<T>;
    },
    encode(values) {
      const target = new Uint8Array(bytes);
      for (const [key, field] of entries) {
        const value = values[key];
        if (value !== undefined) store(target, field.offset, field, value as number | bigint);
      }
      return target;
    },
    patch(target, values, at = 0) {
      for (const [key, field] of entries) {
        const value = values[key];
        if (value !== undefined) store(target, at + field.offset, field, value as number | bigint);
      }
    },
  };
}

function load(source: Uint8Array, at: number, field: LayoutField): number | bigint {
  const start = at + field.offset;
  if (field.bytes === 8) return BigInt(load32(source, start)) | (BigInt(load32(source, start + 4)) << 32n);
  let value = 0;
  for (let i = field.bytes - 1; i >= 0; i--) value = value * 256 + (source[start + i] ?? 0);
  return field.signed === true ? value | 0 : value;
}

function load32(source: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 3; i >= 0; i--) value = value * 256 + (source[at + i] ?? 0);
  return value;
}

function store(target: Uint8Array, at: number, field: LayoutField, value: number | bigint): void {
  let rest = BigInt.asUintN(64, BigInt(value));
  for (let i = 0; i < field.bytes; i++) {
    if (at + i < target.length) target[at + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
}
