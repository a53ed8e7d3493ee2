/**
 * MSI address translation (§3.1.3.6, §3.3.3; AIA chapter 9): pages of virtual interrupt files, given by a pattern and a mask, go through the
 * MSI page table in place of the second stage.
 */
import type { DeviceContext } from "./device-context.ts";
import { bit, bits, has, physicalAddressBits, swapBytes } from "./implementation.ts";
import { type InterruptFile, type Request, Stop } from "./outcome.ts";
import type { SecondStageContext } from "./second-stage.ts";

export function isInterruptFile(dc: DeviceContext, gpa: bigint): boolean {
  const outside = ~dc.msi.mask & ((1n << 52n) - 1n);
  return dc.msi.on && ((gpa >> 12n) & outside) === (dc.msi.pattern & outside);
}

/** The bits of `value` under `mask`, packed to the low end. */
function packed(value: bigint, mask: bigint): bigint {
  let result = 0n;
  let to = 0n;
  for (let at = 0n; at < 52n; at++) {
    if (!bit(mask, at)) continue;
    if (bit(value, at)) result |= 1n << to;
    to++;
  }
  return result;
}

/** §3.3.3, for a GPA that is an interrupt file's. Stops with 261, 262, 263 or 270, or with 1 for a fetch. */
export function translateMsi(
  context: SecondStageContext,
  gpa: bigint,
  request: Request,
): { address: bigint } | { interruptFile: InterruptFile } {
  const { implementation, tables, dc } = context;
  const inOrder = (value: bigint) => (implementation.be ? swapBytes(value, 8) : value);
  const address = (dc.msi.ppn << 12n) | (packed(gpa >> 12n, dc.msi.mask) * 16n);
  if (address >> physicalAddressBits(implementation) !== 0n) throw new Stop(261);
  const loaded = tables.load(address, 16, { table: "msi", gscid: dc.secondStage.gscid, gpa }, ([value]) => ({
    valid: bit(inOrder(value!), 0n),
    leaf: true,
    span: 4096n,
    global: false,
  }));
  if (loaded.injected === "access") throw new Stop(261);
  if (loaded.injected === "corrupt") throw new Stop(270);
  const [low, high] = [inOrder(loaded.values[0]!), inOrder(loaded.values[1]!)];
  if (!bit(low, 0n)) throw new Stop(262);
  if (bit(low, 63n)) throw new Stop(263); // custom format: none here
  const mode = bits(low, 2n, 1n);
  if (mode === 0n || mode === 2n) throw new Stop(263);
  if (mode === 3n) {
    if (bits(low, 9n, 3n) !== 0n || bits(low, 62n, 54n) !== 0n) throw new Stop(263);
  } else {
    if (!has(implementation, "MSI_MRIF")) throw new Stop(263);
    if (bits(low, 6n, 3n) !== 0n || bits(low, 62n, 54n) !== 0n) throw new Stop(263);
    if (bits(high, 59n, 54n) !== 0n || bits(high, 63n, 61n) !== 0n) throw new Stop(263);
  }
  // The entry stands for a second-stage leaf with R=W=U=1 and X=0.
  if (request.type !== "ats" && request.access === "execute") throw new Stop(1);
  if (mode === 3n) return { address: (bits(low, 53n, 10n) << 12n) | (gpa & 0xfffn) };
  return {
    interruptFile: {
      address: bits(low, 53n, 7n) << 9n,
      noticeAddress: bits(high, 53n, 10n) << 12n,
      noticeIdentity: bits(high, 9n, 0n) | (bit(high, 60n) ? 1n << 10n : 0n),
    },
  };
}
