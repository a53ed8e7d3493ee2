// The default guest: drives two `edu` devices through its own IOMMU and shows, a line a step, that translation, invalidation, faults
// and interrupts are its own. What does not hold ends the run with status 1 and a line that says what.
//
// Both devices use the same IOVAs for different pages, so whoever mixes the two up copies the wrong bytes.

import { check, checkEqual, fail, hex, printLine } from "../../driver/assembly/console";
import { EDU_BUFFER_SIZE, EDU_DEVICE, EDU_VENDOR, EduDevice } from "../../driver/assembly/edu";
import { findIommu, iommuCount } from "../../driver/assembly/find-iommu";
import { awaitInterrupt, onArrival, takeInterrupt } from "../../driver/assembly/interrupts";
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CONTEXT_NOT_VALID,
  Iommu,
  NO_PERMISSION,
  NOT_MAPPED,
  OUTSIDE_MEMORY,
  SWITCHED_OFF,
} from "../../driver/assembly/iommu";
import {
  gpaOf,
  iommuLine,
  iommuOf,
  regionBase,
  regionCount,
  regionSize,
  IDENTITY,
  MSI_PAGE,
  PCI_CONFIG,
  RAM,
} from "../../driver/assembly/machine";
import { allocatePages, fillPattern, firstDifference, PAGE_SIZE } from "../../driver/assembly/pages";
import { PageTable, READ, READ_WRITE } from "../../driver/assembly/page-table";
import { walkPci } from "../../driver/assembly/pci";

const COMMAND_INTERRUPT: u32 = 32;
const FAULT_INTERRUPT: u32 = 33;
const FIRST_DEVICE_INTERRUPT: u32 = 64;

/** Three different indices in a walk of three levels, of pages of 4 KiB. */
const SOURCE_IOVA: u64 = 0x1234567000;
const TARGET_IOVA: u64 = 0x2345678000;
const OUTSIDE_IOVA: u64 = 0x3456789000;
/** The second device signals at an address that only its first stage knows. */
const MSI_IOVA: u64 = 0x0765432000;

/** A device with an address space of its own. */
class Master {
  readonly table: PageTable;
  readonly source: usize = allocatePages();
  readonly target: usize = allocatePages();

  constructor(
    readonly edu: EduDevice,
    readonly tag: u32,
    readonly interrupt: u32,
    iommu: Iommu,
  ) {
    this.table = iommu.newTable();
    fillPattern(this.source, tag);
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
let theIommu: Iommu | null = null;

export function run(): u32 {
  const iommu = discover();
  const masters = findDevices(iommu);
  const first = masters[0];
  const second = masters[1];
  enable(iommu, masters);
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

function discover(): Iommu {
  checkEqual(regionBase(RAM), 0x80000000, "RAM base");
  checkEqual(regionSize(RAM), (<u64>memory.size()) << 16, "RAM size");
  check(iommuCount() > 0, "this machine has no IOMMU");
  check(regionCount(PCI_CONFIG) > 0, "this machine has no PCI");
  check(regionCount(MSI_PAGE) > 0, "this machine has no MSI page");
  const iommu = findIommu();
  printLine(
    "platform: RAM " + (regionSize(RAM) >> 20).toString() + " MiB at " + hex(regionBase(RAM)) +
      ", IOMMU at " + hex(iommu.base) + " (wires from " + iommuLine(0, 0).toString() + ")" +
      ", PCI configuration at " + hex(regionBase(PCI_CONFIG)) + ", MSI page at " + hex(regionBase(MSI_PAGE)) +
      ", " + regionCount(IDENTITY).toString() + " regions to map one to one",
  );
  return iommu;
}

function findDevices(iommu: Iommu): Master[] {
  const masters: Master[] = [];
  const functions = walkPci();
  for (let i = 0; i < functions.length; i++) {
    const found = functions[i];
    if (found.vendor != EDU_VENDOR || found.device != EDU_DEVICE || iommuOf(found.requesterId) != 0) continue;
    const number = <u32>masters.length;
    masters.push(new Master(new EduDevice(found), number + 1, FIRST_DEVICE_INTERRUPT + number, iommu));
    if (masters.length == 2) break;
  }
  check(masters.length == 2, "this guest needs two edu devices behind its first IOMMU, there are " + masters.length.toString());
  masters[0].edu.selfTest();
  masters[1].edu.selfTest();
  printLine("pci: " + functions.length.toString() + " functions, edu at " + masters[0].name + " and " + masters[1].name);
  return masters;
}

function enable(iommu: Iommu, masters: Master[]): void {
  faultInterrupt = iommu.enable(COMMAND_INTERRUPT, FAULT_INTERRUPT);
  theIommu = iommu;
  onArrival(faultInterrupt, (_number: u32) => theIommu!.acknowledgeFaults());
  for (let i = 0; i < masters.length; i++) {
    const master = masters[i];
    // The first device's message keeps the MSI page's own address; the second's is translated by its first stage.
    const message = i == 0 ? regionBase(MSI_PAGE) : MSI_IOVA;
    master.table.map(message, regionBase(MSI_PAGE), READ_WRITE);
    master.edu.pci.enableMsi(message, master.interrupt);
    iommu.setFirstStage(master.id, master.tag, master.table);
  }
  iommu.fence();
  printLine("iommu: " + iommu.describe());
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

/** Points the source IOVA at another page: the old one may be seen until it is invalidated, the new one must be seen after. */
function remap(iommu: Iommu, master: Master): void {
  const other = allocatePages();
  fillPattern(other, 77);
  master.table.map(SOURCE_IOVA, gpaOf(other), READ);
  master.read(SOURCE_IOVA);
  master.write(TARGET_IOVA);
  const sawOld = firstDifference(master.target, master.source) < 0;
  const invalidation = iommu.invalidationName;
  const both = invalidation + " and " + iommu.fenceName;
  if (!sawOld) expectSame(master.target, other, "what was read before " + invalidation + " (neither the old page nor the new)");

  iommu.invalidatePage(master.tag, SOURCE_IOVA);
  iommu.fence();
  master.read(SOURCE_IOVA);
  master.write(TARGET_IOVA);
  expectSame(master.target, other, "what was read after " + both);
  printLine("remap: before " + invalidation + " the " + (sawOld ? "old" : "new") + " page was seen, after " + both + " the new one");
}

/** Unmaps both IOVAs; a read and a write end in fault records of the device's own. */
function unmapAndFault(iommu: Iommu, master: Master): void {
  fillPattern(master.target, 99);
  const before = allocatePages();
  memory.copy(before, master.target, PAGE_SIZE);
  master.table.unmap(SOURCE_IOVA);
  master.table.unmap(TARGET_IOVA);
  iommu.invalidatePage(master.tag, SOURCE_IOVA);
  iommu.invalidatePage(master.tag, TARGET_IOVA);
  iommu.fence();
  master.read(SOURCE_IOVA);
  const read = expectFault(iommu, master, NOT_MAPPED, SOURCE_IOVA, false);
  master.write(TARGET_IOVA);
  const write = expectFault(iommu, master, NOT_MAPPED, TARGET_IOVA, true);
  expectSame(master.target, before, "a page that was unmapped before the write");
  const silent = iommu.codeOf(NOT_MAPPED, false) < 0;
  printLine(
    "unmap: " + (silent ? "nothing is heard; no byte moved, the device's message came" : read + "; " + write + "; each with its interrupt, and the device's message"),
  );

  master.table.map(SOURCE_IOVA, gpaOf(master.source), READ);
  master.table.map(TARGET_IOVA, gpaOf(master.target), READ_WRITE);
  // A page without write permission refuses the write alone.
  master.read(SOURCE_IOVA);
  master.write(SOURCE_IOVA);
  const denied = expectFault(iommu, master, NO_PERMISSION, SOURCE_IOVA, true);
  master.write(TARGET_IOVA);
  expectSame(master.target, master.source, "the page copied after mapping again");
  printLine("permissions: " + denied + " on a page mapped for reading");
}

/** A context that is not valid refuses everything; made valid again, DMA goes on. */
function invalidateContext(iommu: Iommu, master: Master): void {
  iommu.breakContext(master.id);
  iommu.fence();
  // Without the device's interrupt: its message would be refused too.
  master.edu.readQuietly(TARGET_IOVA);
  const refused = expectFault(iommu, master, CONTEXT_NOT_VALID, TARGET_IOVA, false);
  iommu.setFirstStage(master.id, master.tag, master.table);
  iommu.fence();
  master.read(TARGET_IOVA);
  printLine("context: " + refused + "; valid again, reads again");
}

/** Switches a device between nested and bypass in the middle of a DMA whose page maps IOVA = GPA. */
function switchDispositions(iommu: Iommu, master: Master): void {
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
  changeFirstStage(iommu, master, false);
  master.read(gpaOf(unmapped));
  master.write(gpaOf(to));
  expectSame(to, unmapped, "the page read and written in bypass");
  changeFirstStage(iommu, master, true);
  master.read(gpaOf(unmapped));
  expectFault(iommu, master, NOT_MAPPED, gpaOf(unmapped), false);

  master.edu.startRead(gpaOf(from));
  let switches = switchWhileRunning(iommu, master);
  master.finish("read across switches");
  master.edu.startWrite(gpaOf(to));
  switches += switchWhileRunning(iommu, master);
  master.finish("write across switches");
  expectSame(to, from, "the page moved across switches");
  check(iommu.takeFault() == null, "a fault came of a switch");
  printLine(
    "switch: " + switches.toString() + " changes between nested and bypass " +
      (iommu.switchesBlock ? "between" : "during") + " two DMAs, no byte lost",
  );
}

/** Bypass and back until the DMA ends, nested at the end; once it has ended where a switch blocks. Returns the number of changes. */
function switchWhileRunning(iommu: Iommu, master: Master): i32 {
  let switches = 0;
  let nested = true;
  if (iommu.switchesBlock) {
    // What is refused for a moment is not tried while a byte depends on it.
    while (master.edu.running) {}
    for (; switches < 4; switches++) {
      nested = !nested;
      changeFirstStage(iommu, master, nested);
    }
    return switches;
  }
  while (master.edu.running || !nested) {
    nested = !nested;
    changeFirstStage(iommu, master, nested);
    if (master.edu.running) switches++;
  }
  check(switches >= 4, "the DMA ended before it was switched");
  return switches;
}

function changeFirstStage(iommu: Iommu, master: Master, nested: bool): void {
  iommu.switchFirstStage(master.id, nested ? master.table : null);
  iommu.invalidateAddressSpace(master.tag);
  iommu.fence();
}

/** Maps an IOVA to a guest-physical address where nothing is. What is heard of it names no other address; what is read leaves no byte. */
function mapOutside(iommu: Iommu, master: Master): void {
  const nowhere = regionBase(RAM) + regionSize(RAM) + 0x100000;
  master.read(SOURCE_IOVA);
  master.table.map(OUTSIDE_IOVA, nowhere, READ_WRITE);
  master.read(OUTSIDE_IOVA);
  const read = expectFault(iommu, master, OUTSIDE_MEMORY, OUTSIDE_IOVA, false);
  master.write(OUTSIDE_IOVA);
  const write = expectFault(iommu, master, OUTSIDE_MEMORY, OUTSIDE_IOVA, true);
  master.write(TARGET_IOVA);
  expectSame(master.target, master.source, "what the device holds after a refused read");
  printLine(
    "outside: " + (read == write ? read : read + "; " + write) +
      (iommu.codeOf(OUTSIDE_MEMORY, false) < 0 ? "; no byte moved" : "; no other address in the records"),
  );
}

/** Turns the IOMMU off, which refuses everything, and goes through every shape of its table of devices. */
function changeDirectories(iommu: Iommu, masters: Master[]): void {
  iommu.disable();
  const last = masters[masters.length - 1];
  last.edu.readQuietly(SOURCE_IOVA);
  const refused = expectFault(iommu, last, SWITCHED_OFF, SOURCE_IOVA, false);
  let shapes = "";
  for (let shape = 0; shape < iommu.shapes; shape++) {
    if (!iommu.reaches(shape, last.id)) continue;
    iommu.useShape(shape);
    for (let i = 0; i < masters.length; i++) iommu.setFirstStage(masters[i].id, masters[i].tag, masters[i].table);
    iommu.fence();
    for (let i = 0; i < masters.length; i++) {
      const master = masters[i];
      master.table.map(SOURCE_IOVA, gpaOf(master.source), READ);
      iommu.invalidatePage(master.tag, SOURCE_IOVA);
      iommu.fence();
      fillPattern(master.source, 502 + shape * 2 + i);
      master.read(SOURCE_IOVA);
      master.write(TARGET_IOVA);
      expectSame(master.target, master.source, "the page copied by " + master.name + " under another directory");
    }
    shapes += (shapes.length > 0 ? ", " : "") + iommu.shapeName(shape);
  }
  printLine("directories: off, " + refused + "; both copied under " + iommu.describeShapes(shapes));
}

function checkNothingLeft(iommu: Iommu): void {
  const left = iommu.takeFault();
  if (left != null) fail("a fault that nobody asked for: " + left.describe());
  check(!takeInterrupt(COMMAND_INTERRUPT), "the command queue complained");
  check(!takeInterrupt(faultInterrupt), "a fault interrupt without a fault");
}

/** Takes the fault interrupt and the one record there must be, or sees that there is none where none is said; returns its description. */
function expectFault(iommu: Iommu, master: Master, what: i32, iova: u64, write: bool): string {
  const code = iommu.codeOf(what, write);
  if (code < 0) {
    const heard = iommu.takeFault();
    if (heard != null) fail("nothing was to be heard, but: " + heard.describe());
    return "nothing is heard";
  }
  awaitInterrupt(faultInterrupt, "fault of " + master.name);
  const fault = iommu.takeFault();
  if (fault == null) {
    fail("a fault interrupt, but no record");
    return "";
  }
  const text = fault.describe();
  checkEqual(fault.code, code, iommu.codeName + " of the fault record (" + text + ")");
  checkEqual(fault.deviceId, master.id, "device id of the fault record (" + text + ")");
  // A record about a context may leave out what the access was.
  if (fault.hasAddress) {
    checkEqual(fault.access, write ? ACCESS_WRITE : ACCESS_READ, "transaction type of the fault record (" + text + ")");
    // The page offset may be reported as 0; the first burst has none anyway.
    checkEqual(fault.address, iova, "address of the fault record (" + text + ")");
  }
  checkEqual(fault.other, 0, "second address of the fault record (" + text + ")");
  const more = iommu.takeFault();
  if (more != null) fail("a second record for one refused burst: " + more.describe());
  return text;
}

function expectSame(actual: usize, expected: usize, what: string): void {
  const at = firstDifference(actual, expected, <usize>EDU_BUFFER_SIZE);
  if (at >= 0) fail(what + " differs at byte " + at.toString());
}
