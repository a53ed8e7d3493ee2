// An edu on no bus: found where the platform says, copying through a first stage, its wire at the end of each copy. Where the IOMMU lets transactions
// wait, pages come on demand: the device asks for what is not mapped, waits, and gets it, or is refused.

import { check, checkEqual, hex, printLine } from "../../driver/assembly/console";
import { EDU_BUFFER_SIZE, OUTCOME_DONE, OUTCOME_REFUSED, PlatformEdu } from "../../driver/assembly/edu";
import { findIommu } from "../../driver/assembly/find-iommu";
import { Fault, Iommu } from "../../driver/assembly/iommu";
import { gpaOf, regionBase, regionCount, regionSize, waitForInterrupt, IDENTITY, PLATFORM_EDU } from "../../driver/assembly/machine";
import { PageTable, READ_WRITE } from "../../driver/assembly/page-table";
import { allocatePages } from "../../driver/assembly/pages";

const IOVA: u64 = 0x40000000;
const ON_DEMAND: u64 = 0x50000000;
const NEVER: u64 = 0x60000000;
const TAG: u32 = 7;
/** Interrupts of the IOMMU's own, as messages. */
const COMMANDS: u32 = 40;
const FAULTS: u32 = 41;

/** A page with bytes that tell where they are from. */
function pattern(seed: u32): usize {
  const page = allocatePages();
  for (let i: usize = 0; i < 4096; i++) store<u8>(page + i, <u8>(seed + <u32>i * 7));
  return page;
}

function checkPage(page: usize, seed: u32, what: string): void {
  for (let i: usize = 0; i < 4096; i++) checkEqual(load<u8>(page + i), <u8>(seed + <u32>i * 7), what + ", byte " + i.toString());
}

/** The wire of a command's end. */
function awaitWire(edu: PlatformEdu): void {
  checkEqual(waitForInterrupt(), edu.line, "the wire of " + edu.name);
  edu.acknowledge();
}

/** The record of a transaction that waits. */
function awaitStall(iommu: Iommu, edu: PlatformEdu, interrupt: u32, address: u64): Fault {
  checkEqual(waitForInterrupt(), interrupt, "the interrupt of a fault");
  iommu.acknowledgeFaults();
  const fault = iommu.takeFault();
  check(fault != null, "no record");
  const record = fault!;
  check(record.waits >= 0, "it does not wait: " + record.describe());
  checkEqual(record.deviceId, edu.id, "device of " + record.describe());
  checkEqual(record.address >> 12, address >> 12, "page of " + record.describe());
  check(edu.running, edu.name + " is not running any more");
  return record;
}

function onDemand(iommu: Iommu, edu: PlatformEdu, table: PageTable, interrupt: u32): void {
  iommu.setStallingFirstStage(edu.id, TAG, table);
  iommu.fence();
  edu.startRead(ON_DEMAND);
  const read = awaitStall(iommu, edu, interrupt, ON_DEMAND);
  table.map(ON_DEMAND, gpaOf(pattern(5)), READ_WRITE);
  iommu.resume(read, true);
  iommu.fence();
  awaitWire(edu);
  checkEqual(edu.outcome, OUTCOME_DONE, "outcome of a page on demand");
  const copy = allocatePages();
  edu.startWrite(ON_DEMAND + 4096);
  const write = awaitStall(iommu, edu, interrupt, ON_DEMAND + 4096);
  table.map(ON_DEMAND + 4096, gpaOf(copy), READ_WRITE);
  iommu.resume(write, true);
  iommu.fence();
  awaitWire(edu);
  checkPage(copy, 5, "what was copied on demand");
  edu.startWrite(NEVER);
  iommu.resume(awaitStall(iommu, edu, interrupt, NEVER), false);
  iommu.fence();
  awaitWire(edu);
  checkEqual(edu.outcome, OUTCOME_REFUSED, "outcome of a page that never comes");
  printLine("on demand: two pages mapped while " + edu.name + " waited, one refused");
}

export function run(): u32 {
  const devices = regionCount(PLATFORM_EDU);
  check(devices > 0, "no edu on no bus: boot with --assign HOST-NAME@0xID");
  for (let index: u32 = 0; index < devices; index++) {
    const edu = new PlatformEdu(index);
    check(edu.line >= 0, edu.name + " has no wire");
    edu.selfTest();
    if (edu.iommu < 0) {
      printLine(edu.name + ": no IOMMU before it");
      continue;
    }
    const iommu = findIommu(<u32>edu.iommu);
    const interrupt = iommu.enable(COMMANDS, FAULTS);
    const table = iommu.newTable();
    table.mapIdentity(regionBase(IDENTITY), regionSize(IDENTITY));
    const copy = allocatePages();
    table.map(IOVA, gpaOf(pattern(3)), READ_WRITE);
    table.map(IOVA + 4096, gpaOf(copy), READ_WRITE);
    iommu.setFirstStage(edu.id, TAG, table);
    iommu.fence();
    edu.startRead(IOVA);
    awaitWire(edu);
    edu.startWrite(IOVA + 4096);
    awaitWire(edu);
    checkPage(copy, 3, "what was copied");
    printLine(edu.name + ", id " + hex(edu.id) + ": copied " + EDU_BUFFER_SIZE.toString() + " bytes, wire " + edu.line.toString());
    if (iommu.canStall) onDemand(iommu, edu, table, interrupt);
    else printLine("the IOMMU lets nothing wait");
  }
  return 0;
}
