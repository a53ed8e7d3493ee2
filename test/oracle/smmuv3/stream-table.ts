/**
 * From a StreamID to its stream table entry (§3.3.2, §5.1, §6.3.24, §6.3.25): linear, or through a level-1 descriptor.
 */
import type { Choose } from "../latitude.ts";
import { bits, type Features, type Programming } from "./identification.ts";
import { Fault } from "./outcome.ts";
import type { Tables } from "./tables.ts";

/** Eight doublewords. */
export function locateStreamTableEntry(
  f: Features,
  { STRTAB_BASE, STRTAB_BASE_CFG }: Programming,
  tables: Tables,
  sid: bigint,
  choose: Choose,
): readonly bigint[] {
  const written = bits(STRTAB_BASE_CFG, 5n, 0n);
  const log2Size = written < f.SIDSIZE ? written : f.SIDSIZE;
  if (sid >> log2Size !== 0n) throw new Fault("C_BAD_STREAMID");
  const twoLevels = f.twoLevelStreamTable && bits(STRTAB_BASE_CFG, 17n, 16n) === 1n;
  const base = bits(STRTAB_BASE, 55n, 6n) << 6n;
  // A base is aligned by the SMMU with LOG2SIZE as written (§6.3.24).
  if (!twoLevels) return fetch(aligned(base, 1n << (written + 6n)) + sid * 64n);

  const splits: Record<string, bigint> = { 8: 8n, 10: 10n };
  const split = splits[bits(STRTAB_BASE_CFG, 10n, 6n).toString()] ?? 6n;
  const level1Bytes = written > split ? 8n << (written - split) : 8n;
  const level1 = aligned(base, level1Bytes > 64n ? level1Bytes : 64n);
  const descriptorAt = inRange(level1 + (sid >> split) * 8n);
  const read = tables.load(descriptorAt, 1, { kind: "L1STD", sid }, ([value]) => ({
    // Span=0 means that nothing is there, and drivers link level-2 arrays without an invalidation; see the README.
    cacheable: bits(value!, 4n, 0n) !== 0n,
    leaf: false,
    span: 0n,
    global: false,
  }));
  if (read === null) throw new Fault("F_STE_FETCH", { fetchAddress: descriptorAt });
  const descriptor = read[0]!;
  const span = bits(descriptor, 4n, 0n);
  if (span === 0n || span > 11n || span > split + 1n) throw new Fault("C_BAD_STREAMID");
  const index = bits(sid, split - 1n, 0n);
  const entries = 1n << (span - 1n);
  if (index >= entries) throw new Fault("C_BAD_STREAMID");
  return fetch(aligned(bits(descriptor, 55n, 6n) << 6n, entries * 64n) + index * 64n);

  function fetch(calculated: bigint): readonly bigint[] {
    const address = inRange(calculated);
    // A stream table entry may be cached in any state (§5.2.1).
    const meaning = () => ({ cacheable: true, leaf: true, span: 0n, global: false });
    const entry = tables.load(address, 8, { kind: "STE", sid }, meaning);
    if (entry === null) throw new Fault("F_STE_FETCH", { fetchAddress: address });
    return entry;
  }

  /** §3.4.3 (5): an address beyond the OAS is truncated, or the fetch fails. */
  function inRange(address: bigint): bigint {
    if (address >> f.OAS === 0n) return address;
    if (choose(2, "§3.4.3: a fetch beyond the OAS fails or is truncated") === 0)
      throw new Fault("F_STE_FETCH", { fetchAddress: address });
    return address & ((1n << f.OAS) - 1n);
  }
}

/** `bytes` is a power of two. */
export function aligned(address: bigint, bytes: bigint): bigint {
  return address & ~(bytes - 1n);
}
