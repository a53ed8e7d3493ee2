/**
 * Stage 2 (§3.3.3, §3.4): from an IPA to a physical address, for a request's own address, for a context descriptor or for a stage-1 descriptor.
 */
import type { Choose } from "../latitude.ts";
import { marksDirty, permitted, type Rights, stage2Rights, TABLE_READ, type Wish } from "./access.ts";
import { bit, bits, type Features, swapBytes } from "./identification.ts";
import { type Class, Fault, type FaultModel } from "./outcome.ts";
import { aligned } from "./stream-table.ts";
import { effectiveSize, type StreamTableEntry, stage2StartLevel } from "./stream-table-entry.ts";
import type { Stage1Tag, Tables } from "./tables.ts";
import { AF, decodeDescriptor, granuleOfTG0, levelShift, WRITE_CONTROL } from "./translation-table.ts";

export interface Stage2Context {
  readonly f: Features;
  readonly tables: Tables;
  readonly ste: StreamTableEntry;
  readonly vmid: bigint | null;
  readonly choose: Choose;
}

export interface Stage2Result {
  readonly address: bigint;
  readonly rights: Rights;
  /** Bytes that the leaf maps. */
  readonly span: bigint;
}

/** `under`: the stage-1 walk that asks. `required` false: what is updated may as well not be. */
export function stage2(
  context: Stage2Context,
  ipa: bigint,
  kind: Class,
  wish: Wish,
  under: (Stage1Tag & { readonly global?: boolean }) | null,
  required = true,
): Stage2Result {
  const { f, tables, ste, vmid, choose } = context;
  const model: FaultModel = { abort: true, record: ste.S2R, stall: ste.S2S };
  const fault = (event: "F_TRANSLATION" | "F_ADDR_SIZE" | "F_ACCESS" | "F_PERMISSION") =>
    new Fault(event, {
      stage: 2,
      class: kind,
      ipa,
      model,
      ...(kind === "TT" ? { tableRead: wish === TABLE_READ } : {}),
    });

  if (ipa >> (64n - ste.S2T0SZ) !== 0n) throw fault("F_TRANSLATION");
  const granule = granuleOfTG0(f, ste.S2TG)!;
  const size = effectiveSize(f, ste.S2PS);
  const start = stage2StartLevel(f, ste, granule)!;
  const indexBits = 64n - ste.S2T0SZ - levelShift(granule, start);
  const tableBytes = 8n << indexBits;
  // The SMMU aligns the base; 64 bytes at least if addresses of 52 bits come out (§5.2, S2TTB).
  let table = aligned(ste.S2TTB, size >= 52n && tableBytes < 64n ? 64n : tableBytes);
  // S2HD without S2HA, where it is not ILLEGAL, counts as neither.
  const HA = ste.S2HA;
  const dirtyManaged = HA && ste.S2HD;
  for (let level = start; ; level++) {
    const shift = levelShift(granule, level);
    const index = level === start ? bits(ipa, 63n, shift) : bits(ipa, shift + granule.stride - 1n, shift);
    const at = table + index * 8n;
    const read = tables.load(
      at,
      1,
      {
        kind: "stage-2",
        vmid,
        ipa,
        level,
        granule: granule.bits,
        under,
        final: kind === "IN",
        global: under?.global ?? false,
      },
      ([raw]) => {
        const value = ste.S2ENDI ? swapBytes(raw!) : raw!;
        const { kind: what } = decodeDescriptor(f, granule, level, value, size, () => 0);
        const usable = what !== "invalid" && (what === "table" || bit(value, 10n) || ste.S2AFFD);
        return { cacheable: usable, leaf: what !== "table", span: 1n << shift, global: false };
      },
    );
    if (read === null) throw new Fault("F_WALK_EABT", { stage: 2, class: kind, fetchAddress: at });
    const descriptor = ste.S2ENDI ? swapBytes(read[0]!) : read[0]!;
    const decoded = decodeDescriptor(f, granule, level, descriptor, size, choose);
    if (decoded.kind === "invalid") throw fault("F_TRANSLATION");
    if (decoded.address >> size !== 0n) throw fault("F_ADDR_SIZE");
    if (decoded.kind === "table") {
      if (HA && ste.S2HAFT && !bit(descriptor, 10n)) change(at, read[0]!, AF, AF);
      table = decoded.address;
      continue;
    }
    if (!bit(descriptor, 10n) && !HA && !ste.S2AFFD) throw fault("F_ACCESS");
    const rights = stage2Rights(f, descriptor, dirtyManaged, wish.privileged);
    const accessed = () => {
      if (HA && !bit(descriptor, 10n)) change(at, read[0]!, AF, AF);
    };
    const protectedWalk = kind !== "IN" && ste.Config === 0b111n && ste.S2PTW && isDevice(ste, descriptor);
    if (protectedWalk || !permitted(wish, rights)) {
      accessed();
      if (wish.kind === "access" || protectedWalk) throw fault("F_PERMISSION");
      return { address: decoded.address | (ipa & ((1n << shift) - 1n)), rights, span: 1n << shift };
    }
    accessed();
    // §3.13.4: speculatively, for pages that hold stage-1 tables.
    if (kind === "TT" && rights.clean && wish === TABLE_READ)
      change(at, read[0]!, WRITE_CONTROL | AF, WRITE_CONTROL | AF, false);
    if (marksDirty(wish, rights)) change(at, read[0]!, WRITE_CONTROL, WRITE_CONTROL);
    return {
      address: decoded.address | (ipa & ((1n << shift) - 1n)),
      rights,
      span: 1n << shift,
    };
  }

  function change(address: bigint, before: bigint, mask: bigint, value: bigint, must = required): void {
    const swap = (word: bigint) => (ste.S2ENDI ? swapBytes(word) : word);
    tables.update({ address, mask: swap(mask), value: swap(value), required: must }, before);
  }
}

/** Any Device type: MemAttr[3:2]=00, or with S2FWB MemAttr[2]=0. */
function isDevice(ste: StreamTableEntry, leaf: bigint): boolean {
  return ste.S2FWB ? !bit(leaf, 4n) : bits(leaf, 5n, 4n) === 0n;
}
