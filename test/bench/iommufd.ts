// What system calls of the main path cost, over the RISC-V driver and the hardware model: map, unmap, HWPT replace, invalidation of
// 1 and of 512 commands, vEVENTQ read. Median of many rounds, ns a call.

import { encodeCommand } from "../../host/arch/riscv/commands.ts";
import { contextOf } from "../../host/kernel/iommufd/in-kernel.ts";
import type { Viommu } from "../../host/kernel/iommufd/viommu.ts";
import * as I from "../../host/uapi/iommufd.ts";
import * as N from "../../host/uapi/riscv-nesting.ts";
import { machine } from "../host/kernel/machine.ts";

type Emit = (line: Record<string, unknown>) => void;

const RAM_BYTES = 64 * 2 ** 20;
const RAM_GPA = 0x8000_0000n;
const OTHER = 0x10_0000_0000n;
const MANY = 100_000;

/** Median ns of one `run()`, over as many rounds as fit into the budget. */
function median(run: () => void, budgetMs = 300): number {
  for (let i = 0; i < 20; i++) run();
  const times: number[] = [];
  for (const end = performance.now() + budgetMs; performance.now() < end || times.length < 11; ) {
    const start = performance.now();
    run();
    times.push((performance.now() - start) * 1e6);
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

/** As `median`, of the first of two calls that undo each other; the second one's goes to the other name. */
function medianPair(first: () => void, second: () => void, budgetMs = 400): [number, number] {
  const times: [number[], number[]] = [[], []];
  for (let i = 0; i < 20; i++) {
    first();
    second();
  }
  for (const end = performance.now() + budgetMs; performance.now() < end || times[0].length < 11; ) {
    const start = performance.now();
    first();
    const middle = performance.now();
    second();
    times[0].push((middle - start) * 1e6);
    times[1].push((performance.now() - middle) * 1e6);
  }
  const [a, b] = times.map((list) => list.sort((x, y) => x - y)[list.length >> 1]!);
  return [a!, b!];
}

export const about = "iommufd's calls on the main path, over the RISC-V driver";
export async function bench(emit: Emit): Promise<void> {
  const host = machine({ ramPages: 16384 });
  host.assign();
  const user = host.user();
  const ram = user.process.memory.mapBuffer(new ArrayBuffer(RAM_BYTES), 0, RAM_BYTES);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  const vfio = user.open("/dev/vfio/devices/vfio0");
  const device = user.bind(vfio, iommufd);
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = user.viommu(iommufd, device, parent);
  user.vdevice(iommufd, viommu, device, 0x10n);
  const [, veventq] = user.veventq(iommufd, viommu, 64);
  const sure = (result: number) => {
    if (result < 0) throw new Error(`a call of the benchmark failed: ${result}`);
  };
  const report = (name: string, nsPerCall: number, more: Record<string, unknown> = {}) =>
    emit({ bench: `iommufd/${name}`, nsPerCall: Math.round(nsPerCall), ...more });
  const mapping = (bytes: number, more: Record<string, unknown> = {}) => {
    const [map, unmap] = medianPair(
      () => sure(user.map(iommufd, ioas, ram, bytes, OTHER)),
      () => sure(user.unmap(iommufd, ioas, OTHER, BigInt(bytes))),
    );
    report("map", map, { bytes, ...more });
    report("unmap", unmap, { bytes, ...more });
  };

  sure(user.map(iommufd, ioas, ram, RAM_BYTES, RAM_GPA));
  for (const bytes of [4096, 2 * 2 ** 20, RAM_BYTES]) mapping(bytes);

  sure(user.attach(vfio, parent));
  const nested = [0n, 1n].map((psc) =>
    user.nested(iommufd, device, viommu, { tc: 1n, fsc: (8n << 60n) | (RAM_GPA >> 12n), ta: psc << 12n }),
  );
  let turn = 0;
  report(
    "hwpt-replace",
    median(() => sure(user.attach(vfio, nested[turn++ & 1]!))),
  );

  const [low, high] = encodeCommand("IOTINVAL.VMA", { AV: 1, ADDR: 0x40000n, PSCV: 1, PSCID: 7 });
  const commands = user.process.memory.allocate(512 * 16);
  const words = new BigUint64Array(512 * 2).map((_, i) => (i % 2 === 0 ? low : high));
  user.process.memory.bytes(commands, 512 * 16).set(new Uint8Array(words.buffer));
  for (const count of [1, 512]) {
    const fields = {
      hwpt_id: viommu,
      data_uptr: commands,
      data_type: N.IOMMU_VIOMMU_INVALIDATE_DATA_RISCV,
      entry_len: 16,
      entry_num: count,
    };
    const call = () => sure(user.call(iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, fields).result);
    const ns = median(call);
    report("invalidate", ns, { commands: count, nsPerCommand: Math.round(ns / count) });
  }

  const context = contextOf(user.process.descriptors.lookup(iommufd));
  if (typeof context === "number") throw new Error("not an iommufd");
  const core = context.find<Viommu>(viommu, "viommu")!;
  context.file.put();
  const record = new Uint8Array(32);
  const buffer = user.process.memory.allocate(4096);
  const [queue, read] = medianPair(
    () => sure(core.reportEvent(N.IOMMU_VEVENTQ_TYPE_RISCV, record)),
    () => sure(user.process.read(veventq, buffer, 40, -1n)),
  );
  report("veventq-report", queue);
  report("veventq-read", read, { events: 1 });

  // An IOAS with very many areas: the first free place is behind them all.
  const many = user.ioas(iommufd);
  for (let i = 0; i < MANY; i++) sure(user.map(iommufd, many, ram, 4096, BigInt(i) * 0x2000n));
  const [map, unmap] = medianPair(
    () => sure(user.map(iommufd, many, ram, 4096, 50_000n * 0x2000n + 0x1000n)),
    () => sure(user.unmap(iommufd, many, 50_000n * 0x2000n + 0x1000n, 4096n)),
  );
  report("map", map, { bytes: 4096, areas: MANY });
  report("unmap", unmap, { bytes: 4096, areas: MANY });
  user.process.exit();
}
