// Configuration space through VFIO (Linux: vfio_pci_config.c): which capabilities user space finds, what it may write, and what its
// writes make the function do. Rules are stated with each test; offsets are PCIe 6.0's (§7.5, §7.6, §7.7).

import { describe, expect, it } from "vitest";
import { EFAULT, EINVAL, EIO } from "../../../../host/uapi/errno.ts";
import * as I from "../../../../host/uapi/iommufd.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import { machine, name, type User } from "../machine.ts";
import { RichFunction } from "./rich-function.ts";

const RID = 0x0130;
const COMMAND = 4;
const STATUS = 6;
const MSI = 0x05;
const POWER = 0x01;
const EXPRESS = 0x10;

function open(options: { interruptPin?: boolean; hiddenFirst?: boolean } = {}) {
  const host = machine({ devices: [] });
  const physical = new RichFunction({ name: "rich", ...options });
  host.root.plug(RID, physical, host.iommus[0]!);
  expect(host.kernel.pci.bind(name(RID), "vfio-pci")).toBe(0);
  const user = host.user();
  const iommufd = user.iommufd();
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  expect(device).toBeGreaterThan(0);
  const read = (at: number, size: 1 | 2 | 4 = 4) => user.configRead(vfio, at, size);
  const write = (at: number, size: 1 | 2 | 4, value: number) => user.configWrite(vfio, at, size, value);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, physical, user, iommufd, vfio, device, read, write, end };
}

type Read = (at: number, size?: 1 | 2 | 4) => number;

/** id → offset, in list order. */
function capabilities(read: Read): Map<number, number> {
  const found = new Map<number, number>();
  for (let at = read(0x34, 1); at >= 0x40 && found.size < 48; at = read(at + 1, 1)) found.set(read(at, 1), at);
  return found;
}

function extended(read: Read): Map<number, number> {
  const found = new Map<number, number>();
  for (let at = 0x100, steps = 0; at >= 0x100 && steps < 480; steps++) {
    const header = read(at, 4) >>> 0;
    if (header === 0) break;
    if ((header & 0xffff) !== 0) found.set(header & 0xffff, at);
    at = (header >>> 20) & 0xffc;
  }
  return found;
}

const of =
  (physical: RichFunction): Read =>
  (at, size = 4) =>
    physical.configRead(at, size);

describe("capabilities", () => {
  it("that VFIO does not know are taken out of both lists, the rest keep their places", () => {
    const { physical, read, end } = open();
    const all = capabilities(of(physical));
    const seen = capabilities(read);
    expect([...all.keys()]).toContain(0x0a);
    all.delete(0x0a);
    expect([...seen]).toEqual([...all]);
    const allExtended = extended(of(physical));
    expect([...allExtended.keys()]).toEqual([0x01, 0x1d, 0x1b, 0x03]);
    expect([...extended(read)]).toEqual([...allExtended].filter(([id]) => id === 0x01 || id === 0x03));
    end();
  });

  it("a hidden one that is first in the extended list stays as an empty header", () => {
    const { read, end } = open({ hiddenFirst: true });
    expect(read(0x100) & 0xf_ffff).toBe(0);
    expect(read(0x100, 2)).toBe(0);
    expect([...extended(read).keys()]).toEqual([0x01, 0x03]);
    end();
  });

  it.each([
    [{ pasidBits: 20 }, []],
    [{ pasidBits: 20, ats: true }, [0x0f]],
    [{ pasidBits: 20, ats: true, pri: true }, [0x0f, 0x13]],
    [{ ats: true, pri: true }, [0x0f, 0x13]],
  ])("of an edu with %o: no PASID, and nothing can be switched", (options, ids) => {
    const host = machine({ devices: [{ rid: RID, options }] });
    host.assign();
    const user = host.user();
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    user.bind(vfio, user.iommufd());
    const read: Read = (at, size = 4) => user.configRead(vfio, at, size);
    const seen = extended(read);
    expect([...seen.keys()]).toEqual(ids);
    if (ids.length === 0) expect(read(0x100)).toBe(0);
    for (const [id, control] of [
      [0x0f, 6],
      [0x13, 4],
    ] as const) {
      const at = seen.get(id);
      if (at === undefined) continue;
      const before = read(at + control, 2);
      user.configWrite(vfio, at + control, 2, 0x8001);
      expect(read(at + control, 2)).toBe(before);
    }
    user.process.exit();
  });

  it("of a function that was pulled out: none, it reads all ones", () => {
    const { host, read, end } = open();
    host.root.unplug(RID);
    expect([read(0), read(STATUS, 2), read(0x34, 1)]).toEqual([0xffff_ffff, 0xffff, 0xff]);
    end();
  });
});

describe("GET_HW_INFO", () => {
  const info = (user: User, iommufd: number, device: number) =>
    user.must(iommufd, I.IOMMU_GET_HW_INFO, I.iommuHwInfo, { dev_id: device });
  const modes = I.IOMMU_HW_CAP_PCI_PASID_EXEC | I.IOMMU_HW_CAP_PCI_PASID_PRIV;

  it("says which modes the hidden PASID capability has", () => {
    const { user, iommufd, device, end } = open();
    const { out_max_pasid_log2, out_capabilities } = info(user, iommufd, device);
    expect(out_max_pasid_log2).toBe(16);
    expect(Number(out_capabilities) & modes).toBe(modes);
    end();
  });

  it.each([
    [{ pasidBits: 20 }, I.IOMMU_HW_CAP_PCI_PASID_PRIV],
    [{}, 0],
  ])("of an edu with %o", (options, expected) => {
    const host = machine({ devices: [{ rid: RID, options }] });
    host.assign();
    const user = host.user();
    const iommufd = user.iommufd();
    const device = user.bind(user.open(host.vfio.nodeOf(name(RID))!), iommufd);
    expect(Number(info(user, iommufd, device).out_capabilities) & modes).toBe(expected);
    user.process.exit();
  });

  it("behind an IOMMU without process contexts there are no PASIDs, and no modes", () => {
    const none = { PD8: false, PD17: false, PD20: false };
    const host = machine({ iommus: [{ capabilities: none }], devices: [{ rid: RID, options: { pasidBits: 20 } }] });
    host.assign();
    const user = host.user();
    const iommufd = user.iommufd();
    const device = user.bind(user.open(host.vfio.nodeOf(name(RID))!), iommufd);
    const { out_max_pasid_log2, out_capabilities } = info(user, iommufd, device);
    expect([out_max_pasid_log2, Number(out_capabilities) & modes]).toEqual([0, 0]);
    user.process.exit();
  });
});

describe("what may be written", () => {
  it("of the header: command, cache line size, interrupt line; not status, ids, pin, capability pointer, ROM", () => {
    const { physical, read, write, end } = open();
    // Status bits that writing 1 clears are the kernel's to clear.
    physical.detectParityError();
    expect(read(STATUS, 2) & 0x8000).toBe(0x8000);
    for (const [at, size] of [
      [0x00, 4],
      [STATUS, 2],
      [0x08, 4],
      [0x2c, 4],
      [0x30, 4],
      [0x34, 4],
      [0x3d, 1],
    ] as const) {
      const before = read(at, size);
      write(at, size, 0xffff_ffff);
      expect([at, read(at, size)]).toEqual([at, before]);
    }
    write(0x0c, 1, 0x10);
    write(0x3c, 1, 0x55);
    expect([read(0x0c, 1), read(0x3c, 1)]).toEqual([0x10, 0x55]);
    expect(physical.configRead(0x3c, 1)).toBe(0);
    end();
  });

  it("the command register is the function's, but for INTx disable", () => {
    const { physical, read, write, end } = open();
    for (const command of [0x0006, 0x0002, 0x0004, 0x0146, 0x0000]) {
      write(COMMAND, 2, command | 0x0400);
      expect(read(COMMAND, 2)).toBe(command | 0x0400);
      expect(physical.configRead(COMMAND, 2) & 0x0146).toBe(command & 0x0146);
      write(COMMAND, 2, command);
      expect(read(COMMAND, 2)).toBe(command);
    }
    // Byte by byte, too.
    write(COMMAND, 1, 6);
    write(COMMAND + 1, 1, 4);
    expect(read(COMMAND, 2)).toBe(0x0406);
    end();
  });

  it("of PCI Express: device control but for phantom functions; payload and request size are remembered, not passed", () => {
    const { physical, read, write, end } = open();
    const at = capabilities(read).get(EXPRESS)!;
    const before = physical.configRead(at + 8, 2);
    write(at + 8, 2, 0x7aef & ~0x8000);
    expect(read(at + 8, 2)).toBe(0x78ef);
    const after = physical.configRead(at + 8, 2);
    expect(after & 0x00e0).toBe(before & 0x00e0);
    expect(after & 0x0200).toBe(0);
    expect(after & 0x000f).toBe(0x000f);
    // The request size goes through, never below the payload size.
    expect(after & 0x7000).toBe(0x7000);
    // Device status is not the user's to clear, device control 2 is (but for ARI forwarding).
    const status = read(at + 10, 2);
    write(at + 10, 2, 0xffff);
    expect(read(at + 10, 2)).toBe(status);
    write(at + 0x28, 2, 0xffff);
    expect(read(at + 0x28, 2)).toBe(0x001f);
    end();
  });

  it("of power management: nothing about wake-up events", () => {
    const { physical, read, write, end } = open();
    const at = capabilities(read).get(POWER)!;
    expect(read(at + 2, 2) & 0xf800).toBe(0);
    write(at + 4, 2, 0x0100);
    expect(read(at + 4, 2) & 0x8103).toBe(0);
    expect(physical.configRead(at + 4, 2) & 0x0100).toBe(0);
    end();
  });

  it("of error reporting: the bits that are defined; of a serial number: nothing; of vendor registers: all", () => {
    const { read, write, end } = open();
    const seen = extended(read);
    write(seen.get(1)! + 8, 4, 0xffff_ffff);
    expect(read(seen.get(1)! + 8)).toBe(0x03ff_f031);
    write(seen.get(1)! + 0x14, 4, 0xffff_ffff);
    expect(read(seen.get(1)! + 0x14)).toBe(0xf1c1);
    // The header log has no writable bits.
    write(seen.get(1)! + 0x1c, 4, 0xffff_ffff);
    expect(read(seen.get(1)! + 0x1c)).toBe(0);
    write(seen.get(3)! + 4, 4, 0xffff_ffff);
    expect(read(seen.get(3)! + 4)).toBe(0);
    const vendor = capabilities(read).get(9)!;
    write(vendor + 4, 4, 0xcafe_f00d);
    expect(read(vendor + 4)).toBe(0xcafe_f00d);
    end();
  });

  it("outside of all capabilities: everything, as some functions keep registers there", () => {
    const { physical, read, write, end } = open();
    // A hidden capability's registers are such bytes.
    const hidden = capabilities(of(physical)).get(0x0a)!;
    write(hidden + 2, 2, 0xbeef);
    expect(read(hidden + 2, 2)).toBe(0xbeef);
    expect(physical.configRead(hidden + 2, 2)).toBe(0xbeef);
    end();
  });

  it("an access across registers is cut at capabilities and aligned; past the end nothing is done", () => {
    const { user, vfio, read, write, end } = open();
    const base = 7n << 40n;
    const bytes = user.process.memory.bytes(user.scratch, 64);
    bytes.fill(0);
    // From the middle of the command register over status to cache line size.
    bytes.set([0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x20], 0);
    expect(user.process.write(vfio, user.scratch, 8, base + 5n)).toBe(8);
    expect([read(COMMAND + 1, 1), read(0x0c, 1)]).toEqual([0x04, 0x20]);
    write(COMMAND + 1, 1, 0);
    bytes.fill(0xff, 0, 8);
    expect(user.process.write(vfio, user.scratch, 8, base + 0xffcn)).toBe(-EFAULT);
    expect(user.process.read(vfio, user.scratch, 1, base + 0x1000n)).toBe(-EFAULT);
    expect(user.process.read(vfio, user.scratch, 0, 9n << 40n)).toBe(0);
    expect(user.process.read(vfio, user.scratch, 1, 9n << 40n)).toBe(-EINVAL);
    end();
  });
});

describe("MSI in configuration space", () => {
  const at = (read: Read) => capabilities(read).get(MSI)!;

  it("takes no more messages than SET_IRQS armed, and no enable before it did", () => {
    const { physical, user, vfio, read, write, end } = open();
    const msi = at(read);
    write(msi + 2, 2, 0x0021);
    expect(read(msi + 2, 2) & 0x71).toBe(0);
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(0);
    write(msi + 2, 2, 0x0021);
    expect(read(msi + 2, 2) & 0x71).toBe(0x01);
    expect(physical.configRead(msi + 2, 2) & 0x71).toBe(0x01);
    end();
  });

  it("a message is sent while the enable bit that user space reads is set, and not while it is clear", () => {
    const { host, physical, user, iommufd, vfio, read, write, end } = open();
    const msi = at(read);
    user.attach(vfio, user.ioas(iommufd));
    user.enableDevice(vfio);
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    const sent = () => {
      physical.message(0);
      host.run(1_000);
      return user.count(eventfd);
    };
    write(msi + 2, 2, 1);
    expect(sent()).toBe(1);
    write(msi + 2, 2, 0);
    expect(sent()).toBe(0);
    write(msi + 2, 2, 1);
    expect(sent()).toBe(1);
    // Mask bits are the function's own.
    write(msi + 16, 4, 1);
    expect(physical.configRead(msi + 16, 4)).toBe(1);
    expect(sent()).toBe(0);
    expect(read(msi + 20, 4)).toBe(1);
    write(msi + 16, 4, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    end();
  });

  it("a reset leaves armed messages armed", () => {
    const { host, physical, user, iommufd, vfio, read, end } = open();
    user.attach(vfio, user.ioas(iommufd));
    user.enableDevice(vfio);
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    expect(user.process.ioctl(vfio, X.VFIO_DEVICE_RESET, 0n)).toBe(0);
    expect(read(COMMAND, 2) & 6).toBe(6);
    physical.message(0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    end();
  });
});

describe("resets by user space", () => {
  const byExpress = (parts: ReturnType<typeof open>) => {
    const at = capabilities(parts.read).get(EXPRESS)!;
    parts.write(at + 8, 2, parts.read(at + 8, 2) | 0x8000);
    return parts.read(at + 8, 2) & 0x8000;
  };
  const byAdvancedFeatures = (parts: ReturnType<typeof open>) => {
    const at = capabilities(parts.read).get(0x13)!;
    parts.write(at + 4, 1, 1);
    return parts.read(at + 4, 1);
  };
  const byRequest = (parts: ReturnType<typeof open>) => parts.user.process.ioctl(parts.vfio, X.VFIO_DEVICE_RESET, 0n);

  it.each([
    ["Initiate FLR", byExpress],
    ["Advanced Features FLR", byAdvancedFeatures],
    ["VFIO_DEVICE_RESET", byRequest],
  ])("%s wakes the function, and what user space reads is what the function has", (_name, reset) => {
    const parts = open();
    const { physical, read, write, end } = parts;
    const power = capabilities(read).get(POWER)!;
    const express = capabilities(read).get(EXPRESS)!;
    write(COMMAND, 2, 0x0146);
    write(0x0c, 1, 0x10);
    write(express + 8, 2, 0x200f);
    write(express + 0x28, 2, 0x0005);
    const vendor = capabilities(read).get(9)!;
    write(vendor + 4, 4, 0x1234_5678);
    write(power + 4, 2, 3);
    expect(reset(parts)).toBe(0);
    // The kernel puts back what it saved; the rest is at its reset value.
    expect(read(COMMAND, 2)).toBe(0x0146);
    expect(physical.configRead(COMMAND, 2) & 0x0146).toBe(0x0146);
    expect([read(0x0c, 1), physical.configRead(0x0c, 1)]).toEqual([0x10, 0x10]);
    expect(read(express + 8, 2)).toBe(0x200f);
    expect(physical.configRead(express + 8, 2) & 0x000f).toBe(0x000f);
    expect([read(express + 0x28, 2), physical.configRead(express + 0x28, 2)]).toEqual([5, 5]);
    expect(read(vendor + 4)).toBe(0);
    expect([read(power + 4, 2) & 3, physical.configRead(power + 4, 2) & 3]).toEqual([0, 0]);
    end();
  });
});

describe("a function in D3hot", () => {
  const sleeping = () => {
    const parts = open();
    const { user, vfio, read, write } = parts;
    user.enableDevice(vfio);
    const power = capabilities(read).get(POWER)!;
    const offset = user.regionOffset(vfio, 0);
    const mapped = user.process.mmapRegion(vfio, offset, 0x4000);
    if (typeof mapped === "number") throw new Error(`mmap: ${mapped}`);
    const at = user.process.memory.allocate(4096);
    return {
      ...parts,
      mapped,
      sleep: (state: number) => write(power + 4, 2, state),
      state: () => read(power + 4, 2) & 3,
      readRegion: (position = 0n) => user.process.read(vfio, at, 4, offset + position),
      writeRegion: () => user.process.write(vfio, at, 4, offset),
    };
  };

  it("has no registers: the region is EIO, a mapping reads ones and takes nothing", () => {
    const { physical, mapped, sleep, state, readRegion, writeRegion, end } = sleeping();
    physical.registers.view.setUint32(0, 0x1111_1111, true);
    expect([readRegion(), mapped.mmioRead(0, 4)]).toEqual([4, 0x1111_1111]);
    sleep(3);
    expect(state()).toBe(3);
    expect([readRegion(), writeRegion(), mapped.mmioRead(0, 4)]).toEqual([-EIO, -EIO, 0xffff_ffff]);
    mapped.mmioWrite(0, 4, 0x2222_2222, 0);
    expect(physical.registers.view.getUint32(0, true)).toBe(0x1111_1111);
    sleep(0);
    expect([readRegion(), mapped.mmioRead(0, 4)]).toEqual([4, 0x1111_1111]);
    end();
  });

  it("awake but with memory decoding off it is the same, and neither makes up for the other", () => {
    const { mapped, sleep, readRegion, write, end } = sleeping();
    sleep(3);
    write(COMMAND, 2, 4);
    sleep(0);
    expect([readRegion(), mapped.mmioRead(0, 4)]).toEqual([-EIO, 0xffff_ffff]);
    sleep(3);
    write(COMMAND, 2, 6);
    expect([readRegion(), mapped.mmioRead(0, 4)]).toEqual([-EIO, 0xffff_ffff]);
    sleep(0);
    expect(readRegion()).toBe(4);
    end();
  });

  it("the MSI-X table reads ones as ever: it is never the function's", () => {
    const { sleep, readRegion, end } = sleeping();
    sleep(3);
    expect(readRegion(0x2000n)).toBe(4);
    end();
  });

  it("states that the function does not have change nothing", () => {
    const { sleep, state, readRegion, end } = sleeping();
    for (const none of [1, 2]) {
      sleep(none);
      expect([state(), readRegion()]).toEqual([0, 4]);
    }
    sleep(3);
    sleep(1);
    expect([state(), readRegion()]).toEqual([3, -EIO]);
    end();
  });

  it("the state is one byte: writing the byte beside it changes none", () => {
    const { read, write, state, sleep, end } = sleeping();
    sleep(3);
    write(capabilities(read).get(POWER)! + 5, 1, 0);
    expect(state()).toBe(3);
    write(capabilities(read).get(POWER)! + 4, 1, 0);
    expect(state()).toBe(0);
    end();
  });

  it("takes no new messages (EINVAL) and can be opened again awake", () => {
    const { host, user, vfio, sleep, end } = sleeping();
    sleep(3);
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(-EINVAL);
    expect(user.irq(vfio, X.VFIO_PCI_MSIX_IRQ_INDEX).result).toBe(-EINVAL);
    user.process.close(vfio);
    const again = user.open(host.vfio.nodeOf(name(RID))!);
    user.bind(again, user.iommufd());
    user.enableDevice(again);
    expect(user.process.read(again, user.scratch, 4, user.regionOffset(again, 0))).toBe(4);
    expect(user.irq(again, X.VFIO_PCI_MSIX_IRQ_INDEX).result).toBe(0);
    end();
  });
});
