// The default guest: drives two `edu` devices through its own IOMMU and shows, a line a step, that translation, invalidation, faults
// and interrupts are its own. What does not hold ends the run with status 1 and a line that says what.
//
// Both devices use the same IOVAs for different pages, so whoever mixes the two up copies the wrong bytes.

import { check, checkEqual, fail, hex, printLine } from "../../driver/assembly/console";
import { EDU_BUFFER_SIZE, EDU_DEVICE, EDU_VENDOR, EduDevice } from "../../driver/assembly/edu";
import { awaitInterrupt, onArrival, takeInterrupt } from "../../driver/assembly/interrupts";
import {
  gpaOf,
  iommuLine,
  iommuOf,
  regionBase,
  regionCount,
  regionSize,
  IDENTITY,
  IOMMU,
  MSI_PAGE,
  PCI_CONFIG,
  RAM,
} from "../../driver/assembly/machine";
import { allocatePages, fillPattern, firstDifference, PAGE_SIZE } from "../../driver/assembly/pages";
import { walkPci } from "../../driver/assembly/pci";
import {
  CAP_SV39,
  CAUSE_ALL_DISALLOWED,
  CAUSE_CONTEXT_NOT_VALID,
  CAUSE_READ_ACCESS_FAULT,
  CAUSE_READ_PAGE_FAULT,
  CAUSE_WRITE_ACCESS_FAULT,
  CAUSE_WRITE_PAGE_FAULT,
  RiscvIommu,
  TC_V,
  TTYP_READ,
  TTYP_WRITE,
} from "../../driver/assembly/riscv-iommu";
import { READ, READ_WRITE, Sv39Table } from "../../driver/assembly/sv39";

const COMMAND_INTERRUPT: u32 = 32;
const FAULT_INTERRUPT: u32 = 33;
const FIRST_DEVICE_INTERRUPT: u32 = 64;

/** Three different indices in an Sv39 walk. */
const SOURCE_IOVA: u64 = 0x1234567000;
const TARGET_IOVA: u64 = 0x2345678000;
const OUTSIDE_IOVA: u64 = 0x3456789000;
/** The second device signals at an address that only its first stage knows. */
const MSI_IOVA: u64 = 0x0765432000;

/** A device with an address space of its own. */
class Master {
  readonly table: Sv39Table = new Sv39Table();
  readonly source: usize = allocatePages();
  readonly target: usize = allocatePages();

  constructor(
    readonly edu: EduDevice,
    readonly pscid: u32,
    readonly interrupt: u32,
  ) {
    fillPattern(this.source, pscid);
    this.table.map(SOURCE_IOVA, gpaOf(this.source), READ);
    this.table.map(TARGET_IOVA, gpaOf(this.target), READ_WRITE);
    for (let i: u32 = 0; i < regionCount(IDENTITY); i++) {
      this.table.mapIdentity(regionBase(IDENTITY, i), regionSize(IDENTITY, i));
    }
  }

  get id(): u32 {
    return this.edu.pci.requesterId;
  }
  get name(): string {
    return this.edu.pci.describe();
  }

  /** Waits for the device's message and for the end of its DMA. */
  finish(what: string): void {
    awaitInterrupt(this.interrupt, what + " by " + this.name);
    this.edu.acknowledge();
  }

  read(iova: u64): void {
    this.edu.startRead(iova);
    this.finish("read of " + hex(iova));
  }
  write(iova: u64): void {
    this.edu.startWrite(iova);
    this.finish("write of " + hex(iova));
  }
}

let faultInterrupt: u32 = FAULT_INTERRUPT;
let theIommu: RiscvIommu | null = null;

export function run(): u32 {
  discover();
  const masters = findDevices();
  const first = masters[0];
  const second = masters[1];
  const iommu = enable(masters);
  copy(first, second);
  remap(iommu, first);
  unmapAndFault(iommu, second);
  invalidateContext(iommu, first);
  switchDispositions(iommu, second);
  changeDirectories(iommu, masters);
  mapOutside(iommu, first);
  checkNothingLeft(iommu);
  printLine("done: all steps hold");
  return 0;
}

function discover(): void {
  checkEqual(regionBase(RAM), 0x80000000, "RAM base");
  checkEqual(regionSize(RAM), (<u64>memory.size()) << 16, "RAM size");
  check(regionCount(IOMMU) > 0, "this machine has no IOMMU");
  check(regionCount(PCI_CONFIG) > 0, "this machine has no PCI");
  check(regionCount(MSI_PAGE) > 0, "this machine has no MSI page");
  printLine(
    "platform: RAM " + (regionSize(RAM) >> 20).toString() + " MiB at " + hex(regionBase(RAM)) +
      ", IOMMU at " + hex(regionBase(IOMMU)) + " (wires from " + iommuLine(0, 0).toString() + ")" +
      ", PCI configuration at " + hex(regionBase(PCI_CONFIG)) + ", MSI page at " + hex(regionBase(MSI_PAGE)) +
      ", " + regionCount(IDENTITY).toString() + " regions to map one to one",
  );
}

function findDevices(): Master[] {
  const masters: Master[] = [];
  const functions = walkPci();
  for (let i = 0; i < functions.length; i++) {
    const found = functions[i];
    if (found.vendor != EDU_VENDOR || found.device != EDU_DEVICE || iommuOf(found.requesterId) != 0) continue;
    const number = <u32>masters.length;
    masters.push(new Master(new EduDevice(found), number + 1, FIRST_DEVICE_INTERRUPT + number));
    if (masters.length == 2) break;
  }
  check(masters.length == 2, "this guest needs two edu devices behind its first IOMMU, there are " + masters.length.toString());
  masters[0].edu.selfTest();
  masters[1].edu.selfTest();
  printLine("pci: " + functions.length.toString() + " functions, edu at " + masters[0].name + " and " + masters[1].name);
  return masters;
}

function enable(masters: Master[]): RiscvIommu {
  const iommu = new RiscvIommu();
  check((iommu.capabilities & CAP_SV39) != 0, "the IOMMU has no Sv39");
  faultInterrupt = iommu.enable(3, COMMAND_INTERRUPT, FAULT_INTERRUPT);
  theIommu = iommu;
  onArrival(faultInterrupt, (_number: u32) => theIommu!.acknowledgeFaults());
  for (let i = 0; i < masters.length; i++) {
    const master = masters[i];
    // The first device's message keeps the MSI page's own address; the second's is translated by its first stage.
    const message = i == 0 ? regionBase(MSI_PAGE) : MSI_IOVA;
    master.table.map(message, regionBase(MSI_PAGE), READ_WRITE);
    master.edu.pci.enableMsi(message, master.interrupt);
    iommu.setContext(master.id, TC_V, master.pscid, master.table.fsc);
    iommu.invalidateDevice(master.id);
  }
  iommu.fence();
  printLine(
    "iommu: capabilities " + hex(iommu.capabilities) + ", three-level directory, contexts of " +
      (iommu.extended ? "64" : "32") + " bytes, Sv39, command and fault queue on",
  );
  return iommu;
}

/** Both devices copy a page at the same time, between the same IOVAs, in address spaces of their own. */
function copy(first: Master, second: Master): void {
  first.edu.startRead(SOURCE_IOVA);
  second.edu.startRead(SOURCE_IOVA);
  first.finish("read");
  second.finish("read");
  first.edu.startWrite(TARGET_IOVA);
  second.edu.startWrite(TARGET_IOVA);
  first.finish("write");
  second.finish("write");
  expectSame(first.target, first.source, "the page " + first.name + " copied");
  expectSame(second.target, second.source, "the page " + second.name + " copied");
  check(firstDifference(first.target, second.target) >= 0, "the two devices share a page");
  printLine(
    "copy: " + first.name + " and " + second.name + " each moved a page from IOVA " + hex(SOURCE_IOVA) + " to IOVA " +
      hex(TARGET_IOVA),
  );
}

/** Points the source IOVA at another page: the old one may be seen until IOTINVAL and IOFENCE, the new one must be seen after. */
function remap(iommu: RiscvIommu, master: Master): void {
  const other = allocatePages();
  fillPattern(other, 77);
  master.table.map(SOURCE_IOVA, gpaOf(other), READ);
  master.read(SOURCE_IOVA);
  master.write(TARGET_IOVA);
  const sawOld = firstDifference(master.target, master.source) < 0;
  if (!sawOld) expectSame(master.target, other, "what was read before IOTINVAL (neither the old page nor the new)");

  iommu.invalidatePage(master.pscid, SOURCE_IOVA);
  iommu.fence();
  master.read(SOURCE_IOVA);
  master.write(TARGET_IOVA);
  expectSame(master.target, other, "what was read after IOTINVAL and IOFENCE");
  printLine("remap: before IOTINVAL the " + (sawOld ? "old" : "new") + " page was seen, after IOTINVAL and IOFENCE the new one");
}

/** Unmaps both IOVAs; a read and a write end in fault records of the device's own. */
function unmapAndFault(iommu: RiscvIommu, master: Master): void {
  fillPattern(master.target, 99);
  const before = allocatePages();
  memory.copy(before, master.target, PAGE_SIZE);
  master.table.unmap(SOURCE_IOVA);
  master.table.unmap(TARGET_IOVA);
  iommu.invalidatePage(master.pscid, SOURCE_IOVA);
  iommu.invalidatePage(master.pscid, TARGET_IOVA);
  iommu.fence();
  master.read(SOURCE_IOVA);
  const read = expectFault(iommu, master, CAUSE_READ_PAGE_FAULT, SOURCE_IOVA, TTYP_READ);
  master.write(TARGET_IOVA);
  const write = expectFault(iommu, master, CAUSE_WRITE_PAGE_FAULT, TARGET_IOVA, TTYP_WRITE);
  expectSame(master.target, before, "a page that was unmapped before the write");
  printLine("unmap: " + read + "; " + write + "; each with its interrupt, and the device's message");

  master.table.map(SOURCE_IOVA, gpaOf(master.source), READ);
  master.table.map(TARGET_IOVA, gpaOf(master.target), READ_WRITE);
  // A page without write permission refuses the write alone.
  master.read(SOURCE_IOVA);
  master.write(SOURCE_IOVA);
  const denied = expectFault(iommu, master, CAUSE_WRITE_PAGE_FAULT, SOURCE_IOVA, TTYP_WRITE);
  master.write(TARGET_IOVA);
  expectSame(master.target, master.source, "the page copied after mapping again");
  printLine("permissions: " + denied + " on a page mapped for reading");
}

/** A context that is not valid refuses everything with cause 258; made valid again, DMA goes on. */
function invalidateContext(iommu: RiscvIommu, master: Master): void {
  iommu.setContext(master.id, 0, 0, 0);
  iommu.invalidateDevice(master.id);
  iommu.fence();
  // Without the device's interrupt: its message would be refused too.
  master.edu.readQuietly(TARGET_IOVA);
  const refused = expectFault(iommu, master, CAUSE_CONTEXT_NOT_VALID, TARGET_IOVA, TTYP_READ);
  iommu.setContext(master.id, TC_V, master.pscid, master.table.fsc);
  iommu.invalidateDevice(master.id);
  iommu.fence();
  master.read(TARGET_IOVA);
  printLine("context: " + refused + "; valid again, reads again");
}

/** Switches a device between nested and bypass in the middle of a DMA whose page maps IOVA = GPA. */
function switchDispositions(iommu: RiscvIommu, master: Master): void {
  const from = allocatePages();
  const to = allocatePages();
  fillPattern(from, 1234);
  master.table.mapIdentity(gpaOf(from), PAGE_SIZE);
  master.table.mapIdentity(gpaOf(to), PAGE_SIZE);
  // Bypass has no first stage: the message goes to the page's own address.
  const message = regionBase(MSI_PAGE);
  master.table.map(message, message, READ_WRITE);
  master.edu.pci.enableMsi(message, master.interrupt);

  // Bypass is bypass: a page that the first stage does not map is read at its GPA, until the device is nested again.
  const unmapped = allocatePages();
  fillPattern(unmapped, 4321);
  const fsc = iommu.context(master.id) + 24;
  changeFirstStage(iommu, master, fsc, 0);
  master.read(gpaOf(unmapped));
  master.write(gpaOf(to));
  expectSame(to, unmapped, "the page read and written in bypass");
  changeFirstStage(iommu, master, fsc, master.table.fsc);
  master.read(gpaOf(unmapped));
  expectFault(iommu, master, CAUSE_READ_PAGE_FAULT, gpaOf(unmapped), TTYP_READ);

  master.edu.startRead(gpaOf(from));
  let switches = switchWhileRunning(iommu, master);
  master.finish("read across switches");
  master.edu.startWrite(gpaOf(to));
  switches += switchWhileRunning(iommu, master);
  master.finish("write across switches");
  expectSame(to, from, "the page moved across switches");
  check(iommu.takeFault() == null, "a fault came of a switch");
  printLine("switch: " + switches.toString() + " changes between nested and bypass during two DMAs, no byte lost");
}

/** Bypass and back until the DMA ends, nested at the end. Returns the number of changes made while the device was running. */
function switchWhileRunning(iommu: RiscvIommu, master: Master): i32 {
  const fsc = iommu.context(master.id) + 24;
  let switches = 0;
  let nested = true;
  while (master.edu.running || !nested) {
    nested = !nested;
    changeFirstStage(iommu, master, fsc, nested ? master.table.fsc : 0);
    if (master.edu.running) switches++;
  }
  check(switches >= 4, "the DMA ended before it was switched");
  return switches;
}

/** Stores fsc, one doubleword, so that the context is whole at every moment: V stays 1. 0 is bypass. */
function changeFirstStage(iommu: RiscvIommu, master: Master, fsc: usize, value: u64): void {
  store<u64>(fsc, value);
  iommu.invalidateDevice(master.id);
  iommu.invalidateAddressSpace(master.pscid);
  iommu.fence();
}

/** Maps an IOVA to a guest-physical address where nothing is. */
function mapOutside(iommu: RiscvIommu, master: Master): void {
  const nowhere = regionBase(RAM) + regionSize(RAM) + 0x100000;
  master.table.map(OUTSIDE_IOVA, nowhere, READ_WRITE);
  master.read(OUTSIDE_IOVA);
  const read = expectFault(iommu, master, CAUSE_READ_ACCESS_FAULT, OUTSIDE_IOVA, TTYP_READ);
  master.write(OUTSIDE_IOVA);
  const write = expectFault(iommu, master, CAUSE_WRITE_ACCESS_FAULT, OUTSIDE_IOVA, TTYP_WRITE);
  printLine("outside: " + read + "; " + write + "; no other address in the records");
}

/** Turns the IOMMU off, which refuses everything, and goes through directories of one, two and three levels. */
function changeDirectories(iommu: RiscvIommu, masters: Master[]): void {
  iommu.disable();
  const last = masters[masters.length - 1];
  last.edu.readQuietly(SOURCE_IOVA);
  const refused = expectFault(iommu, last, CAUSE_ALL_DISALLOWED, SOURCE_IOVA, TTYP_READ);
  let depths = "";
  for (let levels = 1; levels <= 3; levels++) {
    if (!iommu.reaches(levels, last.id)) continue;
    iommu.useDirectory(levels);
    for (let i = 0; i < masters.length; i++) {
      iommu.setContext(masters[i].id, TC_V, masters[i].pscid, masters[i].table.fsc);
      iommu.invalidateDevice(masters[i].id);
    }
    iommu.fence();
    for (let i = 0; i < masters.length; i++) {
      const master = masters[i];
      master.table.map(SOURCE_IOVA, gpaOf(master.source), READ);
      iommu.invalidatePage(master.pscid, SOURCE_IOVA);
      iommu.fence();
      fillPattern(master.source, 500 + levels * 2 + i);
      master.read(SOURCE_IOVA);
      master.write(TARGET_IOVA);
      expectSame(master.target, master.source, "the page copied by " + master.name + " under another directory");
    }
    depths += (depths.length > 0 ? ", " : "") + levels.toString();
  }
  printLine("directories: off, " + refused + "; both copied under directories of " + depths + " levels");
}

function checkNothingLeft(iommu: RiscvIommu): void {
  const left = iommu.takeFault();
  if (left != null) fail("a fault that nobody asked for: " + left.describe());
  check(!takeInterrupt(COMMAND_INTERRUPT), "the command queue complained");
  check(!takeInterrupt(faultInterrupt), "a fault interrupt without a fault");
}

/** Takes the fault interrupt and the one record there must be; returns its description. */
function expectFault(iommu: RiscvIommu, master: Master, cause: u32, iova: u64, transaction: u32): string {
  awaitInterrupt(faultInterrupt, "fault of " + master.name);
  const fault = iommu.takeFault();
  if (fault == null) {
    fail("a fault interrupt, but no record");
    return "";
  }
  const text = fault.describe();
  checkEqual(fault.cause, cause, "cause of the fault record (" + text + ")");
  checkEqual(fault.deviceId, master.id, "device id of the fault record (" + text + ")");
  checkEqual(fault.transaction, transaction, "transaction type of the fault record (" + text + ")");
  // The page offset may be reported as 0 (§4.2); the first burst has none anyway.
  checkEqual(fault.iotval, iova, "iotval of the fault record (" + text + ")");
  checkEqual(fault.iotval2, 0, "iotval2 of the fault record (" + text + ")");
  const more = iommu.takeFault();
  if (more != null) fail("a second record for one refused burst: " + more.describe());
  return text;
}

function expectSame(actual: usize, expected: usize, what: string): void {
  const at = firstDifference(actual, expected, <usize>EDU_BUFFER_SIZE);
  if (at >= 0) fail(what + " differs at byte " + at.toString());
}
