// Cost of the NVMe model on the host: 4 KiB random reads, 32 at a time, and 1 MiB reads through PRP lists, from doorbell to completion
// entry; with no IOMMU, and behind a RISC-V IOMMU with a Sv39 first stage. The driver's own stores are part of the figure; the virtual
// time that passes is not.

import type { HpaPfn } from "../../host/base/address.ts";
import { Clock } from "../../host/base/clock.ts";
import { PhysicalMemory } from "../../host/base/memory.ts";
import { Trace } from "../../host/base/trace.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import * as EDU from "../../host/devices/edu/registers.ts";
import { MemoryBlockStore } from "../../host/devices/nvme/block-store.ts";
import { NvmeController } from "../../host/devices/nvme/controller.ts";
import type { PciFunction } from "../../host/devices/ports.ts";
import { BarWindow } from "../../host/hw/pci/bar-window.ts";
import { RootComplex } from "../../host/hw/pci/root-complex.ts";
import { Machine, USER_RW } from "../host/hw/iommu/riscv/machine.ts";

const RID = 8;
const ROUNDS = 7;
const DRIVE_BYTES = 32 << 20;
/** Frames used by the driver, from this IOVA frame on: admin queues, I/O queues, a PRP list, data. */
const FIRST = 0x100;
const FRAMES = 600;
const [ASQ, ACQ, SQ, CQ, LIST, DATA] = [0, 1, 2, 3, 4, 16];
const ENTRIES = 64;

class Driver {
  readonly #nvme = new NvmeController({ store: new MemoryBlockStore(DRIVE_BYTES) });
  readonly #clock: Clock;
  readonly #words: Uint32Array;
  #tail = 0;
  #head = 0;
  #phase = 1;

  /** `words`: the memory behind the driver's frames. */
  constructor(clock: Clock, words: Uint32Array, plug: (pciFunction: PciFunction) => void) {
    this.#clock = clock;
    this.#words = words;
    plug(this.#nvme);
    this.#nvme.configWrite(4, 2, 6);
    this.#nvme.mmioWrite(0x24, 4, 0x003f003f, 0);
    this.#nvme.mmioWrite(0x28, 8, (FIRST + ASQ) * 4096, 0);
    this.#nvme.mmioWrite(0x30, 8, (FIRST + ACQ) * 4096, 0);
    this.#nvme.mmioWrite(0x14, 4, 0x00460001, 0);
    this.#settle();
    this.#admin(0, 0x05, CQ, ((ENTRIES - 1) << 16) | 1, 1);
    this.#admin(1, 0x01, SQ, ((ENTRIES - 1) << 16) | 1, 0x10001);
    for (let i = 0; i < 256; i++) this.#words[LIST * 1024 + 2 * i] = (FIRST + DATA + 1 + i) * 4096;
  }

  #settle(): void {
    while (this.#clock.pending > 0) {
      this.#clock.advanceTo(this.#clock.nextDeadline);
      this.#clock.fireDue();
    }
  }

  #admin(slot: number, opcode: number, frame: number, dword10: number, dword11: number): void {
    const at = ASQ * 1024 + 16 * slot;
    this.#words[at] = opcode;
    this.#words[at + 6] = (FIRST + frame) * 4096;
    this.#words[at + 10] = dword10;
    this.#words[at + 11] = dword11;
    this.#nvme.mmioWrite(0x1000, 4, slot + 1, 0);
    this.#settle();
    const status = this.#words[ACQ * 1024 + 4 * slot + 3]! >>> 17;
    if (status !== 0) throw new Error(`admin command ${opcode} ended with status ${status}`);
  }

  /** Reads `blocks` at each of `firsts`, all at once. */
  read(firsts: readonly number[], blocks: number): void {
    const words = this.#words;
    for (const [index, first] of firsts.entries()) {
      const at = SQ * 1024 + 16 * this.#tail;
      words[at] = 2;
      words[at + 1] = 1;
      words[at + 6] = (FIRST + DATA + (blocks > 8 ? 0 : index)) * 4096;
      words[at + 8] = (FIRST + LIST) * 4096;
      words[at + 10] = first;
      words[at + 12] = blocks - 1;
      this.#tail = (this.#tail + 1) % ENTRIES;
    }
    this.#nvme.mmioWrite(0x1008, 4, this.#tail, 0);
    this.#settle();
    for (let i = 0; i < firsts.length; i++) {
      const last = words[CQ * 1024 + 4 * this.#head + 3]!;
      if (((last >>> 16) & 1) !== this.#phase || last >>> 17 !== 0) throw new Error("a read was not done");
      if (++this.#head === ENTRIES) {
        this.#head = 0;
        this.#phase ^= 1;
      }
    }
    this.#nvme.mmioWrite(0x100c, 4, this.#head, 0);
    this.#settle();
  }
}

interface Setup {
  readonly clock: Clock;
  readonly words: Uint32Array;
  readonly plug: (pciFunction: PciFunction) => void;
}

function rootComplex(clock: Clock, trace: Trace, memory: PhysicalMemory<HpaPfn>): RootComplex {
  const window32 = new BarWindow(0x4000_0000, 0x1000_0000);
  const window64 = new BarWindow(0x4_0000_0000, 0x1_0000_0000);
  return new RootComplex({ segment: 0, memory, clock, trace, window32, window64 });
}

function withoutIommu(): Setup {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  const { words } = memory.addBank(FIRST as HpaPfn, new ArrayBuffer(FRAMES * 4096));
  const root = rootComplex(clock, trace, memory);
  return { clock, words, plug: (pciFunction) => root.plug(RID, pciFunction, null) };
}

function behindIommu(): Setup {
  const machine = new Machine();
  const { clock, trace, memory, iommu } = machine;
  machine.useDirectory(3);
  const stage1 = machine.makeRoot();
  machine.setDevice(RID, { fsc_MODE: 8, fsc_PPN: stage1, PSCID: 1 });
  const frames = Array.from({ length: FRAMES }, () => machine.allocate());
  for (const [index, frame] of frames.entries()) machine.map(stage1, 3, FIRST + index, frame, USER_RW);
  const bank = memory.banks[0]!;
  const start = (frames[0]! - bank.basePfn) * 1024;
  // Page tables were allocated in between: the driver's frames must be one run of memory.
  if (frames.some((frame, index) => frame !== frames[0]! + index)) throw new Error("frames are scattered");
  const words = bank.words.subarray(start, start + FRAMES * 1024);
  const root = rootComplex(clock, trace, memory);
  return { clock, words, plug: (pciFunction) => root.plug(RID, pciFunction, iommu) };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** Median nanoseconds of one operation of `run`, which does `operations`. */
function measure(operations: number, run: () => void): number {
  run();
  const rounds = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    run();
    return ((performance.now() - start) * 1e6) / operations;
  });
  return Math.round(median(rounds));
}

export const about = "reads of the NVMe model, with and without an IOMMU";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  for (const [where, make] of [
    ["no-iommu", withoutIommu],
    ["sv39", behindIommu],
  ] as const) {
    const drive = make();
    const driver = new Driver(drive.clock, drive.words, drive.plug);
    let state = 1;
    const block = () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state % (DRIVE_BYTES / 4096)) * 8;
    };
    const batches = Array.from({ length: 200 }, () => Array.from({ length: 32 }, block));
    const random = measure(batches.length * 32, () => {
      for (const batch of batches) driver.read(batch, 8);
    });
    emit({ bench: `nvme-read-4k-random-${where}`, nsPerOp: random, opsPerSecond: Math.round(1e9 / random) });
    const sequential = measure(32, () => {
      for (let i = 0; i < 32; i++) driver.read([i * 2048], 2048);
    });
    const mibPerSecond = Math.round(1e9 / sequential);
    emit({ bench: `nvme-read-1m-sequential-${where}`, nsPerOp: sequential, opsPerSecond: mibPerSecond, mibPerSecond });

    const { clock, plug } = make();
    const edu = new Edu();
    plug(edu);
    edu.configWrite(4, 2, 6);
    const burst = measure(100 * 64, () => {
      for (let i = 0; i < 100; i++) {
        edu.mmioWrite(EDU.DMA_SOURCE, 8, EDU.BUFFER, 0);
        edu.mmioWrite(EDU.DMA_DESTINATION, 8, (FIRST + DATA) * 4096, 0);
        edu.mmioWrite(EDU.DMA_COUNT, 8, 4096, 0);
        edu.mmioWrite(EDU.DMA_COMMAND, 8, EDU.COMMAND_RUN | EDU.COMMAND_TO_RAM, 0);
        for (let burst = 0; burst < 64; burst++) {
          clock.advance(EDU.BURST_NS);
          clock.fireDue();
        }
      }
    });
    if (edu.mmioRead(EDU.DMA_OUTCOME, 4) !== EDU.OUTCOME_DONE) throw new Error("edu's DMA was not done");
    emit({ bench: `edu-burst-${where}`, nsPerOp: burst, opsPerSecond: Math.round(1e9 / burst) });
  }
}
