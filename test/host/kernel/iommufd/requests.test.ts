// What every request has in common (iommufd-uapi §0), their sizes, and small ones.

import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import type { MockPagingDomain } from "../../../../host/kernel/iommu/mock/mock-domain.ts";
import type { HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import { attachDevice } from "../../../../host/kernel/iommufd/in-kernel.ts";
import { E2BIG, EBADF, EFAULT, EINVAL, EMSGSIZE, ENOENT, ENOTTY, EOPNOTSUPP } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { MockHost, mockHwptData } from "./mock-host.ts";

// nr, name, size, minimum: iommufd-uapi §1.
const REQUESTS: [number, string, number, number][] = [
  [0x80, "IOMMU_DESTROY", 8, 8],
  [0x81, "IOMMU_IOAS_ALLOC", 12, 12],
  [0x82, "IOMMU_IOAS_ALLOW_IOVAS", 24, 24],
  [0x83, "IOMMU_IOAS_COPY", 40, 40],
  [0x84, "IOMMU_IOAS_IOVA_RANGES", 32, 32],
  [0x85, "IOMMU_IOAS_MAP", 40, 40],
  [0x86, "IOMMU_IOAS_UNMAP", 24, 24],
  [0x87, "IOMMU_OPTION", 24, 24],
  [0x88, "IOMMU_VFIO_IOAS", 12, 12],
  [0x89, "IOMMU_HWPT_ALLOC", 48, 24],
  [0x8a, "IOMMU_GET_HW_INFO", 40, 32],
  [0x8b, "IOMMU_HWPT_SET_DIRTY_TRACKING", 16, 16],
  [0x8c, "IOMMU_HWPT_GET_DIRTY_BITMAP", 48, 48],
  [0x8d, "IOMMU_HWPT_INVALIDATE", 32, 32],
  [0x8e, "IOMMU_FAULT_QUEUE_ALLOC", 16, 16],
  [0x8f, "IOMMU_IOAS_MAP_FILE", 40, 40],
  [0x90, "IOMMU_VIOMMU_ALLOC", 40, 24],
  [0x91, "IOMMU_VDEVICE_ALLOC", 24, 24],
  [0x92, "IOMMU_IOAS_CHANGE_PROCESS", 8, 8],
  [0x93, "IOMMU_VEVENTQ_ALLOC", 32, 28],
  [0x94, "IOMMU_HW_QUEUE_ALLOC", 40, 40],
];

function raw(user: ReturnType<MockHost["process"]>, request: number, size: number, fill?: (bytes: Uint8Array) => void) {
  const bytes = new Uint8Array(Math.max(size, 4));
  new DataView(bytes.buffer).setUint32(0, size, true);
  fill?.(bytes);
  user.process.memory.bytes(user.scratch, bytes.length).set(bytes);
  return user.process.ioctl(user.fd, request, user.scratch);
}

describe.each(REQUESTS)("request 0x%s", (nr, name, size, minimum) => {
  const request = 0x3b00 | nr;
  const user = new MockHost().process();

  it(`is ${name} with the layout Linux has`, () => {
    const known = uapi.IOMMUFD_IOCTLS.get(request);
    expect([known?.name, known?.layout.bytes, known?.minimum]).toEqual([name, size, minimum]);
  });

  it("refuses a structure smaller than its first version", () => {
    expect(raw(user, request, minimum - 1)).toBe(-EINVAL);
  });

  it("refuses what it does not know behind the structure, unless it is zero", () => {
    expect(raw(user, request, size + 16, (bytes) => bytes.fill(1, size + 15))).toBe(-E2BIG);
    expect(raw(user, request, size + 16)).not.toBe(-E2BIG);
  });

  it("faults when the structure, or its tail, cannot be read", () => {
    expect(user.process.ioctl(user.fd, request, 0x10n)).toBe(-EFAULT);
    const end = user.process.memory.allocate(8192);
    user.process.memory.free(end + 4096n, 4096);
    user.process.memory.bytes(end + 4092n, 4).set(Uint8Array.of(size, 0, 0, 0));
    expect(user.process.ioctl(user.fd, request, end + 4092n)).toBe(-EFAULT);
  });

  it("is another request with direction bits", () => {
    expect(raw(user, request | 0xc0000000, size)).toBe(-ENOTTY);
  });
});

describe("a request number", () => {
  it("that is not iommufd's goes to VFIO's, and is unknown there or not", () => {
    const user = new MockHost().process();
    expect(user.process.ioctl(user.fd, 0x3b64, 0n)).toBe(0);
    expect(user.process.ioctl(user.fd, 0x3b7f, 0n)).toBe(-ENOTTY);
    expect(user.process.ioctl(user.fd, 0x3b9f, user.scratch)).toBe(-ENOTTY);
  });
});

describe("reserved fields and unknown flags", () => {
  const user = new MockHost().process();
  const cases: [string, () => number][] = [
    ["IOAS_ALLOC flags", () => user.result(uapi.IOMMU_IOAS_ALLOC, uapi.iommuIoasAlloc, { flags: 1 })],
    ["IOAS_MAP reserved", () => user.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, { flags: 2, __reserved: 1 })],
    ["IOAS_MAP flags", () => user.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, { flags: 8 })],
    ["IOAS_COPY flags", () => user.result(uapi.IOMMU_IOAS_COPY, uapi.iommuIoasCopy, { flags: 16 })],
    ["OPTION reserved", () => user.result(uapi.IOMMU_OPTION, uapi.iommuOption, { __reserved: 1 })],
    ["OPTION id", () => user.result(uapi.IOMMU_OPTION, uapi.iommuOption, { option_id: 9 })],
    ["VFIO_IOAS op", () => user.result(uapi.IOMMU_VFIO_IOAS, uapi.iommuVfioIoas, { op: 3 })],
    ["GET_HW_INFO flags", () => user.result(uapi.IOMMU_GET_HW_INFO, uapi.iommuHwInfo, { flags: 2 })],
    ["HWPT_ALLOC reserved", () => user.result(uapi.IOMMU_HWPT_ALLOC, uapi.iommuHwptAlloc, { __reserved: 1 })],
    ["FAULT_QUEUE flags", () => user.result(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommuFaultAlloc, { flags: 1 })],
    ["VIOMMU type 0", () => user.result(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommuViommuAlloc, {})],
    ["VEVENTQ type 0", () => user.result(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommuVeventqAlloc, { veventq_depth: 1 })],
    ["HW_QUEUE type 0", () => user.result(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommuHwQueueAlloc, { length: 1n })],
    [
      "HWPT_INVALIDATE reserved",
      () => user.result(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, { __reserved: 1 }),
    ],
  ];
  it.each(cases)("are refused with EOPNOTSUPP: %s", (_name, call) => {
    expect(call()).toBe(-EOPNOTSUPP);
  });
});

describe("IOAS_IOVA_RANGES", () => {
  it("gives as many as fit, the total, the alignment, and EMSGSIZE", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    user.hwpt(bound.id, ioas);
    const list = user.process.memory.allocate(4096);
    const fields = { ioas_id: ioas, num_iovas: 0, allowed_iovas: list };
    expect(user.result(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommuIoasIovaRanges, fields)).toBe(-EMSGSIZE);
    const reply = uapi.iommuIoasIovaRanges.decode(user.process.memory.bytes(user.scratch, 32));
    expect([reply.num_iovas, reply.out_iova_alignment]).toEqual([1, 2048n]);
    expect(user.result(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommuIoasIovaRanges, { ...fields, num_iovas: 4 })).toBe(0);
    expect(uapi.iommuIovaRange.decode(user.process.memory.bytes(list, 16))).toEqual({
      start: 1n << 24n,
      last: (1n << 31n) - 1n,
    });
  });
});

describe("HWPT_INVALIDATE", () => {
  function nested() {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const parent = user.hwpt(bound.id, user.ioas(), uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    return { host, user, bound, parent, hwpt: user.hwpt(bound.id, parent, 0, mockHwptData(3)) };
  }

  it("says how many entries were done, also when it fails, and what was done stays done", () => {
    const { user, hwpt } = nested();
    const entries = user.process.memory.allocate(4096);
    // Entry 2 names cache line 9, which does not exist.
    for (const [i, id] of [0, 1, 9, 2].entries()) user.process.memory.bytes(entries + BigInt(i * 8 + 4), 1)[0] = id;
    const fields = { hwpt_id: hwpt, data_uptr: entries, data_type: 0xdeadbeef, entry_len: 8, entry_num: 4 };
    expect(user.result(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, fields)).toBe(-EINVAL);
    expect(uapi.iommuHwptInvalidate.decode(user.process.memory.bytes(user.scratch, 32)).entry_num).toBe(2);
    const check = (id: number, value: number) => {
      const bytes = new Uint8Array(72);
      const view = new DataView(bytes.buffer);
      for (const [at, word] of [72, 14, hwpt, 0, id, value].entries()) view.setUint32(at * 4, word, true);
      user.process.memory.bytes(user.scratch, 72).set(bytes);
      return user.process.ioctl(user.fd, 0x3ba0, user.scratch);
    };
    expect([check(0, 0), check(1, 0), check(2, 3), check(3, 3)]).toEqual([0, 0, 0, 0]);
  });

  it("bounds what one call can cost", () => {
    const { user, hwpt } = nested();
    const base = { hwpt_id: hwpt, data_uptr: user.scratch, data_type: 0xdeadbeef };
    for (const [length, count] of [
      [0, 1],
      [4097, 1],
      [8, (1 << 19) + 1],
    ] as const) {
      const fields = { ...base, entry_len: length, entry_num: count };
      expect(user.result(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, fields)).toBe(-EINVAL);
      expect(uapi.iommuHwptInvalidate.decode(user.process.memory.bytes(user.scratch, 32)).entry_num).toBe(0);
    }
  });

  it("finds no target by a wrong id, and refuses one of another kind", () => {
    const { user, parent } = nested();
    const fields = (hwpt_id: number) => ({ hwpt_id, data_type: 0xdeadbeef });
    expect(user.result(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, fields(999))).toBe(-ENOENT);
    expect(user.result(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, fields(parent))).toBe(-EINVAL);
  });
});

describe("a creation whose answer cannot be written", () => {
  it("is undone: no id is used up and nothing refers to anything", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const before = host.kernel.live.total;
    // Memory that can be read and not written.
    const readOnly = user.process.memory.allocate(4096);
    user.process.memory
      .bytes(readOnly, 48)
      .set(uapi.iommuHwptAlloc.encode({ size: 48, dev_id: bound.id, pt_id: ioas }));
    const { memory } = user.process;
    const write = memory.write.bind(memory);
    memory.write = (va, from) => (va >= readOnly && va < readOnly + 4096n ? -EFAULT : write(va, from));
    expect(user.process.ioctl(user.fd, uapi.IOMMU_HWPT_ALLOC, readOnly)).toBe(-EFAULT);
    expect(host.kernel.live.total).toBe(before);
    expect(user.destroy(ioas)).toBe(0);
  });
});

describe("dirty tracking", () => {
  it("ORs bits into the user's bitmap up to the first hole, and clears what it reported unless told not to", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const hwpt = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    attachDevice(bound, NO_PASID, hwpt);
    const ram = user.process.memory.allocate(16 * 4096);
    user.map(ioas, ram, 4 * 4096, 0x1000_0000n);
    user.map(ioas, ram, 4 * 4096, 0x1000_8000n);
    user.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommuHwptSetDirtyTracking, { hwpt_id: hwpt, flags: 1 });
    const domain = user.context.find<HwptPaging>(hwpt, "hwpt-paging")?.domain as MockPagingDomain;
    for (const iova of [0x1000_0000n, 0x1000_1800n, 0x1000_9000n]) domain.dirty?.mark(iova);
    const bitmap = user.process.memory.allocate(4096);
    const get = (flags: number) => {
      const fields = { hwpt_id: hwpt, flags, iova: 0x1000_0000n, length: 0x1_0000n, page_size: 4096n, data: bitmap };
      return user.result(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommuHwptGetDirtyBitmap, fields);
    };
    user.process.memory.bytes(bitmap, 2)[1] = 0x80;
    // Pages 4 to 7 are a hole: page 9 behind it is not reported, and the call succeeds.
    expect(get(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR)).toBe(0);
    expect([...user.process.memory.bytes(bitmap, 2)]).toEqual([0b11, 0x80]);
    user.process.memory.bytes(bitmap, 2).fill(0);
    expect(get(0)).toBe(0);
    expect([...user.process.memory.bytes(bitmap, 2)]).toEqual([0b11, 0]);
    user.process.memory.bytes(bitmap, 2).fill(0);
    expect(get(0)).toBe(0);
    expect([...user.process.memory.bytes(bitmap, 2)]).toEqual([0, 0]);
  });
});

describe("IOAS_MAP_FILE", () => {
  it("needs a descriptor that is open", () => {
    const user = new MockHost().process();
    const fields = { flags: 4, ioas_id: user.ioas(), fd: 55, length: 4096n };
    expect(user.result(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommuIoasMapFile, fields)).toBe(-EBADF);
  });

  it("maps a dma-buf until it is revoked, and the mapping's place stays taken", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const hwpt = user.hwpt(bound.id, ioas);
    const domain = user.context.find<HwptPaging>(hwpt, "hwpt-paging")?.domain as MockPagingDomain;
    const test = (op: number, first: number, second: number) => {
      const bytes = new Uint8Array(72);
      const view = new DataView(bytes.buffer);
      for (const [at, word] of [72, op, 0, 0, first, second].entries()) view.setUint32(at * 4, word, true);
      user.process.memory.bytes(user.scratch, 72).set(bytes);
      return user.process.ioctl(user.fd, 0x3ba0, user.scratch);
    };
    const fd = test(22, 8192, 0);
    const fields = { flags: 7, ioas_id: ioas, fd, length: 8192n, iova: 0x1000_0000n };
    expect(user.result(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommuIoasMapFile, { ...fields, length: 12288n })).toBe(-EINVAL);
    expect(user.result(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommuIoasMapFile, fields)).toBe(0);
    expect(domain.iovaToPhys(0x1000_1000n)).not.toBe(null);
    test(23, fd, 1);
    expect(domain.iovaToPhys(0x1000_1000n)).toBe(null);
    test(23, fd, 0);
    expect(domain.iovaToPhys(0x1000_1000n)).toBe(null);
    expect(user.unmap(ioas, 0x1000_0000n, 8192n)).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
  });
});
