// What VFIO's requests refuse, with which errno and in which order of checks (Linux 7.2: vfio_main.c, device_cdev.c, iommufd.c,
// vfio_pci_core.c, vfio_pci_intrs.c, vfio_iommu_type1.c). Every rule is stated with its test; numbers are taken to their extremes.

import { describe, expect, it } from "vitest";
import {
  EACCES,
  EBADF,
  EBADFD,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
} from "../../../../host/uapi/errno.ts";
import * as I from "../../../../host/uapi/iommufd.ts";
import * as N from "../../../../host/uapi/riscv-nesting.ts";
import * as S from "../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { HAS_VIOMMU, KIND, machine, name } from "../machine.ts";
import { bound, RID } from "./device-user.ts";

const U32_MAX = 0xffff_ffff;

describe("BIND_IOMMUFD", () => {
  it("looks at a token before the descriptor, and no token fits a function without virtual functions", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    const bind = (token_uuid_ptr: bigint, iommufd: number) =>
      user.call(vfio, X.VFIO_DEVICE_BIND_IOMMUFD, X.vfioDeviceBindIommufd, {
        flags: X.VFIO_DEVICE_BIND_FLAG_TOKEN,
        iommufd,
        token_uuid_ptr,
      }).result;
    expect(bind(0x10n, 999)).toBe(-EFAULT);
    expect(bind(user.scratch + 4096n, 999)).toBe(-EINVAL);
    expect(user.bind(vfio, 999)).toBe(-EBADF);
    expect(user.bind(vfio, vfio)).toBe(-EBADFD);
    const iommufd = user.iommufd();
    expect(user.bind(vfio, iommufd)).toBeGreaterThan(0);
    expect(user.bind(vfio, iommufd)).toBe(-EINVAL);
    expect(user.bind(vfio, 999)).toBe(-EINVAL);
    user.process.exit();
  });
});

describe("ATTACH and DETACH with a PASID", () => {
  const FLAG = X.VFIO_DEVICE_ATTACH_PASID;
  function withPasids(pasidBits: number) {
    const parts = bound({ devices: [{ rid: RID, options: { pasidBits } }] });
    const { user, iommufd, vfio, device } = parts;
    const attach = (pasid: number, pt_id: number, more: object = {}) =>
      user.call(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, {
        flags: FLAG,
        pasid,
        pt_id,
        ...more,
      }).result;
    const detach = (pasid: number, more: object = {}) =>
      user.call(vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, { flags: FLAG, pasid, ...more })
        .result;
    const ioas = user.ioas(iommufd);
    const hwpt = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_PASID });
    const other = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_PASID });
    const plain = user.hwpt(iommufd, device, ioas);
    return { ...parts, attach, detach, ioas, hwpt, other, plain };
  }

  it("the structure must hold the PASID; detaching what is not attached is nothing", () => {
    for (const bits of [0, 20]) {
      const { attach, detach, hwpt, end } = withPasids(bits);
      expect(attach(1, hwpt, { argsz: 15 })).toBe(-EINVAL);
      expect(attach(1, hwpt, { flags: FLAG | 2 })).toBe(-EINVAL);
      expect(detach(1, { argsz: 11 })).toBe(-EINVAL);
      expect(detach(1, { flags: FLAG | 2 })).toBe(-EINVAL);
      for (const pasid of [0, 1, 2 ** 20, U32_MAX]) expect(detach(pasid)).toBe(0);
      end();
    }
  });

  it("what lies behind the fields that a request asks for is not looked at", () => {
    const { user, iommufd, vfio, ioas, end } = withPasids(20);
    // The structure ends with its page: its PASID would lie in the next one, where nothing is.
    const page = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    const [attachAt, detachAt] = [page + 4096n - 12n, page + 4096n - 8n];
    const attach = (flags: number) => {
      const bytes = X.vfioDeviceAttachIommufdPt.encode({ argsz: 16, flags, pt_id: ioas });
      user.process.memory.bytes(attachAt, 12).set(bytes.subarray(0, 12));
      return user.process.ioctl(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attachAt);
    };
    const detach = (flags: number) => {
      user.process.memory
        .bytes(detachAt, 8)
        .set(X.vfioDeviceDetachIommufdPt.encode({ argsz: 12, flags }).subarray(0, 8));
      return user.process.ioctl(vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, detachAt);
    };
    expect(iommufd).toBeGreaterThanOrEqual(0);
    expect([attach(FLAG), detach(FLAG)]).toEqual([-EFAULT, -EFAULT]);
    expect([attach(0), detach(0)]).toEqual([0, 0]);
    end();
  });

  it("a device without PASIDs is asked like any other: its answers come from what is attached", () => {
    const { attach, detach, ioas, hwpt, plain, end } = withPasids(0);
    expect(attach(5, 999)).toBe(-ENOENT);
    expect(attach(5, plain)).toBe(-EINVAL);
    expect(attach(5, ioas)).toBe(-EINVAL);
    // An HWPT for PASIDs is kept for the group, of which no device sends any.
    expect(attach(5, hwpt)).toBe(0);
    expect(detach(5)).toBe(0);
    end();
  });

  it("PASIDs past INT_MAX fit no table, those past the device's are EINVAL", () => {
    const { attach, hwpt, end } = withPasids(20);
    expect(attach(2 ** 20, hwpt)).toBe(-EINVAL);
    expect(attach(2 ** 31 - 1, hwpt)).toBe(-EINVAL);
    expect(attach(2 ** 31, hwpt)).toBe(-ENOSPC);
    expect(attach(U32_MAX, 999)).toBe(-ENOSPC);
    end();
  });

  it("PASID 0 is the requester id: it is attached by one of its names at a time, and detached by that", () => {
    const { user, vfio, attach, detach, hwpt, other, end } = withPasids(20);
    expect(attach(0, hwpt)).toBe(0);
    expect(user.attach(vfio, hwpt)).toBe(-EBUSY);
    // By the same name it is replaced.
    expect(attach(0, other)).toBe(0);
    expect(user.detach(vfio)).toBe(0);
    expect(user.attach(vfio, hwpt)).toBe(-EBUSY);
    expect(detach(0)).toBe(0);
    expect(user.attach(vfio, hwpt)).toBe(hwpt);
    expect(attach(0, hwpt)).toBe(-EBUSY);
    expect(detach(0)).toBe(0);
    expect(user.attach(vfio, other)).toBe(other);
    end();
  });

  it("PASID 0 takes what a requester id takes: an IOAS, on a device without PASIDs, too", () => {
    const { host, attach, ioas, end } = withPasids(0);
    expect(attach(0, ioas)).toBe(0);
    expect(host.kernel.iommu.ownedGroups).toBe(1);
    end();
  });
});

describe("read and write without a position", () => {
  it("go on where the last one ended; those with a position do not move it", () => {
    const { user, vfio, end } = bound();
    const { process, scratch } = user;
    user.enableDevice(vfio);
    const words = (bytes: number, position = -1n) => {
      const done = process.read(vfio, scratch, bytes, position);
      const view = process.memory.bytes(scratch, 16);
      return [done, new DataView(view.buffer, view.byteOffset, 16).getUint32(0, true)];
    };
    // The edu's identification, then its liveness register, inverted.
    process.memory.bytes(scratch, 4).set([0xff, 0xff, 0xff, 0xff]);
    expect(process.write(vfio, scratch, 4, 4n)).toBe(4);
    expect(words(4)).toEqual([4, 0x0100_00ed]);
    expect(words(2, 7n << 40n)[0]).toBe(2);
    expect(words(4)).toEqual([4, 0]);
    end();
  });
});

describe("VIOMMU_ALLOC", () => {
  it.runIf(HAS_VIOMMU)(
    "refuses an unknown type before the parent is looked at, and type 0 and flags before the device",
    () => {
      const { user, iommufd, device, end } = bound();
      const alloc = (values: object) =>
        user.call(iommufd, I.IOMMU_VIOMMU_ALLOC, I.iommuViommuAlloc, {
          type: KIND === "riscv" ? N.IOMMU_VIOMMU_TYPE_RISCV : S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
          dev_id: device,
          hwpt_id: 999,
          ...values,
        }).result;
      expect(alloc({ type: 0, dev_id: 999 })).toBe(-EOPNOTSUPP);
      expect(alloc({ flags: 1, dev_id: 999 })).toBe(-EOPNOTSUPP);
      expect(alloc({ type: U32_MAX, dev_id: 999 })).toBe(-ENOENT);
      for (const type of [KIND === "riscv" ? 1 : N.IOMMU_VIOMMU_TYPE_RISCV, 2, 99, U32_MAX])
        expect(alloc({ type })).toBe(-EOPNOTSUPP);
      expect(alloc({})).toBe(-ENOENT);
      const plain = user.hwpt(iommufd, device, user.ioas(iommufd));
      expect(alloc({ type: 99, hwpt_id: plain })).toBe(-EOPNOTSUPP);
      expect(alloc({ hwpt_id: plain })).toBe(-EINVAL);
      end();
    },
  );

  it.skipIf(HAS_VIOMMU)("is not there where stage 1 stands on its parent", () => {
    const { user, iommufd, device, end } = bound();
    const parent = user.hwpt(iommufd, device, user.ioas(iommufd), { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
    expect(parent).toBeGreaterThan(0);
    for (const type of [1, 2, U32_MAX]) expect(user.viommu(iommufd, device, parent, type)).toBe(-EOPNOTSUPP);
    end();
  });
});

describe("PCI_HOT_RESET", () => {
  const reset = (parts: { user: ReturnType<typeof bound>["user"] }, fd: number, values: object) =>
    parts.user.call(fd, X.VFIO_DEVICE_PCI_HOT_RESET, X.vfioPciHotReset, values, new Uint8Array(8)).result;

  it("names no groups for a device opened by its node; then there is no bus to reset", () => {
    const parts = bound();
    expect(reset(parts, parts.vfio, { argsz: 11 })).toBe(-EINVAL);
    expect(reset(parts, parts.vfio, { flags: 1 })).toBe(-EINVAL);
    for (const count of [1, 2, U32_MAX]) expect(reset(parts, parts.vfio, { count })).toBe(-EINVAL);
    expect(reset(parts, parts.vfio, { count: 0 })).toBe(-ENODEV);
    parts.end();
  });

  it("names at least one for a device opened through its group", () => {
    const { user, container, group, end } = contained();
    const device = user.deviceFd(group, name(RID));
    expect(reset({ user }, device, { count: 0 })).toBe(-EINVAL);
    expect(reset({ user }, device, { count: 1 })).toBe(-ENODEV);
    expect(container).toBeGreaterThanOrEqual(0);
    end();
  });
});

function contained(type = C.VFIO_TYPE1v2_IOMMU) {
  const host = machine();
  host.assign();
  const user = host.user();
  const container = user.open("/dev/vfio/vfio");
  const group = user.open(host.vfio.groupNodeOf(name(RID))!);
  expect(user.setContainer(group, container)).toBe(0);
  expect(user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(type))).toBe(0);
  const va = user.process.memory.mapBuffer(new ArrayBuffer(65536), 0, 65536);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, container, group, va, end };
}

describe("SET_IOMMU", () => {
  it("takes the two types; another extension of a backend is refused by it, an unknown number by all", () => {
    const host = machine({ iommufd: { noIommu: true } });
    host.assign();
    const user = host.user({ capabilities: { ipcLock: false, sysResource: false, sysRawio: false } });
    const container = user.open("/dev/vfio/vfio");
    const check = (extension: number) => user.process.ioctl(container, C.VFIO_CHECK_EXTENSION, BigInt(extension));
    const setIommu = (type: bigint) => user.process.ioctl(container, C.VFIO_SET_IOMMU, type);
    expect(check(C.VFIO_NOIOMMU_IOMMU)).toBe(1);
    const group = user.open(host.vfio.groupNodeOf(name(RID))!);
    expect(user.setContainer(group, container)).toBe(0);
    // Groups with an IOMMU are in it now.
    expect(check(C.VFIO_NOIOMMU_IOMMU)).toBe(0);
    expect(setIommu(BigInt(C.VFIO_NOIOMMU_IOMMU))).toBe(-ENODEV);
    for (const none of [0n, 2n, 6n, 99n, 1n << 40n, (1n << 64n) - 1n]) expect(setIommu(none)).toBe(-ENODEV);
    for (const none of [C.VFIO_DMA_CC_IOMMU, C.VFIO_UPDATE_VADDR]) expect(setIommu(BigInt(none))).toBe(-ENODEV);
    expect(setIommu(BigInt(C.VFIO_UNMAP_ALL))).toBe(-EINVAL);
    expect(setIommu(BigInt(C.VFIO_TYPE1_IOMMU))).toBe(0);
    user.process.exit();
  });
});

describe("type1 at the top of the address space", () => {
  const P = 4096n;
  const TOP = 1n << 64n;

  it("MAP_DMA: no size, then a range that passes 2^64, before rights and alignment", () => {
    const { user, container, va, end } = contained();
    const map = (iova: bigint, size: bigint, flags = 3, from = va) => user.mapDma(container, from, iova, size, flags);
    expect(map(TOP - P, 2n * P)).toBe(-EOVERFLOW);
    expect(map(TOP - 100n, P)).toBe(-EOVERFLOW);
    expect(map(TOP - 1n, 2n, 0)).toBe(-EOVERFLOW);
    expect(map(TOP - P, 2n * P, C.VFIO_DMA_MAP_FLAG_VADDR | 3)).toBe(-EOVERFLOW);
    expect(map(0x10_0000n, 2n * P, 3, TOP - P)).toBe(-EOVERFLOW);
    expect(map(1n, TOP - 1n)).toBe(-EOVERFLOW);
    expect(map(TOP - P, 0n)).toBe(-EINVAL);
    expect(map(TOP - P, 2n * P, 8)).toBe(-EINVAL);
    // Ranges that end at 2^64 do not pass it.
    expect(map(TOP - P, P)).toBe(-EINVAL);
    expect(map(TOP - 100n, 100n)).toBe(-EINVAL);
    expect(map(TOP - P, P, 0)).toBe(-EINVAL);
    end();
  });

  it("MAP_DMA of a new address: with rights EINVAL, without a mapping ENOENT, for one that keeps its address EINVAL", () => {
    const { user, container, va, end } = contained();
    const VADDR = C.VFIO_DMA_MAP_FLAG_VADDR;
    expect(user.mapDma(container, va, 0x1000n, P, VADDR | 1)).toBe(-EINVAL);
    expect(user.mapDma(container, va, 0x1001n, P, VADDR)).toBe(-EINVAL);
    expect(user.mapDma(container, va, 0x1000n, P, VADDR)).toBe(-ENOENT);
    expect(user.mapDma(container, va, 0x1000n, P)).toBe(0);
    expect(user.mapDma(container, va, 0x1000n, P)).toBe(-EEXIST);
    expect(user.mapDma(container, va, 0x1000n, P, VADDR)).toBe(-EINVAL);
    end();
  });

  it("UNMAP_DMA: alignment and size, then a range that passes 2^64", () => {
    const { user, container, end } = contained();
    const unmap = (iova: bigint, size: bigint, flags = 0) => user.unmapDma(container, iova, size, flags);
    expect(unmap(TOP - P, 2n * P)[0]).toBe(-EOVERFLOW);
    expect(unmap(2n * P, TOP - P)[0]).toBe(-EOVERFLOW);
    expect(unmap(TOP - P, TOP - P)[0]).toBe(-EOVERFLOW);
    expect(unmap(TOP - 100n, 2n * P)[0]).toBe(-EINVAL);
    expect(unmap(TOP - P, 2n * P + 1n)[0]).toBe(-EINVAL);
    expect(unmap(TOP - P, 0n)[0]).toBe(-EINVAL);
    expect(unmap(TOP - 2n * P, 2n * P)).toEqual([0, 0n]);
    expect(unmap(0n, TOP - P)).toEqual([0, 0n]);
    const ALL = C.VFIO_DMA_UNMAP_FLAG_ALL;
    expect(unmap(0n, 0n, ALL)).toEqual([0, 0n]);
    expect(unmap(P, 0n, ALL)[0]).toBe(-EINVAL);
    expect(unmap(0n, TOP - P, ALL)[0]).toBe(-EINVAL);
    end();
  });

  describe("dirty bitmaps", () => {
    const [START, STOP] = [C.VFIO_IOMMU_DIRTY_PAGES_FLAG_START, C.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP];
    const GET = C.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
    function dirty() {
      const parts = contained();
      const { user, container } = parts;
      const at = user.process.memory.allocate(4096);
      const ask = (flags: number, get: Partial<Record<string, bigint>> = {}, argsz = 48) => {
        const defaults = { iova: 0n, size: P, pgsize: P, bitmap_size: 8n, bitmap_data: at };
        const tail = C.vfioIommuType1DirtyBitmapGet.encode({ ...defaults, ...get });
        return user.call(container, C.VFIO_IOMMU_DIRTY_PAGES, C.vfioIommuType1DirtyBitmap, { flags, argsz }, tail)
          .result;
      };
      const unmap = (iova: bigint, size: bigint, bitmap: Partial<Record<string, bigint>> = {}, flags = 1) => {
        const tail = C.vfioBitmap.encode({ pgsize: P, size: 8n, data: at, ...bitmap });
        return user.call(container, C.VFIO_IOMMU_UNMAP_DMA, C.vfioIommuType1DmaUnmap, { flags, iova, size }, tail);
      };
      return { ...parts, at, ask, unmap };
    }

    it("GET_BITMAP: size, a range that passes 2^64, the bitmap, the page size, whether tracking is on: in this order", () => {
      const { ask, end } = dirty();
      // Before tracking is on, an overflow is still an overflow.
      expect(ask(GET, { iova: TOP - P, size: 2n * P })).toBe(-EOVERFLOW);
      expect(ask(GET)).toBe(-EINVAL);
      expect(ask(START)).toBe(0);
      expect(ask(START)).toBe(0);
      expect(ask(GET, { iova: TOP - P, size: 2n * P })).toBe(-EOVERFLOW);
      expect(ask(GET, { iova: TOP - 100n, size: 2n * P, pgsize: 0n, bitmap_size: 0n })).toBe(-EOVERFLOW);
      expect(ask(GET, { iova: TOP - P, size: 0n })).toBe(-EINVAL);
      expect(ask(GET, { iova: TOP - P, size: P })).toBe(0);
      for (const pgsize of [0n, 1n, 2048n, 8192n, 1n << 63n, TOP - 1n]) expect(ask(GET, { pgsize })).toBe(-EINVAL);
      expect(ask(GET, { iova: 1n })).toBe(-EINVAL);
      expect(ask(GET, { size: P + 1n })).toBe(-EINVAL);
      for (const bitmap_size of [0n, 7n, (1n << 28n) + 1n, TOP - 1n]) expect(ask(GET, { bitmap_size })).toBe(-EINVAL);
      expect(ask(GET, { size: 65n * P })).toBe(-EINVAL);
      // A bitmap outside of user space is EINVAL, one that is just not mapped matters when a bit is set there.
      expect(ask(GET, { bitmap_data: TOP - 8n })).toBe(-EINVAL);
      expect(ask(GET, { bitmap_data: 0x10n })).toBe(0);
      expect(ask(GET, {}, 47)).toBe(-EINVAL);
      for (const flags of [0, 3, 5, 6, 7, 8, GET | 0x8000_0000]) expect(ask(flags >>> 0)).toBe(-EINVAL);
      expect(ask(STOP)).toBe(0);
      expect(ask(GET)).toBe(-EINVAL);
      end();
    });

    it("UNMAP_DMA with a bitmap: the bitmap's size, then the range, then whether tracking is on", () => {
      const { user, container, va, at, ask, unmap, end } = dirty();
      const VADDR = C.VFIO_DMA_UNMAP_FLAG_VADDR;
      expect(unmap(0n, 0n, {}, 1 | C.VFIO_DMA_UNMAP_FLAG_ALL).result).toBe(-EINVAL);
      expect(unmap(0n, P, {}, 1 | VADDR).result).toBe(-EINVAL);
      expect(unmap(TOP - P, 2n * P, { size: 7n }).result).toBe(-EINVAL);
      expect(unmap(TOP - P, 2n * P).result).toBe(-EOVERFLOW);
      expect(unmap(P, P).result).toBe(-EINVAL);
      ask(START);
      expect(unmap(P, P, { pgsize: 2n * P, size: 8n }).result).toBe(-EINVAL);
      // Any number of mappings, each in its place of the bitmap; what lies between stays clear.
      user.mapDma(container, va, P, 2n * P);
      user.mapDma(container, va, 5n * P, P);
      user.process.memory.bytes(at, 8).fill(0);
      expect(unmap(0n, 2n * P).result).toBe(-EINVAL);
      const { result, size } = unmap(0n, 64n * P);
      expect([result, size]).toEqual([0, 3n * P]);
      expect([...user.process.memory.bytes(at, 2)]).toEqual([0b10_0110, 0]);
      // Nothing there: nothing to report.
      expect(unmap(0n, 64n * P)).toMatchObject({ result: 0, size: 0n });
      end();
    });

    it("UNMAP_DMA whose bitmap cannot be written leaves the mapping it could not report", () => {
      const { user, container, va, ask, unmap, end } = dirty();
      ask(START);
      user.mapDma(container, va, P, P);
      expect(unmap(P, P, { data: 0x10n }).result).toBe(-EFAULT);
      expect(user.mapDma(container, va, P, P)).toBe(-EEXIST);
      end();
    });

    it("v1 tracks nothing", () => {
      const { user, container, end } = contained(C.VFIO_TYPE1_IOMMU);
      const values = { flags: 99 };
      expect(user.call(container, C.VFIO_IOMMU_DIRTY_PAGES, C.vfioIommuType1DirtyBitmap, values).result).toBe(-EACCES);
      end();
    });
  });
});
