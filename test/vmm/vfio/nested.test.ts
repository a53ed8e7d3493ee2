// The guest-visible IOMMU over the host model, by system calls alone: what a guest driver does, and what its devices' DMA does.

import { describe, expect, it } from "vitest";
import * as R from "../../../host/devices/edu/registers.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import { SV39, TC } from "../viommu/guest.ts";
import { DATA, MSI_WINDOW, Vm } from "./vm.ts";

const IOVA = 0x4000_0000n;
/** Two devices behind one IOMMU, their ids crossed over between guest and host. */
const FIRST = 0x0108;
const SECOND = 0x0110;
const DEVICES = { devices: [{ rid: FIRST }, { rid: SECOND }] };

function pair(): { vm: Vm; a: ReturnType<Vm["assign"]>; b: ReturnType<Vm["assign"]> } {
  const vm = new Vm(DEVICES);
  const a = vm.assign(FIRST, 0x10);
  const b = vm.assign(SECOND, 0x08);
  vm.guest.enableDirectory();
  vm.guest.enableQueues();
  return { vm, a, b };
}

/** Puts 64 bytes that begin with `value` into the device's buffer, by a DMA from a page at `address`. */
function fill(vm: Vm, plugged: ReturnType<Vm["assign"]>, address: bigint, page: bigint, value: number): void {
  vm.guest.store64(page, BigInt(value));
  expect(vm.dma(plugged, address, 64, false)).toBe(R.OUTCOME_DONE);
  vm.guest.store64(page, 0n);
}

function finish(vm: Vm): void {
  vm[Symbol.dispose]();
  expect(vm.process.openFiles).toBe(0);
  vm.process.exit();
  expect(vm.machine.kernel.liveKinds).toEqual([]);
}

describe("a guest's IOMMU nested over the host's", () => {
  it("DMA goes through the guest's stage 1 and the host's stage 2", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([
      [IOVA, DATA],
      [IOVA + 0x1000n, DATA + 0x1000n],
    ]);
    vm.guest.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: stage1.fsc });
    for (let i = 0n; i < 512n; i++) vm.guest.store64(DATA + 8n * i, i * 0x0101_0101n);
    expect(vm.dma(a, IOVA, 4096, false)).toBe(R.OUTCOME_DONE);
    expect(vm.dma(a, IOVA + 0x1000n, 4096, true)).toBe(R.OUTCOME_DONE);
    for (let i = 0n; i < 512n; i++) expect(vm.guest.load64(DATA + 0x1000n + 8n * i)).toBe(i * 0x0101_0101n);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("after a remap the old page may be seen until IOTINVAL and IOFENCE, the new one must be seen after", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[IOVA, DATA]]);
    vm.guest.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: stage1.fsc });
    fill(vm, a, IOVA, DATA, 0xabcd);
    stage1.map(IOVA, DATA + 0x1000n);
    vm.guest.run(["IOTINVAL.VMA", { AV: 1, PSCV: 1, PSCID: 5, ADDR: IOVA >> 12n }], ["IOFENCE.C", { PR: 1, PW: 1 }]);
    expect(vm.dma(a, IOVA, 64, true)).toBe(R.OUTCOME_DONE);
    expect([vm.guest.load32(DATA), vm.guest.load32(DATA + 0x1000n)]).toEqual([0, 0xabcd]);
    finish(vm);
  });

  it.each([
    [0x10, 13, false],
    [0x08, 15, true],
  ] as const)("a page fault of guest device %i has its own guest id and cause %i", (guestId, cause, toRam) => {
    const { vm, a, b } = pair();
    const stage1 = vm.tables();
    vm.guest.installContext(guestId, { tc: TC.V, fsc: stage1.fsc });
    const plugged = guestId === 0x10 ? a : b;
    expect(vm.dma(plugged, IOVA + 0x3000n, 64, toRam)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([
      {
        cause,
        deviceId: guestId,
        processId: -1,
        privileged: false,
        ttyp: toRam ? 3 : 2,
        iotval: IOVA + 0x3000n,
        iotval2: 0n,
      },
    ]);
    finish(vm);
  });

  it("a fault interrupts the guest with the message it programmed", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: 0n });
    vm.dma(a, IOVA, 64, false);
    expect(vm.guest.messages.length).toBe(1);
    finish(vm);
  });

  it.each([
    ["Off", 256, (_vm: Vm) => {}],
    [
      "a context that is not valid",
      258,
      (vm: Vm) => {
        vm.guest.enableDirectory();
        vm.guest.installContext(0x10, { tc: 0n });
      },
    ],
    [
      "a misconfigured context",
      259,
      (vm: Vm) => {
        vm.guest.enableDirectory();
        vm.guest.installContext(0x10, { tc: TC.V | (1n << 12n) });
      },
    ],
    [
      "a directory outside memory",
      257,
      (vm: Vm) => {
        vm.guest.write64(16, (0x1000n << 10n) | 2n);
      },
    ],
  ] as const)("DMA under %s is refused with cause %i", (_name, cause, arrange) => {
    const vm = new Vm(DEVICES);
    const a = vm.assign(FIRST, 0x10);
    vm.guest.enableQueues();
    arrange(vm);
    expect(vm.guest.takeFaults()).toEqual([]);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([
      expect.objectContaining({ cause, deviceId: 0x10, iotval: IOVA, iotval2: 0n }),
    ]);
    finish(vm);
  });

  it("an IOVA that leads outside guest memory is an access fault with the IOVA and no host address", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[IOVA, 0x10_0000_0000n]]);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 5, iotval: IOVA, iotval2: 0n })]);
    vm.guest.installContext(0x10, { tc: TC.V });
    expect(vm.dma(a, 0x10_0000_0000n, 64, true)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([
      expect.objectContaining({ cause: 7, iotval: 0x10_0000_0000n, iotval2: 0n }),
    ]);
    finish(vm);
  });

  it("a stage-1 table outside guest memory is an access fault, too", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V, fsc: SV39 | 0x100_0000n });
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 5, iotval: IOVA, iotval2: 0n })]);
    finish(vm);
  });

  it("bypass: an IOVA is a guest-physical address", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V });
    fill(vm, a, DATA + 0x1000n, DATA + 0x1000n, 0x1234);
    expect(vm.dma(a, DATA, 64, true)).toBe(R.OUTCOME_DONE);
    expect(vm.guest.load32(DATA)).toBe(0x1234);
    finish(vm);
  });

  it("switching between nested and bypass while a DMA is between two bursts loses no byte", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[DATA, DATA]]);
    const nested = { tc: TC.V, ta: 3n << 12n, fsc: stage1.fsc };
    vm.guest.installContext(0x10, nested);
    for (let i = 0n; i < 512n; i++) vm.guest.store64(DATA + 8n * i, i + 1n);
    expect(vm.dma(a, DATA, 4096, false)).toBe(R.OUTCOME_DONE);
    for (let i = 0n; i < 512n; i++) vm.guest.store64(DATA + 8n * i, 0n);
    a.bar.mmioWrite(R.DMA_SOURCE, 8, R.BUFFER, 0);
    a.bar.mmioWrite(R.DMA_DESTINATION, 8, Number(DATA), 0);
    a.bar.mmioWrite(R.DMA_COUNT, 8, 4096, 0);
    a.bar.mmioWrite(R.DMA_COMMAND, 8, R.COMMAND_RUN | R.COMMAND_TO_RAM, 0);
    for (let step = 0; step < 20; step++) {
      vm.run(3_000);
      vm.guest.installContext(0x10, step % 2 === 0 ? { tc: TC.V } : nested);
    }
    vm.run();
    expect(a.bar.mmioRead(R.DMA_OUTCOME, 4)).toBe(R.OUTCOME_DONE);
    for (let i = 0n; i < 512n; i++) expect(vm.guest.load64(DATA + 8n * i)).toBe(i + 1n);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("two devices in one PSCID space see their own tables under their own PSCIDs", () => {
    const { vm, a, b } = pair();
    const tables = [vm.tables([[IOVA, DATA]]), vm.tables([[IOVA, DATA + 0x1000n]])];
    vm.guest.installContext(0x10, { tc: TC.V, ta: 1n << 12n, fsc: tables[0]!.fsc });
    vm.guest.installContext(0x08, { tc: TC.V, ta: 2n << 12n, fsc: tables[1]!.fsc });
    fill(vm, a, IOVA, DATA, 0xaaaa);
    fill(vm, b, IOVA, DATA + 0x1000n, 0xbbbb);
    vm.dma(a, IOVA, 64, true);
    vm.dma(b, IOVA, 64, true);
    expect([vm.guest.load32(DATA), vm.guest.load32(DATA + 0x1000n)]).toEqual([0xaaaa, 0xbbbb]);
    finish(vm);
  });

  it("a device the host gave no vDEVICE cannot be plugged twice", () => {
    const { vm, a } = pair();
    const again = { ...vm.guest.viommu.dispositions.find(0x10)!.device, guestId: 0x18 };
    expect(vm.guest.viommu.plug(again)).toBe(-17);
    expect(vm.reports.at(-1)).toMatch(/IOMMU_VDEVICE_ALLOC.*0000:01:01\.0.*EEXIST/);
    expect(a.device.fd).toBeGreaterThanOrEqual(0);
    finish(vm);
  });

  it("a context the host refuses blocks that device alone, with one line that names the call and both devices", () => {
    const { vm, a, b } = pair();
    const stage1 = vm.tables([[IOVA, DATA]]);
    vm.guest.installContext(0x08, { tc: TC.V, fsc: stage1.fsc });
    vm.machine.kernel.injector = {
      ...NO_INJECTION,
      ioctl: (call) => (call === "IOMMU_HWPT_ALLOC" ? -12 : 0),
    };
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    vm.machine.kernel.injector = NO_INJECTION;
    expect(vm.reports.at(-1)).toMatch(/IOMMU_HWPT_ALLOC.*guest 10 .*0x10.*0000:01:01\.0.*ENOMEM/);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 259, deviceId: 0x10 })]);
    expect(vm.dma(b, IOVA, 64, true)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });
});

describe("messages of an assigned device", () => {
  const arm = (vm: Vm, plugged: ReturnType<Vm["assign"]>, address: bigint) => {
    const at = plugged.device.config.msi!.at;
    plugged.device.configWrite(at + 4, 4, Number(address & 0xffff_ffffn));
    plugged.device.configWrite(at + 8, 4, Number(address >> 32n));
    plugged.device.configWrite(at + 12, 2, 77);
    plugged.device.configWrite(at + 2, 2, 1);
    vm.settle();
  };
  const GUEST_MSI = 0x2800_0000n;

  it("reach the guest's interrupt controller through the window and the guest's own mapping", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([
      [IOVA, DATA],
      [GUEST_MSI, GUEST_MSI],
    ]);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    arm(vm, a, GUEST_MSI);
    expect(vm.dma(a, IOVA, 64, false, true)).toBe(R.OUTCOME_DONE);
    expect(a.messages).toEqual([{ page: Number(GUEST_MSI >> 12n), data: 77 }]);
    finish(vm);
  });

  it("are lost when the stage 1 does not map the window: cause 15 at the window", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[IOVA, DATA]], { withoutWindow: true });
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    arm(vm, a, GUEST_MSI);
    expect(vm.dma(a, IOVA, 64, false, true)).toBe(R.OUTCOME_DONE);
    expect(a.messages).toEqual([]);
    const faults = vm.guest.takeFaults();
    expect(faults).toEqual([expect.objectContaining({ cause: 15, deviceId: 0x10 })]);
    expect(faults[0]!.iotval & ~0xf_ffffn).toBe(MSI_WINDOW);
    finish(vm);
  });

  it("are lost, and write the page instead, when the guest maps the window elsewhere", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[IOVA, DATA]], { withoutWindow: true });
    stage1.map(MSI_WINDOW, DATA + 0x2000n);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    arm(vm, a, GUEST_MSI);
    expect(vm.dma(a, IOVA, 64, false, true)).toBe(R.OUTCOME_DONE);
    expect(a.messages).toEqual([]);
    expect(vm.guest.takeFaults()).toEqual([]);
    finish(vm);
  });

  it("are lost when the guest's message address is not mapped by its stage 1", () => {
    const { vm, a } = pair();
    const stage1 = vm.tables([[IOVA, DATA]]);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    arm(vm, a, GUEST_MSI);
    expect(vm.dma(a, IOVA, 64, false, true)).toBe(R.OUTCOME_DONE);
    expect(a.messages).toEqual([]);
    expect(a.lostMessages).toBe(1);
    finish(vm);
  });

  it("masked in the capability are pending, and sent when unmasked", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V });
    const { at, maskable } = a.device.config.msi!;
    expect(maskable).toBe(true);
    a.device.configWrite(at + 16, 4, 1);
    arm(vm, a, GUEST_MSI);
    vm.dma(a, DATA, 64, false, true);
    expect(a.messages).toEqual([]);
    expect(a.device.configRead(at + 20, 4)).toBe(1);
    a.device.configWrite(at + 16, 4, 0);
    expect(a.messages.length).toBe(1);
    expect(a.device.configRead(at + 20, 4)).toBe(0);
    finish(vm);
  });
});

describe("the wire of an assigned device", () => {
  it("goes up with the device's interrupt, and down when the guest has acknowledged it in the device", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V });
    a.bar.mmioWrite(R.INTERRUPT_RAISE, 4, 4, 0);
    vm.run();
    expect(a.intx).toBe(true);
    a.bar.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 4, 0);
    vm.run();
    expect(a.intx).toBe(false);
    a.bar.mmioWrite(R.INTERRUPT_RAISE, 4, 8, 0);
    vm.run();
    expect(a.intx).toBe(true);
    finish(vm);
  });

  it("comes up again while the device still asserts it", () => {
    const { vm, a } = pair();
    a.bar.mmioWrite(R.INTERRUPT_RAISE, 4, 4, 0);
    vm.run();
    a.bar.mmioRead(R.INTERRUPT_STATUS, 4);
    vm.run();
    expect(a.intx).toBe(true);
    finish(vm);
  });

  it("stays down while the guest has disabled it in the command register", () => {
    const { vm, a } = pair();
    a.device.configWrite(4, 2, 0x406);
    a.bar.mmioWrite(R.INTERRUPT_RAISE, 4, 4, 0);
    vm.run();
    expect(a.intx).toBe(false);
    a.device.configWrite(4, 2, 0x006);
    vm.run();
    expect(a.intx).toBe(true);
    finish(vm);
  });
});
