// What the oracle (test/oracle/smmuv3) says of one DMA: the guest's own structures, read as a guest's SMMU without a second stage would, over memory that
// ends where the guest's RAM ends. No code of the product is in between.
//
// What an assigned device's guest hears is less: hardware aborts silently where the guest's SMMU keeps a device blocked, and Linux relays no fetches that
// stage 2 refuses.

import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import { everyOutcome } from "../../../oracle/latitude.ts";
import type { Injected, Memory } from "../../../oracle/memory.ts";
import { type Features, features, type Programming } from "../../../oracle/smmuv3/identification.ts";
import { type EventRecord, Fault, type Outcome } from "../../../oracle/smmuv3/outcome.ts";
import { locateStreamTableEntry } from "../../../oracle/smmuv3/stream-table.ts";
import { DirectTables, type EntryTag } from "../../../oracle/smmuv3/tables.ts";
import { translate } from "../../../oracle/smmuv3/translate.ts";
import { type Guest, RAM } from "../../../vmm/viommu/smmuv3/guest.ts";

const RAM_BYTES = 0x10_0000n;
/** Where the host has doorbell pages for messages: neither RAM nor nothing, so what happens there is not asked. */
const WINDOW = 0x0800_0000n;
const WINDOW_BYTES = 0x10_0000n;
/** Numbers of records that a guest hears of an assigned device. */
const HEARD: ReadonlySet<number> = new Set([0x06, 0x08, 0x0a, 0x10, 0x11, 0x12, 0x13]);

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
  /** Where it goes; null: refused. */
  readonly address: bigint | null;
  /** The record that the guest finds. */
  readonly record: EventRecord | null;
}

/** Everything that is right; null: the specification leaves it open, or it leads into the message window. */
export function expectedDma(
  guest: Guest,
  device: { readonly guestId: number; readonly emulated: boolean; readonly stalls: boolean },
  ssid: number,
  address: bigint,
  write: boolean,
): readonly ExpectedDma[] | null {
  const read = (register: number) => BigInt(guest.read32(register) >>> 0);
  const identification = {
    ...{ IDR0: read(REG.IDR0), IDR1: read(REG.IDR1), IDR3: read(REG.IDR3), IDR5: read(REG.IDR5) },
    AIDR: read(REG.AIDR),
  };
  const programming = {
    CR0: read(REG.CR0) & 0b1_0001n,
    CR2: read(REG.CR2),
    GBPA: read(REG.GBPA),
    STRTAB_BASE: guest.read64(REG.STRTAB_BASE),
    STRTAB_BASE_CFG: read(REG.STRTAB_BASE_CFG),
  };
  // Under GBPA hardware has an entry with stage 2 alone, which takes no SubstreamID.
  if ((programming.CR0 & 1n) === 0n && ssid >= 0 && !device.emulated) return null;
  const memory = new GuestMemory(guest);
  const f = features(identification);
  if (!device.emulated && (programming.CR0 & 1n) === 1n && f.ATS) {
    // EATS = 3 acts as 0 here (§5.2), but is nothing that Linux takes from a guest: such a stream aborts.
    if (streamTakesNoAts(f, programming, new DirectTables(memory), BigInt(device.guestId))) return [REFUSED];
  }
  const request = {
    ...({ kind: "untranslated", sid: BigInt(device.guestId), ssid: ssid < 0 ? null : BigInt(ssid) } as const),
    ...{ privileged: false, instruction: false, write, iova: address },
  };
  // A PCI function never stalls: for one that is assigned S1STALLD is as good as set, where the guest may set it.
  const forbidsStalls = !device.emulated && !device.stalls && f.STALL_MODEL === 0n;
  const outcomes = everyOutcome((choose) => {
    const tables = forbidsStalls ? new TablesWithoutStalls(memory) : new DirectTables(memory);
    return translate(identification, programming, tables, request, choose);
  });
  if (outcomes === null || memory.windowTouched) return null;
  const answers = outcomes.map((outcome) => answer(outcome, device.emulated));
  return answers.includes(null) ? null : (answers as ExpectedDma[]);
}

/** Stream table entries that have S1STALLD. */
class TablesWithoutStalls extends DirectTables {
  override load(address: bigint, doublewords: number, tag?: EntryTag): readonly bigint[] | null {
    const values = super.load(address, doublewords);
    if (values === null || tag?.kind !== "STE") return values;
    return values.map((value, index) => (index === 1 ? value | (1n << 27n) : value));
  }
}

const REFUSED: ExpectedDma = { address: null, record: null };

function streamTakesNoAts(f: Features, programming: Programming, tables: DirectTables, sid: bigint): boolean {
  try {
    const entry = locateStreamTableEntry(f, programming, tables, sid, () => 0);
    return (entry[0]! & 0xfn) === 0xbn && ((entry[1]! >> 28n) & 3n) === 3n;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

function answer({ result, record }: Outcome, emulated: boolean): ExpectedDma | null {
  if (result.kind === "translated") {
    if (inWindow(result.address)) return null;
    // What memory aborts behind a sound translation is nobody's event.
    return { address: inRam(result.address) ? result.address : null, record: null };
  }
  // A model on the VM's bus cannot wait: that it is refused is nothing that the specification says.
  if (result.kind !== "aborted" && (result.kind !== "stalled" || emulated)) return null;
  const heard = record !== null && (emulated || HEARD.has(Number(record.doublewords[0]! & 0xffn)));
  return { address: null, record: heard ? record : null };
}
