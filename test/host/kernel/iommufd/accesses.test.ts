// Software access to an IOAS, and hardware queues, which are built on it (iommufd-semantics §3, §5).

import { describe, expect, it } from "vitest";
import type { FrameRun } from "../../../../host/kernel/file.ts";
import {
  type Access,
  type AccessDriver,
  attachAccess,
  copyBytes,
  createAccess,
  destroyAccess,
  pinPages,
  replaceAccess,
  unpinPages,
} from "../../../../host/kernel/iommufd/in-kernel.ts";
import type { Ioas } from "../../../../host/kernel/iommufd/ioas.ts";
import {
  EADDRINUSE,
  EBUSY,
  EDEADLK,
  EEXIST,
  EFAULT,
  EINVAL,
  EIO,
  ENOENT,
  EOVERFLOW,
  EPERM,
} from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { type Iommufd, MockHost } from "./mock-host.ts";

const BASE = 0x1000_0000n;
const READ = uapi.IOMMU_IOAS_MAP_READABLE;
const WRITE = uapi.IOMMU_IOAS_MAP_WRITEABLE;

/** A mediated device's driver: remembers its pins and gives them back when asked, unless it is told to be stubborn. */
class Mediated implements AccessDriver {
  readonly needsPinnedPages: boolean;
  stubborn = false;
  pins: [bigint, bigint][] = [];
  asked: [bigint, bigint][] = [];
  access!: Access;

  constructor(needsPinnedPages = true) {
    this.needsPinnedPages = needsPinnedPages;
  }

  pin(iova: bigint, length: bigint, write = true): FrameRun[] | number {
    const runs = pinPages(this.access, iova, length, write);
    if (typeof runs !== "number") this.pins.push([iova, length]);
    return runs;
  }

  unmap(iova: bigint, length: bigint): void {
    this.asked.push([iova, length]);
    if (this.stubborn) return;
    for (const [at, bytes] of this.pins.splice(0)) unpinPages(this.access, at, bytes);
  }
}

function attached(driver = new Mediated()) {
  const host = new MockHost();
  const user = host.process();
  const ioas = user.ioas();
  const access = createAccess(user.context, driver);
  if (typeof access === "number") throw new Error(`access: ${access}`);
  driver.access = access;
  expect(attachAccess(access, ioas)).toBe(0);
  const ram = user.process.memory.allocate(64 * 4096);
  const map = (iova: bigint, pages: number, flags = READ | WRITE, offset = 0n) =>
    user.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, {
      flags: flags | uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
      ioas_id: ioas,
      user_va: ram + offset,
      length: BigInt(pages) * 4096n,
      iova,
    });
  return { host, user, ioas, driver, access, ram, map };
}

describe("pinning through an access", () => {
  it("gives the pages behind IOVAs, across areas, pinned until unpinned", () => {
    const { host, driver, access, map } = attached();
    map(BASE, 2);
    map(BASE + 0x2000n, 2, READ | WRITE, 0x2000n);
    expect(driver.pin(BASE + 0x1000n, 0x2000n)).toEqual([expect.objectContaining({ count: 1 }), expect.anything()]);
    expect(host.kernel.frames.pins.total).toBe(2);
    unpinPages(access, BASE + 0x1000n, 0x2000n);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("of the same pages twice pins them once", () => {
    const { host, driver, access, map } = attached();
    map(BASE, 4);
    driver.pin(BASE, 0x2000n);
    driver.pin(BASE, 0x4000n);
    expect(host.kernel.frames.pins.total).toBe(4);
    unpinPages(access, BASE, 0x4000n);
    expect(host.kernel.frames.pins.total).toBe(2);
    unpinPages(access, BASE, 0x2000n);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("is refused where it cannot be, and leaves nothing pinned", () => {
    const { host, user, ioas, driver, map } = attached();
    map(BASE, 1);
    map(BASE + 0x1000n, 1, READ, 0x1000n);
    expect(driver.pin(BASE, 0n)).toBe(-EINVAL);
    expect(driver.pin(0xffff_ffff_ffff_f000n, 0x2000n)).toBe(-EOVERFLOW);
    expect(driver.pin(BASE, 0x3000n, false)).toBe(-ENOENT);
    expect(driver.pin(BASE, 0x2000n, true)).toBe(-EPERM);
    expect(driver.pin(BASE + 0x1000n, 0x1000n, false)).not.toBe(-EPERM);
    driver.unmap(0n, 0n);
    // Memory that is gone.
    user.map(ioas, 0x10_0000n, 4096, BASE + 0x5000n);
    expect(driver.pin(BASE + 0x5000n, 0x1000n)).toBe(-EFAULT);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("needs pages of its own: an IOAS with smaller areas refuses the access, and the access raises its alignment", () => {
    const { user, access } = attached();
    const small = user.ioas();
    user.map(small, 0x40_0000n, 2048, BASE);
    expect(replaceAccess(access, small)).toBe(-EADDRINUSE);
    user.unmap(small, BASE, 2048n);
    expect(replaceAccess(access, small)).toBe(0);
    expect(user.context.find<Ioas>(small, "ioas")?.table.alignment).toBe(4096n);
  });
});

describe("unmapping under an access", () => {
  it("asks it to unpin, for the area, and goes on when it has", () => {
    const { host, user, ioas, driver, map } = attached();
    map(BASE, 4);
    driver.pin(BASE, 0x1000n);
    expect(user.unmap(ioas, BASE, 0x4000n)).toBe(0);
    expect(driver.asked).toEqual([[BASE, 0x4000n]]);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("gives up after 100 tries with one that does not, and pins nothing new there meanwhile", () => {
    const { user, ioas, driver, map } = attached();
    map(BASE, 4);
    driver.pin(BASE, 0x1000n);
    driver.stubborn = true;
    expect(user.unmap(ioas, BASE, 0x4000n)).toBe(-EDEADLK);
    expect(driver.pin(BASE + 0x1000n, 0x1000n)).toBe(-EINVAL);
    driver.stubborn = false;
    expect(user.unmap(ioas, BASE, 0x4000n)).toBe(0);
  });

  it("asks it for everything when it is moved to another IOAS or destroyed", () => {
    const { host, user, driver, access, map } = attached();
    map(BASE, 4);
    driver.pin(BASE, 0x1000n);
    const other = user.ioas();
    expect(replaceAccess(access, other)).toBe(0);
    expect(driver.asked).toEqual([[0n, 0xffff_ffff_ffff_ffffn]]);
    expect(host.kernel.frames.pins.total).toBe(0);
    expect(user.destroy(other)).toBe(-EBUSY);
    destroyAccess(access);
    expect(user.destroy(other)).toBe(0);
  });
});

describe("copying through an access", () => {
  it("moves bytes between a buffer and what lies behind IOVAs, across areas and pages", () => {
    const { user, access, ram, map } = attached(new Mediated(false));
    map(BASE, 1, READ | WRITE, 0x3000n);
    map(BASE + 0x1000n, 1);
    const bytes = Uint8Array.from({ length: 3000 }, (_, i) => i & 0xff);
    for (const slow of [false, true]) {
      user.process.memory.bytes(ram, 16384).fill(0);
      expect(copyBytes(access, user.process, BASE + 2000n, bytes, { write: true, slow })).toBe(0);
      expect([...user.process.memory.bytes(ram + 0x3000n + 2000n, 2096)]).toEqual([...bytes.subarray(0, 2096)]);
      const back = new Uint8Array(3000);
      expect(copyBytes(access, user.process, BASE + 2000n, back, { write: false, slow })).toBe(0);
      expect(back).toEqual(bytes);
    }
  });

  it("keeps to the mapping's rights and ends at a hole", () => {
    const { user, access, map } = attached(new Mediated(false));
    map(BASE, 1, READ);
    const bytes = new Uint8Array(8192);
    expect(copyBytes(access, user.process, BASE, bytes.subarray(0, 8), { write: true })).toBe(-EPERM);
    expect(copyBytes(access, user.process, BASE, bytes, { write: false })).toBe(-ENOENT);
    expect(copyBytes(access, user.process, BASE, bytes.subarray(0, 0), { write: false })).toBe(-EINVAL);
  });

  it("of another process's memory goes through its pages, and fails when the process has gone", () => {
    const { host, user, access, ram, map } = attached(new Mediated(false));
    map(BASE, 2);
    user.process.memory.bytes(ram, 4)[0] = 0x77;
    const other = host.process("other").process;
    const bytes = new Uint8Array(8192);
    expect(copyBytes(access, other, BASE, bytes, { write: false })).toBe(0);
    expect(bytes[0]).toBe(0x77);
    user.process.exit();
    expect(copyBytes(access, other, BASE, bytes, { write: false })).toBe(-EFAULT);
  });
});

describe("a hardware queue", () => {
  function withViommu() {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const parent = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    const ram = user.process.memory.allocate(16 * 4096);
    user.map(ioas, ram, 8 * 4096, BASE);
    const viommu = user.viommu(bound.id, parent);
    return { host, user, ioas, ram, viommu };
  }

  function alloc(user: Iommufd, viommu: number, index: number, iova: bigint, length: bigint) {
    const result = user.result(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommuHwQueueAlloc, {
      viommu_id: viommu,
      type: 0xdeadbeef,
      index,
      nesting_parent_iova: iova,
      length,
    });
    if (result < 0) return result;
    return uapi.iommuHwQueueAlloc.decode(user.process.memory.bytes(user.scratch, 40)).out_hw_queue_id;
  }

  it("locks the guest memory it lies in: no unmap until it is gone", () => {
    const { user, ioas, viommu } = withViommu();
    const queue = alloc(user, viommu, 0, BASE + 0x800n, 0x1000n);
    expect(queue).toBeGreaterThan(0);
    expect(user.unmap(ioas, BASE, 8n * 4096n)).toBe(-EBUSY);
    expect(user.unmap(ioas, 0n, 0xffff_ffff_ffff_ffffn)).toBe(-EBUSY);
    expect(user.destroy(viommu)).toBe(-EBUSY);
    expect(user.destroy(queue)).toBe(0);
    expect(user.unmap(ioas, BASE, 8n * 4096n)).toBe(0);
  });

  it("comes after the one before it, and goes before that", () => {
    const { user, viommu } = withViommu();
    expect(alloc(user, viommu, 1, BASE, 0x1000n)).toBe(-EIO);
    const first = alloc(user, viommu, 0, BASE, 0x1000n);
    expect(alloc(user, viommu, 0, BASE, 0x1000n)).toBe(-EEXIST);
    const second = alloc(user, viommu, 1, BASE + 0x1000n, 0x1000n);
    expect(user.destroy(first)).toBe(-EBUSY);
    expect(user.destroy(second)).toBe(0);
    expect(user.destroy(first)).toBe(0);
  });

  it("needs memory that is there, readable and contiguous", () => {
    const { host, user, ioas, ram, viommu } = withViommu();
    expect(alloc(user, viommu, 0, BASE + 0x8000n, 0x1000n)).toBe(-ENOENT);
    // The next page of the guest is another page of the host than the next one.
    user.map(ioas, ram + 12n * 4096n, 4096, BASE + 0x8000n);
    expect(alloc(user, viommu, 0, BASE + 0x7000n, 0x2000n)).toBe(-EFAULT);
    const before = host.kernel.frames.pins.total;
    expect(alloc(user, viommu, 5, BASE, 0x1000n)).toBe(-EINVAL);
    expect(host.kernel.frames.pins.total).toBe(before);
    expect(user.unmap(ioas, BASE, 9n * 4096n)).toBe(0);
  });
});
