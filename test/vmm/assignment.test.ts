// Machines without a vIOMMU: a device is attached to the VM's address space in the host itself (VFIO_DEVICE_ATTACH_IOMMUFD_PT with the
// IOAS), uses guest-physical addresses, and its messages need no first stage (include/uapi/linux/vfio.h).

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { parseHost } from "../../host/description.ts";
import * as R from "../../host/devices/edu/registers.ts";
import { Host } from "../../host/host.ts";
import { Assignment } from "../../vmm/assignment.ts";
import { MSI_BASE, RAM_BASE, VIOMMU_BASE } from "../../vmm/memory-map.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { buildHart } from "../../vmm/vcpu/riscv64/build.mjs";
import { RISCV } from "../../vmm/viommu/riscv/kind.ts";
import { eduDma, eduOutcome } from "../host/kernel/machine.ts";

const MEMORY = 4 * 2 ** 20;
const DEVICE = "0000:00:01.0";
const GUEST_ID = 0x10;
const COMMAND = 4;
const MEMORY_SPACE_AND_BUS_MASTER = 6;

let core: WebAssembly.Module;
beforeAll(async () => {
  core = await WebAssembly.compile(readFileSync(await buildHart()));
});

function machine(description = builtInHosts.find(({ name }) => name === DEFAULT_HOST)!) {
  const clock = new Clock();
  const trace = new Trace(clock);
  const host = new Host(description, { clock, trace });
  const process = host.createProcess();
  const rv64 = new Rv64Machine({ core, clock, trace, memoryBytes: MEMORY, harts: 1 });
  const reports: string[] = [];
  const assignment = new Assignment({
    machine: rv64.machine,
    memory: rv64.memory,
    pci: rv64.pci,
    wires: { viommu: () => {}, intx: () => {} },
    kind: RISCV,
    configuration: { interrupts: "msi" },
    calls: process,
    ram: { buffer: rv64.core.memory.buffer, offset: rv64.core.ramOffset, length: MEMORY },
    viommu: false,
    report: (message) => void reports.push(message),
  });
  const request = { ...host.assignable(DEVICE), routingId: GUEST_ID };
  const entry = assignment.assign(request);
  entry.device.configWrite(COMMAND, 2, MEMORY_SPACE_AND_BUS_MASTER);
  const registers = entry.device.bars[0]!.registers;
  const dma = (address: number, count: number, toRam: boolean, interrupt = false): number => {
    eduDma(registers, BigInt(address), count, toRam, interrupt);
    while (clock.nextDeadline < Number.POSITIVE_INFINITY && registers.mmioRead(R.DMA_COMMAND, 4) & R.COMMAND_RUN) {
      clock.advanceTo(clock.nextDeadline);
      rv64.machine.settle();
    }
    rv64.machine.settle();
    return eduOutcome(registers);
  };
  return { host, process, rv64, assignment, entry, reports, dma };
}

describe("a device assigned without a vIOMMU", () => {
  it("moves bytes between guest-physical addresses, and nothing stands where a vIOMMU would", () => {
    const { rv64, dma, assignment } = machine();
    rv64.core.ram.set([1, 2, 3, 4], 0x1000);
    expect(dma(RAM_BASE + 0x1000, 4, false)).toBe(R.OUTCOME_DONE);
    expect(dma(RAM_BASE + 0x2ff0, 4, true)).toBe(R.OUTCOME_DONE);
    expect([...rv64.core.ram.subarray(0x2ff0, 0x2ff4)]).toEqual([1, 2, 3, 4]);
    expect(assignment.viommus).toEqual([]);
    expect(rv64.machine.bus.find(VIOMMU_BASE)).toBe(null);
  });

  it("may share its iommu group with others: without contexts there is nothing that the host could not keep apart", () => {
    const devices = [DEVICE, "0000:00:02.0"].map((bdf) => ({ model: "edu", bdf, iommu: "iommu0", group: 1 }));
    const shared = parseHost({ name: "shared", iommus: [{ name: "iommu0", kind: "riscv" }], devices }, "shared");
    const { rv64, dma, host, assignment } = machine(shared);
    rv64.core.ram.set([9], 0x1000);
    expect(dma(RAM_BASE + 0x1000, 4, false)).toBe(R.OUTCOME_DONE);
    assignment.assign({ ...host.assignable("0000:00:02.0"), routingId: 0x18 });
    expect(dma(RAM_BASE + 0x2000, 4, true)).toBe(R.OUTCOME_DONE);
    expect(rv64.core.ram[0x2000]).toBe(9);
    expect(assignment.held).toEqual([]);
  });

  it("is refused what is not the VM's RAM", () => {
    const { rv64, dma } = machine();
    const before = rv64.core.ram.slice();
    expect(dma(RAM_BASE + MEMORY, 4, true)).toBe(R.OUTCOME_REFUSED);
    expect(dma(0x1000, 4, false)).toBe(R.OUTCOME_REFUSED);
    expect(Buffer.from(rv64.core.ram).equals(Buffer.from(before))).toBe(true);
  });

  it("sends its MSI to the guest's IMSIC page", () => {
    const { rv64, entry, dma, reports } = machine();
    const { device } = entry;
    const capability = msiCapability((offset, size) => device.configRead(offset, size));
    device.configWrite(capability + 4, 4, MSI_BASE);
    device.configWrite(capability + 8, 4, 0);
    device.configWrite(capability + 12, 2, 9);
    device.configWrite(capability + 2, 2, 1);
    expect(dma(RAM_BASE + 0x1000, 4, false, true)).toBe(R.OUTCOME_DONE);
    // Pending in eip, though no eie enables it (AIA §3.5).
    expect(reports).toEqual([]);
    expect(eip(rv64)).toBe(1n << 9n);
  });

  it("whose MSI leads nowhere loses it, and that is said once however often it comes", () => {
    const { entry, dma, reports } = machine();
    const { device } = entry;
    const capability = msiCapability((offset, size) => device.configRead(offset, size));
    device.configWrite(capability + 4, 4, 0x1000);
    device.configWrite(capability + 12, 2, 9);
    device.configWrite(capability + 2, 2, 1);
    for (let i = 0; i < 3; i++) expect(dma(RAM_BASE + 0x1000, 4, false, true)).toBe(R.OUTCOME_DONE);
    expect(reports).toEqual([
      "an interrupt of guest device 00:02.0 was lost: its message address 0x1000 leads nowhere",
    ]);
  });

  it("leaves nothing in the host when it is taken away", () => {
    const { host, process, assignment, entry } = machine();
    assignment.unassign(entry);
    assignment[Symbol.dispose]();
    host.endProcess(process.name);
    expect(host.liveKinds).toEqual([]);
    host[Symbol.dispose]();
  });
});

function msiCapability(read: (offset: number, size: 1 | 2) => number): number {
  for (let at = read(0x34, 1); at !== 0; at = read(at + 1, 1)) if (read(at, 1) === 5) return at;
  throw new Error("no MSI capability");
}

/** First word of eip, read as the hart would: select 0x80, csrr sireg. */
function eip(rv64: Rv64Machine): bigint {
  const { core: hart } = rv64;
  // li t0, 0x80; csrw siselect, t0; csrr a0, sireg; ecall
  const words = [0x08000293, 0x15029073, 0x15102573, 0x00000073];
  hart.ram.set(new Uint8Array(Uint32Array.from(words).buffer), 0);
  hart.write(0, "pc", BigInt(RAM_BASE));
  hart.run(0, 100);
  return hart.x(0, 10);
}
