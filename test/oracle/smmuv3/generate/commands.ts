/** Invalidation commands as doublewords (§4.3, §4.4). */
import type { Command } from "../adapter.ts";

/** One address, any granule; or with `range` (NUM+1)·2^SCALE granules. */
export interface Addressed {
  readonly address: bigint;
  readonly leaf?: boolean;
  readonly range?: { readonly granule: bigint; readonly num: bigint; readonly scale: bigint; readonly ttl: bigint };
}

const TG: Record<string, bigint> = { 12: 1n, 14: 2n, 16: 3n };

function byAddress(opcode: bigint, vmid: bigint, asid: bigint, { address, leaf, range }: Addressed): Command {
  const dw0 =
    opcode | (vmid << 32n) | (asid << 48n) | (range === undefined ? 0n : (range.num << 12n) | (range.scale << 20n));
  const tail = range === undefined ? 0n : (range.ttl << 8n) | (TG[range.granule.toString()]! << 10n);
  return [dw0, (leaf === true ? 1n : 0n) | tail | (BigInt.asUintN(64, address) & ~0xfffn)];
}

export const cfgiSte = (sid: bigint, leaf: boolean): Command => [0x03n | (sid << 32n), leaf ? 1n : 0n];
/** 2^(range+1) StreamIDs; 31: all. */
export const cfgiSteRange = (sid: bigint, range: bigint): Command => [0x04n | (sid << 32n), range];
export const cfgiCd = (sid: bigint, ssid: bigint, leaf: boolean): Command => [
  0x05n | (1n << 11n) | (ssid << 12n) | (sid << 32n),
  leaf ? 1n : 0n,
];
export const cfgiCdAll = (sid: bigint): Command => [0x06n | (sid << 32n), 0n];
export const nhAll = (vmid: bigint): Command => [0x10n | (vmid << 32n), 0n];
export const nhAsid = (vmid: bigint, asid: bigint): Command => [0x11n | (vmid << 32n) | (asid << 48n), 0n];
export const nhVa = (vmid: bigint, asid: bigint, where: Addressed): Command => byAddress(0x12n, vmid, asid, where);
export const nhVaa = (vmid: bigint, where: Addressed): Command => byAddress(0x13n, vmid, 0n, where);
export const el2All = (): Command => [0x20n, 0n];
export const el2Asid = (asid: bigint): Command => [0x21n | (asid << 48n), 0n];
export const el2Va = (asid: bigint, where: Addressed): Command => byAddress(0x22n, 0n, asid, where);
export const el2Vaa = (where: Addressed): Command => byAddress(0x23n, 0n, 0n, where);
export const s12Vmall = (vmid: bigint): Command => [0x28n | (vmid << 32n), 0n];
export const s2Ipa = (vmid: bigint, where: Addressed): Command => byAddress(0x2an, vmid, 0n, where);
export const nsnhAll = (): Command => [0x30n, 0n];
