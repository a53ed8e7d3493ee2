// The default guest on machines of its own, without a host. Its IOMMU made of the oracle: what the guest asks for is what the RISC-V IOMMU
// specification gives, in either context format and with either kind of interrupt, and the guest notices a machine that does not.
// Then the hardware model, and the guest-visible IOMMU with emulated devices.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { IGS_WSI } from "../../host/arch/riscv/capabilities.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import { RiscvIommu } from "../../host/hw/iommu/riscv/iommu.ts";
import type { RiscvIommuOptions } from "../../host/hw/iommu/riscv/options.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import type { RiscvConfiguration } from "../../vmm/viommu/riscv/capabilities.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { BareMachine, guestVisibleIommu, hardwareIommu } from "./bare-machine.ts";
import { OracleIommu, type OracleIommuOptions } from "./oracle-iommu.ts";

/** One line a step. */
const STEPS =
  /^platform: .*\npci: .*\niommu: .*\ncopy: .*\nremap: .*\nunmap: .*\npermissions: .*\ncontext: .*\nswitch: .*\ndirectories: .*\noutside: .*\ndone: all steps hold\n$/;

let images: Readonly<Record<string, string>>;
let guest: PreparedComponent;
beforeAll(async () => {
  images = await buildFixtures();
  guest = await soundImage(readFileSync(images["nested-dma"]!));
});

function machine(options: OracleIommuOptions = {}, ids: readonly [number, number] = [0x10, 0x18]): BareMachine {
  const bare = new BareMachine(hardwareIommu(({ memory }) => new OracleIommu(memory, options)));
  bare.plug(0x10, new Edu({ name: "edu0" }), ids[0]);
  bare.plug(0x18, new Edu({ name: "edu1" }), ids[1]);
  return bare;
}

describe("the default guest on an IOMMU made of the oracle", () => {
  it.each<[string, OracleIommuOptions]>([
    ["base contexts and messages", {}],
    ["extended contexts", { extended: true }],
    ["wired interrupts", { wired: true }],
  ])("all its steps hold with %s", (_name, options) => {
    const bare = machine(options);
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(STEPS);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
    expect(bare.machine.counters.unclaimed).toBe(0);
  });

  it("it fails when its two devices are swapped at the IOMMU", () => {
    const bare = machine({}, [0x18, 0x10]);
    const outcome = bare.boot(guest);
    // The two devices' messages have different addresses, and each first stage knows only its own device's.
    expect(bare.output).toMatch(/FAILED: read by 00:02.0: interrupt 64 never came\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });

  it("it fails when IOTINVAL.VMA has no effect", () => {
    const bare = machine({ drop: (word0) => (word0 & 0x3ffn) === 1n && (word0 & (1n << 10n)) !== 0n });
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(/FAILED: what was read after IOTINVAL and IOFENCE differs at byte 0\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });

  it("two runs print the same and take the same virtual time", () => {
    const [a, b] = [machine(), machine()];
    a.boot(guest);
    b.boot(guest);
    expect(b.output).toBe(a.output);
    expect(b.clock.now).toBe(a.clock.now);
    expect(b.machine.counters).toEqual(a.machine.counters);
  });
});

describe("the default guest on the hardware model, without a host between", () => {
  it.each<[string, RiscvIommuOptions]>([
    ["every capability", {}],
    ["base contexts", { capabilities: { MSI_FLAT: false, MSI_MRIF: false, AMO_MRIF: false } }],
    ["wires only", { capabilities: { IGS: IGS_WSI } }],
    ["a single interrupt vector", { vectorBits: 0 }],
    ["a single wire", { vectorBits: 0, capabilities: { IGS: IGS_WSI } }],
    ["no caches", { caches: { devices: 0, processes: 0, translations: 0, messages: 0, tables: 0 } }],
  ])("all its steps hold but the one that needs a second stage, with %s", (_name, options) => {
    const bare = new BareMachine(hardwareIommu((parts) => new RiscvIommu(parts, { automaticDelayNs: 50, ...options })));
    bare.plug(0x10, new Edu({ name: "edu0" }));
    bare.plug(0x18, new Edu({ name: "edu1" }));
    bare.boot(guest);
    // Nobody but a second stage reports that a translated address leads nowhere.
    const [steps, rest] = bare.output.split("FAILED: ");
    expect(`${steps}outside: \ndone: all steps hold\n`).toMatch(STEPS);
    expect(rest).toMatch(/^fault of 00:02.0: interrupt \d+ never came\n$/);
  });
});

describe("the default guest with emulated devices behind the guest-visible IOMMU", () => {
  it.each<[string, RiscvConfiguration]>([
    ["messages", { interrupts: "msi" }],
    ["wires", { interrupts: "wired" }],
    ["a single interrupt vector", { vectorsLog2: 0, interrupts: "msi" }],
    ["a single wire", { vectorsLog2: 0, interrupts: "wired" }],
  ])("all its steps hold with %s", (_name, configuration) => {
    const bare = new BareMachine(guestVisibleIommu(configuration));
    bare.plug(0x10, new Edu({ name: "edu0" }));
    bare.plug(0x18, new Edu({ name: "edu1" }));
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(STEPS);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });
});

describe("DMA past RAM", () => {
  it("is refused, and the guest goes on", async () => {
    const bare = machine();
    const outcome = bare.boot(await soundImage(readFileSync(images["error-dma-past-ram"]!)));
    expect(bare.output).toBe("DMA past RAM was refused, and the guest goes on\n");
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });
});
