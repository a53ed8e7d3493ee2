// What a guest driver waits for at its SMMUv3, over the whole host model: from the store to CMDQ_PROD until CMDQ_CONS has passed the CMD_SYNC, attaching a
// stream, and a DMA fault until the guest's interrupt; register accesses alone. One line a case; nsPerOp is the median of rounds.

import { type CommandName, encodeCommand } from "../../host/arch/smmuv3/commands.ts";
import { REG } from "../../host/arch/smmuv3/registers.ts";
import { NO_PASID } from "../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../host/hw/iommu/port.ts";
import { SmmuVm } from "../fuzz/viommu/smmuv3/smmu-vm.ts";
import { eduDma } from "../host/kernel/machine.ts";
import { type Guest, PLACE } from "../vmm/viommu/smmuv3/guest.ts";

const RID = 0x0108;
const SID = 5;
const ROUNDS = 15;
/** CPU time: on a busy machine wall time passes before anything is compiled. */
const WARM_UP_US = 500_000;
/** Commands in the queue: as many as fit where the test guest keeps it. */
const COMMANDS_LOG2 = 10;
const COMMANDS = 1 << COMMANDS_LOG2;
const CACHED_PAGE = 0x4_0000;
const ASID = 5;

interface Case {
  readonly bench: string;
  /** Operations in one call of the function. */
  readonly operations: number;
  readonly commandsPerOp?: number;
  readonly run: () => void;
}

function ready(cached = 0): SmmuVm {
  const caches = cached > 0 ? { caches: { translations: 2 * cached } } : {};
  const vm = new SmmuVm({ features: {}, devices: [{ rid: RID, options: {} }], ...caches });
  vm.assign(RID, SID);
  vm.guest.bringUp({ messages: true });
  installStage1(vm.guest);
  for (let n = 0; n < cached; n++) {
    const status = vm.machine.iommus[0]!.translate(RID, NO_PASID, false, ACCESS_READ, CACHED_PAGE + n, 0, false, 0);
    if (status !== TRANSLATED) throw new Error(`page ${n} does not translate`);
  }
  return vm;
}

/** 2 MiB from `CACHED_PAGE` on, in pages: 4K granule, 39 bits. */
function installStage1(guest: Guest): void {
  const root = PLACE.tables;
  guest.store64(root + 8n, (root + 0x1000n) | 3n);
  for (let block = 0n; block < 8n; block++) {
    const table = root + 0x2000n + block * 0x1000n;
    guest.store64(root + 0x1000n + 8n * block, table | 3n);
    for (let page = 0n; page < 512n; page++) guest.store64(table + 8n * page, PLACE.free | 0xc43n);
  }
  guest.writeContext(PLACE.contexts, { V: 1, AA64: 1, T0SZ: 25, EPD1: 1, IPS: 5, A: 1, R: 1, ASID, TTB0: root >> 4n });
  guest.writeStage1Stream(SID);
  guest.run(["CFGI_STE", { SID }]);
}

/** A queue full of `period` - 1 invalidations and a CMD_SYNC, again and again; one operation is a ring of its bell. */
function queueCase(
  bench: string,
  period: number,
  command: readonly [CommandName, Readonly<Record<string, bigint | number>>],
  cached = 0,
): Case {
  const { guest } = ready(cached);
  const { smmu } = guest;
  guest.write32(REG.CR0, 5);
  guest.write64(REG.CMDQ_BASE, PLACE.commands | BigInt(COMMANDS_LOG2));
  guest.write32(REG.CMDQ_PROD, 0);
  guest.write32(REG.CMDQ_CONS, 0);
  guest.write32(REG.CR0, 13);
  for (let i = 0; i < COMMANDS; i++) {
    const words = (i + 1) % period === 0 ? encodeCommand("SYNC") : encodeCommand(...command);
    guest.store64(PLACE.commands + BigInt(16 * i), words[0]);
    guest.store64(PLACE.commands + BigInt(16 * i + 8), words[1]);
  }
  let prod = 0;
  const bells = COMMANDS / period;
  return {
    bench,
    operations: bells,
    commandsPerOp: period,
    run: () => {
      for (let i = 0; i < bells; i++) {
        prod = (prod + period) & (2 * COMMANDS - 1);
        smmu.mmioWrite(REG.CMDQ_PROD, 4, prod, 0);
        if (smmu.mmioRead(REG.CMDQ_CONS, 4) !== prod) throw new Error("the queue did not complete");
      }
    },
  };
}

function attachCase(): Case {
  const { guest } = ready();
  let nested = true;
  return {
    bench: "smmuv3-viommu-attach-bypass-nested",
    operations: 100,
    commandsPerOp: 2,
    run: () => {
      for (let i = 0; i < 100; i++) {
        nested = !nested;
        if (nested) guest.writeStage1Stream(SID);
        else guest.writeStream(SID, { V: 1, Config: 4 });
        guest.run(["CFGI_STE", { SID, Leaf: 1 }]);
      }
    },
  };
}

function faultCase(): Case {
  const vm = ready();
  const { guest } = vm;
  const [device] = vm.plugged;
  return {
    bench: "smmuv3-viommu-fault-to-interrupt",
    operations: 100,
    run: () => {
      for (let i = 0; i < 100; i++) {
        const before = guest.messages.length;
        eduDma(device!.bar, 0x1000n, 64, false);
        vm.run(10_000);
        if (guest.messages.length !== before + 1) throw new Error("no interrupt");
        guest.write32(REG.EVENTQ_CONS, guest.read32(REG.EVENTQ_PROD));
      }
    },
  };
}

/** Register accesses alone, without a bus: what a trap costs in this room. */
function registerCases(): readonly Case[] {
  const { smmu } = ready().guest;
  const many = 1_000_000;
  let sum = 0;
  const loop = (body: (i: number) => void) => () => {
    for (let i = 0; i < many; i++) body(i);
    if (sum < 0) throw new Error("unreachable");
  };
  return [
    {
      bench: "smmuv3-viommu-register-read32",
      operations: many,
      run: loop(() => {
        sum += smmu.mmioRead(REG.CMDQ_CONS, 4);
      }),
    },
    {
      bench: "smmuv3-viommu-register-write32",
      operations: many,
      run: loop((i) => smmu.mmioWrite(REG.EVENTQ_CONS, 4, i & 1, 0)),
    },
  ];
}

function measure({ run, operations }: Case): number {
  const rounds: number[] = [];
  for (const start = process.cpuUsage(); process.cpuUsage(start).user < WARM_UP_US; ) run();
  for (let round = 0; round < ROUNDS; round++) {
    const from = performance.now();
    run();
    rounds.push(((performance.now() - from) * 1e6) / operations);
  }
  return rounds.sort((a, b) => a - b)[rounds.length >> 1]!;
}

export const about = "what a guest driver waits for at its SMMUv3";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  const page = ["TLBI_NH_VA", { ASID, Leaf: 1, Address: CACHED_PAGE - 1 }] as const;
  const cases = [
    ...registerCases(),
    queueCase("smmuv3-viommu-tlbi-sync", 2, ["TLBI_NH_ASID", { ASID: 9 }]),
    queueCase("smmuv3-viommu-tlbi-batch-512", 512, ["TLBI_NH_ASID", { ASID: 9 }]),
    queueCase("smmuv3-viommu-tlbi-page-4096-cached", 2, page, 4096),
    attachCase(),
    faultCase(),
  ];
  for (const each of cases) {
    const nsPerOp = Math.round(measure(each) * 10) / 10;
    const { bench: name, commandsPerOp } = each;
    emit({
      bench: name,
      nsPerOp,
      opsPerSecond: Math.round(1e9 / nsPerOp),
      ...(commandsPerOp ? { commandsPerOp } : {}),
    });
  }
}
