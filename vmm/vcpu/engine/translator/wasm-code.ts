// Writes WebAssembly: instructions of one function body, and the module around it (WebAssembly core specification §5, binary format).

export const I32 = 0x7f;
export const I64 = 0x7e;
export const F64 = 0x7c;
export const V128 = 0x7b;
const EMPTY = 0x40;

/** Opcodes used by the translator, by their text names. */
export const OP = {
  unreachable: 0x00,
  "i32.eqz": 0x45,
  "i32.eq": 0x46,
  "i32.ne": 0x47,
  "i32.lt_u": 0x49,
  "i32.ge_u": 0x4f,
  "i64.eqz": 0x50,
  "i64.eq": 0x51,
  "i64.ne": 0x52,
  "i64.lt_s": 0x53,
  "i64.lt_u": 0x54,
  "i64.gt_s": 0x55,
  "i64.gt_u": 0x56,
  "i64.le_s": 0x57,
  "i64.le_u": 0x58,
  "i64.ge_s": 0x59,
  "i64.ge_u": 0x5a,
  "f32.eq": 0x5b,
  "f32.lt": 0x5d,
  "f32.gt": 0x5e,
  "f32.le": 0x5f,
  "f64.eq": 0x61,
  "f64.ne": 0x62,
  "f64.lt": 0x63,
  "f64.gt": 0x64,
  "f64.le": 0x65,
  "f64.ge": 0x66,
  "i32.clz": 0x67,
  "i32.ctz": 0x68,
  "i32.popcnt": 0x69,
  "i32.add": 0x6a,
  "i32.sub": 0x6b,
  "i32.mul": 0x6c,
  "i32.div_s": 0x6d,
  "i32.div_u": 0x6e,
  "i32.rem_s": 0x6f,
  "i32.rem_u": 0x70,
  "i32.and": 0x71,
  "i32.or": 0x72,
  "i32.xor": 0x73,
  "i32.shl": 0x74,
  "i32.shr_s": 0x75,
  "i32.shr_u": 0x76,
  "i32.rotl": 0x77,
  "i32.rotr": 0x78,
  "i64.clz": 0x79,
  "i64.ctz": 0x7a,
  "i64.popcnt": 0x7b,
  "i64.add": 0x7c,
  "i64.sub": 0x7d,
  "i64.mul": 0x7e,
  "i64.div_s": 0x7f,
  "i64.div_u": 0x80,
  "i64.rem_s": 0x81,
  "i64.rem_u": 0x82,
  "i64.and": 0x83,
  "i64.or": 0x84,
  "i64.xor": 0x85,
  "i64.shl": 0x86,
  "i64.shr_s": 0x87,
  "i64.shr_u": 0x88,
  "i64.rotl": 0x89,
  "i64.rotr": 0x8a,
  "f32.sqrt": 0x91,
  "f32.add": 0x92,
  "f32.sub": 0x93,
  "f32.mul": 0x94,
  "f32.div": 0x95,
  "f64.abs": 0x99,
  "f64.neg": 0x9a,
  "f64.trunc": 0x9d,
  "f64.nearest": 0x9e,
  "f64.sqrt": 0x9f,
  "f64.add": 0xa0,
  "f64.sub": 0xa1,
  "f64.mul": 0xa2,
  "f64.div": 0xa3,
  drop: 0x1a,
  select: 0x1b,
  "i32.wrap_i64": 0xa7,
  "i64.trunc_f64_s": 0xb0,
  "f64.convert_i64_s": 0xb9,
  "f64.promote_f32": 0xbb,
  "i32.reinterpret_f32": 0xbc,
  "i64.reinterpret_f64": 0xbd,
  "f64.reinterpret_i64": 0xbf,
  "i64.extend_i32_s": 0xac,
  "i64.extend_i32_u": 0xad,
  "i64.extend8_s": 0xc2,
  "i64.extend16_s": 0xc3,
  "i64.extend32_s": 0xc4,
} as const;
export type Op = keyof typeof OP;

/** Loads and stores: opcode and the greatest alignment hint allowed is not claimed (0: none). */
export const MEMORY = {
  "i32.load": 0x28,
  "i64.load": 0x29,
  "f32.load": 0x2a,
  "f64.load": 0x2b,
  "i32.load16_u": 0x2f,
  "i64.load8_s": 0x30,
  "i64.load8_u": 0x31,
  "i64.load16_s": 0x32,
  "i64.load16_u": 0x33,
  "i64.load32_s": 0x34,
  "i64.load32_u": 0x35,
  "i32.store": 0x36,
  "i64.store": 0x37,
  "i64.store8": 0x3c,
  "i64.store16": 0x3d,
  "i64.store32": 0x3e,
} as const;
export type MemoryOp = keyof typeof MEMORY;

/** A growing byte string with the format's integer encodings. Not state: made and dropped while a region is translated. */
export class Code {
  #bytes = new Uint8Array(4096);
  length = 0;
  /** Blocks, loops and ifs open at this point. */
  depth = 0;
  /** By depth, the number of the construct that is open there: each arm of an if has its own. */
  readonly #constructs = [0];
  #opened = 0;

  byte(value: number): void {
    if (this.length === this.#bytes.length) this.#grow(this.length + 1);
    this.#bytes[this.length++] = value;
  }

  #grow(length: number): void {
    const larger = new Uint8Array(length * 2);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  bytes(values: ArrayLike<number>): void {
    const end = this.length + values.length;
    if (end > this.#bytes.length) this.#grow(end);
    this.#bytes.set(values, this.length);
    this.length = end;
  }

  /** value < 2³². */
  unsigned(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.byte((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.byte(rest);
  }

  #signed32(value: number): void {
    let rest = value;
    while (rest < -0x40 || rest >= 0x40) {
      this.byte((rest & 0x7f) | 0x80);
      rest >>= 7;
    }
    this.byte(rest & 0x7f);
  }

  /** |value| < 2⁵³. */
  signed(value: number): void {
    if (value === (value | 0)) {
      this.#signed32(value);
      return;
    }
    let rest = value;
    for (;;) {
      const low = ((rest % 0x80) + 0x80) % 0x80;
      rest = (rest - low) / 0x80;
      if ((rest === 0 && low < 0x40) || (rest === -1 && low >= 0x40)) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }

  /** An i64 constant that no double holds. */
  signedBig(value: bigint): void {
    let rest = BigInt.asIntN(64, value);
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && low < 0x40) || (rest === -1n && low >= 0x40)) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }

  op(...names: Op[]): void {
    for (const name of names) this.byte(OP[name]);
  }

  memory(name: MemoryOp, offset: number): void {
    this.byte(MEMORY[name]);
    this.unsigned(0);
    this.unsigned(offset);
  }

  get(local: number): void {
    this.byte(0x20);
    this.unsigned(local);
  }
  set(local: number): void {
    this.byte(0x21);
    this.unsigned(local);
  }
  tee(local: number): void {
    this.byte(0x22);
    this.unsigned(local);
  }
  i32(value: number): void {
    this.byte(0x41);
    this.#signed32(value | 0);
  }
  i64(value: number): void {
    this.byte(0x42);
    this.signed(value);
  }
  i64Big(value: bigint): void {
    this.byte(0x42);
    this.signedBig(value);
  }

  f64(value: number): void {
    this.byte(0x44);
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value, true);
    this.bytes(new Uint8Array(view.buffer));
  }

  /** The innermost construct that is open here. */
  get construct(): number {
    return this.#constructs[this.depth]!;
  }

  /** Whether this point is within a construct that was the innermost one at `depth`. */
  isOpen(depth: number, construct: number): boolean {
    return depth <= this.depth && this.#constructs[depth] === construct;
  }

  #open(opcode: number): void {
    this.byte(opcode);
    this.byte(EMPTY);
    this.depth++;
    this.#constructs[this.depth] = ++this.#opened;
  }

  block(): void {
    this.#open(0x02);
  }
  loop(): void {
    this.#open(0x03);
  }
  if(): void {
    this.#open(0x04);
  }
  else(): void {
    this.byte(0x05);
    this.#constructs[this.depth] = ++this.#opened;
  }
  end(): void {
    this.byte(0x0b);
    this.depth--;
  }
  /** Branches to the construct that was opened when `depth` was `level` (0 the outermost). */
  br(level: number): void {
    this.byte(0x0c);
    this.unsigned(this.depth - 1 - level);
  }
  brIf(level: number): void {
    this.byte(0x0d);
    this.unsigned(this.depth - 1 - level);
  }
  /** br_table by relative depths. */
  brTable(depths: readonly number[], otherwise: number): void {
    this.byte(0x0e);
    this.unsigned(depths.length);
    for (const depth of depths) this.unsigned(depth);
    this.unsigned(otherwise);
  }
  call(functionIndex: number): void {
    this.byte(0x10);
    this.unsigned(functionIndex);
  }

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

/** A function that a module imports from "core". */
export interface FunctionImport {
  readonly name: string;
  readonly parameters: readonly number[];
  readonly results: readonly number[];
}

/**
 * A module of one exported function "f" that imports the memory env.memory and functions, which are numbered from 0. `locals` are the types of the
 * locals behind the parameters.
 */
export function moduleOf(
  imports: readonly FunctionImport[],
  parameters: readonly number[],
  results: readonly number[],
  locals: readonly number[],
  body: Code,
): Uint8Array<ArrayBuffer> {
  const out = new Code();
  out.bytes([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
  const section = (id: number, fill: (code: Code) => void): void => {
    const code = new Code();
    fill(code);
    out.byte(id);
    out.unsigned(code.length);
    out.bytes(code.view());
  };
  const name = (code: Code, text: string): void => {
    code.unsigned(text.length);
    for (const character of text) code.byte(character.charCodeAt(0));
  };
  section(1, (code) => {
    code.unsigned(imports.length + 1);
    for (const type of [...imports, { parameters, results }]) {
      code.byte(0x60);
      code.unsigned(type.parameters.length);
      code.bytes(type.parameters);
      code.unsigned(type.results.length);
      code.bytes(type.results);
    }
  });
  section(2, (code) => {
    code.unsigned(imports.length + 1);
    imports.forEach((it, type) => {
      name(code, "core");
      name(code, it.name);
      code.byte(0);
      code.unsigned(type);
    });
    name(code, "env");
    name(code, "memory");
    code.bytes([2, 0, 1]);
  });
  section(3, (code) => {
    code.byte(1);
    code.unsigned(imports.length);
  });
  section(7, (code) => {
    code.byte(1);
    name(code, "f");
    code.byte(0);
    code.unsigned(imports.length);
  });
  section(10, (code) => {
    const declared = new Code();
    declared.unsigned(locals.length);
    for (const type of locals) declared.bytes([1, type]);
    code.byte(1);
    code.unsigned(declared.length + body.length + 1);
    code.bytes(declared.view());
    code.bytes(body.view());
    code.byte(0x0b);
  });
  return out.view().slice() as Uint8Array<ArrayBuffer>;
}
