// Dirty tracking over VFIO: by the page tables, and by the device itself.

import { describe, expect, it } from "vitest";
import * as R from "../../../../host/devices/edu/registers.ts";
import { EFAULT, EINVAL, ENOTTY, EOVERFLOW } from "../../../../host/uapi/errno.ts";
import * as I from "../../../../host/uapi/iommufd.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import { eduDma, eduOutcome, KIND } from "../machine.ts";
import { bound, RID } from "./device-user.ts";

describe("dirty tracking", () => {
  it("shows the pages that DMA wrote, once, by the hardware's own marks", () => {
    const { host, user, iommufd, vfio, device, end } = bound();
    const ioas = user.ioas(iommufd);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(64 * 4096), 0, 64 * 4096);
    // Out of step by a page, so that leaves are small and dirty bits are exact.
    user.map(iommufd, ioas, va + 4096n, 62 * 4096, 0x8000_0000n);
    // In a second stage, where the driver has that.
    const flags = I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING | (KIND === "smmuv3" ? 0 : I.IOMMU_HWPT_ALLOC_NEST_PARENT);
    const hwpt = user.hwpt(iommufd, device, ioas, { flags });
    expect(user.attach(vfio, hwpt)).toBe(hwpt);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    const track = { hwpt_id: hwpt, flags: I.IOMMU_HWPT_DIRTY_TRACKING_ENABLE };
    expect(user.call(iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, track).result).toBe(0);
    const write = (page: bigint) => {
      eduDma(bar, 0x8000_0000n + page * 4096n, 64, true);
      host.run(10_000);
      expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    };
    const bitmap = (): bigint => {
      const data = user.scratch + 4096n;
      user.process.memory.bytes(data, 8).fill(0);
      const values = { hwpt_id: hwpt, iova: 0x8000_0000n, length: 62n * 4096n, page_size: 4096n, data };
      user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, values);
      const bytes = user.process.memory.bytes(data, 8);
      return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
    };
    write(3n);
    write(40n);
    eduDma(bar, 0x8000_0000n, 64, false);
    host.run(10_000);
    expect(bitmap()).toBe((1n << 3n) | (1n << 40n));
    expect(bitmap()).toBe(0n);
    // Written again through whatever is cached: marked again.
    write(3n);
    expect(bitmap()).toBe(1n << 3n);
    end();
  });
});

describe("dirty logging by the device (VFIO_DEVICE_FEATURE_DMA_LOGGING)", () => {
  const PROBE = X.VFIO_DEVICE_FEATURE_PROBE;
  const GET = X.VFIO_DEVICE_FEATURE_GET;
  const SET = X.VFIO_DEVICE_FEATURE_SET;
  const [START, STOP, REPORT] = [6, 7, 8];

  function logging() {
    const parts = bound({ devices: [{ rid: RID, iommu: 0, options: { dmaLogging: true } }] });
    const { memory } = parts.user.process;
    const at = memory.allocate(8192);
    const call = (flags: number, data: Uint8Array): number => {
      memory.bytes(at, 8).set(X.vfioDeviceFeature.encode({ argsz: 8 + data.length, flags }));
      memory.bytes(at + 8n, Math.max(1, data.length)).set(data);
      return parts.user.process.ioctl(parts.vfio, X.VFIO_DEVICE_FEATURE, at);
    };
    const rangesAt = at + 4096n;
    const start = (ranges: readonly [iova: bigint, length: bigint][], pageSize = 4096n) => {
      ranges.forEach(([iova, length], index) => {
        memory
          .bytes(rangesAt + BigInt(16 * index), 16)
          .set(X.vfioDeviceFeatureDmaLoggingRange.encode({ iova, length }));
      });
      const control = { page_size: pageSize, num_ranges: ranges.length, ranges: rangesAt };
      return call(SET | START, X.vfioDeviceFeatureDmaLoggingControl.encode(control));
    };
    const report = (iova: bigint, length: bigint, pageSize = 4096n) => {
      const bitmap = memory.bytes(rangesAt, 64).fill(0);
      const values = { iova, length, page_size: pageSize, bitmap: rangesAt };
      const result = call(GET | REPORT, X.vfioDeviceFeatureDmaLoggingReport.encode(values));
      return result < 0 ? result : [...bitmap.slice(0, 8)];
    };
    return { ...parts, call, start, report };
  }

  it("is probed, started over ranges, reports pages written since, and stops", () => {
    const { host, call, start, report, end } = logging();
    expect(
      [START, STOP, REPORT].map((feature) =>
        call(PROBE | (feature === REPORT ? GET : SET) | feature, new Uint8Array(0)),
      ),
    ).toEqual([0, 0, 0]);
    expect(report(0x10000n, 0x10000n)).toBe(-EINVAL);
    expect(start([[0x10000n, 0x10000n]])).toBe(0);
    expect(start([[0x10000n, 0x10000n]])).toBe(-EINVAL);
    const log = host.root.slot(RID)!.dma.writeLog!;
    for (const pfn of [0x11, 0x13, 0x13, 0x20]) log.wrote(pfn);
    // Page 0x20 lies outside the range; bits are one a page, from the report's iova.
    expect(report(0x10000n, 0x10000n)).toEqual([0b1010, 0, 0, 0, 0, 0, 0, 0]);
    expect(report(0x10000n, 0x10000n)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    log.wrote(0x13);
    expect(report(0x10000n, 0x10000n, 8192n)).toEqual([0b10, 0, 0, 0, 0, 0, 0, 0]);
    expect(call(SET | STOP, new Uint8Array(0))).toBe(0);
    expect(report(0x10000n, 0x10000n)).toBe(-EINVAL);
    end();
  });

  it("loses nothing to a bitmap that cannot be written", () => {
    const { user, host, call, start, report, end } = logging();
    expect(start([[0x10000n, 0x10000n]])).toBe(0);
    host.root.slot(RID)!.dma.writeLog!.wrote(0x15);
    const readOnly = user.process.memory.mapKernelMemory(new Uint8Array(4096), false, () => {});
    const values = { iova: 0x10000n, length: 0x10000n, page_size: 4096n, bitmap: readOnly };
    expect(call(GET | REPORT, X.vfioDeviceFeatureDmaLoggingReport.encode(values))).toBe(-EFAULT);
    expect(report(0x10000n, 0x10000n)).toEqual([0b10_0000, 0, 0, 0, 0, 0, 0, 0]);
    end();
  });

  it("that overflowed counts every watched page, in time that the bitmap bounds", () => {
    const { host, start, report, end } = logging();
    // Far more pages than could be walked one by one; the device writes more of them than its log holds.
    expect(
      start([
        [0x10000n, 0x10000n],
        [1n << 40n, 1n << 62n],
      ]),
    ).toBe(0);
    const log = host.root.slot(RID)!.dma.writeLog!;
    for (let pfn = 0; pfn <= 1 << 20; pfn++) log.wrote(2 ** 28 + pfn);
    expect(report(0n, 1n << 62n, 1n << 58n)).toEqual([0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    expect(report(0x8000n, 0x20000n)).toEqual([0, 0xff, 0xff, 0, 0, 0, 0, 0]);
    end();
  });

  it("refuses ranges that overlap, are misaligned, wrap, or are none", () => {
    const { start, end } = logging();
    expect(start([])).toBe(-EINVAL);
    expect(
      start([
        [0x1000n, 0x2000n],
        [0x2000n, 0x1000n],
      ]),
    ).toBe(-EINVAL);
    expect(start([[0x800n, 0x1000n]])).toBe(-EINVAL);
    expect(start([[0xffff_ffff_ffff_f000n, 0x1000n]])).toBe(-EOVERFLOW);
    end();
  });

  it("sees the device's own writes, and none of its reads", () => {
    const { host, user, iommufd, vfio, start, report, end } = logging();
    const ioas = user.ioas(iommufd);
    const va = user.process.memory.allocate(8192);
    expect(user.map(iommufd, ioas, va, 8192, 0x10000n)).toBe(0);
    expect(user.attach(vfio, ioas)).toBeGreaterThan(0);
    user.enableDevice(vfio);
    expect(start([[0x10000n, 0x2000n]])).toBe(0);
    const { dma } = host.root.slot(RID)!;
    expect(dma.read(0x10, 0, new Uint8Array(8), 0, 8, -1)).toBe(0);
    expect(dma.write(0x11, 0, new Uint8Array(8), 0, 8, -1)).toBe(0);
    expect(report(0x10000n, 0x2000n)).toEqual([0b10, 0, 0, 0, 0, 0, 0, 0]);
    end();
  });

  it("is not there for a function that cannot", () => {
    const { user, vfio, end } = bound();
    const flags = PROBE | SET | START;
    expect(user.call(vfio, X.VFIO_DEVICE_FEATURE, X.vfioDeviceFeature, { flags }).result).toBe(-ENOTTY);
    end();
  });
});
