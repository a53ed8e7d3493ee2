import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { PciEndpoint } from "../../../host/devices/pci-function.ts";
import { BenchBus, MESSAGE_PAGE } from "./bench-bus.ts";

const registers: MmioPort = { high: 0, mmioRead: () => 0, mmioWrite: () => {} };

/** An endpoint with one BAR of each width, MSI with 4 vectors and MSI-X with 3. */
class TestEndpoint extends PciEndpoint {
  readonly msi;
  readonly msix;
  resets = 0;

  constructor() {
    super({ name: "test", vendorId: 0x1af4, deviceId: 0x10ff, revision: 3, classCode: 0x010802 });
    this.addBar(0, { size: 0x4000, kind: "memory64", prefetchable: true, registers });
    this.addBar(2, { size: 0x1000, kind: "memory32", prefetchable: false, registers });
    this.msi = this.addMsi(4);
    this.msix = this.addMsix(3, { bar: 0, tableOffset: 0x2000, pendingOffset: 0x3000 });
  }

  protected onReset(): void {
    this.resets++;
  }

  interrupt(vector: number): void {
    this.raise(vector);
  }

  wantPin(asserted: boolean): void {
    this.setInterruptLevel(asserted);
  }
}

function plugged(): { device: TestEndpoint; bus: BenchBus } {
  const device = new TestEndpoint();
  const bus = new BenchBus(device);
  return { device, bus };
}

const MESSAGE_ADDRESS = Number(MESSAGE_PAGE << 12n);

describe("configuration space of an endpoint (PCIe 6.0 §7.5)", () => {
  it("says who it is", () => {
    const { device } = plugged();
    expect(device.configRead(0, 4)).toBe(0x10ff1af4);
    expect(device.configRead(8, 4)).toBe(0x01080203);
    expect(device.configRead(0x0e, 1)).toBe(0);
    expect(device.configRead(6, 2) & 0x10).toBe(0x10);
  });

  it("tells the size of a 64-bit BAR and its type when all ones are written (§7.5.1.2.1)", () => {
    const { device } = plugged();
    device.configWrite(0x10, 4, 0xffffffff);
    device.configWrite(0x14, 4, 0xffffffff);
    expect(device.configRead(0x10, 4)).toBe(0xffffc00c);
    expect(device.configRead(0x14, 4)).toBe(0xffffffff);
  });

  it("tells the size of a 32-bit BAR, and absent BARs read zero", () => {
    const { device } = plugged();
    for (const at of [0x18, 0x1c, 0x20, 0x24]) device.configWrite(at, 4, 0xffffffff);
    expect(device.configRead(0x18, 4)).toBe(0xfffff000);
    expect(device.configRead(0x1c, 4)).toBe(0);
    expect(device.configRead(0x24, 4)).toBe(0);
  });

  it("decodes a BAR only while memory space is enabled", () => {
    const { device } = plugged();
    device.configWrite(0x10, 4, 0x12340000);
    device.configWrite(0x14, 4, 0x5);
    expect(device.barBase(0)).toBe(-1);
    device.configWrite(4, 2, 2);
    expect(device.barBase(0)).toBe(0x5_1234_0000);
    expect(device.barBase(1)).toBe(-1);
  });

  it("neither decodes nor masters in D3hot, and keeps its registers on the way back (PCI PM §3.2.4)", () => {
    const { device, bus } = plugged();
    bus.enable();
    bus.enableMsi(7);
    const power = bus.findCapability(0x01);
    device.configWrite(power + 4, 2, 3);
    expect(device.barBase(2)).toBe(-1);
    device.interrupt(0);
    expect(bus.messages).toEqual([]);
    device.configWrite(power + 4, 2, 0);
    expect(device.barBase(2)).toBe(0);
    device.interrupt(0);
    expect(bus.messages).toHaveLength(1);
  });

  it("is awake after a reset", () => {
    const { device, bus } = plugged();
    device.configWrite(bus.findCapability(0x01) + 4, 2, 3);
    device.reset();
    bus.enable();
    expect(device.barBase(2)).toBe(0);
  });

  it("discards a power state it does not have", () => {
    const { device, bus } = plugged();
    const power = bus.findCapability(0x01);
    device.configWrite(power + 4, 2, 1);
    expect(device.configRead(power + 4, 2) & 3).toBe(0);
  });

  it("resets everything on Initiate Function Level Reset, which reads back 0 (§6.6.2)", () => {
    const { device, bus } = plugged();
    const express = bus.findCapability(0x10);
    expect(device.configRead(express + 4, 4) & (1 << 28)).not.toBe(0);
    bus.enable();
    device.configWrite(0x18, 4, 0x40000000);
    device.configWrite(express + 8, 2, 0x8000);
    expect(device.resets).toBe(1);
    expect(device.configRead(4, 2)).toBe(0);
    expect(device.configRead(0x18, 4)).toBe(0);
    expect(device.configRead(express + 8, 2) & 0x8000).toBe(0);
  });

  it("answers an access that no bus may make with all ones, and ignores such a write", () => {
    const { device } = plugged();
    expect(device.configRead(2, 4)).toBe(0xffffffff);
    expect(device.configRead(4096, 2)).toBe(0xffff);
    device.configWrite(6, 4, 0);
    expect(device.configRead(6, 2)).toBe(0x10);
  });

  it("never lets a write change identity, read-only or reserved bits", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(4095), fc.constantFrom(1, 2, 4), fc.nat(0xffffffff)), { maxLength: 60 }),
        (writes) => {
          const { device, bus } = plugged();
          const before = Array.from({ length: 1024 }, (_, i) => device.configRead(4 * i, 4));
          for (const [offset, size, value] of writes) device.configWrite(offset, size as 1 | 2 | 4, value);
          expect(device.configRead(0, 4)).toBe(before[0]);
          expect(device.configRead(8, 4)).toBe(before[2]);
          expect(device.configRead(0x34, 4)).toBe(before[0x0d]);
          for (const id of [0x01, 0x05, 0x10, 0x11]) expect(bus.findCapability(id)).not.toBe(0);
          for (let i = 0x40; i < 1024; i++) expect(device.configRead(4 * i, 4)).toBe(before[i]);
        },
      ),
    );
  });
});

describe("interrupts of an endpoint (PCIe 6.0 §6.1)", () => {
  it("asserts the pin while wanted, unless INTx is disabled; the status bit shows the wish", () => {
    const { device, bus } = plugged();
    device.wantPin(true);
    expect(bus.pins).toEqual([true]);
    expect(device.configRead(6, 2) & 8).toBe(8);
    device.configWrite(4, 2, 0x400);
    expect(bus.pins).toEqual([true, false]);
    expect(device.configRead(6, 2) & 8).toBe(8);
    device.configWrite(4, 2, 0);
    device.wantPin(false);
    expect(bus.pins).toEqual([true, false, true, false]);
  });

  it("lowers the pin at a reset", () => {
    const { device, bus } = plugged();
    device.wantPin(true);
    device.reset();
    device.configWrite(4, 2, 6);
    expect(bus.pins).toEqual([true, false]);
  });

  it("sends an MSI as a 4-byte write of the data, low bits replaced by the vector", () => {
    const { device, bus } = plugged();
    bus.enableMsi(0x4040);
    const at = bus.findCapability(0x05);
    device.configWrite(at + 2, 2, 0x21);
    device.interrupt(3);
    expect(bus.messages).toEqual([{ address: MESSAGE_PAGE << 12n, data: 0x4043 }]);
  });

  it("replaces just the low data bits that the allocated vectors need", () => {
    const { device, bus } = plugged();
    bus.enableMsi(0x4043);
    device.configWrite(bus.findCapability(0x05) + 2, 2, 0x21);
    device.interrupt(1);
    expect(bus.messages[0]?.data).toBe(0x4041);
  });

  it("folds vectors that software did not allocate onto those it did", () => {
    const { device, bus } = plugged();
    bus.enableMsi(0x50);
    device.interrupt(3);
    expect(bus.messages[0]?.data).toBe(0x50);
  });

  it("keeps a masked MSI pending and sends it on unmasking", () => {
    const { device, bus } = plugged();
    bus.enableMsi(9);
    const at = bus.findCapability(0x05);
    device.configWrite(at + 0x10, 4, 1);
    device.interrupt(0);
    expect(bus.messages).toEqual([]);
    expect(device.configRead(at + 0x14, 4)).toBe(1);
    device.configWrite(at + 0x10, 4, 0);
    expect(bus.messages).toHaveLength(1);
    expect(device.configRead(at + 0x14, 4)).toBe(0);
  });

  it("is silent on the pin while messages are enabled", () => {
    const { device, bus } = plugged();
    device.wantPin(true);
    bus.enableMsi(9);
    expect(bus.pins).toEqual([true, false]);
  });

  it("prefers MSI-X, whose entries start masked", () => {
    const { device, bus } = plugged();
    const at = bus.findCapability(0x11);
    expect(device.configRead(at + 2, 2) & 0x7ff).toBe(2);
    expect(device.configRead(at + 4, 4)).toBe(0x2000);
    expect(device.configRead(at + 8, 4)).toBe(0x3000);
    device.configWrite(at + 2, 2, 0x8000);
    expect(device.msix.table.mmioRead(0x2c, 4)).toBe(1);
    device.msix.table.mmioWrite(0x20, 8, MESSAGE_ADDRESS, 0);
    device.msix.table.mmioWrite(0x28, 4, 0xabcd1234, 0);
    device.interrupt(2);
    expect(bus.messages).toEqual([]);
    expect(device.msix.pendingBits.mmioRead(0, 4)).toBe(4);
    device.msix.table.mmioWrite(0x2c, 4, 0, 0);
    expect(bus.messages).toEqual([{ address: MESSAGE_PAGE << 12n, data: 0xabcd1234 }]);
    expect(device.msix.pendingBits.mmioRead(0, 4)).toBe(0);
  });

  it("holds every vector while the function mask is set", () => {
    const { device, bus } = plugged();
    const at = bus.findCapability(0x11);
    device.configWrite(at + 2, 2, 0xc000);
    for (const vector of [0, 1]) {
      device.msix.table.mmioWrite(16 * vector, 4, MESSAGE_ADDRESS, 0);
      device.msix.table.mmioWrite(16 * vector + 8, 8, 100 + vector, 0);
      device.interrupt(vector);
    }
    expect(bus.messages).toEqual([]);
    device.configWrite(at + 2, 2, 0x8000);
    expect(bus.messages.map(({ data }) => data)).toEqual([100, 101]);
  });

  it("forgets what is pending when MSI-X is switched off", () => {
    const { device, bus } = plugged();
    const at = bus.findCapability(0x11);
    device.configWrite(at + 2, 2, 0x8000);
    device.interrupt(0);
    device.configWrite(at + 2, 2, 0);
    device.configWrite(at + 2, 2, 0x8000);
    device.msix.table.mmioWrite(0, 8, MESSAGE_ADDRESS, 0);
    device.msix.table.mmioWrite(8, 8, 1, 0);
    expect(bus.messages).toEqual([]);
  });

  it("remembers nothing while MSI-X is off", () => {
    const { device, bus } = plugged();
    device.interrupt(0);
    device.configWrite(bus.findCapability(0x11) + 2, 2, 0x8000);
    device.msix.table.mmioWrite(0, 8, MESSAGE_ADDRESS, 0);
    device.msix.table.mmioWrite(8, 8, 1, 0);
    expect(bus.messages).toEqual([]);
  });
});
