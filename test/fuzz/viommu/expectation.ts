// What the oracle (test/oracle) says of one DMA: the guest's own tables, walked as a guest's IOMMU without a second stage would, over memory
// that ends where the guest's RAM ends. No code of the product is in between.

import { REG } from "../../../host/arch/riscv/registers.ts";
import type { Injected, Memory } from "../../oracle/memory.ts";
import { allowedOutcomes } from "../../oracle/riscv-iommu/allowed.ts";
import type { Implementation } from "../../oracle/riscv-iommu/implementation.ts";
import type { DirectoryPointer } from "../../oracle/riscv-iommu/outcome.ts";
import { type Guest, RAM } from "../../vmm/viommu/guest.ts";

const RAM_BYTES = 0x10_0000n;
/** Where the host has doorbell pages for messages: neither RAM nor nothing, so what happens there is not asked. */
const WINDOW = 0x0800_0000n;
const WINDOW_BYTES = 0x10_0000n;

const inRam = (address: bigint) => address >= RAM && address < RAM + RAM_BYTES;
const inWindow = (address: bigint) => address >= WINDOW && address < WINDOW + WINDOW_BYTES;

/** Guest RAM as the oracle reads memory; notes whether it was asked about the window. */
class GuestMemory implements Memory {
  windowTouched = false;
  readonly injected = new Map<bigint, Injected>();
  readonly pages: Set<bigint>;
  readonly words: Map<bigint, bigint>;

  constructor(guest: Guest) {
    const note = (page: bigint) => {
      if (inWindow(page << 12n)) this.windowTouched = true;
      return inRam(page << 12n);
    };
    this.pages = new (class extends Set<bigint> {
      override has(page: bigint): boolean {
        return note(page);
      }
    })();
    this.words = new (class extends Map<bigint, bigint> {
      override get(address: bigint): bigint {
        return inRam(address) ? guest.load64(address) : 0n;
      }
    })();
  }
}

export interface ExpectedDma {
  /** 0: it is done, at `address`. */
  readonly cause: number;
  readonly address: bigint;
  /** The cause goes to the fault queue. */
  readonly reported: boolean;
}

const MODES = ["off", "bare", "1lvl", "2lvl", "3lvl"] as const;

/** Null: the specification leaves it open, or it leads into the message window. */
export function expectedDma(
  guest: Guest,
  deviceId: number,
  processId: number,
  address: bigint,
  write: boolean,
): ExpectedDma | null {
  const implementation: Implementation = {
    capabilities: guest.read64(REG.capabilities),
    be: false,
    gxl: false,
    beWritable: false,
    gxlWritable: false,
    rcidWidth: 0,
    mcidWidth: 0,
  };
  const ddtp = guest.read64(REG.ddtp);
  const pointer: DirectoryPointer = { mode: MODES[Number(ddtp & 15n)]!, ppn: (ddtp >> 10n) & ((1n << 44n) - 1n) };
  const memory = new GuestMemory(guest);
  const outcomes = allowedOutcomes(implementation, pointer, memory, {
    deviceId: BigInt(deviceId),
    processId: processId < 0 ? null : BigInt(processId),
    privileged: false,
    type: "untranslated",
    access: write ? "write" : "read",
    noWrite: false,
    executeRequested: false,
    iova: address,
  });
  if (outcomes === null || memory.windowTouched) return null;
  const answers = outcomes.map(({ result, record }): ExpectedDma | null => {
    if (result.kind === "aborted") return { cause: result.cause, address: 0n, reported: record !== null };
    if (result.kind !== "translated") return null;
    const at = result.translation.address;
    if (inRam(at)) return { cause: 0, address: at, reported: false };
    // Absent memory behind a sound first stage: an access fault, unless the context keeps faults to itself.
    return inWindow(at)
      ? null
      : { cause: write ? 7 : 5, address: 0n, reported: !disablesFaults(guest, pointer, deviceId) };
  });
  const [first] = answers;
  if (first === undefined || first === null) return null;
  return answers.every(
    (answer) => answer?.cause === first.cause && answer.address === first.address && answer.reported === first.reported,
  )
    ? first
    : null;
}

/** tc.DTF of a context that is known to be sound, read along a valid directory. */
function disablesFaults(guest: Guest, pointer: DirectoryPointer, deviceId: number): boolean {
  if (pointer.mode === "off" || pointer.mode === "bare") return false;
  let table = pointer.ppn << 12n;
  const levels = { "1lvl": 1, "2lvl": 2, "3lvl": 3 }[pointer.mode];
  const indexes = [deviceId & 0x7f, (deviceId >>> 7) & 0x1ff, deviceId >>> 16];
  for (let level = levels - 1; level > 0; level--) {
    table = ((guest.load64(table + BigInt(8 * indexes[level]!)) >> 10n) & ((1n << 44n) - 1n)) << 12n;
  }
  return (guest.load64(table + BigInt(32 * indexes[0]!)) & 0x10n) !== 0n;
}
