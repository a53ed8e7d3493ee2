// Making a device with ATS forget the translations it holds (PCIe 6.0 §10.3.1): needed whenever what they were made from changes
// under it - an unmap, or another domain.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import type { IommuDevice } from "../driver.ts";
import type { CommandQueue } from "./command-queue.ts";

// S = 1 with all address bits but the highest set names the whole address space (§10.2.3.2).
const [PLAIN, EVERYTHING] = encodeCommand("ATS.INVAL", { DSV: 1, S: 1, ADDR: (1n << 51n) - 1n });
const [TAGGED, EVERYWHERE] = encodeCommand("ATS.INVAL", { DSV: 1, S: 1, ADDR: (1n << 51n) - 1n, PV: 1, G: 1 });
const low = (word: bigint): number => Number(word & 0xffffffffn);
const high = (word: bigint): number => Number(word >> 32n);
const [PLAIN_LOW, PLAIN_HIGH] = [low(PLAIN), high(PLAIN)];
const [TAGGED_LOW, TAGGED_HIGH] = [low(TAGGED), high(TAGGED)];
const [EVERYTHING_LOW, EVERYTHING_HIGH] = [low(EVERYTHING), high(EVERYTHING)];
const [EVERYWHERE_LOW, EVERYWHERE_HIGH] = [low(EVERYWHERE), high(EVERYWHERE)];

/** Pushes ATS.INVALs of everything the device holds, without PASID and in every PASID. */
export function forgetTranslations(queue: CommandQueue, device: IommuDevice): void {
  // RID is bits 55:40 and DSEG 63:56: a device id of 24 bits.
  const target = device.deviceId << 8;
  queue.pushHalves(PLAIN_LOW, PLAIN_HIGH | target, EVERYTHING_LOW, EVERYTHING_HIGH);
  if (device.maxPasids > 0) queue.pushHalves(TAGGED_LOW, TAGGED_HIGH | target, EVERYWHERE_LOW, EVERYWHERE_HIGH);
}
