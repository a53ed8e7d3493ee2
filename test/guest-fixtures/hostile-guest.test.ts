// A guest is hostile input: whatever it calls, with whatever numbers, the machine neither throws nor hangs. The guest here is an
// interpreter of its own traps: it reads records (import, four arguments) from RAM and makes the calls.

import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Edu } from "../../host/devices/edu/edu.ts";
import { RiscvIommu } from "../../host/hw/iommu/riscv/iommu.ts";
import { ECAM_BASE, MSI_BASE, PCI_MEMORY32_BASE, RAM_BASE, VIOMMU_BASE } from "../../vmm/memory-map.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import { soundImage } from "../vmm/vcpu/component/scripted-machine.ts";
import { watGuest } from "../vmm/vcpu/component/wat-guest.ts";
import { BareMachine, guestVisibleIommu, hardwareIommu } from "./bare-machine.ts";

/** Imports by number, as calls with arguments from the record at $at. */
const word = (index: number) => `(i32.load offset=${4 + 4 * index} (local.get $at))`;
const call = (name: string, count: number, result: boolean) => {
  const text = `(call $${name} ${Array.from({ length: count }, (_, index) => word(index)).join(" ")})`;
  return result ? `(drop ${text})` : text;
};
const CALLS: readonly string[] = [
  call("load8", 2, true),
  call("load16", 2, true),
  call("load32", 2, true),
  call("load64", 2, true),
  call("high-half", 0, true),
  call("store8", 3, false),
  call("store16", 3, false),
  call("store32", 3, false),
  call("store64", 4, false),
  call("wait", 0, true),
  call("poll", 0, true),
  call("count", 1, true),
  call("base", 2, true),
  call("size", 2, true),
  call("iommu-of", 1, true),
  call("iommu-line", 2, true),
  call("pci-line", 2, true),
  call("now", 0, true),
  `(call $alarm (i64.load offset=4 (local.get $at)) ${word(2)})`,
  call("write", 2, false),
];
const PROGRAM = 0x10000;
const RECORD = 20;
const BODY = `(local $at i32) (local.set $at (i32.const ${PROGRAM}))
  (loop $next
    ${CALLS.map((text, index) => `(if (i32.eq (i32.load (local.get $at)) (i32.const ${index})) (then ${text}))`).join("\n")}
    (local.set $at (i32.add (local.get $at) (i32.const ${RECORD})))
    (br_if $next (i32.ne (i32.load (local.get $at)) (i32.const -1))))
  (i32.const 0)`;

let guest: PreparedComponent;
beforeAll(async () => {
  guest = await soundImage(await watGuest(BODY));
});

const BASES = [VIOMMU_BASE, ECAM_BASE + 0x10_000, PCI_MEMORY32_BASE, MSI_BASE, RAM_BASE, 0];
/** Low half of an address: near something, as often as anywhere. */
const low = fc.oneof(
  fc.tuple(fc.constantFrom(...BASES), fc.nat(1023)).map(([base, at]) => base + 4 * at),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const value = fc.oneof(fc.constantFrom(0, 1, 3, 0xffff_ffff, 0x8000_0000), fc.integer({ min: 0, max: 0xffff_ffff }));
const record = fc.tuple(
  fc.nat(CALLS.length - 1),
  low,
  fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: value }),
  value,
  value,
);

describe("a hostile guest", () => {
  it.each([
    ["the guest-visible IOMMU", guestVisibleIommu({})],
    ["the hardware model", hardwareIommu((parts) => new RiscvIommu(parts, { automaticDelayNs: 50 }))],
  ])("gets an outcome of its own from a machine with %s, whatever it calls", (_name, makeIommu) => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 300 }), (records) => {
        const bare = new BareMachine(makeIommu);
        bare.machine.timeLimit = 1e9;
        bare.plug(0x10, new Edu({ name: "edu0" }));
        bare.plug(0x18, new Edu({ name: "edu1" }));
        const words = new Uint32Array(bare.ram.buffer, PROGRAM);
        records.forEach((fields, index) => {
          words.set(fields, (index * RECORD) / 4);
        });
        words[(records.length * RECORD) / 4] = 0xffff_ffff;
        const outcome = bare.boot(guest);
        // Its end is its own: it returned, wrote to the console from past RAM, or ran into the time limit.
        if (outcome.kind === "exited") {
          expect(bare.machine.counters.traps).toBe(records.filter(([index]) => index < 9 && index !== 4).length);
        }
        return outcome.kind === "exited" || outcome.kind === "stopped" || outcome.kind === "trapped";
      }),
      { numRuns: 150 },
    );
  });

  it("that waits for what cannot happen is told so", async () => {
    const bare = new BareMachine(guestVisibleIommu({}));
    const outcome = bare.boot(await soundImage(await watGuest("(call $wait)")));
    expect(outcome).toEqual({ kind: "exited", status: 0xffff_ffff });
  });

  it("that sets an alarm past the time limit is stopped at the limit", async () => {
    const bare = new BareMachine(guestVisibleIommu({}));
    bare.machine.timeLimit = 5000;
    const body = "(call $alarm (i64.const 0x7fffffffff) (i32.const 1)) (call $wait)";
    const outcome = bare.boot(await soundImage(await watGuest(body)));
    expect(outcome).toEqual({ kind: "stopped" });
    expect(bare.clock.now).toBe(5000);
  });
});
