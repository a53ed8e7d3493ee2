// Commands (IHI 0070 §4): 16 bytes, two doublewords. One table per command names its fields; encoder and decoder work from the same tables. The
// hardware's executor reads words directly; drivers, the guest-visible SMMU and traces use what stands here.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const COMMAND_BYTES = 16;

export const CMD_PREFETCH_CONFIG = 0x01;
export const CMD_PREFETCH_ADDR = 0x02;
export const CMD_CFGI_STE = 0x03;
export const CMD_CFGI_STE_RANGE = 0x04;
export const CMD_CFGI_CD = 0x05;
export const CMD_CFGI_CD_ALL = 0x06;
export const CMD_TLBI_NH_ALL = 0x10;
export const CMD_TLBI_NH_ASID = 0x11;
export const CMD_TLBI_NH_VA = 0x12;
export const CMD_TLBI_NH_VAA = 0x13;
export const CMD_TLBI_EL2_ALL = 0x20;
export const CMD_TLBI_EL2_ASID = 0x21;
export const CMD_TLBI_EL2_VA = 0x22;
export const CMD_TLBI_EL2_VAA = 0x23;
export const CMD_TLBI_S12_VMALL = 0x28;
export const CMD_TLBI_S2_IPA = 0x2a;
export const CMD_TLBI_NSNH_ALL = 0x30;
export const CMD_ATC_INV = 0x40;
export const CMD_PRI_RESP = 0x41;
export const CMD_RESUME = 0x44;
export const CMD_STALL_TERM = 0x45;
export const CMD_SYNC = 0x46;

/** CMD_SYNC.CS. */
export const CS_NONE = 0;
export const CS_IRQ = 1;
export const CS_SEV = 2;

/** CMD_PRI_RESP.Resp. */
export const RESP_FAILURE = 0;
export const RESP_INVALID = 1;
export const RESP_SUCCESS = 2;

/** CMD_CFGI_STE_RANGE.Range that means all streams (CMD_CFGI_ALL). */
export const RANGE_ALL = 31;
/** CMD_ATC_INV.Size that means all addresses. */
export const ATC_SIZE_ALL = 52;

const header = { opcode: bits(7, 0), SSec: bit(10) };
const stream = { SID: bits(63, 32) };
const substream = { SSV: bit(11), SSID: bits(31, 12) };
const range = { NUM: bits(16, 12), SCALE: bits(24, 20) };
const vmid = { VMID: bits(47, 32) };
const asid = { ASID: bits(63, 48) };
const address = {
  Leaf: bit(0, { word: 1 }),
  TTL128: bit(7, { word: 1 }),
  TTL: bits(9, 8, { word: 1 }),
  TG: bits(11, 10, { word: 1, values: { 1: "4K", 2: "16K", 3: "64K" } }),
  Address: bits(63, 12, { word: 1 }),
};

const COMMANDS = {
  PREFETCH_CONFIG: [CMD_PREFETCH_CONFIG, "§4.2.1", { ...header, ...substream, ...stream }],
  PREFETCH_ADDR: [
    CMD_PREFETCH_ADDR,
    "§4.2.2",
    {
      ...header,
      ...substream,
      ...stream,
      Size: bits(4, 0, { word: 1 }),
      Stride: bits(9, 5, { word: 1 }),
      Address: bits(63, 12, { word: 1 }),
    },
  ],
  CFGI_STE: [CMD_CFGI_STE, "§4.3.1", { ...header, ...stream, Leaf: bit(0, { word: 1 }) }],
  CFGI_STE_RANGE: [CMD_CFGI_STE_RANGE, "§4.3.2", { ...header, ...stream, Range: bits(4, 0, { word: 1 }) }],
  CFGI_CD: [CMD_CFGI_CD, "§4.3.3", { ...header, SSID: bits(31, 12), ...stream, Leaf: bit(0, { word: 1 }) }],
  CFGI_CD_ALL: [CMD_CFGI_CD_ALL, "§4.3.4", { ...header, ...stream }],
  TLBI_NH_ALL: [CMD_TLBI_NH_ALL, "§4.4.2", { ...header, ...vmid }],
  TLBI_NH_ASID: [CMD_TLBI_NH_ASID, "§4.4.2", { ...header, ...vmid, ...asid }],
  TLBI_NH_VA: [CMD_TLBI_NH_VA, "§4.4.2", { ...header, ...range, ...vmid, ...asid, ...address }],
  TLBI_NH_VAA: [CMD_TLBI_NH_VAA, "§4.4.2", { ...header, ...range, ...vmid, ...address }],
  TLBI_EL2_ALL: [CMD_TLBI_EL2_ALL, "§4.4.3", header],
  TLBI_EL2_ASID: [CMD_TLBI_EL2_ASID, "§4.4.3", { ...header, ...asid }],
  TLBI_EL2_VA: [CMD_TLBI_EL2_VA, "§4.4.3", { ...header, ...range, ...asid, ...address }],
  TLBI_EL2_VAA: [CMD_TLBI_EL2_VAA, "§4.4.3", { ...header, ...range, ...address }],
  TLBI_S12_VMALL: [CMD_TLBI_S12_VMALL, "§4.4.4", { ...header, ...vmid }],
  TLBI_S2_IPA: [CMD_TLBI_S2_IPA, "§4.4.4", { ...header, ...range, ...vmid, ...address }],
  TLBI_NSNH_ALL: [CMD_TLBI_NSNH_ALL, "§4.4.4", header],
  ATC_INV: [
    CMD_ATC_INV,
    "§4.5.1",
    {
      ...header,
      Global: bit(9),
      ...substream,
      ...stream,
      Size: bits(5, 0, { word: 1 }),
      Address: bits(63, 12, { word: 1 }),
    },
  ],
  PRI_RESP: [
    CMD_PRI_RESP,
    "§4.5.2",
    {
      ...header,
      ...substream,
      ...stream,
      PRGIndex: bits(8, 0, { word: 1 }),
      Resp: bits(13, 12, { word: 1, values: { 0: "failure", 1: "invalid", 2: "success" } }),
    },
  ],
  RESUME: [CMD_RESUME, "§4.6.1", { ...header, Ac: bit(12), Ab: bit(13), ...stream, STAG: bits(15, 0, { word: 1 }) }],
  STALL_TERM: [CMD_STALL_TERM, "§4.6.2", { ...header, ...stream }],
  SYNC: [
    CMD_SYNC,
    "§4.6.3",
    {
      ...header,
      CS: bits(13, 12, { values: { 1: "IRQ", 2: "SEV" } }),
      MSH: bits(23, 22),
      MSIAttr: bits(27, 24),
      MSIData: bits(63, 32),
      MSIAddress: bits(55, 2, { word: 1 }),
    },
  ],
} as const;

export type CommandName = keyof typeof COMMANDS;
type AnyStructure = Structure<Record<string, FieldSpec>>;

const LAYOUTS: ReadonlyMap<number, readonly [CommandName, AnyStructure]> = new Map(
  Object.entries(COMMANDS).map(([name, [opcode, section, fields]]) => [
    opcode,
    [name as CommandName, structure(`CMD_${name}`, section, 2, fields as Record<string, FieldSpec>)],
  ]),
);

/** Two doublewords of `name` with the given fields, the rest 0; MSIAddress is in units of 4 bytes, Address of 4 KiB. Throws RangeError for a field there is not. */
export function encodeCommand(
  name: CommandName,
  fields: Readonly<Record<string, bigint | number>> = {},
): [bigint, bigint] {
  const opcode = COMMANDS[name][0];
  const shape = LAYOUTS.get(opcode)![1];
  const words = [BigInt(opcode), 0n];
  for (const [field, value] of Object.entries(fields)) {
    if (!(field in shape.fields)) throw new RangeError(`CMD_${name} has no field ${field}`);
    shape.set(words, field, BigInt(value));
  }
  return [words[0]!, words[1]!];
}

/** True if there is a command with this opcode. */
export function isCommand(opcode: number): boolean {
  return LAYOUTS.has(opcode);
}

/** Which command this is, by opcode; null for one that does not exist. */
export function commandName(word0: bigint): CommandName | null {
  return LAYOUTS.get(Number(word0 & 0xffn))?.[0] ?? null;
}

/** The fields of the command that these words are; null for one that does not exist. */
export function commandStructure(word0: bigint): Structure<Record<string, FieldSpec>> | null {
  return LAYOUTS.get(Number(word0 & 0xffn))?.[1] ?? null;
}

export interface DecodedCommand {
  readonly name: CommandName | null;
  readonly opcode: number;
  readonly fields: Readonly<Record<string, bigint>>;
  /** True if a bit is set that this command does not define. */
  readonly reservedBits: boolean;
}

export function decodeCommand(word0: bigint, word1: bigint): DecodedCommand {
  const opcode = Number(word0 & 0xffn);
  const layout = LAYOUTS.get(opcode);
  if (layout === undefined) return { name: null, opcode, fields: {}, reservedBits: true };
  const [name, shape] = layout;
  const words = [word0, word1];
  const fields: Record<string, bigint> = {};
  for (const field of Object.keys(shape.fields)) fields[field] = shape.get(words, field);
  const all = (1n << 64n) - 1n;
  const reservedBits = words.some((word, index) => (word & all & ~shape.definedBits(index)) !== 0n);
  return { name, opcode, fields, reservedBits };
}

/** "CMD_TLBI_NH_VA VMID=0x1 ASID=0x3 Leaf=1 Address=0x12": for traces and error messages. */
export function describeCommand(word0: bigint, word1: bigint): string {
  const layout = LAYOUTS.get(Number(word0 & 0xffn));
  if (layout === undefined) return `illegal command 0x${word0.toString(16)} 0x${word1.toString(16)}`;
  const text = layout[1].describe([word0 & ~0xffn, word1]);
  return text === "" ? `CMD_${layout[0]}` : `CMD_${layout[0]} ${text}`;
}
