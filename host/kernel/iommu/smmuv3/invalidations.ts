// The commands that drop translations (IHI 0070 §4.4, §4.5.1), as Linux's driver chooses and fills them in (arm_smmu_domain_inv_range,
// arm_smmu_cmdq_batch_add_range, arm_smmu_atc_inv_to_cmd). On the path of every unmap: numbers only, nothing is allocated.
//
// Pages are of 4 KiB, whatever the granule.

import {
  ATC_SIZE_ALL,
  CMD_ATC_INV,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
} from "../../../arch/smmuv3/commands.ts";
import type { CommandQueue } from "./command-queue.ts";

/** A range of a TLB's entries: NUM is 5 bits, and so is SCALE. */
const NUM_MAX = 31;
const SCALE_MAX = 31;
const LEAF = 1;
const PAGE_LOW = 2 ** 20;

/** What an unmap changed. */
export interface Unmapped {
  firstPage: number;
  pages: number;
  /** log2 of the domain's smallest page. */
  granule: number;
  /** log2, in bytes, of the leaves that went, if they were of one size and nothing above them went; 0: no such hint. */
  leaf: number;
}

/**
 * Too many for one command a page: the whole tag goes instead (Linux: arm_smmu_inv_size_too_big; without range invalidation a table's worth of leaves).
 */
export function isTooMuch({ pages, granule, leaf }: Unmapped, ranges: boolean): boolean {
  const size = leaf === 0 ? granule : leaf;
  return !ranges && pages * 4096 >= 2 ** (size - 3 + size);
}

/** Stage-1 translations of an ASID. */
export function dropFirstStage(queue: CommandQueue, asid: number, el2: boolean, what: Unmapped, ranges: boolean): void {
  if (isTooMuch(what, ranges)) dropAsid(queue, asid, el2);
  else dropRange(queue, el2 ? CMD_TLBI_EL2_VA : CMD_TLBI_NH_VA, asid << 16, what, ranges);
}

export function dropAsid(queue: CommandQueue, asid: number, el2: boolean): void {
  queue.pushHalves(el2 ? CMD_TLBI_EL2_ASID : CMD_TLBI_NH_ASID, asid << 16, 0, 0);
}

/** Stage-2 translations of a VMID. */
export function dropSecondStage(queue: CommandQueue, vmid: number, what: Unmapped, ranges: boolean): void {
  if (isTooMuch(what, ranges)) dropVmid(queue, vmid);
  else dropRange(queue, CMD_TLBI_S2_IPA, vmid, what, ranges);
}

/** Everything of a VMID. */
export function dropVmid(queue: CommandQueue, vmid: number): void {
  queue.pushHalves(CMD_TLBI_S12_VMALL, vmid, 0, 0);
}

/** What first stages under a VMID made. */
export function dropNested(queue: CommandQueue, vmid: number): void {
  queue.pushHalves(CMD_TLBI_NH_ALL, vmid, 0, 0);
}

/** `tags`: the second word, ASID in bits 31:16, VMID in 15:0. */
function dropRange(
  queue: CommandQueue,
  opcode: number,
  tags: number,
  { firstPage, pages, granule, leaf }: Unmapped,
  ranges: boolean,
): void {
  const granulePages = 2 ** (granule - 12);
  if (!ranges) {
    const step = leaf === 0 ? granulePages : 2 ** (leaf - 12);
    const hint = leaf === 0 ? 0 : LEAF;
    for (let page = firstPage; page < firstPage + pages; page += step) {
      queue.pushHalves(opcode, tags, addressLow(page) | hint, Math.floor(page / PAGE_LOW));
    }
    return;
  }
  let left = Math.ceil(pages / granulePages);
  // TG 1 to 3; TTL is the leaves' level where it is known.
  let hints = ((granule - 10) / 2) << 10;
  if (leaf !== 0) hints |= LEAF | ((4 - (leaf - 3) / (granule - 3)) << 8);
  // With TTL = 0 a NUM and a SCALE of 0 are Reserved (§4.4.1.1): one page more.
  else if (left % 32 === 1) left++;
  let page = firstPage;
  while (left > 0) {
    // Five bits of the count at a time, the lowest first.
    let scale = 0;
    let rest = left;
    for (; rest % 2 === 0 && scale < SCALE_MAX; scale++) rest /= 2;
    const count = scale === SCALE_MAX ? Math.min(rest, NUM_MAX) : rest % 32;
    queue.pushHalves(
      opcode | ((count - 1) << 12) | (scale << 20),
      tags,
      addressLow(page) | hints,
      Math.floor(page / PAGE_LOW),
    );
    left -= count * 2 ** scale;
    page += count * 2 ** scale * granulePages;
  }
}

/** A device's own translations of a range: one power of two of pages that covers it. Substream 0: those without PASID. */
export function dropDeviceRange(
  queue: CommandQueue,
  stream: number,
  substream: number,
  firstPage: number,
  pages: number,
): void {
  const last = firstPage + pages - 1;
  let log2 = 0;
  for (let low = firstPage, high = last; low !== high; log2++) {
    low = Math.floor(low / 2);
    high = Math.floor(high / 2);
  }
  const span = 2 ** log2;
  const first = firstPage - (firstPage % span);
  queue.pushHalves(atcHeader(substream), stream, (addressLow(first) | log2) >>> 0, Math.floor(first / PAGE_LOW));
}

/** All of a device's translations for a PASID; substream 0: those without PASID. */
export function dropDevice(queue: CommandQueue, stream: number, substream: number): void {
  queue.pushHalves(atcHeader(substream), stream, ATC_SIZE_ALL, 0);
}

/** And those for every PASID (SSV and Global). */
export function dropDevicePasids(queue: CommandQueue, stream: number): void {
  queue.pushHalves(CMD_ATC_INV | SSV | GLOBAL, stream, ATC_SIZE_ALL, 0);
}

const SSV = 1 << 11;
const GLOBAL = 1 << 9;

function atcHeader(substream: number): number {
  return substream === 0 ? CMD_ATC_INV : CMD_ATC_INV | SSV | (substream << 12);
}

/** Bits 31:12 of a page's address. */
function addressLow(page: number): number {
  return (page % PAGE_LOW) << 12;
}
