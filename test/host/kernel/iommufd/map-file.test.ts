// IOAS_MAP_FILE over memory files, and IOAS_CHANGE_PROCESS, which needs them (iommufd-semantics §2.13, §2.14).

import { describe, expect, it } from "vitest";
import type { MockPagingDomain } from "../../../../host/kernel/iommu/mock/mock-domain.ts";
import type { HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import { EBADF, EINVAL, ENOMEM } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { MAP_SHARED, PROT_READ, PROT_WRITE } from "../../../../host/uapi/system-calls.ts";
import { type Iommufd, MockHost } from "./mock-host.ts";

const IOVA = 0x1000_0000n;
const PAGES = 8;

function mapFile(user: Iommufd, ioas: number, fd: number, start: number, pages: number, iova = IOVA): number {
  return user.result(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommuIoasMapFile, {
    flags: uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE,
    ioas_id: ioas,
    fd,
    start: BigInt(start),
    length: BigInt(pages) * 4096n,
    iova,
  });
}

function changeProcess(user: Iommufd, fd: number): number {
  user.process.memory.bytes(user.scratch, 8).set(uapi.iommuIoasChangeProcess.encode({ size: 8 }));
  return user.process.ioctl(fd, uapi.IOMMU_IOAS_CHANGE_PROCESS, user.scratch);
}

/** Gives a descriptor of one process to another, as SCM_RIGHTS does. */
function pass(from: Iommufd, to: Iommufd, fd: number): number {
  const file = from.process.descriptors.lookup(fd);
  if (typeof file === "number") throw new Error("no such file");
  const copy = to.process.descriptors.reserve();
  to.process.descriptors.install(copy, file.get(), null);
  return copy;
}

const limited = (pages: number) => ({ capabilities: { ipcLock: false }, memlockLimit: pages * 4096 });

function withFile(options = {}) {
  const host = new MockHost();
  const user = host.process("first", options);
  const bound = user.bind(host.addDevice());
  const ioas = user.ioas();
  const hwpt = user.hwpt(bound.id, ioas);
  const domain = user.context.find<HwptPaging>(hwpt, "hwpt-paging")?.domain as MockPagingDomain;
  return { host, user, bound, ioas, domain, fd: user.process.memfd(PAGES * 4096) };
}

describe("a mapped memory file", () => {
  it("is what a device reaches, from the offset named, and what others map", () => {
    const { host, user, ioas, domain, fd } = withFile();
    expect(mapFile(user, ioas, fd, 2 * 4096, 3)).toBe(0);
    const va = user.process.mmap(fd, 2n * 4096n, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    user.process.memory.bytes(va, 4)[1] = 0x5a;
    const seen = new Uint8Array(4);
    host.kernel.frames.read(Number(domain.iovaToPhys(IOVA)! / 4096n), 0, seen);
    expect([...seen]).toEqual([0, 0x5a, 0, 0]);
  });

  it("keeps its pages while mapped, also when every descriptor is closed", () => {
    const { host, user, ioas, domain, fd } = withFile();
    mapFile(user, ioas, fd, 0, PAGES);
    user.process.close(fd);
    expect(host.kernel.live.of("memory file")).toBe(1);
    expect(domain.iovaToPhys(IOVA)).not.toBe(null);
    user.unmap(ioas, IOVA, BigInt(PAGES) * 4096n);
    expect(host.kernel.live.of("memory file")).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("is refused past its end when it is pinned, not before", () => {
    const { host, user, ioas, fd } = withFile();
    expect(mapFile(user, ioas, fd, 4096, PAGES)).toBe(-EINVAL);
    expect(mapFile(user, ioas, 77, 0, 1)).toBe(-EBADF);
    const bare = user.ioas();
    expect(mapFile(user, bare, fd, 4096, PAGES)).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
  });
});

describe("IOAS_CHANGE_PROCESS", () => {
  it("moves what is pinned to the calling process's account", () => {
    const { host, user, ioas, fd } = withFile(limited(PAGES));
    mapFile(user, ioas, fd, 0, PAGES);
    const heir = host.process("second", limited(PAGES));
    const passed = pass(user, heir, user.fd);
    expect([user.process.user.lockedPages, user.process.memory.pinnedPages]).toEqual([PAGES, PAGES]);
    expect(changeProcess(heir, passed)).toBe(0);
    expect([user.process.user.lockedPages, user.process.memory.pinnedPages]).toEqual([0, 0]);
    expect([heir.process.user.lockedPages, heir.process.memory.pinnedPages]).toEqual([PAGES, PAGES]);
    user.unmap(ioas, IOVA, BigInt(PAGES) * 4096n);
    expect([heir.process.user.lockedPages, heir.process.memory.pinnedPages]).toEqual([0, 0]);
  });

  it("changes nothing when the new process's limit does not allow all of it", () => {
    const { host, user, ioas, fd } = withFile(limited(PAGES));
    mapFile(user, ioas, fd, 0, PAGES);
    const heir = host.process("second", limited(PAGES - 1));
    const passed = pass(user, heir, user.fd);
    expect(changeProcess(heir, passed)).toBe(-ENOMEM);
    expect(user.process.user.lockedPages).toBe(PAGES);
    expect([heir.process.user.lockedPages, heir.process.memory.pinnedPages]).toEqual([0, 0]);
  });

  it("counts pages that several areas share once", () => {
    const { host, user, ioas, fd } = withFile(limited(PAGES));
    mapFile(user, ioas, fd, 0, PAGES);
    const copy = {
      flags: 7,
      dst_ioas_id: ioas,
      src_ioas_id: ioas,
      length: 8192n,
      src_iova: IOVA,
      dst_iova: IOVA << 1n,
    };
    expect(user.result(uapi.IOMMU_IOAS_COPY, uapi.iommuIoasCopy, copy)).toBe(0);
    const heir = host.process("second", limited(PAGES));
    expect(changeProcess(heir, pass(user, heir, user.fd))).toBe(0);
    expect(heir.process.user.lockedPages).toBe(PAGES);
  });

  it("is refused when anything is mapped that is no file", () => {
    const { user, ioas } = withFile();
    expect(changeProcess(user, user.fd)).toBe(0);
    user.map(ioas, user.process.memory.allocate(4096), 4096, IOVA);
    expect(changeProcess(user, user.fd)).toBe(-EINVAL);
  });
});
