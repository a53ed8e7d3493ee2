// Expectations: RISC-V Supervisor Binary Interface Specification 2.0. Calls are made as a hart would: registers set, then the ecall
// served; no guest code is needed for that.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import type { GpaPfn } from "../../../host/base/address.ts";
import { PhysicalMemory } from "../../../host/base/memory.ts";
import type { ResetKind } from "../../../vmm/kernel-machine.ts";
import { Sbi } from "../../../vmm/platform/sbi.ts";
import { buildHart } from "../../../vmm/vcpu/riscv64/build.mjs";
import { Rv64Core } from "../../../vmm/vcpu/riscv64/core.ts";

let module: WebAssembly.Module;
beforeAll(async () => {
  module = new WebAssembly.Module(readFileSync(await buildHart()));
});

const NOT_SUPPORTED = -2n;
const INVALID_PARAM = -3n;
const ALREADY_AVAILABLE = -6n;

function machine(harts = 2) {
  const mmio = { high: 0, load: () => 0, store: () => {} };
  const core = new Rv64Core({ module, ramBytes: 1 << 20, harts, mmio });
  const memory = new PhysicalMemory<GpaPfn>();
  memory.addBank(0x80000 as GpaPfn, core.memory.buffer, core.ramOffset, 1 << 20);
  const started = Array.from({ length: harts }, (_, hart) => hart === 0);
  const printed: number[] = [];
  const resets: [ResetKind, boolean][] = [];
  const typed = [..."input"].map((character) => character.charCodeAt(0));
  const sbi = new Sbi({
    core,
    memory,
    started,
    console: (bytes) => printed.push(...bytes),
    consoleRead: (bytes) => {
      const taken = typed.splice(0, bytes.length);
      bytes.set(taken);
      return taken.length;
    },
    reset: (kind, failure) => resets.push([kind, failure]),
  });
  const call = (extension: number, fid: number, ...args: (number | bigint)[]): [error: bigint, value: bigint] => {
    for (let i = 0; i < 6; i++) core.setX(0, 10 + i, BigInt(args[i] ?? 0));
    core.setX(0, 16, BigInt(fid));
    core.setX(0, 17, BigInt(extension));
    sbi.call(0);
    return [BigInt.asIntN(64, core.x(0, 10)), core.x(0, 11)];
  };
  return { core, started, printed, resets, call };
}

const BASE = 0x10;
const TIME = 0x54494d45;
const IPI = 0x735049;
const RFENCE = 0x52464e43;
const HSM = 0x48534d;
const SRST = 0x53525354;
const DBCN = 0x4442434e;
const PMU = 0x504d55;
const ALL = 0xffff_ffff_ffff_ffffn;

describe("the SBI", () => {
  it("says version 2.0 (major in bits 30:24)", () => {
    expect(machine().call(BASE, 0)).toEqual([0n, 0x02000000n]);
  });

  it("answers a probe with 1 for what it has and 0 for what it has not", () => {
    const { call } = machine();
    for (const extension of [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN])
      expect(call(BASE, 3, extension)).toEqual([0n, 1n]);
    for (const extension of [PMU, 0x53555350, 0x1234n << 32n, 0x1_0000_0010n]) {
      expect(call(BASE, 3, extension)).toEqual([0n, 0n]);
    }
  });

  it("refuses unknown extensions and functions", () => {
    const { call } = machine();
    expect(call(PMU, 0)[0]).toBe(NOT_SUPPORTED);
    for (const extension of [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN])
      expect(call(extension, 99)[0]).toBe(NOT_SUPPORTED);
  });

  it("sets the timer of the calling hart", () => {
    const { call, core } = machine();
    expect(call(TIME, 0, 12345)[0]).toBe(0n);
    expect(core.read(0, "stimecmp")).toBe(12345n);
  });

  it("sends an IPI to the harts of a mask, and to all when the base is -1", () => {
    const { call, core } = machine();
    expect(call(IPI, 0, 0b10, 0)[0]).toBe(0n);
    expect([core.read(0, "softwareInterrupt"), core.read(1, "softwareInterrupt")]).toEqual([0n, 2n]);
    expect(call(IPI, 0, 0, ALL)[0]).toBe(0n);
    expect(core.read(0, "softwareInterrupt")).toBe(2n);
  });

  it("refuses a mask that names a hart which does not exist", () => {
    expect(machine().call(IPI, 0, 0b100, 0)[0]).toBe(INVALID_PARAM);
    expect(machine().call(RFENCE, 0, 1, 63)[0]).toBe(INVALID_PARAM);
  });

  it("starts a stopped hart at an address with hart id and opaque value in a0 and a1", () => {
    const { call, core, started } = machine();
    expect(call(HSM, 2, 1)).toEqual([0n, 1n]);
    expect(call(HSM, 0, 1, 0x8000_1000, 77)[0]).toBe(0n);
    expect(started).toEqual([true, true]);
    expect([core.read(1, "pc"), core.x(1, 10), core.x(1, 11), core.read(1, "satp")]).toEqual([
      0x8000_1000n,
      1n,
      77n,
      0n,
    ]);
    expect(call(HSM, 2, 1)).toEqual([0n, 0n]);
  });

  it("refuses to start a hart that runs, or one that does not exist", () => {
    const { call } = machine();
    expect(call(HSM, 0, 0, 0x8000_0000)[0]).toBe(ALREADY_AVAILABLE);
    expect(call(HSM, 0, 2)[0]).toBe(INVALID_PARAM);
    expect(call(HSM, 0, ALL)[0]).toBe(INVALID_PARAM);
  });

  it("resets the system as asked, and says if the guest called it a failure", () => {
    const { call, resets } = machine();
    call(SRST, 0, 0, 0);
    call(SRST, 0, 1, 1);
    expect(resets).toEqual([
      ["shutdown", false],
      ["cold-reboot", true],
    ]);
    expect(call(SRST, 0, 3)[0]).toBe(INVALID_PARAM);
  });

  it("prints from memory and says how much, at most a chunk a call", () => {
    const { call, core, printed } = machine();
    core.ram.set(new TextEncoder().encode("hello"), 0x100);
    expect(call(DBCN, 0, 5, 0x8000_0100, 0)).toEqual([0n, 5n]);
    expect(String.fromCharCode(...printed)).toBe("hello");
    const [error, value] = call(DBCN, 0, ALL, 0x8000_0000, 0);
    expect(error).toBe(0n);
    expect(value).toBeGreaterThan(0n);
    expect(value).toBeLessThanOrEqual(1n << 20n);
  });

  it("refuses console memory that is not RAM (§12.1: SBI_ERR_INVALID_PARAM)", () => {
    const { call } = machine();
    expect(call(DBCN, 0, 5, 0x1000, 0)[0]).toBe(INVALID_PARAM);
    expect(call(DBCN, 0, 5, 0x8000_0000, 1)[0]).toBe(INVALID_PARAM);
    expect(call(DBCN, 1, 5, ALL, 0)[0]).toBe(INVALID_PARAM);
  });

  it("keeps the input that a refused read asked for", () => {
    const { call } = machine();
    expect(call(DBCN, 1, 3, 0x1000, 0)[0]).toBe(INVALID_PARAM);
    expect(call(DBCN, 1, 5, 0x8000_0000, 0)).toEqual([0n, 5n]);
  });

  it("reads console input into memory", () => {
    const { call, core } = machine();
    expect(call(DBCN, 1, 3, 0x8000_0000, 0)).toEqual([0n, 3n]);
    expect(String.fromCharCode(...core.ram.subarray(0, 3))).toBe("inp");
  });
});
