// The guest driver's queue of a CMDQV, brought up as Linux does in a virtual machine (tegra241-cmdqv.c): the one VINTF, all of its queues, of which the
// first is used. It carries what a queue without HYP_OWN takes; the rest goes to the SMMU's own queue.

import {
  CMD_ATC_INV,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  describeCommand,
} from "../../../../host/arch/smmuv3/commands.ts";
import {
  ALLOC_ALLOCATED,
  CMDQV_EN,
  CMDQV_PARAM,
  CMDQV_REG,
  VCMDQ_CONS,
  VCMDQ_EN,
  VCMDQ_PAGE1_REG,
  VCMDQ_REG,
  VCMDQ_STRIDE,
  VINTF_EN,
  VINTF_HYP_OWN,
  VINTF_REG,
  vintfPage0,
  vintfPage1,
} from "../../../../host/arch/smmuv3/tegra241-cmdqv.ts";
import type { VcpuPort } from "../../../vcpu/port.ts";
import type { GuestMemory } from "../../guest-driver.ts";
import { CMDQV_OFFSET } from "../guest-cmdqv.ts";

/** A page of commands. */
const LOG2 = 8;
const ENTRIES = 1 << LOG2;
/** Reads of a register before a wait is given up; each costs a trap's time. */
const PATIENCE = 1000;

/** True for a command that a guest's queue takes (Linux: tegra241_guest_vcmdq_supports_cmd). */
export function isForOwnQueue(word0: bigint): boolean {
  const opcode = Number(word0 & 0xffn);
  return opcode === CMD_TLBI_NH_ASID || opcode === CMD_TLBI_NH_VA || opcode === CMD_ATC_INV;
}

/** Not state: a scenario plays the guest, and what it knows is its own. */
export class GuestCommandQueues {
  /** Queues that were brought up. */
  readonly count: number;
  readonly #port: VcpuPort;
  readonly #ram: GuestMemory;
  readonly #base: number;
  readonly #ring: bigint;
  #prod = 0;
  /** Commands since the last CMD_SYNC. */
  #unsynced = 0;

  /** `base`: of the SMMU's registers. Throws if it does not come up. */
  constructor(port: VcpuPort, ram: GuestMemory, base: number) {
    this.#port = port;
    this.#ram = ram;
    this.#base = base + CMDQV_OFFSET;
    const config = this.#read(CMDQV_REG.CONFIG);
    this.#configure(CMDQV_REG.CONFIG, CMDQV_REG.STATUS, config & ~CMDQV_EN);
    this.#configure(CMDQV_REG.CONFIG, CMDQV_REG.STATUS, config | CMDQV_EN);
    const param = [BigInt(this.#read(CMDQV_REG.PARAM))];
    this.count = 1 << Number(CMDQV_PARAM.get(param, "NUM_VCMDQ_LOG2") - CMDQV_PARAM.get(param, "NUM_VINTF_LOG2"));
    for (let queue = 0; queue < this.count; queue++) this.#write(CMDQV_REG.CMDQ_ALLOC + 4 * queue, queue << 1);
    const vintf = CMDQV_REG.VINTF;
    this.#configure(vintf + VINTF_REG.CONFIG, vintf + VINTF_REG.STATUS, 0);
    this.#write(vintf + VINTF_REG.CONFIG, VINTF_HYP_OWN);
    this.#configure(vintf + VINTF_REG.CONFIG, vintf + VINTF_REG.STATUS, VINTF_HYP_OWN | VINTF_EN);
    if ((this.#read(vintf + VINTF_REG.CONFIG) & VINTF_HYP_OWN) !== 0) throw new Error("a guest's VINTF says HYP_OWN");
    const rings = Array.from({ length: this.count }, () => ram.allocate(1));
    for (const [queue, ring] of rings.entries()) this.#start(queue, ring);
    this.#ring = rings[0]!;
  }

  /** tegra241_vcmdq_hw_init. */
  #start(queue: number, ring: bigint): void {
    this.#write(CMDQV_REG.CMDQ_ALLOC + 4 * queue, (queue << 1) | ALLOC_ALLOCATED);
    const page0 = vintfPage0(0) + VCMDQ_STRIDE * queue;
    const page1 = vintfPage1(0) + VCMDQ_STRIDE * queue;
    this.#configure(page0 + VCMDQ_REG.CONFIG, page0 + VCMDQ_REG.STATUS, 0);
    this.#write(page0 + VCMDQ_REG.PROD, 0);
    this.#write(page0 + VCMDQ_REG.CONS, 0);
    this.#write64(page1 + VCMDQ_PAGE1_REG.BASE, 0n);
    this.#write64(page1 + VCMDQ_PAGE1_REG.CONS_INDX_BASE, 0n);
    const error = this.#read(page0 + VCMDQ_REG.GERROR);
    if (error !== this.#read(page0 + VCMDQ_REG.GERRORN)) this.#write(page0 + VCMDQ_REG.GERRORN, error);
    this.#write64(page1 + VCMDQ_PAGE1_REG.BASE, ring | BigInt(LOG2));
    this.#configure(page0 + VCMDQ_REG.CONFIG, page0 + VCMDQ_REG.STATUS, VCMDQ_EN);
  }

  /** Stores a command; nothing happens until `ringDoorbell`. */
  push(word0: bigint, word1: bigint): void {
    if (this.#waiting() === ENTRIES) throw new Error("the guest's own command queue is full");
    const at = this.#ring + BigInt((this.#prod % ENTRIES) * 16);
    this.#ram.write64(at, word0);
    this.#ram.write64(at + 8n, word1);
    this.#prod = (this.#prod + 1) % (2 * ENTRIES);
    this.#unsynced++;
  }

  ringDoorbell(): void {
    this.#write(this.#register(VCMDQ_REG.PROD), this.#prod);
  }

  /** CMD_SYNC, doorbell, and waits until CONS has passed it, if anything went before. Throws if the queue stopped with an error. */
  fence(): void {
    if (this.#unsynced === 0) return;
    this.push(BigInt(CMD_SYNC), 0n);
    this.#unsynced = 0;
    this.ringDoorbell();
    for (let i = 0; i < PATIENCE; i++) {
      if (this.#waiting() === 0) return;
      const complaint = this.error;
      if (complaint !== null) throw new Error(`the guest's own command queue stopped: ${complaint}`);
    }
    throw new Error(`the guest's own command queue does not reach ${this.#prod}`);
  }

  /** "CERROR_ILL_ACCESS at CMD_…" while the queue stands still because of an error; null otherwise. */
  get error(): string | null {
    const active = this.#read(this.#register(VCMDQ_REG.GERROR)) ^ this.#read(this.#register(VCMDQ_REG.GERRORN));
    if (active === 0) return null;
    const cons = this.#read(this.#register(VCMDQ_REG.CONS));
    const at = this.#ring + BigInt((cons % ENTRIES) * 16);
    const error = Number(VCMDQ_CONS.get([BigInt(cons)], "ERR"));
    const name = VCMDQ_CONS.fields.ERR.values![error] ?? `error ${error}`;
    return `${name} at ${describeCommand(this.#ram.read64(at), this.#ram.read64(at + 8n))}`;
  }

  /** As Linux does: the command that stopped the queue becomes a CMD_SYNC, and the error is acknowledged. */
  skipCommand(): void {
    const cons = this.#read(this.#register(VCMDQ_REG.CONS));
    const at = this.#ring + BigInt((cons % ENTRIES) * 16);
    this.#ram.write64(at, BigInt(CMD_SYNC));
    this.#ram.write64(at + 8n, 0n);
    this.#write(this.#register(VCMDQ_REG.GERRORN), this.#read(this.#register(VCMDQ_REG.GERROR)));
  }

  #waiting(): number {
    const cons = this.#read(this.#register(VCMDQ_REG.CONS)) % (2 * ENTRIES);
    return (this.#prod - cons + 2 * ENTRIES) % (2 * ENTRIES);
  }

  /** Of the first queue, in the VINTF's page 0. */
  #register(offset: number): number {
    return vintfPage0(0) + offset;
  }

  #configure(config: number, status: number, value: number): void {
    this.#write(config, value);
    for (let i = 0; i < PATIENCE; i++) if (((this.#read(status) ^ value) & 1) === 0) return;
    throw new Error(
      `the CMDQV does not acknowledge: register 0x${status.toString(16)} stays 0x${this.#read(status).toString(16)}`,
    );
  }

  #read(offset: number): number {
    return this.#port.load(this.#base + offset, 4) >>> 0;
  }

  #write(offset: number, value: number): void {
    this.#port.store(this.#base + offset, 4, value >>> 0, 0);
  }

  #write64(offset: number, value: bigint): void {
    this.#port.store(this.#base + offset, 8, Number(value & 0xffffffffn), Number(value >> 32n));
  }
}
