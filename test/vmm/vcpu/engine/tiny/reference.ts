// The tiny instruction set once more, slowly: one instruction at a time from its encoding, in bigint, without a decode cache, a TLB or a translator. Knows
// no page tables, devices or interrupts: what programs that only compute, jump, load and store must end with.
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
const signed = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value);

export class Reference {
  readonly r: bigint[] = Array.from({ length: 16 }, () => 0n);
  pc: bigint;
  executed = 0;
  #a = 0n;
  #b = 0n;
  readonly #ram: DataView;
  readonly #base: bigint;

  constructor(ram: Uint8Array, base: bigint) {
    this.#ram = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
    this.#base = base;
    this.pc = base;
  }

  /** Executes until wfi, or `limit` instructions. */
  run(limit: number): void {
    while (this.executed < limit && this.step());
  }

  /** Executes an instruction; false behind wfi. */
  step(): boolean {
    const code = BigInt(this.#ram.getUint32(Number(this.pc - this.#base), true));
    const [d, n, m] = [20n, 16n, 12n].map((at) => Number((code >> at) & 15n)) as [number, number, number];
    const narrow = signed(code & 0xfffn, 12);
    const wide = signed(code & 0xffffn, 16);
    let next = this.pc + 4n;
    this.executed++;
    switch (Number(code >> 24n)) {
      case 0x01:
        this.r[d] = u64(wide);
        break;
      case 0x02:
        this.r[d] = u64(this.r[n]! + this.r[m]! + narrow);
        break;
      case 0x03:
        this.#a = this.r[n]!;
        this.#b = this.r[m]!;
        break;
      case 0x04:
        next = this.pc + wide * 4n;
        break;
      case 0x05:
        if (this.#a === this.#b) next = this.pc + wide * 4n;
        break;
      case 0x06:
        if (signed(this.#a, 64) < signed(this.#b, 64)) next = this.pc + wide * 4n;
        break;
      case 0x07:
        this.r[15] = next;
        next = this.pc + wide * 4n;
        break;
      case 0x08:
        next = this.r[n]!;
        break;
      case 0x09:
        this.r[d] = this.#ram.getBigUint64(Number(this.r[n]! + narrow - this.#base), true);
        break;
      case 0x0a:
        this.#ram.setBigUint64(Number(this.r[n]! + narrow - this.#base), this.r[d]!, true);
        break;
      case 0x0b: {
        const x = this.r[n]! ^ 0x9e3779b97f4a7c15n;
        this.r[d] = u64(u64((x << 23n) | (x >> 41n)) * (this.r[m]! | 1n));
        break;
      }
      case 0x0c:
        if ((code & 0xfffn) !== 0n) throw new Error(`0x${code.toString(16)} is not a program's`);
        this.pc = next;
        return false;
      default:
        throw new Error(`0x${code.toString(16)} at 0x${this.pc.toString(16)} is no instruction`);
    }
    this.pc = next;
    return true;
  }
}
