// A64 integer instructions once more, slowly: one at a time from the encoding, in bigint, after the pseudocode of the Arm Architecture Reference Manual
// (DDI 0487; the section of each group stands with it). No decode cache, no TLB, no flags as numbers: shares nothing with the core but the encodings.

type Bits = bigint;

const mask = (width: number): bigint => (1n << BigInt(width)) - 1n;
const signed = (value: bigint, width: number): bigint => BigInt.asIntN(width, value);

/** What an instruction did to memory or could not do. */
export class Undefined extends Error {}

export interface Memory {
  read(address: bigint, bytes: number): bigint;
  write(address: bigint, bytes: number, value: bigint): void;
}

export class Reference {
  /** X0…X30. */
  readonly x: bigint[] = Array.from({ length: 31 }, () => 0n);
  sp = 0n;
  pc = 0n;
  n = false;
  z = false;
  c = false;
  v = false;
  readonly #memory: Memory;

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  get nzcv(): number {
    return (this.n ? 8 : 0) | (this.z ? 4 : 0) | (this.c ? 2 : 0) | (this.v ? 1 : 0);
  }
  set nzcv(value: number) {
    this.n = (value & 8) !== 0;
    this.z = (value & 4) !== 0;
    this.c = (value & 2) !== 0;
    this.v = (value & 1) !== 0;
  }

  #x(index: number, width = 64): Bits {
    return index === 31 ? 0n : this.x[index]! & mask(width);
  }
  #xsp(index: number, width = 64): Bits {
    return (index === 31 ? this.sp : this.x[index]!) & mask(width);
  }
  #set(index: number, value: bigint, width = 64): void {
    if (index !== 31) this.x[index] = value & mask(width);
  }
  #setSp(index: number, value: bigint, width = 64): void {
    if (index === 31) this.sp = value & mask(width);
    else this.x[index] = value & mask(width);
  }

  /** Executes the instruction `code` at pc. Throws Undefined. */
  step(code: number): void {
    const at = (high: number, low: number): number => Math.floor((code >>> 0) / 2 ** low) % 2 ** (high - low + 1);
    const next = this.pc + 4n;
    const op0 = at(28, 25);
    let to: bigint | null = null;
    if ((op0 & 0b1110) === 0b1000) this.#immediate(at);
    else if ((op0 & 0b1110) === 0b1010) to = this.#branch(code >>> 0, at);
    else if ((op0 & 0b0111) === 0b0101) this.#register(at);
    else if ((op0 & 0b0101) === 0b0100) this.#loadStore(at);
    else throw new Undefined();
    this.pc = to ?? next;
  }

  // --- C6.2: AddWithCarry, ConditionHolds ---

  #addWithCarry(
    a: Bits,
    b: Bits,
    carry: boolean,
    width: number,
  ): { result: Bits; n: boolean; z: boolean; c: boolean; v: boolean } {
    const unsigned = a + b + (carry ? 1n : 0n);
    const sum = signed(a, width) + signed(b, width) + (carry ? 1n : 0n);
    const result = unsigned & mask(width);
    return {
      result,
      n: result >> BigInt(width - 1) === 1n,
      z: result === 0n,
      c: result !== unsigned,
      v: signed(result, width) !== sum,
    };
  }

  #flags(of: { n: boolean; z: boolean; c: boolean; v: boolean }): void {
    this.n = of.n;
    this.z = of.z;
    this.c = of.c;
    this.v = of.v;
  }

  #holds(condition: number): boolean {
    const base = [
      this.z,
      this.c,
      this.n,
      this.v,
      this.c && !this.z,
      this.n === this.v,
      this.n === this.v && !this.z,
      true,
    ][condition >> 1]!;
    return (condition & 1) === 1 && condition !== 15 ? !base : base;
  }

  // --- C4.1.92 data processing, immediate ---

  #immediate(at: (high: number, low: number) => number): void {
    const width = at(31, 31) === 1 ? 64 : 32;
    const d = at(4, 0);
    const n = at(9, 5);
    switch (at(25, 23)) {
      case 0:
      case 1: {
        const value = signed((BigInt(at(23, 5)) << 2n) | BigInt(at(30, 29)), 21);
        if (at(31, 31) === 1) this.#set(d, (this.pc & ~0xfffn) + (value << 12n));
        else this.#set(d, this.pc + value);
        return;
      }
      case 2: {
        const value = BigInt(at(21, 10)) << (at(22, 22) === 1 ? 12n : 0n);
        const subtract = at(30, 30) === 1;
        const it = this.#addWithCarry(this.#xsp(n, width), subtract ? ~value & mask(width) : value, subtract, width);
        if (at(29, 29) === 1) {
          this.#flags(it);
          this.#set(d, it.result);
        } else this.#setSp(d, it.result);
        return;
      }
      case 4: {
        if (width === 32 && at(22, 22) === 1) throw new Undefined();
        const value = decodeBitMask(at(22, 22), at(15, 10), at(21, 16), width);
        const operand = this.#x(n, width);
        const result = [operand & value, operand | value, operand ^ value, operand & value][at(30, 29)]!;
        if (at(30, 29) === 3) {
          this.#flags({ n: result >> BigInt(width - 1) === 1n, z: result === 0n, c: false, v: false });
          this.#set(d, result);
        } else this.#setSp(d, result);
        return;
      }
      case 5: {
        const position = BigInt(at(22, 21) * 16);
        if (position >= BigInt(width)) throw new Undefined();
        const value = BigInt(at(20, 5)) << position;
        const opc = at(30, 29);
        if (opc === 1) throw new Undefined();
        if (opc === 0) this.#set(d, ~value, width);
        else if (opc === 2) this.#set(d, value, width);
        else this.#set(d, (this.#x(d) & ~(0xffffn << position)) | value, width);
        return;
      }
      case 6:
        this.#bitfield(at, width);
        return;
      case 7: {
        const amount = BigInt(at(15, 10));
        if (at(30, 29) !== 0 || at(21, 21) !== 0 || at(22, 22) !== at(31, 31) || amount >= BigInt(width))
          throw new Undefined();
        this.#set(d, ((this.#x(n, width) << BigInt(width)) | this.#x(at(20, 16), width)) >> amount, width);
        return;
      }
    }
    throw new Undefined();
  }

  /** SBFM, BFM, UBFM bit by bit: bit i of the result as the manual's figures have it. */
  #bitfield(at: (high: number, low: number) => number, width: number): void {
    const r = at(21, 16);
    const s = at(15, 10);
    const opc = at(30, 29);
    if (at(22, 22) !== at(31, 31) || r >= width || s >= width || opc === 3) throw new Undefined();
    const source = this.#x(at(9, 5), width);
    const bit = (of: bigint, i: number): bigint => (of >> BigInt(i)) & 1n;
    const before = this.#x(at(4, 0), width);
    const length = s >= r ? s - r + 1 : s + 1;
    const bottom = s >= r ? 0 : width - r;
    let result = 0n;
    for (let i = 0; i < width; i++) {
      let value: bigint;
      if (i >= bottom && i < bottom + length) value = bit(source, s >= r ? i + r : i - bottom);
      else if (opc === 1) value = bit(before, i);
      else value = opc === 0 && i >= bottom + length ? bit(source, s) : 0n;
      result |= value << BigInt(i);
    }
    this.#set(at(4, 0), result);
  }

  // --- C4.1.94 data processing, register ---

  #register(at: (high: number, low: number) => number): void {
    const width = at(31, 31) === 1 ? 64 : 32;
    const [d, n, m] = [at(4, 0), at(9, 5), at(20, 16)];
    if (at(28, 28) === 0 && at(24, 24) === 0) {
      if (at(15, 10) >= width) throw new Undefined();
      let operand = this.#shift(this.#x(m, width), at(23, 22), at(15, 10), width);
      if (at(21, 21) === 1) operand = ~operand & mask(width);
      const a = this.#x(n, width);
      const opc = at(30, 29);
      const result = [a & operand, a | operand, a ^ operand, a & operand][opc]!;
      if (opc === 3) this.#flags({ n: result >> BigInt(width - 1) === 1n, z: result === 0n, c: false, v: false });
      this.#set(d, result);
    } else if (at(28, 28) === 0) {
      const extended = at(21, 21) === 1;
      let operand: bigint;
      if (extended) {
        if (at(23, 22) !== 0 || at(12, 10) > 4) throw new Undefined();
        operand = this.#extend(this.#x(m), at(15, 13), at(12, 10), width);
      } else {
        if (at(23, 22) === 3 || at(15, 10) >= width) throw new Undefined();
        operand = this.#shift(this.#x(m, width), at(23, 22), at(15, 10), width);
      }
      const subtract = at(30, 30) === 1;
      const a = extended ? this.#xsp(n, width) : this.#x(n, width);
      const it = this.#addWithCarry(a, subtract ? ~operand & mask(width) : operand, subtract, width);
      if (at(29, 29) === 1) this.#flags(it);
      if (extended && at(29, 29) === 0) this.#setSp(d, it.result);
      else this.#set(d, it.result);
    } else if (at(24, 24) === 1) this.#threeSources(at, width);
    else {
      switch (at(23, 21)) {
        case 0: {
          if (at(15, 10) !== 0) throw new Undefined();
          const b = this.#x(m, width);
          const it = this.#addWithCarry(this.#x(n, width), at(30, 30) === 1 ? ~b & mask(width) : b, this.c, width);
          if (at(29, 29) === 1) this.#flags(it);
          this.#set(d, it.result);
          return;
        }
        case 2: {
          if (at(29, 29) === 0 || at(10, 10) !== 0 || at(4, 4) !== 0) throw new Undefined();
          const b = at(11, 11) === 1 ? BigInt(m) : this.#x(m, width);
          const subtract = at(30, 30) === 1;
          if (!this.#holds(at(15, 12))) this.nzcv = at(3, 0);
          else this.#flags(this.#addWithCarry(this.#x(n, width), subtract ? ~b & mask(width) : b, subtract, width));
          return;
        }
        case 4: {
          if (at(29, 29) === 1 || at(11, 11) === 1) throw new Undefined();
          let other = this.#x(m, width);
          if (at(30, 30) === 1) other = ~other & mask(width);
          if (at(10, 10) === 1) other += 1n;
          this.#set(d, this.#holds(at(15, 12)) ? this.#x(n, width) : other, width);
          return;
        }
        case 6:
          if (at(29, 29) === 1) throw new Undefined();
          if (at(30, 30) === 1) this.#oneSource(at, width);
          else this.#twoSources(at, width);
          return;
      }
      throw new Undefined();
    }
  }

  #shift(value: Bits, type: number, amount: number, width: number): Bits {
    const by = BigInt(amount);
    switch (type) {
      case 0:
        return (value << by) & mask(width);
      case 1:
        return value >> by;
      case 2:
        return (signed(value, width) >> by) & mask(width);
      default:
        return ((value >> by) | (value << BigInt(width - amount))) & mask(width);
    }
  }

  #extend(value: Bits, option: number, shift: number, width: number): Bits {
    const length = 8 << (option & 3);
    const part = option >= 4 ? signed(value & mask(length), length) : value & mask(length);
    return (part << BigInt(shift)) & mask(width);
  }

  #threeSources(at: (high: number, low: number) => number, width: number): void {
    const [d, n, m, a] = [at(4, 0), at(9, 5), at(20, 16), at(14, 10)];
    if (at(30, 29) !== 0) throw new Undefined();
    const subtract = at(15, 15) === 1;
    const operation = at(23, 21);
    if (operation !== 0 && width === 32) throw new Undefined();
    let product: bigint;
    switch (operation) {
      case 0:
        product = this.#x(n) * this.#x(m);
        break;
      case 1:
        product = signed(this.#x(n, 32), 32) * signed(this.#x(m, 32), 32);
        break;
      case 5:
        product = this.#x(n, 32) * this.#x(m, 32);
        break;
      case 2:
      case 6:
        if (subtract) throw new Undefined();
        product = operation === 6 ? this.#x(n) * this.#x(m) : signed(this.#x(n), 64) * signed(this.#x(m), 64);
        this.#set(d, product >> 64n);
        return;
      default:
        throw new Undefined();
    }
    this.#set(d, subtract ? this.#x(a) - product : this.#x(a) + product, width);
  }

  #twoSources(at: (high: number, low: number) => number, width: number): void {
    const a = this.#x(at(9, 5), width);
    const b = this.#x(at(20, 16), width);
    const d = at(4, 0);
    const amount = Number(b % BigInt(width));
    switch (at(15, 10)) {
      case 2:
        this.#set(d, b === 0n ? 0n : a / b);
        return;
      case 3:
        this.#set(d, b === 0n ? 0n : signed(a, width) / signed(b, width), width);
        return;
      case 8:
      case 9:
      case 10:
      case 11:
        this.#set(d, this.#shift(a, at(11, 10), amount, width));
        return;
    }
    throw new Undefined();
  }

  #oneSource(at: (high: number, low: number) => number, width: number): void {
    if (at(20, 16) !== 0) throw new Undefined();
    const bits = this.#x(at(9, 5), width).toString(2).padStart(width, "0");
    const d = at(4, 0);
    const groups = (size: number): string[] => bits.match(new RegExp(`.{${size}}`, "g"))!;
    const swapped = (size: number): bigint =>
      BigInt(
        `0b${groups(size)
          .map((part) => part.match(/.{8}/g)!.reverse().join(""))
          .join("")}`,
      );
    switch (at(15, 10)) {
      case 0:
        this.#set(d, BigInt(`0b${[...bits].reverse().join("")}`));
        return;
      case 1:
        this.#set(d, swapped(16));
        return;
      case 2:
        this.#set(d, swapped(32));
        return;
      case 3:
        if (width === 32) throw new Undefined();
        this.#set(d, swapped(64));
        return;
      case 4:
        this.#set(d, BigInt(bits.match(/^0*/)![0].length));
        return;
      case 5:
        this.#set(d, BigInt(bits.match(/^(0+|1+)/)![0].length - 1));
        return;
    }
    throw new Undefined();
  }

  // --- C4.1.93 loads and stores ---

  #loadStore(at: (high: number, low: number) => number): void {
    if (at(26, 26) === 1) throw new Undefined();
    switch (at(29, 28)) {
      case 0: {
        // LDAR, STLR
        if (at(24, 24) === 1 || at(23, 23) !== 1 || at(21, 21) !== 0) throw new Undefined();
        this.#transfer(at(22, 22) === 1 ? 1 : 0, at(31, 30), at(4, 0), this.#xsp(at(9, 5)));
        return;
      }
      case 1: {
        const opc = at(31, 30);
        if (at(24, 24) === 1) throw new Undefined();
        if (opc === 3) return;
        this.#transfer(opc === 2 ? 2 : 1, opc === 1 ? 3 : 2, at(4, 0), this.pc + signed(BigInt(at(23, 5)), 19) * 4n);
        return;
      }
      case 2:
        this.#pair(at);
        return;
    }
    const [size, opc, t, n] = [at(31, 30), at(23, 22), at(4, 0), at(9, 5)];
    const none =
      (opc === 3 && size >= 2) ||
      (opc === 2 && size === 3 && !(at(24, 24) === 1 || at(21, 21) === 1 || at(11, 10) === 0));
    if (none) throw new Undefined();
    const base = this.#xsp(n);
    if (at(24, 24) === 1) {
      this.#transfer(opc, size, t, base + (BigInt(at(21, 10)) << BigInt(size)));
      return;
    }
    if (at(21, 21) === 1) {
      if (at(11, 10) !== 2 || at(14, 14) === 0) throw new Undefined();
      this.#transfer(
        opc,
        size,
        t,
        base + this.#extend(this.#x(at(20, 16)), at(15, 13), at(12, 12) === 1 ? size : 0, 64),
      );
      return;
    }
    const offset = signed(BigInt(at(20, 12)), 9);
    switch (at(11, 10)) {
      case 0:
      case 2:
        this.#transfer(opc, size, t, base + offset);
        return;
      case 1:
        this.#transfer(opc, size, t, base);
        break;
      case 3:
        this.#transfer(opc, size, t, base + offset);
    }
    this.#setSp(n, base + offset);
  }

  /** opc 0 store, 1 load, 2 signed load to 64 bits, 3 to 32; size log2 of bytes. */
  #transfer(opc: number, size: number, t: number, address: bigint): void {
    const where = address & mask(64);
    const bytes = 1 << size;
    if (opc === 0) {
      this.#memory.write(where, bytes, this.#x(t, bytes * 8));
      return;
    }
    if (opc === 2 && size === 3) return; // PRFM
    const value = this.#memory.read(where, bytes);
    if (opc === 1) this.#set(t, value);
    else this.#set(t, signed(value, bytes * 8), opc === 2 ? 64 : 32);
  }

  #pair(at: (high: number, low: number) => number): void {
    const [opc, mode, load, n] = [at(31, 30), at(24, 23), at(22, 22) === 1, at(9, 5)];
    if (opc === 3 || (opc === 1 && (!load || mode === 0))) throw new Undefined();
    const size = opc === 2 ? 3 : 2;
    const offset = signed(BigInt(at(21, 15)), 7) << BigInt(size);
    const base = this.#xsp(n);
    const address = mode === 1 ? base : base + offset;
    const step = 1n << BigInt(size);
    const kind = load ? (opc === 1 ? 2 : 1) : 0;
    this.#transfer(kind, size, at(4, 0), address);
    this.#transfer(kind, size, at(14, 10), address + step);
    if (mode === 1 || mode === 3) this.#setSp(n, base + offset);
  }

  // --- C4.1.93 branches ---

  #branch(code: number, at: (high: number, low: number) => number): bigint | null {
    const relative = (high: number, low: number): bigint =>
      this.pc + signed(BigInt(at(high, low)), high - low + 1) * 4n;
    if (at(30, 26) === 0b00101) {
      if (at(31, 31) === 1) this.x[30] = this.pc + 4n;
      return relative(25, 0);
    }
    if (at(30, 25) === 0b011010) {
      const zero = this.#x(at(4, 0), at(31, 31) === 1 ? 64 : 32) === 0n;
      return zero === (at(24, 24) === 0) ? relative(23, 5) : null;
    }
    if (at(30, 25) === 0b011011) {
      const bit = (this.#x(at(4, 0)) >> BigInt(at(31, 31) * 32 + at(23, 19))) & 1n;
      return bit === BigInt(at(24, 24)) ? relative(18, 5) : null;
    }
    if (at(31, 24) === 0b01010100 && at(4, 4) === 0) return this.#holds(at(3, 0)) ? relative(23, 5) : null;
    if (at(31, 25) === 0b1101011 && at(20, 10) === 0b11111000000 && at(4, 0) === 0) {
      const to = this.#x(at(9, 5));
      const opc = at(24, 21);
      if (opc > 2) throw new Undefined();
      if (opc === 1) this.x[30] = this.pc + 4n;
      return to;
    }
    if (code === 0xd503201f) return null;
    throw new Undefined();
  }
}

/** DecodeBitMasks(), the immediate's half, by writing the element out bit for bit. Throws Undefined for reserved ones. */
export function decodeBitMask(n: number, imms: number, immr: number, width: number): bigint {
  const length = Math.floor(Math.log2((n << 6) | (~imms & 0x3f)));
  if (length < 1) throw new Undefined();
  const size = 1 << length;
  const s = imms % size;
  const r = immr % size;
  if (s === size - 1) throw new Undefined();
  const element = Array.from({ length: size }, (_, i) => i <= s);
  let result = 0n;
  for (let i = 0; i < width; i++) if (element[((i % size) + r) % size] === true) result |= 1n << BigInt(i);
  return result;
}
