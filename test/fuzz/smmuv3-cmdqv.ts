/**
 * `nestbox fuzz smmuv3-cmdqv`: hostile stores to every register of a CMDQV and to its queues' memory, against a model that shares no code with it. After each
 * operation every register reads what the model says, the same commands reached caches and devices, the wire had the same edges; and the SMMU's own error
 * register and queue are untouched.
 */
import { REG } from "../../host/arch/smmuv3/registers.ts";
import type { AtsTarget } from "../../host/devices/ports.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { CMDQV_WIRE, CmdqvMachine } from "../host/hw/iommu/smmuv3/cmdqv-machine.ts";
import { BASE, USER_RW } from "../host/hw/iommu/smmuv3/machine.ts";
import { Random } from "../oracle/random.ts";
import type { Command } from "../oracle/smmuv3/adapter.ts";
import { CommandQueues } from "../oracle/smmuv3/command-queues.ts";
import { covers, decodeInvalidation } from "../oracle/smmuv3/invalidation.ts";

const OPERATIONS = 300;
/** Frames for the queues' memory, somewhere in the bank. */
const RINGS = 4;
const OUTPUT_BITS = 48;
const CMDQS = 9;
/** First page of the streams: each has one of its own, so that no cached translation makes room for another. */
const PAGE = 0x10;
/** VMID, ASID of the streams whose cached translation shows what was invalidated. */
const STREAMS: readonly (readonly [vmid: number, asid: number])[] = [
  [0, 1],
  [1, 1],
  [1, 2],
  [2, 1],
  [2, 2],
  [0xffff, 1],
];

interface Stream {
  readonly sid: number;
  readonly page: number;
  readonly vmid: number;
  readonly asid: number;
  readonly root: number;
  /** Frame in memory, and the one that is cached. */
  frame: number;
  cached: number | null;
  /** An invalidation whose range cannot be relied on (§4.4.1.1) may have dropped it, or not. */
  unsure: boolean;
}

class Hostility {
  readonly random: Random;
  readonly machine: CmdqvMachine;
  readonly model: CommandQueues;
  readonly #rings: number;
  readonly #streams: Stream[] = [];
  readonly #sent: string[] = [];
  readonly #expected: string[] = [];
  #edges = 0;

  constructor(seed: number) {
    const random = new Random(seed);
    this.random = random;
    const queues = random.below(5);
    const logs = { queues, vintfs: random.below(Math.min(queues, 3) + 1), sids: random.below(5) };
    this.machine = new CmdqvMachine(
      { log2vcmdqs: logs.queues, log2vintfs: logs.vintfs, log2vsids: logs.sids },
      { features: { CMDQS } },
    );
    const { machine } = this;
    machine.start();
    this.#rings = machine.allocate(RINGS);
    STREAMS.forEach(([vmid, asid], index) => {
      const sid = index + 1;
      const frame = 0x80400 + sid;
      const root = machine.makeFirstStage(sid, { ASID: asid, ASET: 0 }, { S2VMID: vmid });
      const page = PAGE + index;
      machine.map(root, page, frame, USER_RW);
      this.#streams.push({ sid, page, vmid, asid, root, frame, cached: null, unsure: false });
    });
    machine.smmu.findTarget = (sid) =>
      ({
        invalidate: (first: number, pages: number, pasid: number) => {
          this.#sent.push(`${sid} ${first} ${pages} ${pasid}`);
          return true;
        },
        pageResponse: () => {},
      }) as unknown as AtsTarget;
    const { outputBits, cmdqs } = { outputBits: OUTPUT_BITS, cmdqs: CMDQS };
    this.model = new CommandQueues(logs, {
      outputBits,
      cmdqs,
      command: (address) => this.#commandAt(address),
      effect: (command) => this.#effect(command),
      edge: () => this.#edges++,
    });
    for (let at = 0; at < RINGS * 256; at++) this.#storeCommand(at);
    if (random.chance(80)) this.#setUp();
  }

  // --- what the model asks -----------------------------------------------------------------------------------------------------

  #commandAt(address: bigint): Command | null {
    const pfn = Number(address >> 12n);
    if (pfn < BASE || pfn >= BASE + 4096) return null;
    const offset = Number(address & 0xfffn);
    return [this.machine.load(pfn, offset), this.machine.load(pfn, offset + 8)];
  }

  #effect([dw0, dw1]: Command): void {
    const invalidation = decodeInvalidation([dw0, dw1]);
    // The same without TTL: the widest that its range can mean.
    const widest = decodeInvalidation([dw0, dw1 & ~0x300n]);
    for (const stream of this.#streams) {
      if (invalidation === null || widest === null) break;
      const { vmid, asid, page } = stream;
      const tag = {
        world: "EL1",
        vmid: BigInt(vmid),
        asid: BigInt(asid),
        va: BigInt(page) << 12n,
        level: 3,
        granule: 12n,
      } as const;
      const meaning = { cacheable: true, leaf: true, span: 4096n, global: false };
      if (covers(invalidation, { kind: "stage-1", ...tag }, meaning) === true) stream.cached = null;
      else if (covers(widest, { kind: "stage-1", ...tag }, meaning) === true) stream.unsure = true;
    }
    if ((dw0 & 0xffn) !== 0x40n) return;
    const sid = Number(dw0 >> 32n);
    const size = Number(dw1 & 0x3fn);
    const address = dw1 >> 12n;
    const first = size === 52 ? 0n : address - (address % (1n << BigInt(size)));
    const pages = size === 52 ? "Infinity" : String(2 ** size);
    const pasid = (dw0 & (1n << 11n)) === 0n ? -1 : Number((dw0 >> 12n) & 0xfffffn);
    this.#expected.push(`${sid} ${Number(first)} ${pages} ${pasid}`);
  }

  // --- operations --------------------------------------------------------------------------------------------------------------

  /** What a host would set up, so that commands run. */
  #setUp(): void {
    const { random, model } = this;
    const perVintf = model.queues.length / model.vintfs.length;
    for (const [index] of model.vintfs.entries()) {
      const owner = random.chance(20) ? 0x20000 : 0;
      this.#write(0x1000 + 0x100 * index, (random.pick(STREAMS)[0] << 1) | owner | 1);
      for (let logical = 0; logical < perVintf; logical++) {
        const queue = index * perVintf + logical;
        this.#write(0x200 + 4 * queue, 1 | (logical << 1) | (index << 15));
        this.#writeBase(0x20000 + 0x80 * queue);
        this.#write(0x10000 + 0x80 * queue + 8, 1);
      }
      for (let pair = 0; pair < 2; pair++) {
        this.#write(0x1080 + 0x100 * index + 4 * pair, random.below(8));
        this.#write(0x1040 + 0x100 * index + 4 * pair, (random.below(4) << 1) | 1);
      }
    }
  }

  operate(): void {
    const { random } = this;
    switch (random.below(20)) {
      case 10:
      case 11:
      case 12:
      case 13:
      case 14:
      case 15:
      case 16:
      case 17:
        this.#goOn(random.below(this.model.queues.length));
        return;
      case 0:
        this.#storeCommand(random.below(RINGS * 256));
        return;
      case 1: {
        const stream = random.pick(this.#streams);
        stream.frame ^= 0x100;
        this.machine.map(stream.root, stream.page, stream.frame, USER_RW);
        return;
      }
      case 2:
        this.#writeBase(this.#somePage1());
        return;
      case 3:
      case 4:
        this.#write(this.#someConfiguration(), this.#someValue());
        return;
      default:
        this.#write(this.#somePage0(), random.chance(70) ? random.below(40) : this.#someValue());
    }
  }

  /** What a driver does: acknowledges an error and steps over the command, or gives commands. */
  #goOn(index: number): void {
    const { random, model } = this;
    const queue = model.queues[index]!;
    const page0 = 0x10000 + 0x80 * index;
    const cons = queue.cons & 0xfffff;
    if (queue.gerror !== queue.gerrorn) {
      const bad = Number((queue.base >> 12n) & 0xfffffn) - this.#rings;
      const at = bad * 256 + Number((queue.base & 0xfe0n) / 16n) + cons;
      if (bad >= 0 && at < RINGS * 256) this.#storeCommand(at);
      this.#write(page0 + 0x14, queue.gerror);
    } else if (queue.running) this.#write(page0 + 4, cons + random.below(8));
    else {
      if ((model.config & 1) === 0) this.#write(0, 1);
      if (!queue.allocated)
        this.#write(0x200 + 4 * index, random.below(0x100) | 1 | (random.below(model.vintfs.length) << 15));
      else this.#write(0x1000 + 0x100 * queue.vintf, (random.pick(STREAMS)[0] << 1) | 1);
      if (queue.base === 0n) this.#writeBase(page0 + 0x10000);
      this.#write(page0 + 8, random.below(2));
    }
  }

  #someValue(): number {
    const { random } = this;
    return random.pick([0, 1, random.below(64), random.word(), random.word() & 0x1f80ff, 0xffffffff]);
  }

  #someConfiguration(): number {
    const { random, model } = this;
    const vintf = 0x1000 + 0x100 * random.below(model.vintfs.length + 1);
    return random.pick([
      0,
      0x1c,
      0x200 + 4 * random.below(model.queues.length + 1),
      vintf,
      vintf,
      vintf + 0x40 + 4 * random.below(16),
      vintf + 0x80 + 4 * random.below(16),
      4 * random.below(0x4000),
    ]);
  }

  #somePage0(): number {
    const { random, model } = this;
    const register = random.pick([0, 4, 4, 4, 4, 8, 8, 0x14, 0x14, 4 * random.below(32)]);
    if (random.chance(30)) return 0x10000 + 0x80 * random.below(model.queues.length) + register;
    return 0x30000 + 0x20000 * random.below(model.vintfs.length) + 0x80 * random.below(8) + register;
  }

  #somePage1(): number {
    const { random, model } = this;
    if (random.chance(50)) return 0x20000 + 0x80 * random.below(model.queues.length);
    return 0x40000 + 0x20000 * random.below(model.vintfs.length) + 0x80 * random.below(4);
  }

  #writeBase(offset: number): void {
    const { random } = this;
    const address = (this.#rings + random.below(RINGS)) * 4096;
    const log2 = random.chance(90) ? random.below(9) : random.below(32);
    this.#write(offset, random.chance(95) ? ((address & 0xffffffe0) | log2) >>> 0 : random.word());
    this.#write(offset + 4, random.chance(95) ? 0 : random.word());
  }

  #write(offset: number, value: number): void {
    const wide = this.random.chance(5) && offset % 8 === 0;
    if (wide) {
      this.machine.put64(offset, BigInt(value >>> 0));
      this.model.write(offset + 4, 0);
    } else this.machine.put(offset, value);
    this.model.write(offset, value >>> 0);
    this.machine.pass(100_000);
    this.model.run();
  }

  #storeCommand(at: number): void {
    const { random, machine } = this;
    const opcode = random.pick([
      0x11,
      0x12,
      0x40,
      0x46,
      0x11,
      0x12,
      0x40,
      0x46,
      0x30,
      0x10,
      0x13,
      0x28,
      0x2a,
      random.below(256),
    ]);
    let dw0 = BigInt(opcode) | (BigInt(random.pick(STREAMS)[0]) << 32n) | (BigInt(random.below(3)) << 48n);
    let dw1 = (BigInt(PAGE + random.below(STREAMS.length + 1)) << 12n) | BigInt(random.below(2));
    if (opcode === 0x40) dw0 = 0x40n | (BigInt(random.below(4)) << 32n) | (random.bits(21) << 11n);
    if (opcode === 0x40) dw1 = (random.bits(40) << 12n) | BigInt(random.pick([0, 1, 5, 52, random.below(64)]));
    if (opcode !== 0x46 && random.chance(20))
      dw0 |= (BigInt(random.below(32)) << 12n) | (BigInt(random.below(32)) << 20n);
    if (random.chance(20)) dw1 |= (BigInt(random.below(4)) << 10n) | (BigInt(random.below(4)) << 8n);
    if (random.chance(5)) dw0 = random.bits(64);
    if (random.chance(5)) dw1 = random.bits(64);
    // RESUME, STALL_TERM and configuration invalidations of real streams change nothing here; a signal to memory would.
    machine.storeWords(this.#rings + (at >> 8), (at & 0xff) * 16, [dw0, dw1]);
  }

  // --- promises ----------------------------------------------------------------------------------------------------------------

  /** A broken promise, or null. */
  broken(): string | null {
    const { machine, model } = this;
    const differs = (offset: number): string | null => {
      const [is, should] = [machine.get(offset), model.read(offset)];
      return is === should
        ? null
        : `register 0x${offset.toString(16)} is 0x${is.toString(16)}, not 0x${should.toString(16)}`;
    };
    const pages = [
      ...model.queues.map((_, queue) => 0x10000 + 0x80 * queue),
      ...model.vintfs.flatMap((_, vintf) => [0, 1, 2, 3].map((slot) => 0x30000 + 0x20000 * vintf + 0x80 * slot)),
    ];
    const offsets = [
      ...Array.from({ length: 13 }, (_, word) => word * 4),
      ...model.queues.map((_, queue) => 0x200 + 4 * queue),
      ...model.vintfs.flatMap((_, vintf) =>
        Array.from({ length: 52 }, (__, word) => 0x1000 + 0x100 * vintf + 4 * word),
      ),
      ...pages.flatMap((page) => [0, 4, 8, 12, 16, 20, 24].map((register) => page + register)),
      ...pages.flatMap((page) => [0, 4, 8, 12, 16].map((register) => page + 0x10000 + register)),
    ];
    for (const offset of offsets) {
      const problem = differs(offset);
      if (problem !== null) return problem;
    }
    if (this.#sent.join() !== this.#expected.join()) {
      return `devices were sent ${this.#sent.at(-1)}, not ${this.#expected.at(-1)} (${this.#sent.length}, ${this.#expected.length})`;
    }
    const edges = machine.pulses.filter((wire) => wire === CMDQV_WIRE).length;
    if (edges !== this.#edges || machine.pulses.length !== edges)
      return `wires had ${machine.pulses}, not ${this.#edges} edges`;
    for (const stream of this.#streams) {
      const { sid, page, frame, cached, unsure } = stream;
      const got = machine.request(sid, BigInt(page) << 12n);
      const expected = unsure && got === BigInt(frame) << 12n ? frame : (cached ?? frame);
      stream.unsure = false;
      if (got !== BigInt(expected) << 12n) return `stream ${sid} reaches ${got}, not frame ${expected.toString(16)}`;
      stream.cached = expected;
    }
    if (machine.globalErrors !== 0) return `the SMMU's GERROR: 0x${machine.globalErrors.toString(16)}`;
    return null;
  }

  /** The SMMU's own queue works as ever. */
  ended(): string | null {
    const { machine } = this;
    const before = machine.read32(REG.CMDQ_CONS);
    machine.queue("SYNC");
    machine.smmu.drain();
    return machine.read32(REG.CMDQ_CONS) === before + 1 ? null : "the SMMU's own queue does not go on";
  }
}

/** Runs one seed; what went wrong, or null. */
export function hostileQueues(seed: number, operations = OPERATIONS): string | null {
  const hostility = new Hostility(seed);
  for (let operation = 0; operation < operations; operation++) {
    hostility.operate();
    const broken = hostility.broken();
    if (broken !== null) return `after operation ${operation}: ${broken}`;
  }
  return hostility.ended();
}

export const fuzzer: Fuzzer = {
  about: "hostile registers and queues of a CMDQV: registers and effects as a model says",
  round: (seed, count) => {
    const problem = hostileQueues(seed);
    count("operations", OPERATIONS);
    return problem === null ? null : { problem };
  },
};
