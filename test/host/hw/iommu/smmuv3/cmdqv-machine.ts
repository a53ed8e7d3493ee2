// The small SMMUv3 machine with a CMDQV beside it, and verbs for whoever drives it: the hypervisor, which sees all registers, and guests, who see page 0
// of their VINTF. Offsets are written out here (tegra241-cmdqv.c), not taken from the table under test.

import { type CommandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { REG } from "../../../../../host/arch/smmuv3/registers.ts";
import { saveTree } from "../../../../../host/base/state.ts";
import type { CmdqvOptions } from "../../../../../host/hw/iommu/smmuv3/cmdqv/options.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { type Fields, Machine, USER_RW } from "./machine.ts";

export const VCMDQ = { CONS: 0, PROD: 4, CONFIG: 8, STATUS: 0xc, GERROR: 0x10, GERRORN: 0x14 } as const;
export const CMDQV_WIRE = 4;

export class CmdqvMachine extends Machine {
  readonly #rings = new Map<string, { frame: number; log2: number }>();

  constructor(cmdqv: CmdqvOptions = { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 2 }, options: Smmuv3Options = {}) {
    super({ ...options, cmdqv });
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  get(offset: number): number {
    return this.smmu.cmdqv!.mmioRead(offset, 4);
  }

  get64(offset: number): bigint {
    const low = this.smmu.cmdqv!.mmioRead(offset, 8);
    return (BigInt(this.smmu.cmdqv!.high) << 32n) | BigInt(low);
  }

  put(offset: number, value: number): void {
    this.smmu.cmdqv!.mmioWrite(offset, 4, value >>> 0, 0);
  }

  put64(offset: number, value: bigint): void {
    this.smmu.cmdqv!.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number(value >> 32n));
  }

  vintf(vintf: number, offset: number): number {
    return 0x1000 + 0x100 * vintf + offset;
  }

  /** Register of a logical queue in its VINTF's page 0. */
  logical(vintf: number, queue: number, register: number): number {
    return 0x30000 + 0x20000 * vintf + 0x80 * queue + register;
  }

  // --- set-up, as a kernel does it ---------------------------------------------------------------------------------------------

  allocateQueue(queue: number, vintf: number, logical: number): void {
    this.put(0x200 + 4 * queue, 1 | (logical << 1) | (vintf << 15));
  }

  /** A guest's VINTF, or with `hypervisor` the kernel's, with `queues` logical queues that run; VCMDQs in the order of the calls. */
  enableVintf(vintf: number, { vmid = 0, hypervisor = false, queues = 1, log2 = 4 } = {}): void {
    this.put(this.vintf(vintf, 0), (vmid << 1) | (hypervisor ? 1 << 17 : 0));
    this.put(this.vintf(vintf, 0), 1 | (vmid << 1) | (hypervisor ? 1 << 17 : 0));
    for (let logical = 0; logical < queues; logical++) {
      this.allocateQueue(vintf * 2 + logical, vintf, logical);
      this.enableQueue(vintf, logical, log2);
    }
  }

  enableQueue(vintf: number, logical: number, log2 = 4): void {
    const frame = this.allocate(Math.max(1, (16 << log2) >> 12));
    this.#rings.set(`${vintf} ${logical}`, { frame, log2 });
    this.put64(this.logical(vintf, logical, 0x10000), (BigInt(frame) << 12n) | BigInt(log2));
    this.put(this.logical(vintf, logical, VCMDQ.CONFIG), 1);
  }

  /** Guest's id of a stream. */
  nameStream(vintf: number, index: number, virtualSid: number, sid: number): void {
    this.put(this.vintf(vintf, 0x80 + 4 * index), sid);
    this.put(this.vintf(vintf, 0x40 + 4 * index), (virtualSid << 1) | 1);
  }

  // --- queues ------------------------------------------------------------------------------------------------------------------

  storeCommand(vintf: number, logical: number, word0: bigint, word1: bigint): void {
    const { frame, log2 } = this.#rings.get(`${vintf} ${logical}`)!;
    const prod = this.get(this.logical(vintf, logical, VCMDQ.PROD));
    const at = (prod % 2 ** log2) * 16;
    this.storeWords(frame + (at >> 12), at & 0xfff, [word0, word1]);
    this.put(this.logical(vintf, logical, VCMDQ.PROD), (prod + 1) % (2 * 2 ** log2));
  }

  queueIn(vintf: number, logical: number, name: CommandName, fields: Fields = {}): void {
    this.storeCommand(vintf, logical, ...encodeCommand(name, fields));
  }

  /** Queues one command in a VINTF's first queue and lets time pass. */
  give(vintf: number, name: CommandName, fields: Fields = {}): void {
    this.queueIn(vintf, 0, name, fields);
    this.pass();
  }

  /** Lets the hardware work as long as it has something to do now. */
  pass(ns = 10_000): void {
    const until = this.clock.now + ns;
    while (this.clock.nextDeadline <= until) {
      this.clock.advanceTo(this.clock.nextDeadline);
      this.clock.fireDue();
    }
    this.clock.advanceTo(until);
  }

  // --- what came of it ---------------------------------------------------------------------------------------------------------

  /** Index and error of a logical queue. */
  cons(vintf: number, logical = 0): { index: number; error: number } {
    const cons = this.get(this.logical(vintf, logical, VCMDQ.CONS));
    return { index: cons & 0xfffff, error: cons >>> 24 };
  }

  active(vintf: number, logical = 0): number {
    return this.get(this.logical(vintf, logical, VCMDQ.GERROR)) ^ this.get(this.logical(vintf, logical, VCMDQ.GERRORN));
  }

  acknowledge(vintf: number, logical = 0): void {
    this.put(this.logical(vintf, logical, VCMDQ.GERRORN), this.get(this.logical(vintf, logical, VCMDQ.GERROR)));
  }

  /** The SMMU's errors that are active. */
  get globalErrors(): number {
    return this.read32(REG.GERROR) ^ this.read32(REG.GERRORN);
  }

  /** Everything of the SMMU but its CMDQV: registers, caches, stalls, invalidations under way. */
  smmuState(): unknown {
    const { parts } = saveTree(this.smmu) as unknown as { parts: Readonly<Record<string, unknown>> };
    const { cmdqv: _cmdqv, executor: _executor, ...rest } = parts;
    return rest;
  }

  // --- streams -----------------------------------------------------------------------------------------------------------------

  /** A stream of (VMID, ASID) with one page, cached, then moved in memory; whether the old translation is still used. */
  staleStream(sid: number, vmid: number, asid: number): () => boolean {
    const root = this.makeFirstStage(sid, { ASID: asid, ASET: 0 }, { S2VMID: vmid });
    this.map(root, 0x10, 0x80400 + sid, USER_RW);
    this.request(sid, 0x10000n);
    this.map(root, 0x10, 0x80600 + sid, USER_RW);
    return () => this.request(sid, 0x10000n) === BigInt(0x80400 + sid) << 12n;
  }
}
