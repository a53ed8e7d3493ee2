/**
 * What a unit makes of the descriptors of its invalidation queue (§6.5.2, §11.4.9): which it executes, which waits write their status, and where and by which
 * code it stops. What descriptors drop of the caches is `invalidation.ts`'s; those that wait for devices are left out, unless something is wrong with them.
 */
import { bit, bits, features, type Identification, zero } from "./capabilities.ts";
import type { Descriptor } from "./invalidation.ts";

/** Invalidation Queue Error Information (§11.4.9.9). */
export const IQEI = { TAIL: 1, FETCH: 2, TYPE: 3, RESERVED: 4, WIDTH: 5, MISALIGNED: 6 } as const;

export interface Queue {
  readonly identification: Identification;
  readonly scalable: boolean;
  /** DW=1: descriptors of 256 bits. */
  readonly wide: boolean;
  readonly bytes: bigint;
  readonly descriptors: readonly Descriptor[];
  /** IQT, from IQH = 0. */
  readonly tail: bigint;
}

export interface QueueOutcome {
  readonly head: bigint;
  /** Null: the queue did not stop. Empty: by any code. */
  readonly stopped: readonly number[] | null;
  /** Status data by address. */
  readonly written: ReadonlyMap<bigint, bigint>;
  readonly IWC: boolean;
}

/** Codes by which an invalid descriptor may stop the queue, an empty list for any; null: it is valid. */
export function invalid({ identification, scalable, wide }: Queue, descriptor: Descriptor): readonly number[] | null {
  const [q0 = 0n, q1 = 0n, ...rest] = descriptor;
  const type = Number((bits(q0, 11n, 9n) << 4n) | bits(q0, 3n, 0n));
  if (type === 0 || type > 9) return [IQEI.TYPE];
  // §6.5.2: not in a narrow queue, nor in legacy mode; by which code no source says.
  if ((type === 6 || type === 7 || type === 8) && (!wide || !scalable)) return [];
  const used = USED[type]!;
  const G = Number(bits(q0, 5n, 4n));
  const range = (type === 2 || type === 6) && G === 3;
  if ((q0 & ~(used[0] | TYPE_BITS)) !== 0n || (q1 & ~used[1]) !== 0n) return [IQEI.RESERVED];
  if (rest.some((value) => value !== 0n)) return [IQEI.RESERVED];
  if (type === 5 && bit(q0, 7n) && !bit(identification.ECAP, 42n)) return [IQEI.RESERVED];
  // Reserved granularities and ranges beyond MAMV: an error, by which code no source says.
  if (used[2] !== undefined && !used[2].includes(G)) return [];
  return range && bits(q1, 5n, 0n) > bits(identification.CAP, 53n, 48n) ? [] : null;
}

const TYPE_BITS = 0xe0fn;
const DOMAIN = 0xffffn << 16n;
const PASID = 0xf_ffffn << 32n;
const SOURCE = 0xffffn << 32n;
const PFSID = (0xfn << 12n) | (0xfffn << 52n);
const PAGE = ~0xfffn & ((1n << 64n) - 1n);
const RANGE = PAGE | 0x7fn;
/** Bits of either quadword that mean something, by type; which granularities there are. */
const USED: Readonly<Record<number, readonly [bigint, bigint, (readonly number[])?]>> = {
  1: [(3n << 4n) | DOMAIN | SOURCE | (3n << 48n), 0n, [1, 2, 3]],
  // The range means nothing but for pages, and is not reserved then.
  2: [(0xfn << 4n) | DOMAIN, RANGE, [1, 2, 3]],
  3: [PFSID | (0x1fn << 16n) | SOURCE, PAGE | 1n],
  4: [(1n << 4n) | (0x1fn << 27n) | SOURCE, 0n],
  5: [(0xfn << 4n) | (0xffff_ffffn << 32n), ~3n & ((1n << 64n) - 1n)],
  6: [(3n << 4n) | DOMAIN | PASID, RANGE, [2, 3]],
  7: [(3n << 4n) | DOMAIN | PASID, 0n, [0, 1, 3]],
  8: [(0x1fn << 4n) | (0xfn << 12n) | DOMAIN | PASID | (0xfffn << 52n), PAGE | (1n << 11n) | 1n],
  9: [(1n << 4n) | (0xfn << 12n) | DOMAIN | PASID, 0x1ffn << 3n],
};

/** `unreadable`: descriptors from this offset on cannot be read. */
export function executeQueue(queue: Queue, unreadable = queue.bytes): QueueOutcome {
  const { wide, bytes, descriptors, tail } = queue;
  const size = wide ? 32n : 16n;
  const written = new Map<bigint, bigint>();
  let IWC = false;
  // With DW=1 bit 4 is reserved.
  if (wide && bit(tail, 4n)) return { head: 0n, stopped: [IQEI.MISALIGNED], written, IWC };
  if (tail >= bytes) return { head: 0n, stopped: [IQEI.TAIL], written, IWC };
  for (let head = 0n; ; head = (head + size) % bytes) {
    if (head === tail) return { head, stopped: null, written, IWC };
    if (head >= unreadable) return { head, stopped: [IQEI.FETCH], written, IWC };
    const descriptor = descriptors[Number(head / size)] ?? [];
    const stopped = invalid(queue, descriptor);
    if (stopped !== null) return { head, stopped, written, IWC };
    const [q0 = 0n, q1 = 0n] = descriptor;
    if (!zero(q0, 11n, 9n) || bits(q0, 3n, 0n) !== 5n) continue;
    if (bit(q0, 5n)) written.set(q1, q0 >> 32n);
    IWC ||= bit(q0, 4n);
  }
}

/** Whether the unit has what a descriptor's type needs; without, no source says what becomes of it. */
export function isMeant({ identification }: Queue, [q0 = 0n]: Descriptor): boolean {
  const f = features(identification);
  const type = bits(q0, 3n, 0n);
  if (!zero(q0, 11n, 9n)) return true;
  return (f.IR || type !== 4n) && (f.DT || (type !== 3n && type !== 8n)) && (f.PRS || type !== 9n);
}
