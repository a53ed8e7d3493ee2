// What a hostile guest stores in its structures, and the values it writes: plausible enough that much of it works, wrong enough that much does not. Each
// function takes random numbers and stores one thing.

import { type Guest, PLACE } from "../../../vmm/viommu/smmuv3/guest.ts";

/** An edu model on the VM's own bus, behind the same SMMU. */
export const EMULATED_ID = 0x30;
export const GUEST_IDS = [0x10, 0x08, 0x21, 0x3f, 0x05, 0x41];
/** A device on no bus. */
export const PLATFORM_ID = 0x2a;
const STREAM_IDS = [0x10, 0x08, 0x21, 0x3f, EMULATED_ID, PLATFORM_ID];
/** Context descriptors, eight of them, also as a table of SubstreamIDs. */
const CONTEXTS = PLACE.contexts;
const LEVEL_1_CONTEXTS = PLACE.contexts + 0x1000n;
/** Where a level-1 stream table stands. */
export const LEVEL_1_STREAMS = PLACE.events + 0x1000n;

/** What a page of the guest's tables may point to. */
function pagePool(choice: number): bigint {
  const pages = [
    PLACE.tables,
    PLACE.tables + 0x1000n,
    PLACE.tables + 0x2000n,
    PLACE.free + (BigInt(choice & 15) << 12n),
    PLACE.free + (BigInt(choice & 15) << 12n),
    PLACE.contexts,
    0x8000_0000n,
    0x1_0000n,
    0x100_0000_0000n,
    0xffff_ffff_f000n,
    0x0800_0000n,
    0x0810_0000n,
  ];
  return pages[(choice >>> 8) % pages.length]!;
}

export function storeStream(guest: Guest, a: number, b: number, c: number): void {
  const sid = STREAM_IDS[a % STREAM_IDS.length]!;
  const at = PLACE.streams + BigInt(64 * sid);
  const config = [5, 5, 5, 5, 4, 0, 1, 6, 7][(a >>> 4) % 9]!;
  const pointer = [CONTEXTS, CONTEXTS, CONTEXTS + 64n, LEVEL_1_CONTEXTS, PLACE.streams, 0x1000n, pagePool(c)][
    (b >>> 4) % 7
  ]!;
  const cdMax = [0, 0, 3, 3, 6, 7, 20, 31][(b >>> 8) % 8]!;
  const format = [0, 0, 0, 1, 2, 3][(b >>> 12) % 6]!;
  const word0 =
    BigInt((a >>> 12) % 16 === 0 ? 0 : 1) |
    (BigInt(config) << 1n) |
    (BigInt(format) << 4n) |
    pointer |
    (BigInt(cdMax) << 59n);
  const dss = [0, 1, 2, 2, 3][(b >>> 16) % 5]!;
  const eats = [0, 0, 1, 1, 2, 3][(b >>> 20) % 6]!;
  const odd = a >>> 28 === 1 ? (BigInt(c) << 32n) | BigInt(b) : 0n;
  guest.store64(at + 8n, BigInt(dss) | (BigInt(eats) << 28n) | odd);
  guest.store64(at, word0);
  if (a >>> 27 === 3) guest.store64(at + 16n, (BigInt(b) << 32n) | BigInt(c));
}

export function storeContext(guest: Guest, a: number, b: number, c: number): void {
  const t0sz = [25, 25, 25, 16, 34, 39, 40, 10][(b >>> 4) % 8]!;
  const granule = [0, 0, 0, 0, 1, 2, 3][(b >>> 8) % 7]!;
  guest.writeContext(CONTEXTS + BigInt(64 * (a & 7)), {
    ...{
      V: (a >>> 4) % 12 === 0 ? 0 : 1,
      AA64: (a >>> 8) % 12 === 0 ? 0 : 1,
      EPD1: (a >>> 12) % 4 === 0 ? 0 : 1,
      T0SZ: t0sz,
      TG0: granule,
    },
    ...{ IPS: [5, 5, 5, 2, 0, 7][(b >>> 12) % 6]!, A: (a >>> 16) % 12 === 0 ? 0 : 1, R: (a >>> 20) % 6 === 0 ? 0 : 1 },
    ...{
      S: (a >>> 24) % 8 === 0 ? 1 : 0,
      HA: (b >>> 16) & 1,
      HD: (b >>> 17) & 1,
      AFFD: (b >>> 18) & 1,
      WXN: (b >>> 19) & 1,
    },
    ...{
      ASID: c & 3,
      T1SZ: 25,
      TG1: 2,
      ENDI: (b >>> 20) % 12 === 0 ? 1 : 0,
      TTB0: pagePool(c) >> 4n,
      TTB1: PLACE.tables >> 4n,
    },
  });
  guest.store64(LEVEL_1_CONTEXTS, (a >>> 28) % 4 === 0 ? 0n : CONTEXTS | 1n);
}

/** A descriptor of the three pages that tables live in: pointer, leaf of any rights, block, or garbage. */
export function storeDescriptor(guest: Guest, a: number, b: number, c: number): void {
  const page = PLACE.tables + 0x1000n * BigInt(a % 3);
  const index = BigInt([0, 1, 2, 3, 4, 5, 0x40, 511][(a >>> 4) & 7]!);
  const bits = [0x003, 0xc43, 0xc43, 0x443, 0xcc3, 0x403, 0x043, 0x441, 0x401, b & 0xfff][(a >>> 8) % 10]!;
  const high = a >>> 28 === 2 ? BigInt(b & 0xffff) << 48n : 0n;
  guest.store64(page + 8n * index, pagePool(c) | BigInt(bits) | high);
}

/** What an honest driver stores: a stream with or without substreams, and tables that map eight pages. */
export function storeWellFormed(guest: Guest, a: number, b: number, c: number): void {
  const root = PLACE.tables + 0x3000n;
  guest.store64(root, (root + 0x1000n) | 3n);
  guest.store64(root + 0x1000n, (root + 0x2000n) | 3n);
  for (let page = 0n; page < 8n; page++) {
    const target = PLACE.free + (BigInt((b >>> Number(page)) & 15) << 12n);
    guest.store64(root + 0x2000n + 8n * page, target | ((c >>> Number(page)) % 16 === 0 ? 0xcc3n : 0xc43n));
  }
  for (let ssid = 0; ssid < 8; ssid++) {
    guest.writeContext(CONTEXTS + BigInt(64 * ssid), {
      ...{ V: 1, AA64: 1, T0SZ: 25, EPD1: 1, IPS: 5, A: 1, R: 1, ASID: ssid, TTB0: root >> 4n },
      S: (a >>> 16) % 4 === 0 ? 1 : 0,
    });
  }
  const sid = STREAM_IDS[(a >>> 8) % STREAM_IDS.length]!;
  const substreams = a % 3 === 0 ? { S1CDMax: 3, S1DSS: [0, 1, 2][b % 3]! } : {};
  guest.writeStage1Stream(sid, CONTEXTS, { ...substreams, ...(a % 4 === 1 ? { EATS: 1 } : {}) });
  if (a % 5 === 4) guest.writeStream(sid, { V: 1, Config: 4 });
}

/** A value for a register: mostly plausible ones. */
export function value(a: number, b: number): number {
  const values = [
    0,
    1,
    0xd,
    0xc,
    0x1d,
    8,
    4,
    0xffff_ffff,
    0x8000_1000,
    0x8010_1000,
    5,
    31,
    a,
    a & 0xff,
    (Number(PLACE.free & 0xffff_ffffn) | (b & 31)) >>> 0,
  ];
  return values[b % values.length]! >>> 0;
}

/** An IOVA page: mostly ones that tables may map. */
export function iovaPage(choice: number): number {
  const pages = [
    0,
    1,
    2,
    3,
    4,
    5,
    0x40,
    0x1ff,
    0x200,
    0x8_0020,
    0x8_0021,
    0x4_0000,
    0x8000,
    0x7ff_ffff,
    0x1000_0000,
    2 ** 52 - 1,
  ];
  const page = pages[choice % pages.length]!;
  return (choice >>> 16) % 9 === 0 ? choice >>> 4 : page;
}
