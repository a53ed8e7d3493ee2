// The C extension, Zcb and Zcmop as the tables of the unprivileged specification print them ("RVC Instruction Set Listings", "Zcb", "Zcmop"): each row is the 16 bits, written
// as the table writes them, and the 32-bit instruction it "expands to". Bits of an immediate are named by their number; registers by name.
import * as encode from "../encode.ts";

export interface Fields {
  /** rd / rs1 of 5 bits, or x8 + 3 bits. */
  readonly rd: number;
  readonly rs2: number;
  readonly imm: number;
}

export interface Row {
  readonly name: string;
  /** From bit 15 down: fixed bits, rd or rs1 as d's, rs2 as s's (five bits, or three for x8…x15), immediate bits in brackets. */
  readonly pattern: string;
  readonly signed?: boolean;
  /** Encodings of this row that are not this instruction. */
  readonly except?: (f: Fields) => boolean;
  readonly expand: (f: Fields) => number;
}

const row = (
  name: string,
  pattern: string,
  expand: (f: Fields) => number,
  except?: (f: Fields) => boolean,
  signed = false,
): Row => (except === undefined ? { name, pattern, expand, signed } : { name, pattern, expand, except, signed });
const s = true;

const C_ROWS: readonly Row[] = [
  row(
    "c.addi4spn",
    "000 [5:4|9:6|2|3] sss 00",
    (f) => encode.addi(f.rs2, 2, f.imm),
    (f) => f.imm === 0,
  ),
  row("c.fld", "001 [5:3] ddd [7:6] sss 00", (f) => encode.i(0x07, 3, f.rs2, f.rd, f.imm)),
  row("c.lw", "010 [5:3] ddd [2|6] sss 00", (f) => encode.load(2, f.rs2, f.rd, f.imm)),
  row("c.ld", "011 [5:3] ddd [7:6] sss 00", (f) => encode.load(3, f.rs2, f.rd, f.imm)),
  row("c.fsd", "101 [5:3] ddd [7:6] sss 00", (f) => encode.s(0x27, 3, f.rd, f.rs2, f.imm)),
  row("c.sw", "110 [5:3] ddd [2|6] sss 00", (f) => encode.store(2, f.rd, f.rs2, f.imm)),
  row("c.sd", "111 [5:3] ddd [7:6] sss 00", (f) => encode.store(3, f.rd, f.rs2, f.imm)),
  row("c.addi", "000 [5] ddddd [4:0] 01", (f) => encode.addi(f.rd, f.rd, f.imm), undefined, s),
  row(
    "c.addiw",
    "001 [5] ddddd [4:0] 01",
    (f) => encode.i(0x1b, 0, f.rd, f.rd, f.imm),
    (f) => f.rd === 0,
    s,
  ),
  row("c.li", "010 [5] ddddd [4:0] 01", (f) => encode.addi(f.rd, 0, f.imm), undefined, s),
  row(
    "c.addi16sp",
    "011 [9] 00010 [4|6|8:7|5] 01",
    (f) => encode.addi(2, 2, f.imm),
    (f) => f.imm === 0,
    s,
  ),
  row(
    "c.lui",
    "011 [17] ddddd [16:12] 01",
    (f) => encode.lui(f.rd, f.imm >> 12),
    (f) => f.rd === 2 || f.imm === 0,
    s,
  ),
  row("c.srli", "100 [5] 00 ddd [4:0] 01", (f) => encode.i(0x13, 5, f.rd, f.rd, f.imm)),
  row("c.srai", "100 [5] 01 ddd [4:0] 01", (f) => encode.i(0x13, 5, f.rd, f.rd, 0x400 | f.imm)),
  row("c.andi", "100 [5] 10 ddd [4:0] 01", (f) => encode.i(0x13, 7, f.rd, f.rd, f.imm), undefined, s),
  row("c.sub", "100 0 11 ddd 00 sss 01", (f) => encode.r(0x33, 0, 0x20, f.rd, f.rd, f.rs2)),
  row("c.xor", "100 0 11 ddd 01 sss 01", (f) => encode.r(0x33, 4, 0, f.rd, f.rd, f.rs2)),
  row("c.or", "100 0 11 ddd 10 sss 01", (f) => encode.r(0x33, 6, 0, f.rd, f.rd, f.rs2)),
  row("c.and", "100 0 11 ddd 11 sss 01", (f) => encode.r(0x33, 7, 0, f.rd, f.rd, f.rs2)),
  row("c.subw", "100 1 11 ddd 00 sss 01", (f) => encode.r(0x3b, 0, 0x20, f.rd, f.rd, f.rs2)),
  row("c.addw", "100 1 11 ddd 01 sss 01", (f) => encode.r(0x3b, 0, 0, f.rd, f.rd, f.rs2)),
  row("c.j", "101 [11|4|9:8|10|6|7|3:1|5] 01", (f) => encode.j(0, f.imm), undefined, s),
  row("c.beqz", "110 [8|4:3] ddd [7:6|2:1|5] 01", (f) => encode.b(0, f.rd, 0, f.imm), undefined, s),
  row("c.bnez", "111 [8|4:3] ddd [7:6|2:1|5] 01", (f) => encode.b(1, f.rd, 0, f.imm), undefined, s),
  row("c.slli", "000 [5] ddddd [4:0] 10", (f) => encode.i(0x13, 1, f.rd, f.rd, f.imm)),
  row("c.fldsp", "001 [5] ddddd [4:3|8:6] 10", (f) => encode.i(0x07, 3, f.rd, 2, f.imm)),
  row(
    "c.lwsp",
    "010 [5] ddddd [4:2|7:6] 10",
    (f) => encode.load(2, f.rd, 2, f.imm),
    (f) => f.rd === 0,
  ),
  row(
    "c.ldsp",
    "011 [5] ddddd [4:3|8:6] 10",
    (f) => encode.load(3, f.rd, 2, f.imm),
    (f) => f.rd === 0,
  ),
  row(
    "c.jr",
    "100 0 ddddd 00000 10",
    (f) => encode.jalr(0, f.rd, 0),
    (f) => f.rd === 0,
  ),
  row(
    "c.mv",
    "100 0 ddddd sssss 10",
    (f) => encode.r(0x33, 0, 0, f.rd, 0, f.rs2),
    (f) => f.rs2 === 0,
  ),
  row("c.ebreak", "100 1 00000 00000 10", () => encode.EBREAK),
  row(
    "c.jalr",
    "100 1 ddddd 00000 10",
    (f) => encode.jalr(1, f.rd, 0),
    (f) => f.rd === 0,
  ),
  row(
    "c.add",
    "100 1 ddddd sssss 10",
    (f) => encode.r(0x33, 0, 0, f.rd, f.rd, f.rs2),
    (f) => f.rs2 === 0,
  ),
  row("c.fsdsp", "101 [5:3|8:6] sssss 10", (f) => encode.s(0x27, 3, 2, f.rs2, f.imm)),
  row("c.swsp", "110 [5:2|7:6] sssss 10", (f) => encode.store(2, 2, f.rs2, f.imm)),
  row("c.sdsp", "111 [5:3|8:6] sssss 10", (f) => encode.store(3, 2, f.rs2, f.imm)),
];

/** Rows of Zcb, and of Zcmop, whose instructions do nothing ("do not write any register"). */
export const ZCB_ROWS: readonly Row[] = [
  row("c.lbu", "100 000 ddd [0|1] sss 00", (f) => encode.load(4, f.rs2, f.rd, f.imm)),
  row("c.lhu", "100 001 ddd 0 [1] sss 00", (f) => encode.load(5, f.rs2, f.rd, f.imm)),
  row("c.lh", "100 001 ddd 1 [1] sss 00", (f) => encode.load(1, f.rs2, f.rd, f.imm)),
  row("c.sb", "100 010 ddd [0|1] sss 00", (f) => encode.store(0, f.rd, f.rs2, f.imm)),
  row("c.sh", "100 011 ddd 0 [1] sss 00", (f) => encode.store(1, f.rd, f.rs2, f.imm)),
  row("c.zext.b", "100 1 11 ddd 11 000 01", (f) => encode.i(0x13, 7, f.rd, f.rd, 0xff)),
  row("c.sext.b", "100 1 11 ddd 11 001 01", (f) => encode.i(0x13, 1, f.rd, f.rd, 0x604)),
  row("c.zext.h", "100 1 11 ddd 11 010 01", (f) => encode.r(0x3b, 4, 4, f.rd, f.rd, 0)),
  row("c.sext.h", "100 1 11 ddd 11 011 01", (f) => encode.i(0x13, 1, f.rd, f.rd, 0x605)),
  row("c.zext.w", "100 1 11 ddd 11 100 01", (f) => encode.r(0x3b, 0, 4, f.rd, f.rd, 0)),
  row("c.not", "100 1 11 ddd 11 101 01", (f) => encode.i(0x13, 4, f.rd, f.rd, -1)),
  row("c.mul", "100 1 11 ddd 10 sss 01", (f) => encode.r(0x33, 0, 1, f.rd, f.rd, f.rs2)),
  ...[1, 3, 5, 7, 9, 11, 13, 15].map((n) =>
    row(`c.mop.${n}`, `011 0 ${n.toString(2).padStart(5, "0")} 00000 01`, () => encode.NOP),
  ),
];
export const ROWS: readonly Row[] = [...C_ROWS, ...ZCB_ROWS];

/** The row a halfword belongs to, with its fields; null if the encoding is reserved. */
export function parse(halfword: number): { row: Row; fields: Fields } | null {
  for (const candidate of ROWS) {
    const fields = match(candidate, halfword);
    if (fields !== null && candidate.except?.(fields) !== true) return { row: candidate, fields };
  }
  return null;
}

/** The halfword of a row with its fields filled in. */
export function fill(candidate: Row, fields: Fields): number {
  let halfword = 0;
  const put = (value: number, width: number): void => {
    halfword = (halfword << width) | (value & ((1 << width) - 1));
  };
  for (const token of candidate.pattern.split(" ")) {
    if (token.startsWith("[")) {
      for (const range of token.slice(1, -1).split("|")) {
        const [high, low = high] = range.split(":").map(Number) as [number, number?];
        put(fields.imm >> low, high - low + 1);
      }
    } else if (/^[ds]/.test(token)) put(token[0] === "d" ? fields.rd : fields.rs2, token.length);
    else put(Number.parseInt(token, 2), token.length);
  }
  return halfword;
}

function match(candidate: Row, halfword: number): Fields | null {
  let left = 16;
  const take = (width: number): number => {
    left -= width;
    return (halfword >> left) & ((1 << width) - 1);
  };
  let rd = 0;
  let rs2 = 0;
  let imm = 0;
  let top = 0;
  for (const token of candidate.pattern.split(" ")) {
    if (token.startsWith("[")) {
      for (const range of token.slice(1, -1).split("|")) {
        const [high, low = high] = range.split(":").map(Number) as [number, number?];
        imm |= take(high - low + 1) << low;
        top = Math.max(top, high);
      }
    } else if (/^[ds]/.test(token)) {
      const register = take(token.length) + (token.length === 3 ? 8 : 0);
      if (token[0] === "d") rd = register;
      else rs2 = register;
    } else if (take(token.length) !== Number.parseInt(token, 2)) return null;
  }
  if (candidate.signed === true && imm >> top === 1) imm -= 2 ** (top + 1);
  return { rd, rs2, imm };
}
