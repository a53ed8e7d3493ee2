// What system calls of iommufd and VFIO cost over the real drivers and hardware models: one line a case and kind of IOMMU, nanoseconds a call
// (median of rounds). `perCommand` divides by the commands of a batch.

import { NO_PASID } from "../../host/devices/ports.ts";
import { ACCESS_READ } from "../../host/hw/iommu/port.ts";
import * as I from "../../host/uapi/iommufd.ts";
import { machine, name } from "../host/kernel/machine.ts";
import type { KernelKind } from "./kernel/kind.ts";
import { RISCV_KERNEL } from "./kernel/riscv.ts";
import { SMMUV3_KERNEL } from "./kernel/smmuv3.ts";

const RID = 0x0108;
const ROUNDS = 11;
const PAGE = 4096;

const KINDS: readonly KernelKind[] = [
  // A line a kind.
  RISCV_KERNEL,
  SMMUV3_KERNEL,
];

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Median ns of one call of `act`, which is called `calls` times a round. */
function measure(calls: number, act: (i: number) => void): number {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) act(i);
    rounds.push(((performance.now() - start) * 1e6) / calls);
  }
  return median(rounds);
}

export const about = "iommufd's and VFIO's calls, kind of IOMMU by kind";
export function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  for (const kind of KINDS) benchKind(kind, emit);
  return Promise.resolve();
}

function benchKind(kind: KernelKind, emit: (line: Record<string, unknown>) => void): void {
  const host = machine(kind.machine);
  host.assign();
  const user = host.user();
  const { process } = user;
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = user.viommu(iommufd, device, parent, kind.viommu);
  user.vdevice(iommufd, viommu, device, 0x10n);
  const [, veventq] = user.veventq(iommufd, viommu, 4096, kind.veventq);
  user.attach(vfio, parent);
  const report = (bench: string, nsPerOp: number, more: Record<string, unknown> = {}) =>
    emit({
      bench: `kernel.${bench}`,
      kind: kind.name,
      nsPerOp: Math.round(nsPerOp),
      opsPerSecond: Math.round(1e9 / nsPerOp),
      ...more,
    });

  // Structures stand ready in user memory, as a VMM keeps them: only the call is measured.
  const place = (at: bigint, bytes: Uint8Array) => process.memory.bytes(at, bytes.length).set(bytes);
  const va = process.memory.mapBuffer(new ArrayBuffer(256 << 20), 0, 256 << 20);
  const at = user.scratch;
  const map = (length: number, iova: bigint) =>
    I.iommuIoasMap.encode({
      size: 40,
      flags: I.IOMMU_IOAS_MAP_FIXED_IOVA | I.IOMMU_IOAS_MAP_READABLE | I.IOMMU_IOAS_MAP_WRITEABLE,
      ioas_id: ioas,
      user_va: va,
      length: BigInt(length),
      iova,
    });
  const unmap = (length: number, iova: bigint) =>
    I.iommuIoasUnmap.encode({ size: 24, ioas_id: ioas, iova, length: BigInt(length) });
  for (const [label, length, iova] of [
    ["4KiB", PAGE, 0x1_0000_0000n],
    ["2MiB", 2 << 20, 0x1_0000_0000n],
    ["256MiB", 256 << 20, 0x1_0000_0000n],
    ["256MiB, small leaves", 256 << 20, 0x1_0000_1000n],
  ] as const) {
    const calls = length > 4 << 20 ? 3 : 500;
    const [mapping, unmapping] = [map(length, iova), unmap(length, iova)];
    const spent: { map: number[]; unmap: number[] } = { map: [], unmap: [] };
    measure(calls, () => {
      place(at, mapping);
      const start = performance.now();
      process.ioctl(iommufd, I.IOMMU_IOAS_MAP, at);
      spent.map.push((performance.now() - start) * 1e6);
      place(at, unmapping);
      const between = performance.now();
      process.ioctl(iommufd, I.IOMMU_IOAS_UNMAP, at);
      spent.unmap.push((performance.now() - between) * 1e6);
    });
    report("map", median(spent.map), { size: label });
    report("unmap", median(spent.unmap), { size: label });
  }

  const make = (data: Uint8Array) => user.hwpt(iommufd, device, viommu, { type: kind.data, data });
  const [bypass, nested] = [make(kind.bypass), make(kind.stage1)];
  report(
    "hwpt replace",
    measure(2000, (i) => user.attach(vfio, i % 2 === 0 ? nested : bypass)),
  );

  const commandsAt = at + 8192n;
  for (const count of [1, 512]) {
    const bytes = new Uint8Array(16 * count);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      view.setBigUint64(16 * i, kind.command[0], true);
      view.setBigUint64(16 * i + 8, kind.command[1], true);
    }
    place(commandsAt, bytes);
    const request = I.iommuHwptInvalidate.encode({
      size: 32,
      hwpt_id: viommu,
      data_uptr: commandsAt,
      data_type: kind.invalidation,
      entry_len: 16,
      entry_num: count,
    });
    const ns = measure(count === 1 ? 5000 : 100, () => {
      place(at, request);
      process.ioctl(iommufd, I.IOMMU_HWPT_INVALIDATE, at);
    });
    report("invalidate", ns, { commands: count, perCommand: Math.round(ns / count) });
  }

  user.attach(vfio, make(kind.faulting));
  const fault = () => host.iommus[0]!.translate(RID, NO_PASID, false, ACCESS_READ, 0x7_0000_0000, 0, false, 0);
  report(
    "fault to veventq, read",
    measure(1000, () => {
      fault();
      host.clock.fireDue();
      process.read(veventq, at, 4000, -1n);
    }),
  );
  for (let i = 0; i < 1000; i++) fault();
  host.clock.fireDue();
  const start = performance.now();
  let read = 0;
  for (;;) {
    const bytes = process.read(veventq, at, 40, -1n);
    if (bytes <= 0) break;
    read++;
  }
  report("veventq read", ((performance.now() - start) * 1e6) / Math.max(1, read), { events: read });
  process.exit();
}
