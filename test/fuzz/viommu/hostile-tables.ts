// What a hostile guest stores in its tables, and the values it writes: plausible enough that much of it works, wrong enough that much
// does not. Each function takes random numbers and stores one thing.

import { type Guest, PLACE } from "../../vmm/viommu/guest.ts";

/** An edu model on the VM's own bus, behind the same vIOMMU. */
export const EMULATED_ID = 0x30;
const CONTEXT_IDS = [0x10, 0x08, 0x21, 0x7f, EMULATED_ID];
/** What a page of the guest's tables may point to. */
export function pagePool(choice: number): bigint {
  const pages = [
    PLACE.tables >> 12n,
    (PLACE.tables >> 12n) + 1n,
    (PLACE.tables >> 12n) + 2n,
    (PLACE.free >> 12n) + BigInt(choice & 15),
    (PLACE.free >> 12n) + BigInt(choice & 15),
    PLACE.leaf >> 12n,
    0x8000n,
    0x10n,
    0x100_0000n,
    0xfff_ffff_ffffn,
    0x8_0000n,
    0x8_0100n,
  ];
  return pages[(choice >>> 8) % pages.length]!;
}

export function storeContext(guest: Guest, a: number, b: number, c: number, d: number): void {
  const id = CONTEXT_IDS[a % CONTEXT_IDS.length]!;
  const tcs = [0x01, 0x01, 0x01, 0x21, 0x21, 0x221, 0x03, 0x07, 0x47, 0x11, 0x101, 0x00, 0x27, b & 0xffff];
  const modes = (tcs[(a >>> 4) % tcs.length]! & 0x20) === 0 ? [0, 8, 8, 9, 10, b & 15] : [0, 1, 1, 2, 3, b & 15];
  guest.storeContext(id, {
    tc: BigInt(tcs[(a >>> 4) % tcs.length]!) | (a >>> 28 === 1 ? 1n << BigInt(12 + (b % 52)) : 0n),
    fsc: (BigInt(modes[(a >>> 12) % modes.length]!) << 60n) | pagePool(c),
    ta: BigInt(d & 0x3000),
    ...(a >>> 27 === 3 ? { iohgatp: BigInt(d) << 32n } : {}),
  });
}

/** An entry of the three pages that tables live in: pointer, leaf of any rights, superpage, or garbage. */
export function storeEntry(guest: Guest, a: number, b: number, c: number): void {
  const page = PLACE.tables + 0x1000n * BigInt(a % 3);
  const index = BigInt([0, 1, 2, 3, 4, 5, 0x40, 511][(a >>> 4) & 7]!);
  const rights = [0x01, 0xd7, 0xd7, 0xdf, 0x53, 0x57, 0x17, 0xf7, 0xc7, b & 0x3ff][(a >>> 8) % 10]!;
  const high = a >>> 28 === 2 ? BigInt(b & 0x3ff) << 54n : 0n;
  guest.store64(page + 8n * index, (pagePool(c) << 10n) | BigInt(rights) | high);
}

/** What an honest driver stores: a directory, a context with or without processes, and tables that map eight pages. */
export function storeWellFormed(guest: Guest, a: number, b: number, c: number, d: number): void {
  const pointer = (address: bigint) => ((address >> 12n) << 10n) | 1n;
  const root = PLACE.tables + 0x3000n;
  guest.store64(root, pointer(root + 0x1000n));
  guest.store64(root + 0x1000n, pointer(root + 0x2000n));
  for (let page = 0n; page < 8n; page++) {
    const target = (PLACE.free >> 12n) + BigInt((b >>> Number(page)) & 15);
    guest.store64(root + 0x2000n + 8n * page, (target << 10n) | ((c >>> Number(page)) % 16 === 0 ? 0x53n : 0xd7n));
  }
  const sv39 = (8n << 60n) | (root >> 12n);
  const processes = root + 0x3000n;
  for (let process = 0n; process < 8n; process++) {
    guest.store64(processes + 16n * process + 8n, sv39);
    guest.store64(processes + 16n * process, 1n | BigInt(d & 0x3000));
  }
  const pd8 = (1n << 60n) | (processes >> 12n);
  const [tc, fsc] = (
    [
      [1n, sv39],
      [1n, sv39],
      [0x221n, pd8],
      [0x21n, pd8],
      [7n, sv39],
      [1n, 0n],
    ] as const
  )[a % 6]!;
  guest.storeContext(CONTEXT_IDS[(a >>> 8) % CONTEXT_IDS.length]!, { tc, fsc, ta: BigInt(d & 0x3000) });
  guest.store64(PLACE.root, pointer(PLACE.middle));
  guest.store64(PLACE.middle, pointer(PLACE.leaf));
}

/** A value for a register: mostly plausible ones. */
export function value(a: number, b: number): number {
  const values = [
    0,
    1,
    3,
    2,
    0xffff_ffff,
    0xf03,
    5,
    12,
    31,
    a,
    a & 0xff,
    (Number(PLACE.free >> 12n) << 10) | (b & 31),
    0x8000_0000,
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
    0x800_0000,
    2 ** 51,
  ];
  const page = pages[choice % pages.length]!;
  return (choice >>> 16) % 9 === 0 ? choice >>> 4 : page;
}
