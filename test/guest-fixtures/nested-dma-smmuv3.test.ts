// The default guest on machines of its own with an SMMUv3, without a host: the hardware model in its varieties. What the guest asks for is judged by
// another's reading of IHI 0070, and the guest notices a machine that does not do it.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { buildFixtures } from "../../guest-fixtures/build.mjs";
import { CMD_CFGI_CD, CMD_CFGI_STE, CMD_PREFETCH_CONFIG, CMD_TLBI_NH_VA } from "../../host/arch/smmuv3/commands.ts";
import { REG } from "../../host/arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK } from "../../host/base/memory.ts";
import type { MmioPort } from "../../host/base/mmio.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import type { Smmuv3Options } from "../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../host/hw/iommu/smmuv3/smmu.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { SMMUV3_NODE } from "../../vmm/viommu/smmuv3/platform-node.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { BareMachine, hardwareIommu } from "./bare-machine.ts";

/** One line a step. */
const STEPS =
  /^platform: .*\npci: .*\niommu: .*\ncopy: .*\nremap: .*\nunmap: .*\npermissions: .*\ncontext: .*\nswitch: .*\ndirectories: .*\noutside: .*\ndone: all steps hold\n$/;

let images: Readonly<Record<string, string>>;
let guest: PreparedComponent;
beforeAll(async () => {
  images = await buildFixtures();
  guest = await soundImage(readFileSync(images["nested-dma"]!));
});

function machine(options: Smmuv3Options = {}, ids: readonly [number, number] = [0x10, 0x18]): BareMachine {
  const bare = new BareMachine(
    hardwareIommu((parts) => new Smmuv3(parts, { automaticDelayNs: 50, ...options }), SMMUV3_NODE),
  );
  bare.plug(0x10, new Edu({ name: "edu0" }), ids[0]);
  bare.plug(0x18, new Edu({ name: "edu1" }), ids[1]);
  return bare;
}

/** The same, but the hardware never sees the commands of this opcode: prefetches stand in their places, which do nothing. */
function deafTo(opcode: number): BareMachine {
  const make = hardwareIommu((parts) => new Smmuv3(parts, { automaticDelayNs: 50 }), SMMUV3_NODE);
  const bare = new BareMachine((parts) => {
    const iommu = make(parts);
    const { registers } = iommu;
    let queue = 0;
    const deaf: MmioPort = {
      get high() {
        return registers.high;
      },
      mmioRead: (offset, size) => registers.mmioRead(offset, size),
      mmioWrite: (offset, size, lo, hi) => {
        if (offset === REG.CMDQ_BASE) queue = Math.floor(lo / 4096);
        // The driver rings for each command; the queue is a page of 256.
        const at = ((lo - 1) & 255) * 16;
        if (offset === REG.CMDQ_PROD && lo !== 0 && parts.memory.load32(queue as HpaPfn, at) === ACCESS_OK) {
          if ((parts.memory.lo & 0xff) === opcode) parts.memory.store32(queue as HpaPfn, at, CMD_PREFETCH_CONFIG);
        }
        registers.mmioWrite(offset, size, lo, hi);
      },
    };
    return { ...iommu, registers: deaf };
  });
  bare.plug(0x10, new Edu({ name: "edu0" }));
  bare.plug(0x18, new Edu({ name: "edu1" }));
  return bare;
}

describe("the default guest on the SMMUv3 hardware model, without a host between", () => {
  it.each<[string, Smmuv3Options]>([
    ["every feature", {}],
    ["one stage", { features: { S2P: false } }],
    ["a linear stream table alone", { features: { SIDSIZE: 6, ST_LEVEL: 0 } }],
    ["wires, no messages", { features: { MSI: false } }],
    ["no choice about stalls", { features: { STALL_MODEL: 1 } }],
    ["no range invalidation, no ATS, ASIDs of 8 bits", { features: { RIL: false, ATS: false, ASID16: false } }],
    ["no caches", { caches: { streams: 0, contexts: 0, translations: 0, tables: 0 } }],
  ])("all its steps hold with %s", (_name, options) => {
    const bare = machine(options);
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(STEPS);
    expect(outcome).toEqual({ kind: "exited", status: 0 });
    expect(bare.machine.counters.unclaimed).toBe(0);
  });

  it("it hears what the architecture says, by name and number", () => {
    const bare = machine();
    bare.boot(guest);
    expect(bare.output).toContain(
      "unmap: F_TRANSLATION, stream 0x18, read, address 0x1234567000; F_TRANSLATION, stream 0x18, write, address 0x2345678000;",
    );
    expect(bare.output).toContain("permissions: F_PERMISSION, stream 0x18, write, address 0x1234567000 on a page");
    expect(bare.output).toContain("context: C_BAD_CD, stream 0x10; valid again, reads again");
    expect(bare.output).toContain(
      "directories: off, nothing is heard; both copied under stream tables: linear, two-level",
    );
  });

  it("it fails when its two devices are swapped at the SMMU", () => {
    const bare = machine({}, [0x18, 0x10]);
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(/FAILED: read by 00:02.0: interrupt 64 never came\n$/);
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });

  it.each([
    ["TLBI_NH_VA", CMD_TLBI_NH_VA, /FAILED: what was read after TLBI_NH_VA and CMD_SYNC differs at byte 0\n$/],
    ["CFGI_CD", CMD_CFGI_CD, /FAILED: fault of 00:02.0: interrupt 33 never came\n$/],
    ["CFGI_STE", CMD_CFGI_STE, /FAILED: .*\n$/],
  ])("it fails when CMD_%s has no effect", (_name, opcode, complaint) => {
    const bare = deafTo(opcode);
    const outcome = bare.boot(guest);
    expect(bare.output).toMatch(complaint);
    expect(outcome).toEqual({ kind: "exited", status: 1 });
  });

  it("two runs print the same and take the same virtual time", () => {
    const [a, b] = [machine(), machine()];
    a.boot(guest);
    b.boot(guest);
    expect(b.output).toBe(a.output);
    expect(b.clock.now).toBe(a.clock.now);
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
