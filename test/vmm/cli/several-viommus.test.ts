// Several vIOMMUs from the command line: devices of one IOMMU apart by name, devices of two IOMMUs apart in any case. The platform says so
// to a component guest (iommu-of, iommu-line), the device tree to an RV64 guest (an iommu node each, iommu-map).

import { describe, expect, it } from "vitest";
import { buildRiscv64NestedDma } from "../../../guest-fixtures/riscv64-nested-dma/build.mjs";
import { fixture, nestbox, report } from "./command-line.ts";

const image = buildRiscv64NestedDma();
if (image === null)
  console.warn("SKIPPED: no riscv64-linux-gnu-gcc here, several vIOMMUs are not tried with an RV64 guest");

const assigning = (...assignments: string[]) => assignments.flatMap((assignment) => ["--assign", assignment]);
/** Crossed over, so that the order of devices on the guest's bus is not that of its IOMMUs. */
const NAMED = assigning("0000:00:01.0@00:02.0/left", "0000:00:02.0@00:01.0/right");
const TWO_IOMMUS = assigning("0000:00:01.0@00:02.0", "0000:80:01.0@00:01.0");

describe("several vIOMMUs", () => {
  it.each([
    ["by name", NAMED],
    ["over two IOMMUs", TWO_IOMMUS],
  ])("%s are a component guest's own, each with its device, queues and wires", (_how, assignments) => {
    const run = nestbox("boot", fixture("two-iommus"), ...assignments);
    expect(run.errors).toBe("");
    expect(run.output).toContain("00:01.0: IOMMU 1 at 0x3011000\n00:02.0: IOMMU 0 at 0x3010000\n");
    expect(run.output).toContain("device id  guest 00:01.0 (0x8) -> host");
    expect(run.status).toBe(0);
  });

  it("that the guest needs and does not have fail it: without names one IOMMU's devices share one", () => {
    const run = nestbox("boot", fixture("two-iommus"), ...assigning("0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"));
    expect(run.output).toContain("this guest needs several IOMMUs, there is 1");
    expect(run.status).toBe(1);
  });

  it.skipIf(image === null).each([
    ["by name", NAMED],
    ["over two IOMMUs", TWO_IOMMUS],
  ])("%s are an RV64 guest's own, as its device tree says", (_how, assignments) => {
    const run = nestbox("boot", "--kernel", image!, "--memory", "64M", "--report", "json", ...assignments);
    expect(run.errors).toContain("IOMMU at 0x3010000, second IOMMU at 0x3011000");
    expect(run.errors).toContain(
      "\nsecond: cause 258 at IOVA 0x1234567000 cause 13 at IOVA 0x1234567000; device 0x8 has its own IOMMU\n",
    );
    expect(run.errors).toContain("\ndone: all steps hold\n");
    expect(report(run)).toMatchObject({ result: "pass", faults: 7 });
    expect(run.status).toBe(0);
  });

  it("are named in inspect with the IOMMU they are a slice of", () => {
    const tree = JSON.parse(nestbox("inspect", "vm/viommus", "--json", ...NAMED).output) as Record<string, object>;
    const named = { viommu0: { name: "left", over: "iommu0" }, viommu1: { name: "right", over: "iommu0" } };
    expect(tree).toMatchObject(named);
    expect(Object.keys((tree.viommu1 as { devices: object }).devices)).toEqual(["00:01.0"]);
    const help = nestbox("boot", "--help").output;
    expect(help).toContain("--assign <host@guest[/name]>");
  });

  it.each([
    [
      "over devices of two IOMMUs",
      assigning("00:01.0@00:02.0/a", "80:01.0@00:01.0/a"),
      /behind IOMMU "iommu1", vIOMMU "a" is a slice of "iommu0"/,
    ],
    [
      "named after another IOMMU",
      assigning("80:01.0@00:02.0", "00:01.0@00:01.0/iommu1"),
      /vIOMMU "iommu1" is a slice of "iommu1"/,
    ],
    [
      "with a name that is none",
      assigning("00:01.0@00:02.0/a/b"),
      /--assign 00:01.0@00:02.0\/a\/b: expected HOST-BDF@GUEST-BDF/,
    ],
    ["with a name of digits", assigning("00:01.0@00:02.0/7"), /expected HOST-BDF@GUEST-BDF/],
  ])("%s are refused in one line", (_what, assignments, message) => {
    const run = nestbox("inspect", ...assignments);
    expect(run.errors).toMatch(message);
    expect(run.errors.trimEnd()).not.toContain("\n");
    expect(run.status).toBe(2);
  });

  it.skipIf(image === null)("with --viommu none, or behind root ports of two of them, are refused in one line", () => {
    const boot = (...args: string[]) => nestbox("boot", "--kernel", image!, "--memory", "64M", ...args);
    const none = boot("--viommu", "none", ...NAMED);
    expect(none.errors).toContain('with --viommu none there is no vIOMMU "left"');
    const ports = boot(...assigning("00:01.0@00:02.0/00.0/left", "00:02.0@00:03.0/00.0/right"));
    expect(ports.errors).toMatch(/00:02\.0\/00\.0 and 00:03\.0\/00\.0 are behind root ports/);
    for (const run of [none, ports]) {
      expect(run.errors.trimEnd()).not.toContain("\n");
      expect(run.status).toBe(2);
    }
  });
});
