// A host of two SMMUv3s with devices that user space may have, what is watched on it, and what the hardware may be made to say.
//
// Watched: every frame that a device of user space's reaches is pinned or a doorbell; GERROR changes only after a command that Linux passes to the
// hardware although that may refuse it, or a device does not answer it; it is acknowledged when the call is over.

import { PAGE_SIZE } from "../../../host/base/address.ts";
import type { TracedEvent } from "../../../host/base/trace.ts";
import type { Smmuv3 } from "../../../host/hw/iommu/smmuv3/smmu.ts";
import { type Machine, machine, name } from "../../host/kernel/machine.ts";
import type { Dice } from "../attachments/dice.ts";

const GERROR = 0x60;
const GERRORN = 0x64;
/** Interrupt files of the machine. */
const DOORBELLS = 2;

/** Requester ids of PCI functions, and the name of the platform device that may be stalled. */
export const FUNCTIONS = [0x0108, 0x0110, 0x0118];
export const PLATFORM = "edu0";
export const DEVICE_NAMES: readonly string[] = [...FUNCTIONS.map(name), PLATFORM];

export class SmmuHost {
  readonly machine: Machine;
  readonly #framesAtFirst: number;
  readonly #acknowledged: number[];
  /** The first thing that was seen and must not be. */
  problem: string | null = null;
  /** Commands went out that may stop the queue: GERROR may change until the next check. */
  mayStop = false;

  constructor(dice: Dice) {
    const ats = { ats: true, pri: true, pasidBits: 4 };
    // Small tables and queues, so that a round is cheap and the event queue overflows.
    const features = { SIDSIZE: 12, SSIDSIZE: 6, EVENTQS: 4, CMDQS: 8, STALL_MAX: 8, RIL: dice.chance(80) };
    // A CMDQV beside one of them, in half of the rounds: VINTF 0 is the kernel's, three are for guests.
    const cmdqv = dice.chance(50) ? { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 1 } : null;
    this.machine = machine({
      smmus: [{ features, cmdqv }, { features: { ...features, MSI: false } }],
      devices: [
        { rid: FUNCTIONS[0]!, options: ats },
        { rid: FUNCTIONS[1]! },
        { rid: FUNCTIONS[2]!, iommu: 1, options: ats },
      ],
      platform: [{ name: PLATFORM, deviceId: 0x200, canStall: true }],
      deviations: dice.chance(50) ? ["smmuv3-relay-page-requests", "smmuv3-relay-table-fetches"] : [],
    });
    this.machine.assign();
    this.machine.kernel.platform.bind(PLATFORM, "vfio-platform");
    this.#framesAtFirst = this.machine.kernel.frames.usedPages;
    this.#acknowledged = this.smmus.map((smmu) => smmu.registers.mmioRead(GERROR, 4));
    this.machine.trace.addSink({ event: (event) => this.#see(event) });
  }

  get smmus(): Smmuv3[] {
    return this.machine.iommus as Smmuv3[];
  }

  #see(event: TracedEvent): void {
    if (event.type !== "dma" || event.result !== "ok" || event.spa === undefined || this.problem !== null) return;
    const { kernel, interruptFiles } = this.machine;
    const kind = kernel.iommu.deviceNamed(event.device)?.attachments.requester?.domain.kind;
    // Nobody has it: the kernel's own identity domain.
    if (kind === "identity") return;
    const frame = Number(event.spa / BigInt(PAGE_SIZE));
    const doorbell = frame >= interruptFiles.basePfn && frame < interruptFiles.basePfn + DOORBELLS;
    if (doorbell || kernel.frames.pins.countOf(frame) > 0) return;
    this.problem = `${event.device} reached frame 0x${frame.toString(16)}, which is not pinned, at IOVA 0x${event.iova.toString(16)}`;
  }

  /** After a call: what is wrong, or null. */
  check(): string | null {
    for (const [index, smmu] of this.smmus.entries()) {
      const error = smmu.registers.mmioRead(GERROR, 4);
      if (error !== this.#acknowledged[index] && !this.mayStop) {
        return `GERROR of ${smmu.name} went from ${this.#acknowledged[index]} to ${error}`;
      }
      const acknowledged = smmu.registers.mmioRead(GERRORN, 4);
      if (acknowledged !== error) return `GERROR of ${smmu.name} is ${error}, GERRORN ${acknowledged}`;
      this.#acknowledged[index] = error;
    }
    this.mayStop = false;
    this.problem ??= this.#checkQueues();
    return this.problem;
  }

  /** What a guest does to its queues concerns nobody but itself. */
  #checkQueues(): string | null {
    for (const { cmdqv, name: smmu } of this.smmus) {
      if (cmdqv === null) continue;
      const read = (offset: number): number => cmdqv.mmioRead(offset, 4);
      if ((read(0x1000) & 0x20001) !== 0x20001)
        return `VINTF 0 of ${smmu} is not the kernel's: 0x${read(0x1000).toString(16)}`;
      for (let queue = 0; queue < 2; queue++) {
        const at = 0x30000 + 0x80 * queue;
        if (read(at + 0x10) !== read(at + 0x14)) return `the kernel's queue ${queue} of ${smmu} stands at an error`;
        if (read(at + 0xc) !== 1) return `the kernel's queue ${queue} of ${smmu} does not run`;
      }
      for (let vintf = 1; vintf < 4; vintf++) {
        const config = read(0x1000 + 0x100 * vintf);
        if ((config & 0x20000) !== 0) return `VINTF ${vintf} of ${smmu} is the hypervisor's`;
        if ((config & 1) === 1 && ((config >>> 1) & 0xffff) === 0)
          return `VINTF ${vintf} of ${smmu} has the host's VMID`;
        for (let pair = 0; pair < 2; pair++) {
          if ((read(0x1040 + 0x100 * vintf + 4 * pair) & 1) === 0) continue;
          const sid = read(0x1080 + 0x100 * vintf + 4 * pair);
          if (![...FUNCTIONS, 0x200].includes(sid)) return `VINTF ${vintf} of ${smmu} names stream ${sid}`;
        }
      }
    }
    return null;
  }

  /** When all processes have gone: what is left, or null. */
  left(): string | null {
    const { kernel } = this.machine;
    this.machine.run(1_000_000);
    const kinds = kernel.liveKinds.map(([kind, count]) => `${count} ${kind}`);
    for (const smmu of this.smmus) {
      if (smmu.stalledTransactions > 0) kinds.push(`${smmu.stalledTransactions} stalled transactions of ${smmu.name}`);
    }
    const frames = kernel.frames.usedPages - this.#framesAtFirst;
    if (frames !== 0) kinds.push(`${frames} frames`);
    return kinds.length === 0 ? null : `left at the end: ${kinds.join(", ")}`;
  }
}

/**
 * Whether a command, as user space hands it over, may stop the host's queue although Linux passes it: SSec, a Reserved combination of a range
 * (IHI 0070 §4.4.1.1), an ATC_INV, which a device may leave without an answer. Two words of 64 bits, read without the driver's tables.
 */
export function mayStopTheQueue(word0: bigint, word1: bigint): boolean {
  const opcode = Number(word0 & 0xffn);
  const passed = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x40];
  if (!passed.includes(opcode)) return false;
  if (((word0 >> 10n) & 1n) === 1n || opcode === 0x40) return true;
  const [num, scale] = [(word0 >> 12n) & 0x1fn, (word0 >> 20n) & 0x3fn];
  const [ttl, tg] = [(word1 >> 8n) & 3n, (word1 >> 10n) & 3n];
  return (opcode === 0x12 || opcode === 0x13) && tg !== 0n && num === 0n && scale === 0n && ttl === 0n;
}
