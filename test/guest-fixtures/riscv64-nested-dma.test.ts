// The bare-metal RV64 image on an RV64 machine whose IOMMU is made of the oracle, then nested over the modelled host. Skipped without
// Debian's cross compiler.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { buildRiscv64NestedDma } from "../../guest-fixtures/riscv64-nested-dma/build.mjs";
import type { HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import type { PhysicalMemory } from "../../host/base/memory.ts";
import { Trace } from "../../host/base/trace.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import { FunctionDma } from "../../host/hw/pci/function-dma.ts";
import { VIOMMU_BASE } from "../../vmm/memory-map.ts";
import { parseKernelImage } from "../../vmm/platform/kernel-image.ts";
import { Rv64Machine, type Rv64Stop } from "../../vmm/rv64-machine.ts";
import { buildHart } from "../../vmm/vcpu/riscv64/build.mjs";
import { nestbox, report } from "../vmm/cli/command-line.ts";
import { OracleIommu, type OracleIommuOptions } from "./oracle-iommu.ts";

const image = buildRiscv64NestedDma();
if (image === null) console.warn("SKIPPED: no riscv64-linux-gnu-gcc here, the bare-metal RV64 image is not tested");

async function boot(options: OracleIommuOptions): Promise<{ output: string; end: Rv64Stop }> {
  const clock = new Clock();
  const trace = new Trace(clock);
  const core = await WebAssembly.compile(readFileSync(await buildHart()));
  const rv64 = new Rv64Machine({ core, clock, trace, memoryBytes: 64 * 2 ** 20, harts: 1 });
  // Without a host, guest-physical memory is all the memory there is.
  const memory = rv64.memory as unknown as PhysicalMemory<HpaPfn>;
  const iommu = new OracleIommu(memory, options);
  rv64.machine.bus.claim({ name: "iommu0", base: VIOMMU_BASE, size: 4096, port: iommu });
  const edu = new Edu();
  const parts = { function: edu, name: "edu", deviceId: 0x28, iommu, memory, trace };
  edu.connect({ dma: new FunctionDma(parts), clock, interrupt: { intx: () => {} } });
  rv64.pci.plug(0x28, edu);
  let output = "";
  rv64.machine.onConsole = (bytes) => {
    output += new TextDecoder().decode(bytes);
  };
  rv64.load({
    kernel: parseKernelImage(readFileSync(image!)),
    ...{
      initrd: null,
      bootArguments: "",
      viommus: [{ base: VIOMMU_BASE, requesterIds: [] }],
      seed: new Uint8Array(32),
    },
  });
  let end: Rv64Stop = { kind: "slice" };
  for (let slice = 0; slice < 10_000 && (end.kind === "slice" || end.kind === "idle"); slice++) {
    if (end.kind === "idle") {
      if (end.until === Number.POSITIVE_INFINITY) break;
      rv64.skipTo(end.until);
    }
    end = rv64.run();
  }
  return { output, end };
}

describe.skipIf(image === null)("the bare-metal RV64 guest", () => {
  it.each<[string, OracleIommuOptions]>([
    ["base contexts", {}],
    ["extended contexts", { extended: true }],
  ])("all its steps hold with %s", async (_name, options) => {
    const { output, end } = await boot(options);
    expect(output).toMatch(
      /^platform: .*\niommu: .*\ncopy: .*\nremap: .*\nunmap: .*\noutside: .*\ncontext: .*\ndone: all steps hold\n$/,
    );
    expect(end).toEqual({ kind: "off", reset: "shutdown", failure: false });
  });

  it("it fails when IOTINVAL.VMA has no effect", async () => {
    const { output, end } = await boot({ drop: (word0) => (word0 & 0x3ffn) === 1n && (word0 & (1n << 10n)) !== 0n });
    expect(output).toContain("FAILED: expected after IOTINVAL and IOFENCE the new page is seen");
    expect(end).toEqual({ kind: "off", reset: "shutdown", failure: true });
  });

  it("nests over the host: its report shows a nested domain and the faults it asked for", () => {
    const run = nestbox(
      ...["boot", "--kernel", image!, "--assign", "0000:00:01.0@00:02.0", "--memory", "64M", "--report", "json"],
    );
    expect(run.errors).not.toContain("nestbox:");
    expect(run.errors).toContain("\ndone: all steps hold\n");
    expect(report(run)).toMatchObject({ result: "pass", nestedDomains: 1, faults: 5 });
    expect(run.status).toBe(0);
  });
});
