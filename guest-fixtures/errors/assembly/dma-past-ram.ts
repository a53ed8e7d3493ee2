// Lets an edu device read and write past RAM that its IOMMU lets pass as it is: nothing is transferred, the device ends its command, RAM is
// as it was.

import { check, printLine } from "../../driver/assembly/console";
import { EDU_DEVICE, EDU_VENDOR, EduDevice } from "../../driver/assembly/edu";
import { findIommu } from "../../driver/assembly/find-iommu";
import { iommuOf, regionBase, regionSize, RAM } from "../../driver/assembly/machine";
import { allocatePages, fillPattern, firstDifference, PAGE_SIZE } from "../../driver/assembly/pages";
import { walkPci } from "../../driver/assembly/pci";

export function run(): u32 {
  const functions = walkPci();
  for (let i = 0; i < functions.length; i++) {
    if (functions[i].vendor != EDU_VENDOR || functions[i].device != EDU_DEVICE) continue;
    const edu = new EduDevice(functions[i]);
    findIommu(iommuOf(functions[i].requesterId)).passThrough();
    const page = allocatePages();
    const expected = allocatePages();
    fillPattern(page, 5);
    memory.copy(expected, page, PAGE_SIZE);
    edu.readQuietly(regionBase(RAM) + <u64>page);
    edu.writeQuietly(regionBase(RAM) + regionSize(RAM));
    edu.readQuietly(regionBase(RAM) + regionSize(RAM));
    edu.writeQuietly(regionBase(RAM) + <u64>page);
    check(firstDifference(page, expected) < 0, "the refused read changed the device's buffer");
    printLine("DMA past RAM was refused, and the guest goes on");
    return 0;
  }
  check(false, "no edu device");
  return 1;
}
