/** Random interrupt remapping tables (§9.9 to §9.11), near the valid, and interrupt requests that mostly find an entry. */
import type { InterruptRequest } from "../interrupt.ts";
import type { Maker } from "./world.ts";

export interface InterruptTable {
  readonly IRTA: bigint;
  readonly indices: readonly bigint[];
}

export function interruptTable(maker: Maker): InterruptTable {
  const { random, f } = maker;
  const size = BigInt(1 + random.below(10));
  const base = maker.allocate(16n << size);
  const indices = [0n, (1n << size) - 1n, random.bits(size), random.bits(size)];
  for (const index of indices) {
    const posted = f.PI && random.chance(20);
    const low =
      random.flag(90, 0n) |
      random.flag(15, 1n) |
      (posted ? (1n << 15n) | random.flag(30, 14n) : random.bits(6) << 2n) |
      (random.bits(8) << 16n) |
      (posted ? random.bits(26) << 38n : random.bits(8) << 40n);
    const high =
      random.bits(18) | (BigInt(random.pick([0, 0, 1, 1, 1, 2, 2, 3])) << 18n) | (posted ? random.bits(14) << 32n : 0n);
    const at = base + index * 16n;
    maker.put(at, low, high);
    maker.note(at, [0x1ff_ffffn | (1n << 33n) | (1n << 55n), (0xfn << 16n) | (1n << 20n) | (1n << 40n)], 2, 2);
  }
  return { IRTA: base | (size - 1n) | (f.EIM ? random.flag(50, 11n) : 0n), indices };
}

export function makeInterrupt(maker: Maker, { IRTA, indices }: InterruptTable): InterruptRequest {
  const { random } = maker;
  const index = random.chance(92) ? random.pick(indices) : random.bits(16);
  const subhandle = random.chance(40) ? (random.chance(70) ? random.bits(2) & index : random.bits(16)) : null;
  const handle = index - (subhandle !== null && subhandle <= index ? subhandle : 0n);
  let address = 0xfee0_0000n | ((handle & 0x7fffn) << 5n) | ((handle >> 15n) << 2n);
  if (random.chance(88)) address |= 1n << 4n;
  if (subhandle !== null) address |= 1n << 3n;
  let data = subhandle ?? random.bits(16);
  if (random.chance(8)) data |= random.bits(16) << 16n;
  // Mostly the source that the entry asks for.
  const sid = random.chance(60) ? sourceOf(maker, (IRTA & ~0xfffn) + index * 16n) : maker.place.sid(random);
  return { sid, address, data };
}

function sourceOf({ random, memory }: Maker, at: bigint): bigint {
  const high = memory.words.get(at + 8n) ?? 0n;
  if (((high >> 18n) & 3n) === 2n) return (((high >> 8n) & 0xffn) << 8n) | random.bits(8);
  return (high & 0xffffn) ^ (random.chance(30) ? random.bits(3) : 0n);
}
