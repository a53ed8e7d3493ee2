// Invalidation queue descriptors (§6.5.2): 16 bytes, or 32 (IQA.DW) of which the upper two quadwords are reserved. One table names every type's fields;
// encoder, decoder and the check of reserved bits work from it.
//
// The type stands in two places: bits 3:0 and, above them, bits 11:9.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const DESCRIPTOR_BYTES = 16;
export const WIDE_DESCRIPTOR_BYTES = 32;

export const DESCRIPTOR_CONTEXT = 1;
export const DESCRIPTOR_IOTLB = 2;
export const DESCRIPTOR_DEVICE_TLB = 3;
export const DESCRIPTOR_INTERRUPT_ENTRY = 4;
export const DESCRIPTOR_WAIT = 5;
export const DESCRIPTOR_PASID_IOTLB = 6;
export const DESCRIPTOR_PASID_CACHE = 7;
export const DESCRIPTOR_PASID_DEVICE_TLB = 8;
export const DESCRIPTOR_PAGE_GROUP_RESPONSE = 9;

/** PASID-IOTLB granularities. */
export const PASID_IOTLB_ALL = 2;
export const PASID_IOTLB_PAGE = 3;
/** PASID-cache granularities. */
export const PASID_CACHE_DOMAIN = 0;
export const PASID_CACHE_PASID = 1;
export const PASID_CACHE_GLOBAL = 3;

/** Bits of a wait descriptor's first half. */
export const WAIT_IF = 1 << 4;
export const WAIT_SW = 1 << 5;
export const WAIT_FN = 1 << 6;
export const WAIT_PD = 1 << 7;

const type = { type: bits(3, 0), typeHigh: bits(11, 9) };
const granularity = (values: Record<number, string>): Record<string, FieldSpec> => ({ G: bits(5, 4, { values }) });
const DID = bits(31, 16);
const PASID = bits(51, 32);
const pages = {
  AM: bits(5, 0, { word: 1 }),
  IH: bit(6, { word: 1 }),
  ADDR: bits(63, 12, { word: 1 }),
};
const ofFunction = { PFSIDlow: bits(15, 12), PFSIDhigh: bits(63, 52) };

const DESCRIPTORS = {
  context: [
    DESCRIPTOR_CONTEXT,
    {
      ...type,
      ...granularity({ 1: "global", 2: "domain", 3: "device" }),
      DID,
      SID: bits(47, 32),
      FM: bits(49, 48),
    },
  ],
  iotlb: [
    DESCRIPTOR_IOTLB,
    { ...type, ...granularity({ 1: "global", 2: "domain", 3: "page" }), DW: bit(6), DR: bit(7), DID, ...pages },
  ],
  deviceTlb: [
    DESCRIPTOR_DEVICE_TLB,
    {
      ...type,
      ...ofFunction,
      MIP: bits(20, 16),
      SID: bits(47, 32),
      S: bit(0, { word: 1 }),
      ADDR: bits(63, 12, { word: 1 }),
    },
  ],
  interruptEntry: [
    DESCRIPTOR_INTERRUPT_ENTRY,
    { ...type, G: bit(4, { values: { 1: "index" } }), IM: bits(31, 27), IIDX: bits(47, 32) },
  ],
  wait: [
    DESCRIPTOR_WAIT,
    {
      ...type,
      IF: bit(4),
      SW: bit(5),
      FN: bit(6),
      PD: bit(7),
      STDATA: bits(63, 32),
      STADDR: bits(63, 2, { word: 1 }),
    },
  ],
  pasidIotlb: [DESCRIPTOR_PASID_IOTLB, { ...type, ...granularity({ 2: "PASID", 3: "page" }), DID, PASID, ...pages }],
  pasidCache: [
    DESCRIPTOR_PASID_CACHE,
    { ...type, ...granularity({ 0: "domain", 1: "PASID", 3: "global" }), DID, PASID },
  ],
  pasidDeviceTlb: [
    DESCRIPTOR_PASID_DEVICE_TLB,
    {
      ...type,
      ...ofFunction,
      MIP: bits(8, 4),
      SID: bits(31, 16),
      PASID,
      G: bit(0, { word: 1 }),
      S: bit(11, { word: 1 }),
      ADDR: bits(63, 12, { word: 1 }),
    },
  ],
  pageGroupResponse: [
    DESCRIPTOR_PAGE_GROUP_RESPONSE,
    {
      ...type,
      PP: bit(4),
      code: bits(15, 12, { values: { 1: "invalid", 15: "failure" } }),
      RID: bits(31, 16),
      PASID,
      PRGI: bits(11, 3, { word: 1 }),
    },
  ],
} as const;

export type DescriptorName = keyof typeof DESCRIPTORS;
type AnyStructure = Structure<Record<string, FieldSpec>>;

const LAYOUTS: ReadonlyMap<number, readonly [DescriptorName, AnyStructure]> = new Map(
  Object.entries(DESCRIPTORS).map(([name, [number, fields]]) => [
    number,
    [name as DescriptorName, structure(`${name} invalidation`, "§6.5.2", 2, fields as Record<string, FieldSpec>)],
  ]),
);

/** In the order of the types, for messages. */
const TITLES: Readonly<Record<DescriptorName, string>> = {
  context: "context-cache invalidate",
  iotlb: "IOTLB invalidate",
  deviceTlb: "device-TLB invalidate",
  interruptEntry: "interrupt entry cache invalidate",
  wait: "invalidation wait",
  pasidIotlb: "PASID-based IOTLB invalidate",
  pasidCache: "PASID-cache invalidate",
  pasidDeviceTlb: "PASID-based device-TLB invalidate",
  pageGroupResponse: "page group response",
};

/** The type of a descriptor, from the low half of its first quadword. */
export function descriptorType(low: number): number {
  return (low & 0xf) | ((low >>> 5) & 0x70);
}

/**
 * Reserved bits by type (0 to 15): four halves each of the first two quadwords; of a type that does not exist all. Hot code looks here; the
 * upper two quadwords of a 32-byte descriptor are reserved in every type.
 */
export const RESERVED_BITS: Int32Array = (() => {
  const masks = new Int32Array(16 * 4).fill(-1);
  for (const [number, [, shape]] of LAYOUTS) {
    for (let word = 0; word < 2; word++) {
      const reserved = ~shape.definedBits(word) & 0xffff_ffff_ffff_ffffn;
      masks[number * 4 + 2 * word] = Number(reserved & 0xffff_ffffn) | 0;
      masks[number * 4 + 2 * word + 1] = Number(reserved >> 32n) | 0;
    }
  }
  return masks;
})();

/** Two quadwords of descriptor `name`, other fields 0; ADDR is in pages, STADDR in 4 bytes, PFSID as one field. Throws RangeError for a field there is not. */
export function encodeDescriptor(
  name: DescriptorName,
  fields: Readonly<Record<string, bigint | number>> = {},
): [bigint, bigint] {
  const [number] = DESCRIPTORS[name];
  const shape = LAYOUTS.get(number)![1];
  const words = [BigInt(number), 0n];
  for (const [field, value] of Object.entries(fields)) {
    if (field === "PFSID" && "PFSIDlow" in shape.fields) {
      shape.set(words, "PFSIDlow", BigInt(value));
      shape.set(words, "PFSIDhigh", BigInt(value) >> 4n);
      continue;
    }
    if (!(field in shape.fields)) throw new RangeError(`${TITLES[name]} has no field ${field}`);
    shape.set(words, field, BigInt(value));
  }
  return [words[0]!, words[1]!];
}

/** The fields of the descriptor that begins so; null for a type that does not exist. */
export function descriptorStructure(word0: bigint): AnyStructure | null {
  return LAYOUTS.get(descriptorType(Number(word0 & 0xfffn)))?.[1] ?? null;
}

export interface DecodedDescriptor {
  readonly name: DescriptorName | null;
  readonly type: number;
  readonly fields: Readonly<Record<string, bigint>>;
  /** A bit is set that this type does not define. */
  readonly reservedBits: boolean;
}

/** Two quadwords, or four (of which the upper ones are reserved). */
export function decodeDescriptor(words: readonly bigint[]): DecodedDescriptor {
  const type = descriptorType(Number((words[0] ?? 0n) & 0xfffn));
  const layout = LAYOUTS.get(type);
  if (layout === undefined) return { name: null, type, fields: {}, reservedBits: true };
  const [name, shape] = layout;
  const fields: Record<string, bigint> = {};
  for (const field of Object.keys(shape.fields)) fields[field] = shape.get(words, field);
  if ("PFSIDlow" in fields) fields.PFSID = fields.PFSIDlow! | (fields.PFSIDhigh! << 4n);
  const all = (1n << 64n) - 1n;
  const reservedBits = words.some((word, index) => (word & all & ~(index < 2 ? shape.definedBits(index) : 0n)) !== 0n);
  return { name, type, fields, reservedBits };
}

/** "PASID-based IOTLB invalidate G=page DID=0x3 PASID=0x5 ADDR=0x12": for traces and error messages. */
export function describeDescriptor(words: readonly bigint[]): string {
  const type = descriptorType(Number((words[0] ?? 0n) & 0xfffn));
  const layout = LAYOUTS.get(type);
  if (layout === undefined) return `descriptor of type ${type}, which there is not`;
  const text = layout[1].describe([words[0]! & ~0xe0fn, words[1] ?? 0n]);
  return text === "" ? TITLES[layout[0]] : `${TITLES[layout[0]]} ${text}`;
}

/** Pages that an ATS invalidation names (S = 1: the lowest clear bit of the page number gives the size); 2^52 stands for everything. */
export function deviceTlbPages(pfn: number, size: boolean): number {
  if (!size) return 1;
  let pages = 2;
  // Halves of 52-bit page numbers do not fit shifts: count ones from the bottom.
  for (let rest = pfn; rest % 2 === 1 && pages < 2 ** 52; rest = (rest - 1) / 2) pages *= 2;
  return pages;
}
