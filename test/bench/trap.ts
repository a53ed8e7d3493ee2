// Cost of a trap of a component guest: guest call → binding → Machine → bus dispatch → a register of the guest-visible IOMMU, trace off,
// virtual time kept.
// One line a kind of access; nsPerOp is the median over the rounds of guest-fixtures/trap-bench.

import { readFile } from "node:fs/promises";
import type { GpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { ACCESS_OK, PhysicalMemory } from "../../host/base/memory.ts";
import { Trace } from "../../host/base/trace.ts";
import { ComponentInterrupts } from "../../vmm/component-interrupts.ts";
import { Machine } from "../../vmm/machine.ts";
import { ECAM_BASE, MSI_BASE, PCI_MEMORY32_BASE, RAM_BASE, VIOMMU_BASE } from "../../vmm/memory-map.ts";
import { ComponentVcpu } from "../../vmm/vcpu/component/component-vcpu.ts";
import { prepareComponent } from "../../vmm/vcpu/component/prepare.ts";
import { RiscvViommu } from "../../vmm/viommu/riscv/viommu.ts";

/** As in guest-fixtures/trap-bench. */
const COUNT = 20_000;
/** Benches run from dist/test/bench, after the build. */
const IMAGE = new URL("../../../guest-fixtures/build/trap-bench.wasm", import.meta.url);

export const about = "what a trap of a component guest costs";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  const image = await prepareComponent(await readFile(IMAGE));
  if ("error" in image) throw new Error(image.error);
  const clock = new Clock();
  const trace = new Trace(clock);
  const interrupts = new ComponentInterrupts(clock, trace);
  const machine = new Machine(clock, trace, interrupts);
  const guestMemory = new PhysicalMemory<GpaPfn>();
  const viommu = new RiscvViommu({
    ...{ name: "viommu0", memory: guestMemory, clock, trace, host: null, hardware: null },
    interrupt: { wire: () => {}, message: () => ACCESS_OK },
  });
  const iommu = { name: "viommu0", base: VIOMMU_BASE, size: 4096, port: viommu };
  machine.bus.claim(iommu);
  machine.bus.claim({ name: "msi", base: MSI_BASE, size: 4096, port: interrupts });
  machine.bus.claim({ name: "ecam", base: ECAM_BASE, size: 0x1000_0000, port: interrupts });
  machine.bus.claim({ name: "bars", base: PCI_MEMORY32_BASE, size: 0x4000_0000, port: interrupts });
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 64 });

  const marks: { name: string; at: number }[] = [];
  machine.onConsole = (bytes) => {
    marks.push({ name: new TextDecoder().decode(bytes).trim(), at: performance.now() });
  };
  const vcpu = new ComponentVcpu({
    image,
    memory,
    port: machine,
    platform: {
      regions: {
        ram: [{ base: RAM_BASE, size: memory.buffer.byteLength }],
        iommu: [{ base: iommu.base, size: iommu.size }],
      },
      iommuLine: () => -1,
      iommuOf: () => -1,
      pciLine: () => -1,
      now: () => clock.now,
      alarm: (delay, number) => interrupts.setAlarm(delay, number),
    },
  });
  const outcome = vcpu.run();
  if (outcome.kind !== "exited" || outcome.status !== 0) throw new Error(`trap-bench: ${JSON.stringify(outcome)}`);

  const rounds = new Map<string, number[]>();
  for (let i = 0; i + 1 < marks.length; i++) {
    const { name, at } = marks[i]!;
    const perOp = ((marks[i + 1]!.at - at) * 1e6) / COUNT;
    rounds.set(name, [...(rounds.get(name) ?? []), perOp]);
  }
  for (const [access, samples] of rounds) {
    const nsPerOp = samples.sort((a, b) => a - b)[samples.length >> 1]!;
    emit({
      bench: access === "load32" ? "component-trap" : `component-trap-${access}`,
      access,
      nsPerOp: Math.round(nsPerOp * 10) / 10,
      opsPerSecond: Math.round(1e9 / nsPerOp),
      traps: COUNT * samples.length,
    });
  }
}
