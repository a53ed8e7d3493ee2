// Guests of `bench -- qemu` with a drive behind the IOMMU: a driver of one queue pair that waits for each completion, on a first stage of its own.
//
//     IOVA   0 .. 16 MiB data, a page each ── then the queues' pages
//     RAM    TABLES: device directory of two levels ── root ── middle ── nine pages of leaves   QUEUES   DATA
//
// The drive is 00:10.0. Its context lies where both formats of a device context look for it: at the beginning of a page that the directory's root leads to
// by index 1 (of 7 bits) and 2 (of 6).

import { REG } from "../../../host/arch/riscv/registers.ts";
import { ACQ, AQA, ASQ, CC, CSTS, DOORBELLS } from "../../../host/devices/nvme/registers.ts";
import { ECAM_BASE, PCI_MEMORY32_BASE, VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import { Program, T0, T1 } from "../../vmm/rv64-program.ts";
import { addi, b, i, load, r, sd, store } from "../../vmm/vcpu/riscv64/encode.ts";
import {
  COMMAND_QUEUE,
  FENCE,
  type GuestOperation,
  IOFENCE,
  IOTINVAL_VMA,
  QUEUE_LOG2,
  repeated,
  S0,
  S1,
  S2,
  S3,
  S4,
  S5,
  T2,
  T3,
  withCommandQueue,
} from "./guest-operation.ts";

const DRIVE = 0x10 << 3;
const TABLES = 0x8060_0000;
const [ROOT, MIDDLE, LEAVES] = [TABLES + 0x2000, TABLES + 0x3000, TABLES + 0x4000];
const QUEUES = 0x8070_0000;
const FAULT_QUEUE = 0x8071_0000;
/** More records than a command makes: QEMU's drive writes what it cannot map a word at a time, each a fault of its own. */
const FAULT_QUEUE_LOG2 = 11;
const DATA = 0x8100_0000;
const DATA_PAGES = 4096;
/** Pages of QUEUES: submission and completion queue of the admin commands, and of the I/O. */
const [ADMIN_SQ, ADMIN_CQ, SQ, CQ] = [0, 1, 2, 3];
const ENTRIES = 64;
/** V, R, W, U, A, D. */
const LEAF = 0xd7n;
const READ = 2;
const CREATE_CQ = 5;
const CREATE_SQ = 1;

// Registers of their own: BAR 0's doorbells, tail, head, the completion queue, phase and its bit.
const [BELLS, TAIL, HEAD, COMPLETIONS, PHASE, PHASE_BIT, PLACE] = [23, 24, 25, 26, 27, 29, 30];

const iovaOf = (queue: number): number => (DATA_PAGES + queue) * 4096;
const entry = (physical: number, flags: bigint): bigint => (BigInt(physical >>> 12) << 10n) | flags;

/** Does `body` with PLACE counting 0 … times - 1. */
function times(guest: Program, count: number, body: (guest: Program) => void): Program {
  guest.li(PLACE, 0);
  const next = guest.here;
  body(guest);
  guest.emit(addi(PLACE, PLACE, 1)).li(T3, count);
  return guest.emit(b(4, PLACE, T3, next - guest.here));
}

/** IOMMU with a command queue and the drive's context and tables; the drive with one I/O queue pair, every entry of it a read of 4 KiB to IOVA 0. */
function withDrive(): Program {
  const guest = new Program();
  for (const index of [1, 2]) guest.store(8, TABLES + 8 * index, entry(TABLES + 0x1000, 1n));
  guest.store(8, TABLES + 0x1000, 1n).store(8, TABLES + 0x1010, 5n << 12n);
  guest.store(8, TABLES + 0x1018, (8n << 60n) | BigInt(ROOT >>> 12));
  guest.store(8, ROOT, entry(MIDDLE, 1n));
  for (let n = 0; n < 9; n++) guest.store(8, MIDDLE + 8 * n, entry(LEAVES + 4096 * n, 1n));
  guest.li(T1, entry(DATA, LEAF)).li(T2, 1 << 10);
  times(guest, DATA_PAGES, () => {
    guest.li(T0, LEAVES).emit(i(0x13, 1, T3, PLACE, 3), r(0x33, 0, 0, T0, T0, T3));
    guest.emit(sd(T1, T0, 0), r(0x33, 0, 0, T1, T1, T2));
  });
  for (const queue of [ADMIN_SQ, ADMIN_CQ, SQ, CQ])
    guest.store(8, LEAVES + 8 * (DATA_PAGES + queue), entry(QUEUES + 4096 * queue, LEAF));
  withCommandQueue((BigInt(TABLES >>> 12) << 10n) | 3n, guest);

  const config = ECAM_BASE + DRIVE * 4096;
  guest
    .store(4, config + 0x10, PCI_MEMORY32_BASE)
    .store(4, config + 0x14, 0)
    .store(2, config + 4, 6);
  const bar = PCI_MEMORY32_BASE;
  guest.store(4, bar + AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
  guest.store(8, bar + ASQ, iovaOf(ADMIN_SQ)).store(8, bar + ACQ, iovaOf(ADMIN_CQ));
  guest.store(4, bar + CC, 0x0046_0001); // entries of 64 and 16 bytes; EN
  const ready = guest.here;
  guest
    .load(4, T1, bar + CSTS)
    .emit(i(0x13, 7, T1, T1, 1))
    .branchZero(T1, true, ready);
  command(guest, ADMIN_SQ, 0, { opcode: CREATE_CQ, prp1: iovaOf(CQ), dword10: ((ENTRIES - 1) << 16) | 1, dword11: 1 });
  command(guest, ADMIN_SQ, 1, {
    opcode: CREATE_SQ,
    prp1: iovaOf(SQ),
    dword10: ((ENTRIES - 1) << 16) | 1,
    dword11: 0x1_0001,
  });
  guest.emit(FENCE).store(4, bar + DOORBELLS, 2);
  // the second answer, with its phase
  const answered = guest.here;
  guest.load(4, T1, QUEUES + 4096 * ADMIN_CQ + 16 + 12).emit(i(0x13, 5, T1, T1, 16), i(0x13, 7, T1, T1, 1));
  // taken: the drive's interrupt pin goes down
  guest.branchZero(T1, true, answered).store(4, bar + DOORBELLS + 4, 2);
  for (let n = 0; n < ENTRIES; n++) command(guest, SQ, n, { opcode: READ, prp1: 0, dword12: 7 });
  guest
    .li(BELLS, bar + DOORBELLS)
    .li(TAIL, 0)
    .li(HEAD, 0)
    .li(COMPLETIONS, QUEUES + 4096 * CQ);
  return guest.li(PHASE_BIT, 0x1_0000).li(PHASE, 0x1_0000);
}

interface DriveCommand {
  readonly opcode: number;
  readonly prp1: number;
  readonly dword10?: number;
  readonly dword11?: number;
  readonly dword12?: number;
}

/** Writes a command into memory that is zero. */
function command(
  guest: Program,
  queue: number,
  slot: number,
  { opcode, prp1, dword10 = 0, dword11 = 0, dword12 = 0 }: DriveCommand,
): void {
  const at = QUEUES + 4096 * queue + 64 * slot;
  guest.store(4, at, opcode);
  if (opcode === READ) guest.store(4, at + 4, 1); // the namespace
  if (prp1 !== 0) guest.store(8, at + 24, prp1);
  [dword10, dword11, dword12].forEach((dword, n) => {
    if (dword !== 0) guest.store(4, at + 40 + 4 * n, dword);
  });
}

/** `register` = (`register` + 1) modulo ENTRIES. */
const next = (register: number): number[] => [addi(register, register, 1), i(0x13, 7, register, register, ENTRIES - 1)];

/** Has the drive carry out the next entry of its queue, and waits. `checked`: an error ends the guest with a failure. */
function read(guest: Program, checked: boolean): void {
  guest.emit(...next(TAIL), FENCE, store(2, BELLS, TAIL, 8));
  guest.emit(i(0x13, 1, T0, HEAD, 4), r(0x33, 0, 0, T0, T0, COMPLETIONS));
  guest.emit(load(6, T1, T0, 12), r(0x33, 7, 0, T2, T1, PHASE_BIT), b(1, T2, PHASE, -8));
  if (checked) guest.emit(i(0x13, 5, T1, T1, 17)).ifLess(0, T1, (failed) => failed.reset(0, 1));
  guest.emit(...next(HEAD), b(1, HEAD, 0, 8), r(0x33, 4, 0, PHASE, PHASE, PHASE_BIT), store(2, BELLS, HEAD, 12));
}

/** Puts the command of `invalidating` and a fence into the command queue, and waits. */
function invalidate(guest: Program): void {
  for (const register of [S3, S4]) {
    guest.emit(i(0x13, 1, T2, S2, 4), r(0x33, 0, 0, T2, T2, S0), sd(register, T2, 0));
    guest.emit(sd(0, T2, 8), addi(S2, S2, 1), r(0x33, 7, 0, S2, S2, S5));
  }
  guest.emit(FENCE, store(2, S1, S2, REG.cqt), load(2, T0, S1, REG.cqh), b(1, T0, S2, -4));
}

function invalidating(guest: Program, command: bigint): Program {
  guest.li(S0, COMMAND_QUEUE).li(S1, VIOMMU_BASE).li(S2, 0).li(S3, command).li(S4, IOFENCE);
  return guest.li(S5, 2 ** QUEUE_LOG2 - 1);
}

const reads = (count: number): Program => repeated(withDrive(), count, (guest) => read(guest, true));

/** Each read finds its page not mapped; what is recorded of it is taken from the fault queue. */
function faults(count: number): Program {
  const guest = withDrive().store(8, LEAVES, 0);
  guest.store(8, VIOMMU_BASE + REG.fqb, (BigInt(FAULT_QUEUE >>> 12) << 10n) | BigInt(FAULT_QUEUE_LOG2 - 1));
  guest
    .store(4, VIOMMU_BASE + REG.fqcsr, 1)
    .li(S1, VIOMMU_BASE)
    .emit(load(2, S2, S1, REG.fqh));
  return repeated(guest, count, () => {
    read(guest, false);
    guest.emit(load(2, T0, S1, REG.fqt), b(0, T0, S2, -4), addi(S2, T0, 0), store(2, S1, S2, REG.fqh));
  });
}

/** As a driver under strict translation: the page is mapped, read to, taken back, and the IOMMU told of it. */
function strict(count: number): Program {
  // AV; the address, 0, is in the second doubleword
  const guest = invalidating(withDrive(), IOTINVAL_VMA | (1n << 10n));
  return repeated(guest, count, () => {
    guest
      .li(T0, LEAVES)
      .li(T1, entry(DATA, LEAF))
      .emit(sd(T1, T0, 0));
    read(guest, true);
    guest.li(T0, LEAVES).emit(sd(0, T0, 0));
    invalidate(guest);
  });
}

/** The drive has read to every page; then another address space's translations are invalidated again and again. */
function pairsBesideCachedPages(count: number): Program {
  const guest = invalidating(withDrive(), (IOTINVAL_VMA & ~(0xf_ffffn << 12n)) | (6n << 12n));
  times(guest, DATA_PAGES, () => {
    guest
      .emit(i(0x13, 1, T0, TAIL, 6))
      .li(T1, QUEUES + 4096 * SQ)
      .emit(r(0x33, 0, 0, T0, T0, T1));
    guest.emit(i(0x13, 1, T1, PLACE, 12), sd(T1, T0, 24));
    read(guest, true);
  });
  return repeated(guest, count, () => invalidate(guest));
}

const DRIVEN = { drive: true, units: 1 } as const;
export const NVME_OPERATIONS: readonly GuestOperation[] = [
  {
    work: "cached",
    name: "pairs with 4,096 pages cached",
    unit: "pairs/s",
    guest: pairsBesideCachedPages,
    count: 40_000,
    ...DRIVEN,
  },
  { work: "nvme", name: "NVMe reads of 4 KiB, awaited", unit: "reads/s", guest: reads, count: 20_000, ...DRIVEN },
  {
    work: "faults",
    name: "NVMe commands that fault, awaited",
    unit: "commands/s",
    guest: faults,
    count: 10_000,
    ...DRIVEN,
  },
  {
    work: "strict",
    name: "map, NVMe read of 4 KiB, unmap, strict",
    unit: "reads/s",
    guest: strict,
    count: 10_000,
    ...DRIVEN,
  },
];
