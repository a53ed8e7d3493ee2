// What the oracle (test/oracle/vtd) says of one DMA: the guest's own structures, read as a unit without a second stage would, over memory that ends where the
// guest's RAM ends. No code of the product is in between.
//
// An assigned device's guest hears nothing of its transactions. Where the guest has legacy mode for it, it is blocked: the host can nest none.

import { everyOutcome } from "../../../oracle/latitude.ts";
import type { Injected, Memory } from "../../../oracle/memory.ts";
import type { FaultRecord, Outcome } from "../../../oracle/vtd/outcome.ts";
import { DirectTables, type EntryMeaning, type EntryTag } from "../../../oracle/vtd/tables.ts";
import { translate } from "../../../oracle/vtd/translate.ts";
import { RAM, RAM_BYTES, REG, TE, type VtdGuest } from "./vtd-vm.ts";

/** As its firmware says. */
const GUEST_ADDRESS_BITS = 48n;
const SCALABLE = 1n;

const inRam = (address: bigint) => address >= RAM && address < RAM + RAM_BYTES;

/** Guest RAM as the oracle reads memory. */
function memoryOf(guest: VtdGuest): Memory {
  return {
    injected: new Map<bigint, Injected>(),
    pages: new (class extends Set<bigint> {
      override has(page: bigint): boolean {
        return inRam(page << 12n);
      }
    })(),
    words: new (class extends Map<bigint, bigint> {
      override get(address: bigint): bigint {
        return inRam(address) ? guest.load64(address) : 0n;
      }
    })(),
  };
}

/** PASID entries without AW: this unit lets it by, for Linux's driver writes it whatever PGTT says. */
class TablesWithoutWidth extends DirectTables {
  /** An entry said PGTT = 100b. */
  passesThrough = false;
  override load(
    address: bigint,
    quadwords: number,
    tag?: EntryTag,
    _meaning?: (values: readonly bigint[]) => EntryMeaning,
  ): readonly bigint[] | null {
    const values = super.load(address, quadwords);
    if (values === null || tag?.kind !== "pasid-entry") return values;
    this.passesThrough = ((values[0]! >> 6n) & 7n) === 4n;
    return values.map((value, index) => (index === 0 ? value & ~0x1cn : value));
  }
}

export interface ExpectedDma {
  /** Where it goes; null: refused. */
  readonly address: bigint | null;
  /** The record that the guest finds. */
  readonly record: FaultRecord | null;
}

/** Everything that is right; null: the specification leaves it open, or it is no question for tables. */
export function expectedDma(
  guest: VtdGuest,
  device: { readonly guestId: number; readonly emulated: boolean; readonly passesPasids: boolean },
  pasid: number,
  address: bigint,
  write: boolean,
): readonly ExpectedDma[] | null {
  // An interrupt request, or a fault of one.
  if (pasid < 0 && address >> 20n === 0xfeen) return null;
  const TES = (guest.read32(REG.GSTS) & TE) !== 0;
  const programming = { TES, IRES: false, CFIS: false, RTADDR: guest.latchedRoot, IRTA: 0n };
  if (!device.emulated && TES && ((guest.latchedRoot >> 10n) & 3n) !== SCALABLE) return [REFUSED];
  const identification = {
    ...{ VER: 0x50n, CAP: guest.read64(REG.CAP), ECAP: guest.read64(REG.ECAP), HAW: GUEST_ADDRESS_BITS },
  };
  const request = {
    ...{ kind: "untranslated" as const, sid: BigInt(device.guestId), pasid: pasid < 0 ? null : BigInt(pasid) },
    ...{ privileged: false, access: write ? ("write" as const) : ("read" as const), address },
  };
  const memory = memoryOf(guest);
  let passesThrough = false;
  const outcomes = everyOutcome((choose) => {
    const tables = new TablesWithoutWidth(memory);
    const outcome = translate(identification, programming, tables, request, choose);
    passesThrough ||= tables.passesThrough;
    return outcome;
  });
  // Linux puts no domain that tracks dirty pages at a PASID (intel_iommu_set_dev_pasid), and the host's second stage is one where it can be.
  if (passesThrough && pasid >= 0 && !device.emulated && !device.passesPasids) return [REFUSED];
  return outcomes === null ? null : outcomes.map((outcome) => answer(outcome, device.emulated));
}

const REFUSED: ExpectedDma = { address: null, record: null };

function answer({ result, record }: Outcome, emulated: boolean): ExpectedDma {
  // What memory aborts behind a sound translation is nobody's fault record.
  if (result.kind === "translated") return { address: inRam(result.address) ? result.address : null, record: null };
  return { address: null, record: emulated ? record : null };
}
