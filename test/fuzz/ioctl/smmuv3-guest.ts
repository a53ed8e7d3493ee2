// What a hostile VMM says of a guest: stream table entries that are nearly valid, context descriptors and tables that it rewrites at any time,
// commands of every kind.

import { GuestRam, RAM_GPA } from "../../host/kernel/guest.ts";
import { GuestContexts, GuestStage1 } from "../../host/kernel/guest-smmuv3.ts";
import type { Dice } from "../attachments/dice.ts";

/** Guest-physical addresses of RAM and beyond, and IOVAs. */
export const ADDRESSES = [RAM_GPA, RAM_GPA + 0x8000n, 0x4000_0000n, 0x4000_1000n, 0x0800_0000n, 0x1_0000_0000n, 0n];
/** Ids by which the guest may know its devices; two are the same in 32 bits. */
export const VIRTUAL_IDS = [0x10n, 0x11n, 0x0108n, 0xffff_ffffn, 0x1_0000_0010n];

const V = 1n;
const CONFIG = 0xen;
const OPCODES = [
  ...[0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40],
  ...[0x01, 0x03, 0x04, 0x18, 0x20, 0x22, 0x28, 0x2a, 0x41, 0x44, 0x45, 0x46, 0x80, 0xff],
];
const FORWARDED = 8;

export class HostileGuest {
  readonly ram = new GuestRam(1 << 20);
  readonly #dice: Dice;
  readonly #contexts: GuestContexts[] = [];
  readonly #stages: GuestStage1[] = [];

  constructor(dice: Dice) {
    this.#dice = dice;
    for (let i = 0; i < 3; i++) {
      const stage = new GuestStage1(this.ram);
      const contexts = new GuestContexts(this.ram);
      for (const iova of ADDRESSES.slice(0, 4)) stage.map(iova, RAM_GPA + 0x1000n * BigInt(dice.below(16)));
      if (dice.chance(50)) stage.map(0x0800_0000n, 0x0800_0000n);
      for (let ssid = 0; ssid < 16; ssid++) {
        contexts.set(ssid, stage, { asid: dice.below(4), stalls: dice.chance(40), valid: dice.chance(90) });
      }
      this.#stages.push(stage);
      this.#contexts.push(contexts);
    }
  }

  /** The two doublewords of a stream table entry. */
  entry(): [bigint, bigint] {
    const dice = this.#dice;
    let ste0 = dice.pick(this.#contexts).streamEntry(dice.pick([0, 0, 3, 4, 6, 7, 31]));
    if (dice.chance(25)) ste0 = (ste0 & ~CONFIG) | (BigInt(dice.pick([0, 4, 4, 5, 7, 1])) << 1n);
    if (dice.chance(5)) ste0 &= ~V;
    if (dice.chance(10)) ste0 = (ste0 & ~0xf_ffff_ffff_ffc0n) | (dice.pick(ADDRESSES) & 0xf_ffff_ffff_ffc0n);
    let ste1 = BigInt(dice.below(4)) | (BigInt(dice.pick([0, 0, 1, 1, 2])) << 28n);
    if (dice.chance(20)) ste1 |= 1n << 27n;
    if (dice.chance(10)) ste0 ^= 1n << BigInt(dice.below(64));
    if (dice.chance(10)) ste1 ^= 1n << BigInt(dice.below(64));
    return [ste0, ste1];
  }

  /** Changes something in its tables. */
  rewrite(): void {
    const dice = this.#dice;
    const stage = dice.pick(this.#stages);
    const contexts = dice.pick(this.#contexts);
    const kind = dice.below(10);
    if (kind < 4) {
      try {
        const iova = dice.pick(ADDRESSES.slice(0, 4));
        if (kind < 3) stage.map(iova, dice.pick(ADDRESSES));
        else stage.unmap(iova);
      } catch (error) {
        // A table pointer was rewritten: the way to the descriptor leads out of RAM.
        if (!(error instanceof RangeError)) throw error;
      }
    } else if (kind < 8) contexts.set(dice.below(16), stage, { asid: dice.below(4), stalls: dice.chance(50) });
    else {
      // Anywhere in a table, its descriptors as they stand.
      const at = (kind === 8 ? contexts.table : stage.root) + 8n * BigInt(dice.below(512));
      this.ram.store(at, this.ram.load(at) ^ (1n << BigInt(dice.below(64))));
    }
  }

  command(): [bigint, bigint] {
    const dice = this.#dice;
    const word = () =>
      (BigInt(dice.below(2 ** 31)) << 33n) ^ (BigInt(dice.below(2 ** 31)) << 2n) ^ BigInt(dice.below(8));
    const opcode = BigInt(dice.pick(dice.chance(92) ? OPCODES.slice(0, FORWARDED) : OPCODES));
    if (dice.chance(5)) return [(word() & ~0xffn) | opcode, word()];
    const stream = (dice.chance(90) ? dice.pick(VIRTUAL_IDS) : BigInt(dice.below(0x300))) & 0xffff_ffffn;
    const tags = [0x10n, 0x11n, 0x12n, 0x13n].includes(opcode);
    const upper = tags ? (BigInt(dice.below(4)) << 48n) | (BigInt(dice.below(4)) << 32n) : stream << 32n;
    const range = dice.chance(30) ? (BigInt(dice.below(32)) << 12n) | (BigInt(dice.below(4)) << 20n) : 0n;
    const size = opcode === 0x40n ? BigInt(dice.pick([0, 52, 9])) : BigInt(dice.below(2));
    const hints = dice.chance(30) ? (BigInt(dice.below(4)) << 8n) | (BigInt(dice.below(4)) << 10n) : 0n;
    return [opcode | range | upper, dice.pick(ADDRESSES) | size | (tags ? hints : 0n)];
  }
}
