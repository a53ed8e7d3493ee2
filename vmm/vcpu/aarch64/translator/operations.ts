// What the integer operations of execute.ts compute, as WebAssembly: each pushes the value of its destination. 32-bit forms compute in 64 bits where the low half does
// not depend on the upper one, and clear that.
import { T, U } from "../../engine/translator/region-writer.ts";
import type { Op } from "../../engine/translator/wasm-code.ts";
import * as o from "../assembly/opcodes.ts";
import { type Emitting, low } from "./emitting.ts";

type Emit = (x: Emitting) => void;

const binary =
  (op: Op, second: "m" | "constant" = "m"): Emit =>
  (x) => {
    x.n();
    x[second]();
    x.code.op(op);
  };
const low32 =
  (emit: Emit): Emit =>
  (x) => {
    emit(x);
    low(x.code);
  };
/** n op ~m. */
const inverted =
  (op: Op, operand: Emit = (x) => x.m()): Emit =>
  (x) => {
    x.n();
    operand(x);
    x.code.i64(-1);
    x.code.op("i64.xor", op);
  };
const ofOperand =
  (op: Op, operand: Emit): Emit =>
  (x) => {
    x.n();
    operand(x);
    x.code.op(op);
  };

const SHIFTS: readonly Op[] = ["i64.shl", "i64.shr_u", "i64.shr_s", "i64.rotr"];
const WORD_SHIFTS: readonly Op[] = ["i32.shl", "i32.shr_u", "i32.shr_s", "i32.rotr"];

/** m shifted as the immediate says. */
export const shifted: Emit = (x) => {
  x.m();
  x.code.i64(x.how & 63);
  x.code.op(SHIFTS[x.how >> 6]!);
};
/** The same of 32 bits, zero-extended. */
export const shiftedWord: Emit = (x) => {
  x.m();
  x.code.op("i32.wrap_i64");
  x.code.i32(x.how & 31);
  x.code.op(WORD_SHIFTS[x.how >> 6]!, "i64.extend_i32_u");
};
/** m extended as the immediate says. */
export const extended: Emit = (x) => {
  const above = x.how & 0xff;
  x.m();
  if (above > 0) {
    x.code.i64(above);
    x.code.op("i64.shl");
    x.code.i64(above);
    x.code.op(x.how & 0x100 ? "i64.shr_s" : "i64.shr_u");
  }
  if (x.how >> 16 === 0) return;
  x.code.i64(x.how >> 16);
  x.code.op("i64.shl");
};

/** A shift by a register; WebAssembly takes the amount modulo the width, as A64 does. */
const wordShift =
  (op: Op): Emit =>
  (x) => {
    x.n();
    x.code.op("i32.wrap_i64");
    x.m();
    x.code.op("i32.wrap_i64", op, "i64.extend_i32_u");
  };

const product =
  (op: "i64.add" | "i64.sub"): Emit =>
  (x) => {
    x.third();
    x.n();
    x.m();
    x.code.op("i64.mul", op);
  };
const longProduct =
  (op: "i64.add" | "i64.sub", signed: boolean): Emit =>
  (x) => {
    const part = (push: () => void): void => {
      push();
      if (signed) x.code.op("i64.extend32_s");
      else low(x.code);
    };
    x.third();
    part(() => x.n());
    part(() => x.m());
    x.code.op("i64.mul", op);
  };

/** Upper half of the unsigned product, from halves of 32 bits. */
const multiplyHigh: Emit = (x) => {
  const { code } = x;
  const high = (): void => {
    code.i64(32);
    code.op("i64.shr_u");
  };
  x.n();
  high();
  x.m();
  low(code);
  code.op("i64.mul");
  x.n();
  low(code);
  x.m();
  low(code);
  code.op("i64.mul");
  high();
  code.op("i64.add");
  code.set(T); // middle
  code.get(T);
  low(code);
  x.n();
  low(code);
  x.m();
  high();
  code.op("i64.mul", "i64.add");
  high();
  x.n();
  high();
  x.m();
  high();
  code.op("i64.mul", "i64.add");
  code.get(T);
  high();
  code.op("i64.add");
};
/** Less b where a is negative, and a where b is. */
const multiplyHighSigned: Emit = (x) => {
  const { code } = x;
  multiplyHigh(x);
  for (const [sign, value] of [
    ["n", "m"],
    ["m", "n"],
  ] as const) {
    x[sign]();
    code.i64(63);
    code.op("i64.shr_s");
    x[value]();
    code.op("i64.and", "i64.sub");
  }
};

/** Division: its corner cases (by zero; by −1 where signed) are the interpreter's. */
const division =
  (op: Op, signed: boolean): Emit =>
  (x) => {
    x.m();
    if (signed) {
      x.code.i64(1);
      x.code.op("i64.add");
      x.code.i64(2);
      x.code.op("i64.lt_u");
    } else x.code.op("i64.eqz");
    x.leaveIf();
    x.n();
    x.m();
    x.code.op(op);
  };
const wordDivision =
  (op: Op, signed: boolean): Emit =>
  (x) => {
    x.m();
    x.code.op("i32.wrap_i64");
    if (signed) {
      x.code.i32(1);
      x.code.op("i32.add");
      x.code.i32(2);
      x.code.op("i32.lt_u");
    } else x.code.op("i32.eqz");
    x.leaveIf();
    wordShift(op)(x);
  };

/** Swaps neighbours of `bits` bits in the value on the stack; `mask` has the lower ones. */
const swap = (x: Emitting, bits: number, mask: bigint): void => {
  const { code } = x;
  code.tee(U);
  code.i64Big(mask);
  code.op("i64.and");
  code.i64(bits);
  code.op("i64.shl");
  code.get(U);
  code.i64(bits);
  code.op("i64.shr_u");
  code.i64Big(mask);
  code.op("i64.and", "i64.or");
};
const BYTES = 0x00ff00ff00ff00ffn;
const HALVES = 0x0000ffff0000ffffn;
const swapWords = (x: Emitting): void => {
  swap(x, 8, BYTES);
  swap(x, 16, HALVES);
};
const reverseBits: Emit = (x) => {
  x.n();
  swap(x, 1, 0x5555555555555555n);
  swap(x, 2, 0x3333333333333333n);
  swap(x, 4, 0x0f0f0f0f0f0f0f0fn);
  swapWords(x);
  x.code.i64(32);
  x.code.op("i64.rotr");
};
/** The value in T: bits below the top one that equal it. */
const countSigns = (x: Emitting): void => {
  const { code } = x;
  code.set(T);
  code.get(T);
  code.get(T);
  code.i64(63);
  code.op("i64.shr_s", "i64.xor");
  code.i64(1);
  code.op("i64.shl");
  code.i64(1);
  code.op("i64.or", "i64.clz");
};

/** n where the condition holds, else what `other` pushes. */
const select =
  (other: Emit): Emit =>
  (x) => {
    x.n();
    other(x);
    x.condition(x.how & 0xffff);
    x.code.op("select");
  };
const sum =
  (subtracts: boolean): Emit =>
  (x) => {
    x.n();
    x.m();
    if (subtracts) {
      x.code.i64(-1);
      x.code.op("i64.xor");
    }
    x.code.op("i64.add");
    x.carry();
    x.code.op("i64.add");
  };

/** The field at bit 0 that the immediate masks, `up` or down by m. */
const insert =
  (up: boolean): Emit =>
  (x) => {
    const { code } = x;
    x.d();
    x.constant();
    if (up) {
      code.i64(x.shift);
      code.op("i64.shl");
    }
    code.i64(-1);
    code.op("i64.xor", "i64.and");
    x.n();
    if (up) {
      x.constant();
      code.op("i64.and");
      code.i64(x.shift);
      code.op("i64.shl", "i64.or");
    } else {
      code.i64(x.shift);
      code.op("i64.shr_u");
      x.constant();
      code.op("i64.and", "i64.or");
    }
  };

const both = (operation: number, emit: Emit): [number, Emit][] => [
  [operation, emit],
  [operation + 1, low32(emit)],
];

/** By operation; the value of Xd or Wd. */
export const OPERATIONS = new Map<number, Emit>([
  [o.MOVI, (x) => x.constant()],
  [o.MOV, (x) => x.m()],
  [o.MOV_W, low32((x) => x.m())],
  ...both(o.MOVK, (x) => {
    x.n();
    x.code.i64Big(BigInt.asIntN(64, ~(0xffffn << BigInt(x.shift))));
    x.code.op("i64.and");
    x.constant();
    x.code.op("i64.or");
  }),
  ...both(o.ADDI, binary("i64.add", "constant")),
  [o.ANDI, binary("i64.and", "constant")],
  ...both(o.ORRI, binary("i64.or", "constant")),
  ...both(o.EORI, binary("i64.xor", "constant")),
  [
    o.UBFX,
    (x) => {
      x.n();
      x.code.i64(x.shift);
      x.code.op("i64.shr_u");
      x.constant();
      x.code.op("i64.and");
    },
  ],
  [
    o.UBFIZ,
    (x) => {
      x.n();
      x.constant();
      x.code.op("i64.and");
      x.code.i64(x.shift);
      x.code.op("i64.shl");
    },
  ],
  [
    o.SBF,
    (x) => {
      x.n();
      x.code.i64(x.shift);
      x.code.op("i64.shl");
      x.constant();
      x.code.op("i64.shr_s");
    },
  ],
  [
    o.SBF_W,
    (x) => {
      x.n();
      x.code.op("i32.wrap_i64");
      x.code.i32(x.shift);
      x.code.op("i32.shl");
      x.code.i32(x.how);
      x.code.op("i32.shr_s", "i64.extend_i32_u");
    },
  ],
  ...both(o.BFI, insert(true)),
  ...both(o.BFXIL, insert(false)),
  [
    o.EXTR,
    (x) => {
      x.m();
      if (x.how === 0) return;
      x.code.i64(x.how);
      x.code.op("i64.shr_u");
      x.n();
      x.code.i64(64 - x.how);
      x.code.op("i64.shl", "i64.or");
    },
  ],
  [
    o.EXTR_W,
    low32((x) => {
      x.m();
      low(x.code);
      x.n();
      x.code.i64(32);
      x.code.op("i64.shl", "i64.or");
      x.code.i64(x.how);
      x.code.op("i64.shr_u");
    }),
  ],
  ...both(o.ADD, binary("i64.add")),
  ...both(o.SUB, binary("i64.sub")),
  ...both(o.AND, binary("i64.and")),
  ...both(o.ORR, binary("i64.or")),
  ...both(o.EOR, binary("i64.xor")),
  ...both(o.BIC, inverted("i64.and")),
  ...(
    [
      [o.ADD_SHIFT, "i64.add"],
      [o.SUB_SHIFT, "i64.sub"],
      [o.AND_SHIFT, "i64.and"],
      [o.ORR_SHIFT, "i64.or"],
      [o.EOR_SHIFT, "i64.xor"],
    ] as const
  ).flatMap(([operation, op]): [number, Emit][] => [
    [operation, ofOperand(op, shifted)],
    [operation + 1, low32(ofOperand(op, shiftedWord))],
  ]),
  ...(
    [
      [o.BIC_SHIFT, "i64.and"],
      [o.ORN_SHIFT, "i64.or"],
      [o.EON_SHIFT, "i64.xor"],
    ] as const
  ).flatMap(([operation, op]): [number, Emit][] => [
    [operation, inverted(op, shifted)],
    [operation + 1, low32(inverted(op, shiftedWord))],
  ]),
  ...both(o.ADD_EXTEND, ofOperand("i64.add", extended)),
  ...both(o.SUB_EXTEND, ofOperand("i64.sub", extended)),
  ...both(o.ADC, sum(false)),
  ...both(o.SBC, sum(true)),
  ...both(
    o.CSEL,
    select((x) => x.m()),
  ),
  ...both(
    o.CSINC,
    select((x) => {
      x.m();
      x.code.i64(1);
      x.code.op("i64.add");
    }),
  ),
  ...both(
    o.CSINV,
    select((x) => {
      x.m();
      x.code.i64(-1);
      x.code.op("i64.xor");
    }),
  ),
  ...both(
    o.CSNEG,
    select((x) => {
      x.code.i64(0);
      x.m();
      x.code.op("i64.sub");
    }),
  ),
  ...both(o.MADD, product("i64.add")),
  ...both(o.MSUB, product("i64.sub")),
  [o.SMADDL, longProduct("i64.add", true)],
  [o.UMADDL, longProduct("i64.add", false)],
  [o.SMSUBL, longProduct("i64.sub", true)],
  [o.UMSUBL, longProduct("i64.sub", false)],
  [o.SMULH, multiplyHighSigned],
  [o.UMULH, multiplyHigh],
  [o.UDIV, division("i64.div_u", false)],
  [o.UDIV_W, wordDivision("i32.div_u", false)],
  [o.SDIV, division("i64.div_s", true)],
  [o.SDIV_W, wordDivision("i32.div_s", true)],
  [o.LSLV, binary("i64.shl")],
  [o.LSLV_W, wordShift("i32.shl")],
  [o.LSRV, binary("i64.shr_u")],
  [o.LSRV_W, wordShift("i32.shr_u")],
  [o.ASRV, binary("i64.shr_s")],
  [o.ASRV_W, wordShift("i32.shr_s")],
  [o.RORV, binary("i64.rotr")],
  [o.RORV_W, wordShift("i32.rotr")],
  [
    o.CLZ,
    (x) => {
      x.n();
      x.code.op("i64.clz");
    },
  ],
  [
    o.CLZ_W,
    (x) => {
      x.n();
      x.code.op("i32.wrap_i64", "i32.clz", "i64.extend_i32_u");
    },
  ],
  [
    o.CLS,
    (x) => {
      x.n();
      countSigns(x);
    },
  ],
  [
    o.CLS_W,
    (x) => {
      x.n();
      x.code.op("i64.extend32_s");
      countSigns(x);
      x.code.i64(32);
      x.code.op("i64.sub");
    },
  ],
  [o.RBIT, reverseBits],
  [
    o.RBIT_W,
    (x) => {
      reverseBits(x);
      x.code.i64(32);
      x.code.op("i64.shr_u");
    },
  ],
  [
    o.REV,
    (x) => {
      x.n();
      swapWords(x);
      x.code.i64(32);
      x.code.op("i64.rotr");
    },
  ],
  [
    o.REV_W,
    (x) => {
      x.n();
      low(x.code);
      swapWords(x);
    },
  ],
  ...both(o.REV16, (x) => {
    x.n();
    swap(x, 8, BYTES);
  }),
  [
    o.REV32,
    (x) => {
      x.n();
      swapWords(x);
    },
  ],
]);
