// What a hostile guest stores in its structures, and the values it writes: plausible enough that much of it works, wrong enough that much does not. Each
// function takes random numbers and stores one thing (VT-d §9).

import { PLACE, RAM, type VtdGuest } from "./vtd-vm.ts";

/** An edu model on the VM's own bus, behind the same unit. */
export const EMULATED_ID = 0x30;
export const GUEST_IDS = [0x10, 0x08, 0x21, 0x3f, 0x05, 0x41];
const SOURCE_IDS = [0x10, 0x08, 0x21, 0x3f, EMULATED_ID, 0x81];
/** Tables of a well-formed first stage, four levels from here on. */
export const WELL_FORMED = PLACE.tables + 0x4000n;
const PASIDS = 8;

/** What a page of the guest's tables may point to. */
function pagePool(choice: number): bigint {
  const pages = [
    PLACE.tables,
    PLACE.tables + 0x1000n,
    PLACE.tables + 0x2000n,
    PLACE.tables + 0x3000n,
    PLACE.free + (BigInt(choice & 15) << 12n),
    PLACE.free + (BigInt(choice & 15) << 12n),
    PLACE.pasids,
    RAM,
    0x1_0000n,
    0x100_0000_0000n,
    0xffff_ffff_f000n,
    0xfee0_0000n,
    0xf_ffff_ffff_f000n,
  ];
  return pages[(choice >>> 8) % pages.length]!;
}

const often = (choice: number, inverse: number): bigint => (choice % inverse === 0 ? 0n : 1n);

/** Root entry halves, a context entry, a directory entry. */
export function storeContext(guest: VtdGuest, a: number, b: number, c: number): void {
  guest.store64(PLACE.root, (a >>> 4) % 24 === 0 ? pagePool(c) | BigInt(b & 3) : PLACE.contexts | 1n);
  if ((a >>> 6) % 8 === 0) guest.store64(PLACE.root + 8n, PLACE.contexts | BigInt(b & 1));
  const at = PLACE.contexts + BigInt(32 * (SOURCE_IDS[a % SOURCE_IDS.length]! & 0x7f));
  const flags =
    often(a >>> 12, 16) |
    ((a >>> 16) % 16 === 0 ? 2n : 0n) |
    BigInt((b & 7) << 2) |
    ((b >>> 4) % 16 === 0 ? 0x20n : 0n) |
    BigInt([0, 0, 0, 1, 7][(b >>> 8) % 5]! << 9);
  const directory = (a >>> 20) % 12 === 0 ? pagePool(c) : PLACE.directory;
  guest.store64(at + 8n, (b >>> 12) % 24 === 0 ? BigInt(c & 0x1fffff) : 0n);
  guest.store64(at, directory | flags);
  guest.store64(PLACE.directory, (a >>> 24) % 16 === 0 ? pagePool(b) | BigInt(c & 7) : PLACE.pasids | 1n);
}

/** A PASID entry. */
export function storePasid(guest: VtdGuest, a: number, b: number, c: number): void {
  const at = PLACE.pasids + BigInt(64 * (a % PASIDS));
  const pgtt = [1, 1, 1, 1, 4, 4, 2, 3, 0, 5][(a >>> 4) % 10]!;
  const aw = (a >>> 8) % 3;
  const first =
    often(a >>> 12, 12) |
    ((a >>> 16) % 12 === 0 ? 2n : 0n) |
    BigInt(aw << 2) |
    BigInt(pgtt << 6) |
    ((a >>> 20) % 24 === 0 ? BigInt(b & 0xfff) << 9n : 0n);
  const second = BigInt(1 + (b & 3)) | (BigInt((b >>> 4) & 3) << 23n) | ((b >>> 8) % 24 === 0 ? BigInt(c) << 16n : 0n);
  const fspm = [0, 0, 0, 0, 1, 1, 2, 3][(b >>> 12) % 8]!;
  const flags = [0, 0, 1, 0x10, 0x80, 0x91, 0x60, 2][(b >>> 16) % 8]!;
  const pointer = (b >>> 20) % 3 === 0 ? WELL_FORMED : pagePool(c);
  guest.store64(at + 16n, pointer | BigInt(fspm << 2) | BigInt(flags));
  guest.store64(at + 8n, second);
  if (a >>> 27 === 3) guest.store64(at + 24n, BigInt(b));
  guest.store64(at, first);
}

/** An entry of the four pages that tables live in: pointer, leaf of any rights, large leaf, or garbage. */
export function storeEntry(guest: VtdGuest, a: number, b: number, c: number): void {
  const page = PLACE.tables + 0x1000n * BigInt(a % 4);
  const index = BigInt([0, 1, 2, 3, 4, 5, 0x40, 511][(a >>> 4) & 7]!);
  const bits = [0x07, 0x27, 0x67, 0x67, 0x65, 0x63, 0x61, 0xe7, 0x87, 0x06, b & 0xfff][(a >>> 8) % 11]!;
  const high = a >>> 28 === 2 ? BigInt(b & 0xffff) << 48n : 0n;
  guest.store64(page + 8n * index, pagePool(c) | BigInt(bits) | high);
}

/** What an honest driver stores: a device with or without PASIDs, and tables that map eight pages. */
export function storeWellFormed(guest: VtdGuest, a: number, b: number, c: number): void {
  for (let level = 0n; level < 3n; level++)
    guest.store64(WELL_FORMED + 0x1000n * level, (WELL_FORMED + 0x1000n * (level + 1n)) | 0x27n);
  for (let page = 0n; page < 8n; page++) {
    const target = PLACE.free + (BigInt((b >>> Number(page)) & 15) << 12n);
    guest.store64(WELL_FORMED + 0x3000n + 8n * page, target | ((c >>> Number(page)) % 16 === 0 ? 0x25n : 0x67n));
  }
  for (let pasid = 0; pasid < PASIDS; pasid++) {
    const at = PLACE.pasids + BigInt(64 * pasid);
    for (let word = 16n; word < 64n; word += 8n) guest.store64(at + word, 0n);
    guest.store64(at + 16n, WELL_FORMED | ((a >>> 16) % 4 === 0 ? 0x10n : 0n));
    guest.store64(at + 8n, BigInt(1 + (pasid & 3)));
    guest.store64(at, a % 5 === 4 ? 0x101n : 0x41n);
  }
  guest.store64(PLACE.directory, PLACE.pasids | 1n);
  guest.store64(PLACE.root, PLACE.contexts | 1n);
  const id = SOURCE_IDS[(a >>> 8) % (SOURCE_IDS.length - 1)]!;
  const at = PLACE.contexts + BigInt(32 * (id & 0x7f));
  guest.store64(at + 8n, 0n);
  guest.store64(
    at,
    PLACE.directory | 1n | (a % 3 === 0 ? 8n : 0n) | (a % 4 === 1 ? 4n : 0n) | (a % 8 === 1 ? 16n : 0n),
  );
}

/** An interrupt remapping table entry. */
export function storeInterruptEntry(guest: VtdGuest, a: number, b: number): void {
  const at = PLACE.interrupts + BigInt(16 * (a & 15));
  const verify = [0n, 0n, 1n << 18n, 2n << 18n, 3n << 18n][(b >>> 4) % 5]!;
  guest.store64(at + 8n, BigInt(SOURCE_IDS[b % SOURCE_IDS.length]!) | verify);
  guest.store64(at, often(a >>> 4, 8) | (BigInt(b & 0xff) << 16n) | ((a >>> 8) % 8 === 0 ? BigInt(b & 0xffff) : 0n));
}

/** A value for a register: mostly plausible ones. */
export function value(a: number, b: number): number {
  const values = [
    ...[0, 1, 3, 0x70, 0x73, 0x8000_0000, 0xc400_0000, 0x8600_0000, 0xffff_ffff],
    ...[0x8000_0400, 0x8000_4801, 0x8000_4800, 0x8000_7000, 0x8000_8007, 0x8000_880f, 0xfee0_0000, 0x2800_0000],
    ...[a, a & 0xff, (a & 0xff) << 5, (a & 0x1f) << 5, 1 << (23 + (a % 9))],
    (Number(PLACE.free & 0xffff_ffffn) | (b & 31)) >>> 0,
  ];
  return values[b % values.length]! >>> 0;
}

/** An IOVA page: mostly ones that tables may map. */
export function iovaPage(choice: number): number {
  const pages = [
    ...[0, 1, 2, 3, 4, 5, 6, 7, 0x40, 0x1ff, 0x200, 0x8_0020, 0x8_0040, 0x4_0000, 0x800_0000],
    ...[0xfee00, 0x7_ffff_ffff, 0xf_ffff_8000_0000, 2 ** 52 - 1],
  ];
  const page = pages[choice % pages.length]!;
  return (choice >>> 16) % 9 === 0 ? choice >>> 4 : page;
}
