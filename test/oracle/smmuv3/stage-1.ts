/**
 * Stage 1 (§3.3.3, §3.4, A-profile architecture): from a virtual address to an IPA, or with stage 2 off to a physical address. Descriptors lie where stage 2
 * puts them.
 */
import {
  below,
  type Hierarchy,
  marksDirty,
  NO_HIERARCHY,
  permitted,
  type Rights,
  stage1Rights,
  TABLE_READ,
  TABLE_WRITE,
  type Wish,
} from "./access.ts";
import { type ContextDescriptor, stage1Model, type TableBase } from "./context-descriptor.ts";
import { bit, bits, swapBytes } from "./identification.ts";
import { Fault } from "./outcome.ts";
import { type Stage2Context, stage2 } from "./stage-2.ts";
import { aligned } from "./stream-table.ts";
import { effectiveSize, type StreamWorld } from "./stream-table-entry.ts";
import type { EntryMeaning, Stage1Tag } from "./tables.ts";
import { AF, decodeDescriptor, type Granule, levelShift, WRITE_CONTROL } from "./translation-table.ts";

export interface Stage1Context extends Stage2Context {
  readonly world: StreamWorld;
  readonly cd: ContextDescriptor;
}

export interface Stage1Result {
  readonly ipa: bigint;
  readonly rights: Rights;
  readonly span: bigint;
  /** What cached entries of the translation are found by. */
  readonly tag: Stage1Tag & { readonly global: boolean };
}

/** A descriptor as memory holds it, and where. */
interface Found {
  readonly at: bigint;
  /** The address before stage 2. */
  readonly ipa: bigint;
  readonly raw: bigint;
  readonly descriptor: bigint;
}

export function stage1(context: Stage1Context, va: bigint, wish: Wish): Stage1Result {
  const { f, tables, ste, world, cd, vmid, choose } = context;
  const fault = (event: "F_TRANSLATION" | "F_ADDR_SIZE" | "F_ACCESS" | "F_PERMISSION") =>
    new Fault(event, { stage: 1, class: "IN", model: stage1Model(cd) });
  const tag: Stage1Tag = { world, vmid, asid: world === "EL2" ? null : cd.ASID, va };

  const base = baseFor(cd, va);
  if (base === null || base.EPD) throw fault("F_TRANSLATION");
  if (base.E0PD && !wish.privileged) throw fault("F_TRANSLATION");
  const granule = base.granule!;
  const size = effectiveSize(f, cd.IPS);
  const inputBits = 64n - base.TSZ;
  const start = startLevel(granule, inputBits);
  const tableBytes = 8n << (inputBits - levelShift(granule, start));
  // Aligned to the first table, which may be short; 64 bytes at least if addresses of 52 bits come out (§5.4, TTB0).
  let table = aligned(base.TTB, size >= 52n && tableBytes < 64n ? 64n : tableBytes);
  let hierarchy: Hierarchy = NO_HIERARCHY;
  const HA = cd.HA;
  const dirtyManaged = HA && cd.HD;
  for (let level = start; ; level++) {
    const shift = levelShift(granule, level);
    const top = level === start ? inputBits - 1n : shift + granule.stride - 1n;
    const found = load(table + bits(va, top, shift) * 8n, level);
    const { descriptor } = found;
    const decoded = decodeDescriptor(f, granule, level, descriptor, size, choose);
    if (decoded.kind === "invalid") throw fault("F_TRANSLATION");
    if (decoded.address >> size !== 0n) throw fault("F_ADDR_SIZE");
    if (decoded.kind === "table") {
      if (HA && cd.HAFT && !bit(descriptor, 10n)) change(found, AF, AF);
      hierarchy = below(hierarchy, base, descriptor);
      table = decoded.address;
      continue;
    }
    const marksAccessed = HA && !bit(descriptor, 10n);
    if (!bit(descriptor, 10n) && !HA && !cd.AFFD) throw fault("F_ACCESS");
    const rights = stage1Rights(world, cd, hierarchy, descriptor, dirtyManaged, wish.privileged);
    const result = {
      ipa: decoded.address | (va & ((1n << shift) - 1n)),
      rights,
      span: 1n << shift,
      tag: { ...tag, global: !bit(descriptor, 11n) },
    };
    if (!permitted(wish, rights)) {
      // §3.13.2: UNKNOWN whether AF is set.
      if (marksAccessed) mayChange(found, AF, AF);
      if (wish.kind === "access") throw fault("F_PERMISSION");
      return result;
    }
    if (marksAccessed) change(found, AF, AF);
    if (marksDirty(wish, rights)) change(found, WRITE_CONTROL, 0n);
    return result;
  }

  function load(address: bigint, level: number): Found {
    const at = ste.stage2 ? stage2(context, address, "TT", TABLE_READ, tag).address : address;
    const read = tables.load(at, 1, { kind: "stage-1", level, granule: granule.bits, ...tag }, ([raw]) =>
      meaningOf(level, cd.ENDI ? swapBytes(raw!) : raw!),
    );
    // CLASS is TT although the fault is one of stage 1 (§7.3.12).
    if (read === null) throw new Fault("F_WALK_EABT", { stage: 1, class: "TT", fetchAddress: at });
    const raw = read[0]!;
    return { at, ipa: address, raw, descriptor: cd.ENDI ? swapBytes(raw) : raw };
  }

  /** The update is a write, and stage 2 must permit it (§3.13.5). */
  function change(found: Found, mask: bigint, value: bigint): void {
    if (ste.stage2) stage2(context, found.ipa, "TT", TABLE_WRITE, tag);
    note(found, mask, value, true);
  }

  /** The same, where it may as well not be done; if stage 2 forbids it, it is not. */
  function mayChange(found: Found, mask: bigint, value: bigint): void {
    try {
      if (ste.stage2) stage2(context, found.ipa, "TT", TABLE_WRITE, tag, false);
    } catch (fault) {
      if (fault instanceof Fault) return;
      throw fault;
    }
    note(found, mask, value, false);
  }

  function note({ at, raw }: Found, mask: bigint, value: bigint, required: boolean): void {
    const swap = (word: bigint) => (cd.ENDI ? swapBytes(word) : word);
    tables.update({ address: at, mask: swap(mask), value: swap(value), required }, raw);
  }

  function meaningOf(level: number, value: bigint): EntryMeaning {
    const { kind } = decodeDescriptor(f, granule, level, value, size, () => 0);
    const accessible = bit(value, 10n) || cd.AFFD;
    const cacheable = kind !== "invalid" && (kind === "table" || accessible);
    return { cacheable, leaf: kind !== "table", span: 1n << levelShift(granule, level), global: !bit(value, 11n) };
  }
}

/** Which half of the input range the address lies in; null: in neither (§3.4.1). */
function baseFor(cd: ContextDescriptor, va: bigint): TableBase | null {
  const index = cd.bases.length === 2 && bit(va, 55n) ? 1 : 0;
  const base = cd.bases[index]!;
  if (base.EPD) return base;
  const top = base.TBI ? 55n : 63n;
  const low = 64n - base.TSZ;
  const above = bits(va, top, low);
  const wanted = index === 1 ? (1n << (top - low + 1n)) - 1n : 0n;
  return above === wanted ? base : null;
}

/** The level whose table resolves the top of `inputBits` address bits. */
function startLevel(granule: Granule, inputBits: bigint): number {
  const levels = (inputBits - granule.bits + granule.stride - 1n) / granule.stride;
  return 4 - Number(levels);
}
