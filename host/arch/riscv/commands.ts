// Commands of the command queue (§4.1): 16 bytes, two doublewords. One table per command names its fields; encoders and the
// decoder work from the same tables. The hardware's own executor reads halves directly (see host/hw/iommu/riscv/command-queue.ts);
// drivers, the vIOMMU and traces use what stands here.

import { bit, bits, type FieldSpec, type Structure, structure } from "../../base/fields.ts";

export const COMMAND_BYTES = 16;

export const OPCODE_IOTINVAL = 1;
export const OPCODE_IOFENCE = 2;
export const OPCODE_IODIR = 3;
export const OPCODE_ATS = 4;

const header = { opcode: bits(6, 0), func3: bits(9, 7) };

const iotinval = {
  ...header,
  AV: bit(10),
  PSCID: bits(31, 12),
  PSCV: bit(32),
  GV: bit(33),
  NL: bit(34),
  GSCID: bits(59, 44),
  S: bit(9, { word: 1 }),
  ADDR: bits(61, 10, { word: 1 }),
} as const;
const iodir = { ...header, PID: bits(31, 12), DV: bit(33), DID: bits(63, 40) } as const;
const ats = {
  ...header,
  PID: bits(31, 12),
  PV: bit(32),
  DSV: bit(33),
  RID: bits(55, 40),
  DSEG: bits(63, 56),
} as const;

export const IOTINVAL_VMA = structure("IOTINVAL.VMA", "§4.1.1", 2, iotinval);
export const IOTINVAL_GVMA = structure("IOTINVAL.GVMA", "§4.1.1", 2, iotinval);
export const IOFENCE_C = structure("IOFENCE.C", "§4.1.2", 2, {
  ...header,
  AV: bit(10),
  WSI: bit(11),
  PR: bit(12),
  PW: bit(13),
  DATA: bits(63, 32),
  ADDR: bits(61, 0, { word: 1 }),
});
export const IODIR_INVAL_DDT = structure("IODIR.INVAL_DDT", "§4.1.3", 2, iodir);
export const IODIR_INVAL_PDT = structure("IODIR.INVAL_PDT", "§4.1.3", 2, iodir);
export const ATS_INVAL = structure("ATS.INVAL", "§4.1.4", 2, {
  ...ats,
  G: bit(0, { word: 1 }),
  S: bit(11, { word: 1 }),
  ADDR: bits(63, 12, { word: 1 }),
});
export const ATS_PRGR = structure("ATS.PRGR", "§4.1.4", 2, {
  ...ats,
  PRGI: bits(40, 32, { word: 1 }),
  code: bits(47, 44, { word: 1, values: { 0: "success", 1: "invalid request", 15: "response failure" } }),
});

/** PRG response codes (PCIe 6.0 §10.4.2.1). */
export const PRGR_SUCCESS = 0;
export const PRGR_INVALID_REQUEST = 1;
export const PRGR_RESPONSE_FAILURE = 15;

const COMMANDS = {
  "IOTINVAL.VMA": [OPCODE_IOTINVAL, 0, IOTINVAL_VMA],
  "IOTINVAL.GVMA": [OPCODE_IOTINVAL, 1, IOTINVAL_GVMA],
  "IOFENCE.C": [OPCODE_IOFENCE, 0, IOFENCE_C],
  "IODIR.INVAL_DDT": [OPCODE_IODIR, 0, IODIR_INVAL_DDT],
  "IODIR.INVAL_PDT": [OPCODE_IODIR, 1, IODIR_INVAL_PDT],
  "ATS.INVAL": [OPCODE_ATS, 0, ATS_INVAL],
  "ATS.PRGR": [OPCODE_ATS, 1, ATS_PRGR],
} as const;

export type CommandName = keyof typeof COMMANDS;
type AnyStructure = Structure<Record<string, FieldSpec>>;

/** A command taken apart; fields in the specification's spelling. `name` is null for an opcode or function that does not exist. */
export interface DecodedCommand {
  readonly name: CommandName | null;
  readonly opcode: number;
  readonly func3: number;
  readonly fields: Readonly<Record<string, bigint>>;
  /** True if a bit is set that this command does not define. */
  readonly reservedBits: boolean;
}

/** Two doublewords of `name` with the given fields, the rest 0. Field names as in the tables above. */
export function encodeCommand(
  name: CommandName,
  fields: Readonly<Record<string, bigint | number>> = {},
): [bigint, bigint] {
  const [opcode, func3, layout] = COMMANDS[name];
  const shape = layout as unknown as AnyStructure;
  const words = [0n, 0n];
  shape.set(words, "opcode", BigInt(opcode));
  shape.set(words, "func3", BigInt(func3));
  for (const [field, value] of Object.entries(fields)) {
    if (!(field in shape.fields)) throw new RangeError(`${name} has no field ${field}`);
    shape.set(words, field, BigInt(value));
  }
  return [words[0]!, words[1]!];
}

/** Which command these two doublewords are, by opcode and func3 alone. */
export function commandName(word0: bigint): CommandName | null {
  const opcode = Number(word0 & 0x7fn);
  const func3 = Number((word0 >> 7n) & 7n);
  for (const [name, [op, func]] of Object.entries(COMMANDS)) {
    if (op === opcode && func === func3) return name as CommandName;
  }
  return null;
}

/** The fields of the command that these words are; null for one that does not exist. */
export function commandStructure(word0: bigint): Structure<Record<string, FieldSpec>> | null {
  const name = commandName(word0);
  return name === null ? null : (COMMANDS[name][2] as unknown as AnyStructure);
}

export function decodeCommand(word0: bigint, word1: bigint): DecodedCommand {
  const name = commandName(word0);
  const words = [word0, word1];
  const opcode = Number(word0 & 0x7fn);
  const func3 = Number((word0 >> 7n) & 7n);
  if (name === null) return { name, opcode, func3, fields: {}, reservedBits: true };
  const shape = COMMANDS[name][2] as unknown as AnyStructure;
  const fields: Record<string, bigint> = {};
  for (const field of Object.keys(shape.fields)) fields[field] = shape.get(words, field);
  const all = (1n << 64n) - 1n;
  const reservedBits = words.some((word, index) => (word & all & ~shape.definedBits(index)) !== 0n);
  return { name, opcode, func3, fields, reservedBits };
}

/** "IOTINVAL.VMA GV=1 GSCID=0x3 AV=1 ADDR=0x12": for traces and error messages. */
export function describeCommand(word0: bigint, word1: bigint): string {
  const name = commandName(word0);
  if (name === null) return `illegal command 0x${word0.toString(16)} 0x${word1.toString(16)}`;
  const shape = COMMANDS[name][2] as unknown as AnyStructure;
  const text = shape.describe([word0 & ~0x3ffn, word1]);
  return text === "" ? name : `${name} ${text}`;
}

/** IOTINVAL.ADDR (a page-frame number) and S for a range: `pages` a power of two, >= 2, `pfn` aligned to it (§9.3: NAPOT). */
export function napotAddress(pfn: bigint, pages: bigint): bigint {
  return pfn | (pages / 2n - 1n);
}
