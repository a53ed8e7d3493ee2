/**
 * `nestbox fuzz smmuv3-cmdqv-guest`: a hostile guest on its CMDQV, through the whole machine. It stores anything to any of its registers, the hardware's page among
 * them, and keeps commands of every kind in its queues. No exception; another guest, whose device has a translation cached, keeps it and its own
 * queue works; the host's SMMU never has a global error; nothing is left in the host.
 */
import type { TracedEvent } from "../../host/base/trace.ts";
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { RAM_BASE } from "../../vmm/memory-map.ts";
import { Random } from "../oracle/random.ts";
import { MEMORY, QueueVm, SID } from "../vmm/viommu/smmuv3/cmdqv-vm.ts";

const OPERATIONS = 150;
const IOVA = 0x4000_0000n;
const CMDQV_BYTES = 0x50000;
const PAGE0 = 0x30000;
const PAGE1 = 0x40000;
/** Pages of the guest's that queues stand in. */
const RINGS = 4;
const SMALL = { log2vcmdqs: 3, log2vintfs: 2, log2vsids: 1 };

class Hostility {
  readonly vm: QueueVm;
  readonly other: QueueVm;
  readonly #random: Random;
  readonly #rings: bigint;
  #globalErrors = 0;
  /** Commands of the hostile guest that the hardware fetched. */
  fetched = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.vm = new QueueVm({ cmdqv: SMALL, driver: this.#random.chance(70) });
    this.other = new QueueVm({}, this.vm);
    this.#rings = this.vm.ram.allocate(RINGS);
    for (let slot = 0; slot < RINGS * 256; slot++) this.#command(slot);
    this.vm.trace.addSink({ event: (event: TracedEvent) => this.#see(event) });
    const stage1 = this.other.stage1();
    stage1.map(IOVA, this.other.ram.allocate(), 4096n);
    this.other.driver.installTranslation(SID, { whole: stage1, pasids: new Map(), ats: false, pageRequests: false });
    this.other.read(IOVA);
    stage1.unmap(IOVA, 4096n);
  }

  #see(event: TracedEvent): void {
    if (event.type === "irq" && event.where === "host" && event.source.includes("global error")) this.#globalErrors++;
    if (event.type === "command" && event.where === "host" && /vintf1 /.test(event.iommu)) this.fetched++;
  }

  operate(): void {
    const random = this.#random;
    const { vm } = this;
    switch (random.below(8)) {
      case 0:
        this.#command(random.below(RINGS * 256));
        return;
      case 1:
        vm.put64(PAGE1 + 0x80 * random.below(3), this.#base());
        return;
      case 2:
        vm.put(random.below(CMDQV_BYTES / 4) * 4, random.pick([0, 1, 3, random.word()]));
        return;
      case 3:
        vm.put(
          random.pick([0, 0x1c, 0x200, 0x204, 0x1000, 0x1000, 0x1040, 0x1080]),
          random.pick([0, 1, 1, 3, random.word()]),
        );
        return;
      case 4:
        this.#setUp();
        return;
      case 5:
        vm.pass(random.pick([100, 10_000, 1_000_000]));
        return;
      case 6:
        if (random.chance(5)) vm.viommu.reset();
        return;
      default:
        this.#goOn(0x80 * random.below(2));
    }
  }

  /** What a guest's driver does. */
  #setUp(): void {
    const { vm } = this;
    vm.put(0, 1);
    vm.put(0x1000, 1);
    for (const queue of [0, 1]) {
      vm.put(0x200 + 4 * queue, 1 | (queue << 1));
      vm.put(PAGE0 + 0x80 * queue + 8, 0);
      vm.put64(PAGE1 + 0x80 * queue, this.#base());
      vm.put(PAGE0 + 0x80 * queue + 8, 1);
    }
  }

  #goOn(queue: number): void {
    const { vm } = this;
    vm.put(PAGE0 + queue + 0x14, vm.get(PAGE0 + queue + 0x10));
    vm.put(PAGE0 + queue + 4, (vm.get(PAGE0 + queue) & 0xfffff) + this.#random.below(8));
  }

  #base(): bigint {
    const random = this.#random;
    const somewhere = this.#rings + BigInt(random.below(RINGS) * 4096);
    const address = random.chance(90) ? somewhere : random.pick([0n, BigInt(RAM_BASE + MEMORY), random.bits(48)]);
    return (address & ~0x1fn) | BigInt(random.chance(90) ? 1 + random.below(8) : random.below(32));
  }

  #command(slot: number): void {
    const random = this.#random;
    const opcode = BigInt(random.chance(85) ? random.pick([0x11, 0x12, 0x40, 0x46]) : random.below(256));
    const target = opcode === 0x40n ? random.pick([SID, 8, 16, 9]) : random.below(8);
    const word0 = random.chance(95)
      ? opcode | (BigInt(target) << 32n) | (BigInt(random.below(3)) << 48n)
      : random.bits(64);
    const at = this.#rings + BigInt(slot * 16);
    this.vm.ram.write64(at, opcode === 0x46n ? 0x46n : word0);
    this.vm.ram.write64(at + 8n, random.chance(50) ? IOVA : random.bits(64));
  }

  /** A broken promise, or null. */
  broken(): string | null {
    if (this.#globalErrors > 0) return "the host's SMMU has a global error";
    return this.other.read(IOVA) === null ? "another guest's translation was invalidated" : null;
  }

  /** The other guest invalidates by its own queue; then nothing is left. */
  ended(): string | null {
    const { other, vm } = this;
    other.driver.invalidate({});
    other.driver.invalidate({ asid: 1, iova: IOVA });
    other.driver.fence();
    if (other.read(IOVA) !== null) return "the other guest's queue does not work";
    other.end();
    const left = vm.end();
    return left === 0 ? null : `${left} objects are left in the host`;
  }
}

/** Runs one seed: what went wrong, or null. */
export function hostileCmdqvGuest(seed: number, count: (fetched: number) => void = () => {}): string | null {
  const hostility = new Hostility(seed);
  for (let operation = 0; operation < OPERATIONS; operation++) {
    try {
      hostility.operate();
    } catch (error) {
      return `operation ${operation} threw: ${error instanceof Error ? error.stack : String(error)}`;
    }
    const broken = hostility.broken();
    if (broken !== null) return `after operation ${operation}: ${broken}`;
  }
  count(hostility.fetched);
  return hostility.ended();
}

export const fuzzer: Fuzzer = {
  about: "a hostile guest on its CMDQV and the page that is the hardware's: another guest and the host go on",
  round: (seed, count) => {
    const problem = hostileCmdqvGuest(seed, (fetched) => count("commands fetched", fetched));
    count("operations", OPERATIONS);
    return problem === null ? null : { problem };
  },
};
