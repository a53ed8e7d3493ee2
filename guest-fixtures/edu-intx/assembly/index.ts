// Interrupt pins: makes every edu device raise INTA#, sees its wire pending until the device is quiet and no longer, again and again.
// The IOMMU stays off: wires are no DMA.

import { check, checkEqual, printLine } from "../../driver/assembly/console";
import { EDU_DEVICE, EDU_VENDOR, EduDevice } from "../../driver/assembly/edu";
import { pciLine, pollInterrupt, waitForInterrupt } from "../../driver/assembly/machine";
import { walkPci } from "../../driver/assembly/pci";

const ROUNDS: i32 = 3;

export function run(): u32 {
  const functions = walkPci();
  let devices = 0;
  for (let i = 0; i < functions.length; i++) {
    if (functions[i].vendor != EDU_VENDOR || functions[i].device != EDU_DEVICE) continue;
    const edu = new EduDevice(functions[i]);
    functions[i].useInterruptPin();
    const line = pciLine(functions[i].requesterId, 1);
    check(line >= 0, functions[i].describe() + " has no wire");
    for (let round = 0; round < ROUNDS; round++) {
      checkEqual(pollInterrupt(), -1, "an interrupt before the device raised one");
      edu.raise(1 << round);
      checkEqual(waitForInterrupt(), line, "the wire of " + functions[i].describe());
      checkEqual(pollInterrupt(), line, "the wire of a device that is not quiet yet");
      checkEqual(edu.interruptStatus, 1 << round, "interrupt status of " + functions[i].describe());
      edu.quiet(1 << round);
      checkEqual(pollInterrupt(), -1, "an interrupt of a quiet device");
    }
    printLine(functions[i].describe() + " raised wire " + line.toString() + " " + ROUNDS.toString() + " times");
    devices++;
  }
  check(devices > 0, "no edu device");
  return 0;
}
