// Devices behind the real hardware model of the RISC-V IOMMU: the whole way of a DMA, without a kernel.

import { describe, expect, it } from "vitest";
import { decodePageRequest } from "../../../../host/arch/riscv/page-requests.ts";
import { CSR_ENABLE, REG } from "../../../../host/arch/riscv/registers.ts";
import type { HpaPfn } from "../../../../host/base/address.ts";
import type { TracedEvent } from "../../../../host/base/trace.ts";
import { Edu, type EduOptions } from "../../../../host/devices/edu/edu.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { MemoryBlockStore } from "../../../../host/devices/nvme/block-store.ts";
import { NvmeController } from "../../../../host/devices/nvme/controller.ts";
import type { PciFunction } from "../../../../host/devices/ports.ts";
import { InterruptFiles } from "../../../../host/hw/interrupt-files.ts";
import type { RiscvIommuOptions } from "../../../../host/hw/iommu/riscv/options.ts";
import { BarWindow } from "../../../../host/hw/pci/bar-window.ts";
import { RootComplex } from "../../../../host/hw/pci/root-complex.ts";
import { A, type Fields, Machine, U, USER_RW, V } from "../iommu/riscv/machine.ts";

const RID = 0x0108;
const SV39 = { mode: 8, levels: 3 };
const DOORBELLS = 0x28000;
const READ_ONLY = V | 2 | U | A;

class Setup extends Machine {
  readonly interrupts: InterruptFiles;
  readonly root: RootComplex;
  readonly stage1: number;
  pageRequestRing = 0;

  constructor(device: PciFunction, context: Fields = {}, options: RiscvIommuOptions = {}) {
    super(options);
    const { memory, clock, trace } = this;
    clock.trace = trace;
    this.interrupts = new InterruptFiles({ memory, clock, trace, basePfn: DOORBELLS as HpaPfn, files: 1 });
    this.root = new RootComplex({
      ...{ segment: 0, memory, clock, trace },
      window32: new BarWindow(0x4000_0000, 0x1000_0000),
      window64: new BarWindow(0x4_0000_0000, 0x1_0000_0000),
    });
    this.root.plug(RID, device, this.iommu);
    device.configWrite(4, 2, 6);
    this.enableFaultQueue();
    this.enableCommandQueue();
    this.useDirectory(3);
    this.stage1 = this.makeRoot();
    this.setDevice(RID, { fsc_MODE: SV39.mode, fsc_PPN: this.stage1, PSCID: 1, ...context });
  }

  mapPage(pfn: number, target: number, flags = USER_RW): void {
    this.map(this.stage1, SV39.levels, pfn, target, flags);
  }

  run(ns: number): void {
    const end = this.clock.now + ns;
    while (this.clock.nextDeadline <= end) {
      this.clock.advanceTo(this.clock.nextDeadline);
      this.clock.fireDue();
    }
    this.clock.advanceTo(end);
  }

  enablePageRequestQueue(): void {
    this.pageRequestRing = this.allocate();
    this.write64(REG.pqb, (BigInt(this.pageRequestRing) << 10n) | 5n);
    this.write32(REG.pqcsr, CSR_ENABLE);
  }

  pageRequest(index: number) {
    return decodePageRequest([
      this.load(this.pageRequestRing, 16 * index),
      this.load(this.pageRequestRing, 16 * index + 8),
    ]);
  }
}

/** Offset of an extended capability. */
function extended(device: PciFunction, id: number): number {
  for (let at = 0x100; at !== 0; at = device.configRead(at, 4) >>> 20) {
    if ((device.configRead(at, 4) & 0xffff) === id) return at;
  }
  return 0;
}

function eduSetup(context: Fields = {}, options: RiscvIommuOptions = {}, eduOptions: EduOptions = {}) {
  const edu = new Edu({ ats: true, pri: true, pasidBits: 20, misbehaviour: true, ...eduOptions });
  const setup = new Setup(edu, context, options);
  return { edu, setup };
}

/** Switches PASID, ATS and PRI on in the function, as software does. */
function enableServices(edu: Edu, mode: number): void {
  edu.configWrite(extended(edu, 0x1b) + 6, 2, 1);
  edu.configWrite(extended(edu, 0x0f) + 6, 2, 0x8000);
  edu.configWrite(extended(edu, 0x13) + 12, 4, 8);
  edu.configWrite(extended(edu, 0x13) + 4, 2, 1);
  edu.mmioWrite(R.TRANSLATION_MODE, 4, mode, 0);
}

/** Copies `count` bytes of the edu buffer to `address`. */
function store(edu: Edu, address: number, count: number): void {
  edu.mmioWrite(R.DMA_SOURCE, 8, R.BUFFER, 0);
  edu.mmioWrite(R.DMA_DESTINATION, 8, address, 0);
  edu.mmioWrite(R.DMA_COUNT, 8, count, 0);
  edu.mmioWrite(R.DMA_COMMAND, 8, R.COMMAND_RUN | R.COMMAND_TO_RAM, 0);
}

/** Copies `count` bytes at `address` into the edu buffer. */
function load(edu: Edu, address: number, count: number): void {
  edu.mmioWrite(R.DMA_SOURCE, 8, address, 0);
  edu.mmioWrite(R.DMA_DESTINATION, 8, R.BUFFER, 0);
  edu.mmioWrite(R.DMA_COUNT, 8, count, 0);
  edu.mmioWrite(R.DMA_COMMAND, 8, R.COMMAND_RUN, 0);
}

const outcome = (edu: Edu) => edu.mmioRead(R.DMA_OUTCOME, 4);
const running = (edu: Edu) => (edu.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN) !== 0;

describe("edu behind a RISC-V IOMMU", () => {
  it("copies a page from one IOVA to another", () => {
    const { edu, setup } = eduSetup();
    const [from, to] = [setup.allocate(), setup.allocate()];
    setup.mapPage(0x10, from);
    setup.mapPage(0x20, to);
    for (let i = 0; i < 512; i++) setup.store(from, 8 * i, BigInt(i * 0x0101));
    load(edu, 0x10000, 4096);
    setup.run(64_000);
    store(edu, 0x20000, 4096);
    setup.run(64_000);
    expect(outcome(edu)).toBe(R.OUTCOME_DONE);
    for (let i = 0; i < 512; i++) expect(setup.load(to, 8 * i)).toBe(BigInt(i * 0x0101));
    expect(setup.takeFaults()).toEqual([]);
  });

  it("is stopped at an unmapped page, with a fault record of its device id and the IOVA", () => {
    const { edu, setup } = eduSetup();
    setup.mapPage(0x10, setup.allocate());
    store(edu, 0x10fc0, 128);
    setup.run(2_000);
    expect(outcome(edu)).toBe(R.OUTCOME_REFUSED);
    expect(edu.mmioRead(R.DMA_MOVED, 4)).toBe(64);
    expect(setup.takeFaults()).toMatchObject([{ cause: 15, deviceId: RID, iotval: 0x11000n, ttyp: 3 }]);
  });

  it("interrupts by a store to an interrupt file that its stage 1 maps, and not when it does not", () => {
    const { edu, setup } = eduSetup();
    const message = setup.interrupts.allocate(0, "edu")!;
    let count = 0;
    setup.interrupts.setHandler(message, () => count++);
    const msi = 0x40 + 8 + 0x3c;
    edu.configWrite(msi + 4, 4, 0x0800_0000);
    edu.configWrite(msi + 12, 2, message.data);
    edu.configWrite(msi + 2, 2, 1);
    edu.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    setup.run(0);
    expect(count).toBe(0);
    expect(setup.takeFaults()).toMatchObject([{ cause: 15, iotval: 0x0800_0000n }]);
    setup.mapPage(0x8000, DOORBELLS);
    edu.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    setup.run(0);
    expect(count).toBe(1);
  });

  it("uses the page tables of its PASID", () => {
    const edu = new Edu({ pasidBits: 20 });
    const setup = new Setup(edu);
    const directory = setup.makeProcessDirectory(1);
    const place = { fsc_MODE: SV39.mode, fsc_PPN: setup.stage1, PSCID: 5 };
    setup.setProcess(directory, 3, place);
    setup.setDevice(RID, { PDTV: 1, fsc_MODE: 1, fsc_PPN: directory });
    const page = setup.allocate();
    setup.mapPage(0x10, page);
    edu.configWrite(extended(edu, 0x1b) + 6, 2, 1);
    edu.mmioWrite(R.PASID, 4, (R.PASID_VALID | 3) >>> 0, 0);
    store(edu, 0x10000, 64);
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_DONE);
    edu.mmioWrite(R.PASID, 4, (R.PASID_VALID | 4) >>> 0, 0);
    store(edu, 0x10000, 64);
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_REFUSED);
    expect(setup.takeFaults()).toMatchObject([{ cause: 266, deviceId: RID, processId: 4 }]);
  });

  it("traces a transfer with IOVA and physical address", () => {
    const { edu, setup } = eduSetup();
    const page = setup.allocate();
    setup.mapPage(0x10, page);
    const events: TracedEvent[] = [];
    setup.trace.addSink({ event: (event) => events.push(event) });
    store(edu, 0x10040, 64);
    setup.run(1_000);
    expect(events.filter(({ type }) => type === "dma")).toMatchObject([
      { deviceId: RID, iova: 0x10040n, spa: (BigInt(page) << 12n) | 0x40n, result: "ok" },
    ]);
  });
});

describe("edu with ATS behind a RISC-V IOMMU (PCIe 6.0 §10.2, IOMMU §3.6)", () => {
  const ATS = { EN_ATS: 1 };

  it("moves data by translated requests", () => {
    const { edu, setup } = eduSetup(ATS);
    enableServices(edu, R.MODE_ATS);
    const page = setup.allocate();
    setup.mapPage(0x10, page);
    setup.store(page, 0, 0x1122334455667788n);
    load(edu, 0x10000, 64);
    setup.run(1_000);
    store(edu, 0x10040, 8);
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_DONE);
    expect(setup.load(page, 64)).toBe(0x1122334455667788n);
  });

  it("goes on using a translation until ATS.INVAL, and not after it", () => {
    const { edu, setup } = eduSetup(ATS);
    enableServices(edu, R.MODE_ATS);
    const [first, second] = [setup.allocate(), setup.allocate()];
    setup.mapPage(0x10, first);
    edu.mmioWrite(R.DMA_SOURCE, 8, R.BUFFER, 0);
    store(edu, 0x10000, 8);
    setup.run(1_000);
    setup.store(first, 0, 1n);
    setup.store(second, 0, 1n);
    setup.mapPage(0x10, second);
    setup.command("IOTINVAL.VMA");
    store(edu, 0x10000, 8);
    setup.run(1_000);
    expect([setup.load(first, 0), setup.load(second, 0)]).toEqual([0n, 1n]);
    setup.command("ATS.INVAL", { RID, ADDR: 0x10 });
    store(edu, 0x10000, 8);
    setup.run(1_000);
    expect(setup.load(second, 0)).toBe(0n);
    expect(edu.mmioRead(R.INVALIDATIONS_TAKEN, 4)).toBe(1);
  });

  it("holds an IOFENCE until its invalidation has completed", () => {
    const { edu, setup } = eduSetup(ATS);
    enableServices(edu, R.MODE_ATS);
    edu.mmioWrite(R.INVALIDATION_DELAY, 4, 5_000, 0);
    setup.queue("ATS.INVAL", { RID, ADDR: 0x10 });
    setup.queue("IOFENCE.C");
    setup.iommu.drain();
    expect(setup.read32(REG.cqh)).toBe(1);
    setup.run(4_999);
    expect(setup.read32(REG.cqh)).toBe(1);
    setup.run(1);
    setup.iommu.drain();
    expect(setup.read32(REG.cqh)).toBe(2);
  });

  it("that never completes an invalidation makes the IOFENCE time out", () => {
    const { edu, setup } = eduSetup(ATS, { atsTimeoutNs: 1_000_000 });
    edu.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    setup.queue("ATS.INVAL", { RID, ADDR: 0x10 });
    setup.queue("IOFENCE.C");
    setup.iommu.drain();
    setup.run(1_000_000);
    setup.iommu.drain();
    const cmdTo = 1 << 9;
    expect(setup.read32(REG.cqcsr) & cmdTo).toBe(cmdTo);
    expect(setup.read32(REG.cqh)).toBe(1);
  });

  it("is refused where its device context does not allow it", () => {
    const { edu, setup } = eduSetup();
    enableServices(edu, R.MODE_ATS);
    setup.mapPage(0x10, setup.allocate());
    store(edu, 0x10000, 64);
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_TRANSLATION_REFUSED);
    edu.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_FORGE_TRANSLATED, 0);
    store(edu, 0x8000_0000, 64);
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_REFUSED);
    expect(setup.takeFaults().map(({ cause, ttyp }) => [cause, ttyp])).toEqual([
      [260, 8],
      [260, 7],
    ]);
  });
});

describe("edu with page requests behind a RISC-V IOMMU (PCIe 6.0 §10.4, IOMMU §3.7)", () => {
  const PRI = { EN_ATS: 1, EN_PRI: 1 };

  function waiting(context: Fields = PRI) {
    const { edu, setup } = eduSetup(context);
    setup.enablePageRequestQueue();
    enableServices(edu, R.MODE_ATS | R.MODE_PRI);
    return { edu, setup };
  }

  it("asks for a page, waits, and goes on after the response", () => {
    const { edu, setup } = waiting();
    edu.mmioWrite(R.PAGE_REQUEST_GROUP, 4, 77, 0);
    store(edu, 0x10000, 128);
    setup.run(10_000);
    expect(running(edu)).toBe(true);
    expect(setup.read32(REG.pqt)).toBe(1);
    expect(setup.pageRequest(0)).toMatchObject({
      ...{ deviceId: RID, processId: -1, read: false, write: true, last: true },
      ...{ group: 77, address: 0x10000n },
    });
    setup.mapPage(0x10, setup.allocate());
    setup.command("ATS.PRGR", { RID, PRGI: 77, code: 0 });
    expect(running(edu)).toBe(true);
    setup.run(2_000);
    expect(running(edu)).toBe(false);
    expect(outcome(edu)).toBe(R.OUTCOME_DONE);
    expect(setup.takeFaults()).toEqual([]);
  });

  it("asks again for write permission on a read-only page", () => {
    const { edu, setup } = waiting();
    setup.mapPage(0x10, setup.allocate(), READ_ONLY);
    store(edu, 0x10000, 64);
    setup.run(1_000);
    expect(setup.pageRequest(0)).toMatchObject({ write: true, address: 0x10000n });
  });

  it("ends its command on Invalid Request", () => {
    const { edu, setup } = waiting();
    store(edu, 0x10000, 64);
    setup.run(1_000);
    setup.command("ATS.PRGR", { RID, PRGI: 0, code: 1 });
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(edu.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(1);
  });

  it("is answered by the IOMMU itself, Invalid Request, where EN_PRI is 0", () => {
    const { edu, setup } = waiting({ EN_ATS: 1 });
    store(edu, 0x10000, 64);
    setup.run(2_000);
    expect(outcome(edu)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(edu.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(1);
    expect(setup.takeFaults()).toMatchObject([{ cause: 260, ttyp: 9, iotval: 4n }]);
  });

  it("gives up after its limit of requests when nobody maps the page", () => {
    const { edu, setup } = waiting();
    edu.mmioWrite(R.PAGE_REQUEST_LIMIT, 4, 3, 0);
    store(edu, 0x10000, 64);
    for (let group = 0; group < 5; group++) {
      setup.run(1_000);
      setup.command("ATS.PRGR", { RID, PRGI: group, code: 0 });
    }
    setup.run(1_000);
    expect(outcome(edu)).toBe(R.OUTCOME_NO_PERMISSION);
    expect(setup.read32(REG.pqt)).toBe(3);
  });

  it("is pulled out while it waits: the late response goes nowhere", () => {
    const { edu, setup } = waiting();
    store(edu, 0x10000, 64);
    setup.run(1_000);
    setup.root.unplug(RID);
    setup.command("ATS.PRGR", { RID, PRGI: 0, code: 0 });
    setup.command("ATS.INVAL", { RID, ADDR: 0x10 });
    setup.run(10_000);
    expect(running(edu)).toBe(false);
    expect(edu.mmioRead(R.PAGE_RESPONSES_TAKEN, 4)).toBe(0);
  });
});

describe("an NVMe controller behind a RISC-V IOMMU", () => {
  it("takes commands, data and completions through stage 1, and shows a fatal status without it", () => {
    const nvme = new NvmeController({ store: new MemoryBlockStore(1 << 20) });
    const setup = new Setup(nvme);
    const [submission, completion, data] = [setup.allocate(), setup.allocate(), setup.allocate()];
    setup.mapPage(0x100, submission);
    setup.mapPage(0x200, completion);
    setup.mapPage(0x300, data);
    nvme.mmioWrite(0x24, 4, 0x000f000f, 0);
    nvme.mmioWrite(0x28, 8, 0x100000, 0);
    nvme.mmioWrite(0x30, 8, 0x200000, 0);
    nvme.mmioWrite(0x14, 4, 0x00460001, 0);
    setup.run(1_000_000);
    // Identify Controller into 0x300000.
    setup.store(submission, 0, 0x0001_0006n);
    setup.store(submission, 24, 0x300000n);
    setup.store(submission, 40, 1n);
    nvme.mmioWrite(0x1000, 4, 1, 0);
    setup.run(100_000);
    expect(setup.load(completion, 8) >> 32n).toBe(0x0001_0001n);
    expect(setup.load(data, 80) & 0xffffffffn).toBe(0x00010400n);
    // The second command stands at the same page; its stage 1 is gone.
    setup.setDevice(RID, { V: 0 });
    setup.command("IODIR.INVAL_DDT", { DV: 1, DID: RID });
    setup.command("IOTINVAL.VMA");
    nvme.mmioWrite(0x1000, 4, 2, 0);
    setup.run(100_000);
    expect(nvme.mmioRead(0x1c, 4) & 2).toBe(2);
    expect(setup.takeFaults()).toMatchObject([{ cause: 258, deviceId: RID }]);
  });
});
