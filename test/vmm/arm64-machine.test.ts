// An AArch64 machine from outside: boot protocol, console, PSCI, several CPUs. Programs are words with what they say beside them.
import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { Arm64Machine } from "../../vmm/arm64-machine.ts";
import type { KernelStop } from "../../vmm/kernel-machine.ts";
import { coreModule } from "./vcpu/aarch64/core-module.ts";

const MEMORY = 16 * 2 ** 20;

function machine(cpus: number, program: readonly number[]): { machine: Arm64Machine; output: () => string } {
  const clock = new Clock();
  const it = new Arm64Machine({ core: coreModule(), clock, trace: new Trace(clock), memoryBytes: MEMORY, cpus });
  let output = "";
  it.machine.onConsole = (bytes) => {
    output += Buffer.from(bytes).toString("latin1");
  };
  const bytes = new Uint8Array(new Uint32Array(program).buffer);
  it.load({
    kernel: {
      architecture: "arm64",
      format: "Image",
      relocatable: true,
      entry: 0,
      segments: [{ address: 0, bytes, memoryBytes: bytes.length }],
    },
    initrd: null,
    bootArguments: "",
    viommus: [],
    seed: new Uint8Array(32),
  });
  return { machine: it, output: () => output };
}

function run(it: Arm64Machine): KernelStop {
  for (let i = 0; i < 20; i++) {
    const stop = it.run();
    if (stop.kind !== "slice") return stop;
  }
  throw new Error("the machine does not stop");
}

const movz = (d: number, value: number, half = 0): number => (0xd2800000 | (half << 21) | (value << 5) | d) >>> 0;
const movk = (d: number, value: number, half: number): number => (0xf2800000 | (half << 21) | (value << 5) | d) >>> 0;
const HVC = 0xd4000002;
const WFI = 0xd503207f;
const SYSTEM_OFF = [movz(0, 8), movk(0, 0x8400, 1), HVC];
/** x1 = the UART; strb of a character. */
const uart = [movz(1, 0x1000, 1)];
const print = (text: string): number[] => [...text].flatMap((it) => [movz(2, it.charCodeAt(0)), 0x39000022]);

describe("an AArch64 machine", () => {
  it("starts with the device tree in x0, prints and powers off", () => {
    const { machine: it, output } = machine(1, [0xb9400003, ...uart, ...print("hi"), ...SYSTEM_OFF]); // ldr w3, [x0]
    expect(run(it)).toEqual({ kind: "off", reset: "shutdown", failure: false });
    expect(output()).toBe("hi");
    expect(it.parts.core.x(0, 3)).toBe(0xedfe_0dd0n); // the tree's magic, big-endian
    expect(it.parts.psci.calls.get("SYSTEM_OFF")).toBe(1);
  });

  it("CPU_ON starts another CPU at an address with its argument; a second time is ALREADY_ON", () => {
    const start = [movz(0, 3), movk(0, 0xc400, 1), movz(1, 1), movz(2, 0x8000, 1), movk(2, 0x100, 0), movz(3, 7), HVC];
    const program = [...start, 0xaa0003f3, ...start, 0xaa0003f4, ...SYSTEM_OFF]; // mov x19, x0 … mov x20, x0
    while (program.length < 0x40) program.push(0xd503201f);
    program.push(...uart, 0x1100c002, 0x39000022, WFI); // add w2, w0, #'0'; strb w2, [x1]
    const { machine: it, output } = machine(2, program);
    expect(run(it)).toMatchObject({ kind: "off" });
    expect(output()).toBe("7");
    expect([it.parts.core.x(0, 19), it.parts.core.x(0, 20)]).toEqual([0n, 0xffff_ffff_ffff_fffcn]);
  });

  it("is idle for ever when it waits with nothing to wake it", () => {
    const { machine: it } = machine(1, [WFI]);
    expect(run(it)).toEqual({ kind: "idle", until: Number.POSITIVE_INFINITY });
  });

  it("refuses firmware calls it has not, and goes on", () => {
    const { machine: it } = machine(1, [movz(0, 0x1234), HVC, 0xaa0003f3, ...SYSTEM_OFF]);
    expect(run(it)).toMatchObject({ kind: "off" });
    expect(it.parts.core.x(0, 19)).toBe(0xffff_ffff_ffff_ffffn);
    expect(it.parts.psci.calls.get("unknown")).toBe(1);
  });
});
