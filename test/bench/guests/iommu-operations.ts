// Guests of `bench -- qemu`: one bare-metal RV64 program an operation, for S-mode, the same file here and on QEMU's virt machine, whose IOMMU stands
// at the same address. It does its operation so many times and shuts the machine down.
//
//     image:  program ── 0x4000 device directory ── 0x5000.. tables of three levels ── 0x8000 pointers to chase ── 0x48000 CRC's table
//
// The device directory has one level and one device, 0: its context is the same in the base and the extended format, but for what follows it (0).

import { REG } from "../../../host/arch/riscv/registers.ts";
import { VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import { Program, T0, T1 } from "../../vmm/rv64-program.ts";
import { addi, b, i, ld, load, r, sd, store } from "../../vmm/vcpu/riscv64/encode.ts";
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
  S6,
  T2,
  T3,
  withCommandQueue,
} from "./guest-operation.ts";

/** Where the file asks to be put (QEMU's firmware lies below). */
const LOADED = 0x8020_0000;
/**
 * Where copies go: no multiple of 1 MiB from where they come from. TLBs in software are direct-mapped (256 pages in QEMU's, as a guest begins):
 * there every load and store would put the other's page out, and the row would be of that.
 */
const COPY = 0x8054_0000;
const DIRECTORY = 0x4000;
const TABLES = 0x5000;
const CHASE = 0x8000;
/** The 256 remainders of CRC-32 (ISO 3309, reflected), and the bytes that it is taken over: the nodes. */
const REMAINDERS = 0x48000;
/** A node every 64 bytes: 256 KiB. */
const NODES = 4096;
const IMAGE_BYTES = REMAINDERS + 0x1000;
/** ELF64 header, and one program header. */
const HEADER_BYTES = 64 + 56;

/** Of the device that is assigned here, 00:01.0. */
const IODIR_INVAL_DDT = 3n | (1n << 33n) | (8n << 40n);

/** The directory has one level. */
const withIommu = (): Program =>
  withCommandQueue((BigInt((LOADED + DIRECTORY) >>> 12) << 10n) | 2n).li(S1, VIOMMU_BASE);

/** `commands` - 1 times `command` and a fence, awaited. */
function fences(count: number, command: bigint, commands: number): Program {
  const guest = withIommu().li(S0, COMMAND_QUEUE).li(S2, 0).li(S3, command).li(S4, IOFENCE);
  guest.li(S5, 2 ** QUEUE_LOG2 - 1);
  const put = (program: Program, register: number): Program =>
    program.emit(
      i(0x13, 1, T2, S2, 4),
      r(0x33, 0, 0, T2, T2, S0),
      sd(register, T2, 0),
      sd(0, T2, 8),
      addi(S2, S2, 1),
      r(0x33, 7, 0, S2, S2, S5),
    );
  return repeated(guest, count, (program) => {
    program.li(T1, commands - 1);
    const next = program.here;
    put(program, S3)
      .emit(addi(T1, T1, -1))
      .branchZero(T1, false, next);
    put(program, S4).emit(FENCE, store(2, S1, S2, REG.cqt));
    program.emit(load(2, T0, S1, REG.cqh), b(1, T0, S2, -4));
  });
}

/** Asks by the debug registers for a page of device 0, another one each time. */
function debugTranslations(count: number): Program {
  const guest = withIommu().li(S3, 0b1001).li(S5, 511);
  return repeated(guest, count, (program) => {
    program.emit(r(0x33, 7, 0, T0, S6, S5), i(0x13, 1, T0, T0, 12));
    program.emit(sd(T0, S1, REG.tr_req_iova), sd(S3, S1, REG.tr_req_ctl));
    program.emit(ld(T1, S1, REG.tr_req_ctl), i(0x13, 7, T1, T1, 1), b(1, T1, 0, -8));
    program.emit(ld(T2, S1, REG.tr_response));
  });
}

/** Eight loads of a register, or stores to one, a round. */
const registerReads = (count: number): Program =>
  repeated(withIommu(), count / 8, (program) => {
    for (let n = 0; n < 8; n++) program.emit(load(2, T0, S1, REG.capabilities));
  });
const registerWrites = (count: number): Program =>
  repeated(withIommu(), count / 8, (program) => {
    for (let n = 0; n < 8; n++) program.emit(store(2, S1, S6, REG.tr_req_iova));
  });

/** Twelve instructions of arithmetic a round, with the two that count: 16. */
const arithmetic = (count: number): Program =>
  repeated(new Program().li(T0, 88172645463325252n).li(T2, 0), count / 16, (program) => {
    for (let n = 0; n < 2; n++) {
      program.emit(i(0x13, 1, T1, T0, 13), r(0x33, 4, 0, T0, T0, T1), i(0x13, 5, T1, T0, 7));
      program.emit(r(0x33, 4, 0, T0, T0, T1), i(0x13, 1, T1, T0, 17), r(0x33, 4, 0, T0, T0, T1));
    }
    program.emit(r(0x33, 0, 0, T2, T2, T0));
  });

/** Dependent loads over 256 KiB, eight a round. */
const pointerChase = (count: number): Program =>
  repeated(new Program().li(T0, LOADED + CHASE), count / 8, (program) => {
    for (let n = 0; n < 8; n++) program.emit(ld(T0, T0, 0));
  });

/** Copies 64 KiB over and over, 64 bytes a step; an operation is 64 bytes. */
const copy = (count: number): Program =>
  repeated(new Program().li(S0, LOADED).li(S1, COPY), count / 1024, (program) => {
    program.emit(addi(T0, S0, 0), addi(T1, S1, 0)).li(T2, 1024);
    const next = program.here;
    for (let n = 0; n < 8; n++) program.emit(ld(T3, T0, 8 * n), sd(T3, T1, 8 * n));
    program.emit(addi(T0, T0, 64), addi(T1, T1, 64), addi(T2, T2, -1)).branchZero(T2, false, next);
  });

/** CRC-32 of 64 KiB over and over, a table lookup for each byte; an operation is a byte. */
const crc = (count: number): Program =>
  repeated(new Program().li(S0, LOADED + CHASE).li(S1, LOADED + REMAINDERS), count / 65536, (program) => {
    program
      .emit(addi(T0, S0, 0))
      .li(T1, 65536)
      .emit(addi(T2, 0, -1));
    const next = program.here;
    program.emit(load(4, T3, T0, 0), addi(T0, T0, 1), addi(T1, T1, -1));
    program.emit(r(0x33, 4, 0, T3, T3, T2), i(0x13, 7, T3, T3, 255), i(0x13, 1, T3, T3, 2), r(0x33, 0, 0, T3, T3, S1));
    program.emit(load(6, T3, T3, 0), i(0x1b, 5, T2, T2, 8), r(0x33, 4, 0, T2, T2, T3)).branchZero(T1, false, next);
  });

export const IOMMU_OPERATIONS: readonly GuestOperation[] = [
  {
    work: "iotinval",
    name: "IOTINVAL.VMA and IOFENCE, awaited",
    unit: "pairs/s",
    guest: (count) => fences(count, IOTINVAL_VMA, 2),
    count: 800_000,
    units: 1,
  },
  {
    work: "iodir",
    name: "IODIR.INVAL_DDT and IOFENCE, awaited",
    unit: "pairs/s",
    guest: (count) => fences(count, IODIR_INVAL_DDT, 2),
    count: 800_000,
    units: 1,
  },
  {
    work: "batches",
    name: "batches of 512 commands",
    unit: "commands/s",
    guest: (count) => fences(count, IOTINVAL_VMA, 512),
    count: 16_384,
    units: 512,
  },
  {
    work: "debug",
    name: "debug translation",
    unit: "translations/s",
    guest: debugTranslations,
    count: 500_000,
    units: 1,
  },
  { work: "read", name: "register read", unit: "reads/s", guest: registerReads, count: 4_000_000, units: 1 },
  { work: "write", name: "register write", unit: "writes/s", guest: registerWrites, count: 4_000_000, units: 1 },
  { work: "arithmetic", name: "arithmetic", unit: "instructions/s", guest: arithmetic, count: 1_600_000_000, units: 1 },
  { work: "chase", name: "pointer chase, 256 KiB", unit: "loads/s", guest: pointerChase, count: 120_000_000, units: 1 },
  { work: "copy", name: "copy", unit: "bytes/s", guest: copy, count: 65_536_000, units: 64 },
  { work: "crc", name: "CRC-32", unit: "bytes/s", guest: crc, count: 65_536_000, units: 1 },
];

/** A guest as an ELF executable of one segment. */
export function guestFile(program: Program): Uint8Array {
  const code = program.bytes;
  if (code.length > DIRECTORY) throw new Error("the program reaches into the directory");
  const file = new Uint8Array(HEADER_BYTES + IMAGE_BYTES);
  const header = new DataView(file.buffer);
  // ELFCLASS64, little-endian; ET_EXEC for EM_RISCV.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.setUint16(16, 2, true);
  header.setUint16(18, 243, true);
  header.setUint32(20, 1, true);
  header.setBigUint64(24, BigInt(LOADED), true);
  header.setBigUint64(32, 64n, true);
  header.setUint16(52, 64, true);
  header.setUint16(54, 56, true);
  header.setUint16(56, 1, true);
  // PT_LOAD, readable, writable, executable.
  header.setUint32(64, 1, true);
  header.setUint32(68, 7, true);
  header.setBigUint64(72, BigInt(HEADER_BYTES), true);
  for (const at of [80, 88]) header.setBigUint64(at, BigInt(LOADED), true);
  for (const at of [96, 104]) header.setBigUint64(at, BigInt(IMAGE_BYTES), true);
  file.set(code, HEADER_BYTES);
  const view = new DataView(file.buffer, HEADER_BYTES);
  const pointer = (offset: number, flags: bigint): bigint => (BigInt((LOADED + offset) >>> 12) << 10n) | flags;
  // tc.V; ta; fsc: Sv39 (§3.1.3).
  view.setBigUint64(DIRECTORY, 1n, true);
  view.setBigUint64(DIRECTORY + 16, 5n << 12n, true);
  view.setBigUint64(DIRECTORY + 24, (8n << 60n) | BigInt((LOADED + TABLES) >>> 12), true);
  view.setBigUint64(TABLES, pointer(TABLES + 0x1000, 1n), true);
  view.setBigUint64(TABLES + 0x1000, pointer(TABLES + 0x2000, 1n), true);
  // V, R, W, U, A, D.
  for (let n = 0; n < 512; n++) view.setBigUint64(TABLES + 0x2000 + 8 * n, (BigInt(0x80400 + n) << 10n) | 0xd7n, true);
  for (let byte = 0; byte < 256; byte++) {
    let remainder = byte;
    for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ ((remainder & 1) * 0xedb88320);
    view.setUint32(REMAINDERS + 4 * byte, remainder, true);
  }
  // One cycle through all nodes: a step that has no factor in common with their number.
  for (let n = 0; n < NODES; n++) {
    const next = (n + 1597) % NODES;
    view.setBigUint64(CHASE + 64 * n, BigInt(LOADED + CHASE + 64 * next), true);
  }
  return file;
}
