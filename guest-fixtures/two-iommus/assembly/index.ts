// A machine with several IOMMUs: one edu device behind each, all with the same tag (TAG, ASID) and the same IOVAs. Each moves its own page; an
// invalidation, a fault and a fault interrupt are those of the IOMMU that the platform names for the device.

import { check, checkEqual, fail, hex, printLine } from "../../driver/assembly/console";
import { EDU_DEVICE, EDU_VENDOR, EduDevice } from "../../driver/assembly/edu";
import { findIommu, iommuCount } from "../../driver/assembly/find-iommu";
import { awaitInterrupt, takeInterrupt } from "../../driver/assembly/interrupts";
import { NOT_MAPPED, Iommu } from "../../driver/assembly/iommu";
import { gpaOf, iommuLine, iommuOf, regionBase, regionCount, regionSize, IDENTITY } from "../../driver/assembly/machine";
import { allocatePages, fillPattern, firstDifference } from "../../driver/assembly/pages";
import { PageTable, READ, READ_WRITE } from "../../driver/assembly/page-table";
import { walkPci } from "../../driver/assembly/pci";

const TAG: u32 = 7;
const SOURCE_IOVA: u64 = 0x1234567000;
const TARGET_IOVA: u64 = 0x2345678000;
/** Messages of IOMMU i: FIRST_MESSAGE + 2 * i for commands, the next for faults. */
const FIRST_MESSAGE: u32 = 256;

/** An IOMMU, and the one device of its that is used. */
class Side {
  readonly iommu: Iommu;
  readonly table: PageTable;
  readonly source: usize = allocatePages();
  readonly target: usize = allocatePages();
  faultInterrupt: u32 = 0;

  constructor(
    readonly index: u32,
    readonly edu: EduDevice,
  ) {
    const iommu = findIommu(index);
    this.iommu = iommu;
    this.table = iommu.newTable();
  }

  start(): void {
    fillPattern(this.source, this.index + 1);
    this.table.map(SOURCE_IOVA, gpaOf(this.source), READ);
    this.table.map(TARGET_IOVA, gpaOf(this.target), READ_WRITE);
    for (let i: u32 = 0; i < regionCount(IDENTITY); i++) {
      this.table.mapIdentity(regionBase(IDENTITY, i), regionSize(IDENTITY, i));
    }
    const message = FIRST_MESSAGE + 2 * this.index;
    this.faultInterrupt = this.iommu.enable(message, message + 1);
    this.iommu.setFirstStage(this.id, TAG, this.table);
    this.iommu.fence();
  }

  get id(): u32 {
    return this.edu.pci.requesterId;
  }
}

export function run(): u32 {
  const count = iommuCount();
  check(count > 1, "this guest needs several IOMMUs, there is " + count.toString());
  const sides: Side[] = [];
  const functions = walkPci();
  for (let i = 0; i < functions.length; i++) {
    if (functions[i].vendor != EDU_VENDOR || functions[i].device != EDU_DEVICE) continue;
    // One device an IOMMU, whatever the order in which they are found.
    const index = iommuOf(functions[i].requesterId);
    check(index >= 0 && <u32>index < count, functions[i].describe() + " is behind no IOMMU");
    let taken = false;
    for (let j = 0; j < sides.length; j++) if (sides[j].index == <u32>index) taken = true;
    if (!taken) sides.push(new Side(index, new EduDevice(functions[i])));
  }
  checkEqual(sides.length, count, "IOMMUs with an edu device");
  for (let i = 0; i < sides.length; i++) {
    sides[i].start();
    for (let j = 0; j < i; j++) {
      check(sides[i].iommu.base != sides[j].iommu.base, "two IOMMUs have one base");
      const line = iommuLine(sides[i].index, 1);
      check(line < 0 || line != iommuLine(sides[j].index, 1), "two IOMMUs have one wire");
    }
    printLine(
      sides[i].edu.pci.describe() + ": IOMMU " + sides[i].index.toString() + " at " + hex(sides[i].iommu.base),
    );
  }

  for (let i = 0; i < sides.length; i++) {
    sides[i].edu.readQuietly(SOURCE_IOVA);
    sides[i].edu.writeQuietly(TARGET_IOVA);
  }
  for (let i = 0; i < sides.length; i++) {
    check(firstDifference(sides[i].target, sides[i].source) < 0, "the page moved by " + sides[i].edu.pci.describe());
  }
  printLine("copy: equal IOVAs and tags, each device its own page");

  for (let i = 0; i < sides.length; i++) unmap(sides, i);
  const heard = sides[0].iommu.codeOf(NOT_MAPPED, false) >= 0;
  printLine("unmap: " + (heard ? "each fault in the queue of the device's own IOMMU, with that one's interrupt" : "nothing is heard"));
  return 0;
}

function expectFault(side: Side): void {
  awaitInterrupt(side.faultInterrupt, "the fault of " + side.edu.pci.describe());
  const fault = side.iommu.takeFault();
  if (fault == null) {
    fail("a fault interrupt, but no record");
    return;
  }
  checkEqual(fault.code, side.iommu.codeOf(NOT_MAPPED, false), side.iommu.codeName + " (" + fault.describe() + ")");
  checkEqual(fault.deviceId, side.id, "device id (" + fault.describe() + ")");
  checkEqual(fault.address, SOURCE_IOVA, "address (" + fault.describe() + ")");
  side.iommu.acknowledgeFaults();
}

/** Unmaps the source at one IOMMU: its device faults there, heard of or not, every other device goes on. */
function unmap(sides: Side[], which: i32): void {
  const side = sides[which];
  side.table.unmap(SOURCE_IOVA);
  side.iommu.invalidatePage(TAG, SOURCE_IOVA);
  side.iommu.fence();
  side.edu.readQuietly(SOURCE_IOVA);
  if (side.iommu.codeOf(NOT_MAPPED, false) >= 0) expectFault(side);
  side.table.map(SOURCE_IOVA, gpaOf(side.source), READ);
  side.iommu.invalidatePage(TAG, SOURCE_IOVA);
  side.iommu.fence();
  for (let j = 0; j < sides.length; j++) {
    sides[j].edu.readQuietly(SOURCE_IOVA);
    check(sides[j].iommu.takeFault() == null, "a fault in the queue of IOMMU " + sides[j].index.toString());
    if (j != which) check(!takeInterrupt(sides[j].faultInterrupt), "a fault interrupt of another IOMMU");
  }
}
