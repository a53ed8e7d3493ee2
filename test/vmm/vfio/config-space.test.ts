import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type AssignedBar, AssignedConfigSpace, type HostConfig } from "../../../vmm/vfio/assigned-config-space.ts";
import { MsixTable, OverlaidRegisters } from "../../../vmm/vfio/region-access.ts";

const CAP_MSI = 0x50;
const CAP_EXPRESS = 0x70;
const CAP_MSIX = 0xb0;

/** A function with MSI (two vectors, 64-bit, maskable), PCI Express with FLR, and MSI-X; then whatever the test puts in. */
function hostConfig(change: (image: DataView) => void = () => {}): HostConfig & { writes: [number, number, number][] } {
  const image = new Uint8Array(4096);
  const view = new DataView(image.buffer);
  view.setUint16(0, 0x1234, true);
  view.setUint16(6, 0x10, true);
  view.setUint8(0x34, CAP_MSI);
  view.setUint16(CAP_MSI, 0x05 | (CAP_EXPRESS << 8), true);
  view.setUint16(CAP_MSI + 2, 0x182, true);
  view.setUint16(CAP_EXPRESS, 0x10 | (CAP_MSIX << 8), true);
  view.setUint32(CAP_EXPRESS + 4, 1 << 28, true);
  view.setUint16(CAP_MSIX, 0x11, true);
  view.setUint16(CAP_MSIX + 2, 7, true);
  view.setUint32(CAP_MSIX + 4, 0x2000 | 4, true);
  view.setUint32(CAP_MSIX + 8, 0x3000 | 4, true);
  change(view);
  const writes: [number, number, number][] = [];
  return {
    image,
    writes,
    read: (offset, size) => {
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + image[offset + i]!;
      return value;
    },
    write: (offset, size, value) => writes.push([offset, size, value]),
  };
}

const BARS: readonly AssignedBar[] = [
  { index: 0, size: 0x10_0000, is64: false, prefetchable: false },
  { index: 4, size: 0x4000, is64: true, prefetchable: true },
];

describe("configuration space of an assigned device", () => {
  it("BARs are sized and placed as the specification says, in the guest alone (PCIe 6.0 §7.5.1.2.1)", () => {
    const host = hostConfig();
    const config = new AssignedConfigSpace(host, BARS);
    config.write(0x10, 4, 0xffff_ffff);
    expect(config.read(0x10, 4)).toBe(0xfff0_0000);
    config.write(0x20, 4, 0xffff_ffff);
    config.write(0x24, 4, 0xffff_ffff);
    expect([config.read(0x20, 4), config.read(0x24, 4)]).toEqual([0xffff_c00c, 0xffff_ffff]);
    config.write(0x14, 4, 0xffff_ffff);
    expect(config.read(0x14, 4)).toBe(0);
    expect(host.writes).toEqual([]);
  });

  it("a BAR decodes where the guest put it, while memory is on", () => {
    const config = new AssignedConfigSpace(hostConfig(), BARS);
    config.write(0x10, 4, 0x4020_0000);
    config.write(0x20, 4, 0x8000_0000);
    config.write(0x24, 4, 0x4);
    expect(config.barBase(0)).toBe(-1);
    config.write(4, 2, 2);
    expect(config.barBase(0)).toBe(0x4020_0000);
    expect(config.barBase(4)).toBe(0x4_8000_0000);
    expect(config.barBase(1)).toBe(-1);
  });

  it("the command register reaches the host; writes of identification do not change what is read", () => {
    const host = hostConfig();
    const config = new AssignedConfigSpace(host, BARS);
    config.write(4, 2, 6);
    expect(host.writes).toContainEqual([4, 2, 6]);
    config.write(0, 2, 0xdead);
    expect(config.read(0, 2)).toBe(0x1234);
  });

  it("MSI and MSI-X controls are the guest's; the host hears of them by SET_IRQS only", () => {
    const host = hostConfig();
    const config = new AssignedConfigSpace(host, BARS);
    let told = 0;
    config.onInterruptControl = () => told++;
    config.write(CAP_MSI + 4, 4, 0x2800_0003);
    config.write(CAP_MSI + 2, 2, 1);
    config.write(CAP_MSIX + 2, 2, 0x8000);
    expect(config.read(CAP_MSI + 4, 4)).toBe(0x2800_0000);
    expect(config.read(CAP_MSIX + 2, 2)).toBe(0x8007);
    expect(told).toBe(3);
    expect(host.writes).toEqual([]);
    expect(config.msix).toMatchObject({ vectors: 8, tableBar: 4, tableOffset: 0x2000, pendingBar: 4 });
    expect(config.msi).toMatchObject({ vectors: 2, wide: true, maskable: true });
  });

  it.each([
    [CAP_EXPRESS + 8, 2, 0x8000],
    [CAP_EXPRESS + 9, 1, 0x80],
    [CAP_EXPRESS + 8, 4, 0x8000],
  ] as const)("Initiate FLR written at 0x%s in %i bytes is a reset (§7.5.3.4)", (offset, size, value) => {
    const host = hostConfig();
    const config = new AssignedConfigSpace(host, BARS);
    let resets = 0;
    config.onReset = () => resets++;
    config.write(offset, size, value);
    expect(resets).toBe(1);
    expect(host.writes).toEqual([]);
  });

  it("an access across the guest's bytes and the host's gets each from its owner", () => {
    const config = new AssignedConfigSpace(hostConfig(), BARS);
    config.write(CAP_MSI + 2, 2, 1);
    expect(config.read(CAP_MSI, 4)).toBe((0x183 << 16) | (CAP_EXPRESS << 8) | 0x05);
  });

  it("a reset takes back what the host's kernel has put back: the host's command register follows the guest's", () => {
    const host = hostConfig();
    const config = new AssignedConfigSpace(host, BARS);
    config.write(4, 2, 6);
    config.reset();
    expect(config.read(4, 2)).toBe(0);
    expect(host.writes.filter(([offset]) => offset === 4).at(-1)).toEqual([4, 2, 0]);
    expect(host.writes.slice(-2)).toEqual([
      [CAP_EXPRESS + 8, 2, 0],
      [CAP_EXPRESS + 0x28, 2, 0],
    ]);
  });

  describe("the PASID capability, which VFIO hides (PCIe 6.0 §7.8.9)", () => {
    const PASID = 0x1b;
    const support = { width: 16, execute: true, privileged: false };
    const list = (config: AssignedConfigSpace): [id: number, at: number][] => {
      const found: [number, number][] = [];
      for (let at = 0x100, steps = 0; at >= 0x100 && steps < 64; steps++) {
        const header = config.read(at, 4);
        if ((header & 0xffff) !== 0) found.push([header & 0xffff, at]);
        at = (header >>> 20) & 0xffc;
      }
      return found;
    };
    const chained = (...headers: [at: number, header: number][]) =>
      hostConfig((view) => {
        for (const [at, header] of headers) view.setUint32(at, header, true);
      });

    it.each([
      ["alone", [], [[PASID, 0x100]]],
      [
        "in the empty header that VFIO left",
        [
          [0x100, 0x1080_0000],
          [0x108, 0x0001_000f],
        ],
        [
          [PASID, 0x100],
          [0x0f, 0x108],
        ],
      ],
      [
        "at the end of a list without one",
        [
          [0x100, 0x1081_000f],
          [0x108, 0x0001_0013],
        ],
        [
          [0x0f, 0x100],
          [0x13, 0x108],
          [PASID, 0xff8],
        ],
      ],
      [
        "at the end, where the empty header has no room behind it",
        [
          [0x100, 0x1040_0000],
          [0x104, 0x0001_000f],
        ],
        [
          [0x0f, 0x104],
          [PASID, 0xff8],
        ],
      ],
      [
        "nowhere, where its place is taken",
        [
          [0x100, 0xff81_000f],
          [0xff8, 0x0001_0003],
        ],
        [
          [0x0f, 0x100],
          [3, 0xff8],
        ],
      ],
      ["nowhere, in a list that loops", [[0x100, 0x1001_000f]], null],
    ] as [string, [number, number][], [number, number][] | null][])("stands %s", (_where, headers, expected) => {
      const host = chained(...headers);
      const config = new AssignedConfigSpace(host, BARS, support);
      const found = list(config);
      if (expected === null) expect(found.every(([id]) => id !== PASID)).toBe(true);
      else expect(found).toEqual(expected);
      const at = found.find(([id]) => id === PASID)?.[1];
      if (at === undefined) return;
      expect(config.read(at + 4, 2)).toBe(0x1002);
      // Enable and the modes that there are can be switched, in the guest alone.
      config.write(at + 6, 2, 0xffff);
      expect(config.read(at + 6, 2)).toBe(3);
      config.write(at + 4, 2, 0xffff);
      expect(config.read(at + 4, 2)).toBe(0x1002);
      expect(host.writes).toEqual([]);
      config.reset();
      expect(config.read(at + 6, 2)).toBe(0);
    });

    it("is not there without PASIDs, nor on a function that is not PCI Express", () => {
      expect(list(new AssignedConfigSpace(hostConfig(), BARS, null))).toEqual([]);
      const conventional = hostConfig((view) => view.setUint16(CAP_MSI, 0x05 | (CAP_MSIX << 8), true));
      expect(list(new AssignedConfigSpace(conventional, BARS, support))).toEqual([]);
    });
  });

  it("a capability list that loops, or leads into the header, ends", () => {
    const loop = hostConfig((view) => view.setUint8(CAP_MSIX + 1, CAP_MSI));
    expect(new AssignedConfigSpace(loop, BARS).msix).not.toBeNull();
    const header = hostConfig((view) => view.setUint8(0x34, 0x04));
    expect(new AssignedConfigSpace(header, BARS).msi).toBeNull();
    const extended = hostConfig((view) => view.setUint32(0x100, 0x1001_000f, true));
    expect(new AssignedConfigSpace(extended, BARS).hasAts).toBe(true);
  });

  it("no access of a guest throws, whatever the device's image holds", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 256, maxLength: 256 }),
        fc.array(fc.tuple(fc.nat(4100), fc.constantFrom(1, 2, 4), fc.nat(0xffff_ffff)), { maxLength: 40 }),
        (bytes, accesses) => {
          const host = hostConfig((view) => new Uint8Array(view.buffer).set(bytes));
          const config = new AssignedConfigSpace(host, BARS);
          for (const [offset, size, value] of accesses) {
            config.write(offset, size as 1 | 2 | 4, value);
            const read = config.read(offset, size as 1 | 2 | 4);
            expect(read).toBeGreaterThanOrEqual(0);
            expect(read).toBeLessThan(2 ** (8 * size));
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("the MSI-X table laid over a BAR (§7.7.2)", () => {
  function overlaid() {
    const reached: string[] = [];
    const device = {
      high: 0,
      mmioRead: (offset: number) => {
        reached.push(`read ${offset}`);
        return 0x5a;
      },
      mmioWrite: (offset: number) => {
        reached.push(`write ${offset}`);
      },
    };
    const table = new MsixTable(4);
    const registers = new OverlaidRegisters(device, () => {});
    registers.overlay(0x2000, 64, table.table);
    registers.overlay(0x3000, 8, table.pending);
    return { table, registers, reached };
  }

  it("is kept from the device, everything else reaches it", () => {
    const { registers, reached, table } = overlaid();
    registers.mmioWrite(0x2010, 8, 0x2800_0000, 1);
    registers.mmioWrite(0x2018, 4, 42, 0);
    registers.mmioWrite(0x3000, 4, 0xffff_ffff, 0);
    expect(reached).toEqual([]);
    expect([table.addressLow(1), table.addressHigh(1), table.data(1)]).toEqual([0x2800_0000, 1, 42]);
    expect(registers.mmioRead(0x3000, 8)).toBe(0);
    expect(registers.mmioRead(0x1fff, 1)).toBe(0x5a);
    expect(registers.mmioRead(0x2040, 4)).toBe(0x5a);
    expect(reached).toEqual(["read 8191", "read 8256"]);
  });

  it("vectors are masked after reset; unmasking one that is pending says so once", () => {
    const { table, registers } = overlaid();
    const unmasked: number[] = [];
    table.onUnmasked = (vector) => unmasked.push(vector);
    expect([0, 1, 2, 3].every((vector) => table.masked(vector))).toBe(true);
    table.setPending(2);
    expect(registers.mmioRead(0x3000, 4)).toBe(4);
    registers.mmioWrite(0x202c, 4, 0, 0);
    registers.mmioWrite(0x200c, 4, 0, 0);
    registers.mmioWrite(0x202c, 4, 0, 0);
    expect(unmasked).toEqual([2]);
  });

  it("accesses of 1 or 2 bytes change nothing", () => {
    const { table, registers } = overlaid();
    registers.mmioWrite(0x2010, 2, 0x1234, 0);
    expect(table.addressLow(1)).toBe(0);
  });
});
