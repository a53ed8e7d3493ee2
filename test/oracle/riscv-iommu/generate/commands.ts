/** Invalidation commands as their two doublewords (§4.1). */
import type { Command } from "../invalidation.ts";

export interface Addressed {
  /** AV and ADDR: any address in the page. */
  readonly address?: bigint | undefined;
  /** S: the range is this many bytes, a power of two above 4096, around the address. */
  readonly range?: bigint | undefined;
  readonly nonLeaf?: boolean | undefined;
}

function addressed({ address, range, nonLeaf }: Addressed): Command {
  if (address === undefined) return [0n, 0n];
  let page = (address & ((1n << 64n) - 1n)) >> 12n;
  if (range !== undefined) {
    const pages = range / 4096n;
    page = (page & ~(pages - 1n)) | (pages / 2n - 1n); // lowest 0 bit X stands for 2^(X+1) pages
  }
  return [(1n << 10n) | (nonLeaf ? 1n << 34n : 0n), (page << 10n) | (range === undefined ? 0n : 1n << 9n)];
}

/** IOTINVAL.VMA; `gscid` null for the host. */
export function iotinvalVma(gscid: bigint | null, pscid: bigint | null, where: Addressed = {}): Command {
  const [low, high] = addressed(where);
  const guest = gscid === null ? 0n : (1n << 33n) | (gscid << 44n);
  const process = pscid === null ? 0n : (1n << 32n) | (pscid << 12n);
  return [1n | low | guest | process, high];
}

/** IOTINVAL.GVMA; `gscid` null for every guest. */
export function iotinvalGvma(gscid: bigint | null, where: Addressed = {}): Command {
  const [low, high] = addressed(where);
  return [1n | (1n << 7n) | low | (gscid === null ? 0n : (1n << 33n) | (gscid << 44n)), high];
}

export function iodirInvalDdt(deviceId: bigint | null): Command {
  return [3n | (deviceId === null ? 0n : (1n << 33n) | (deviceId << 40n)), 0n];
}

export function iodirInvalPdt(deviceId: bigint, processId: bigint): Command {
  return [3n | (1n << 7n) | (processId << 12n) | (1n << 33n) | (deviceId << 40n), 0n];
}
