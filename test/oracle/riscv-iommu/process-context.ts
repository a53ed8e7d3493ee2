/**
 * Finding a process context: the process directory (§3.3.2) and the format of the context (§3.2.3). Directory addresses are GPAs when there is
 * a second stage.
 */
import { type DeviceContext, firstStageMode, type TableMode } from "./device-context.ts";
import { bit, bits, physicalAddressBits, swapBytes } from "./implementation.ts";
import { Stop } from "./outcome.ts";
import { type SecondStageContext, secondStage } from "./second-stage.ts";
import type { Wish } from "./wish.ts";

export interface ProcessContext {
  readonly ens: boolean;
  readonly sum: boolean;
  readonly pscid: bigint;
  readonly mode: TableMode;
  readonly ppn: bigint;
}

/** §3.3.2. Stops with 265, 266, 267, 269 or a guest-page fault of the original access. */
export function locateProcessContext(
  context: SecondStageContext,
  dc: DeviceContext,
  deviceId: bigint,
  processId: bigint,
  wish: Wish,
): ProcessContext {
  const { implementation, tables } = context;
  const inOrder = (value: bigint) => (dc.sbe ? swapBytes(value, 8) : value);
  const pdi = [bits(processId, 7n, 0n), bits(processId, 16n, 8n), bits(processId, 19n, 17n)];
  const levels = Number(bits(dc.fsc, 63n, 60n));
  const physical = (gpa: bigint) => {
    const address = secondStage(context, gpa, "directory-read", wish).address;
    if (address >> physicalAddressBits(implementation) !== 0n) throw new Stop(265);
    return address;
  };
  const valid = (value: bigint) => bit(inOrder(value), 0n);
  let table = bits(dc.fsc, 43n, 0n) << 12n;
  for (let level = levels - 1; level > 0; level--) {
    const address = physical(table + pdi[level]! * 8n);
    const loaded = tables.load(address, 8, { table: "pdt-non-leaf", deviceId }, ([value]) => ({
      valid: valid(value!),
      leaf: false,
      span: 0n,
      global: false,
    }));
    if (loaded.injected === "access") throw new Stop(265);
    if (loaded.injected === "corrupt") throw new Stop(269);
    const entry = inOrder(loaded.values[0]!);
    if (!bit(entry, 0n)) throw new Stop(266);
    if (bits(entry, 9n, 1n) !== 0n || bits(entry, 63n, 54n) !== 0n) throw new Stop(267);
    table = bits(entry, 53n, 10n) << 12n;
  }
  const address = physical(table + pdi[0]! * 16n);
  const loaded = tables.load(address, 16, { table: "process-context", deviceId, processId }, ([ta]) => ({
    valid: valid(ta!),
    leaf: true,
    span: 0n,
    global: false,
  }));
  if (loaded.injected === "access") throw new Stop(265);
  if (loaded.injected === "corrupt") throw new Stop(269);
  const ta = inOrder(loaded.values[0]!);
  const fsc = inOrder(loaded.values[1]!);
  if (!bit(ta, 0n)) throw new Stop(266);
  const mode = firstStageMode(implementation, dc.sxl, bits(fsc, 63n, 60n));
  if (bits(ta, 11n, 3n) !== 0n || bits(ta, 63n, 32n) !== 0n || bits(fsc, 59n, 44n) !== 0n || mode === null)
    throw new Stop(267);
  return { ens: bit(ta, 1n), sum: bit(ta, 2n), pscid: bits(ta, 31n, 12n), mode, ppn: bits(fsc, 43n, 0n) };
}
