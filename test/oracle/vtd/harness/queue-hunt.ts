/**
 * Random invalidation queues on the hardware model and by `../invalidation-queue.ts`: valid descriptors, spoiled ones, tails and sizes of every kind. After an
 * error software puts a wait in place of the descriptor and clears IQE: the queue must go on from there (§6.5.2.10).
 */
import { decodeCapabilities } from "../../../../host/arch/vtd/capabilities.ts";
import type { HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { VtdUnit } from "../../../../host/hw/iommu/vtd/unit.ts";
import { Random } from "../../random.ts";
import { hex } from "../../stores.ts";
import { bits } from "../capabilities.ts";
import { CAP, ECAP } from "../cases/scene.ts";
import {
  contextDevice,
  contextDomain,
  contextGlobal,
  interruptGlobal,
  interruptIndex,
  iotlbDomain,
  iotlbGlobal,
  iotlbPages,
  pasidCacheDomain,
  pasidCacheGlobal,
  pasidCacheOne,
  pasidIotlb,
  pasidIotlbPages,
} from "../generate/descriptors.ts";
import type { Descriptor } from "../invalidation.ts";
import { executeQueue, invalid, isMeant, type Queue, type QueueOutcome } from "../invalidation-queue.ts";

/** Pages: the queue's, then statuses'. */
const QUEUE = 0x10;
const STATUS = 0x40n << 12n;
const PAGES = 0x41;

const REGISTER = { GCMD: 0x18, RTADDR: 0x20, FSTS: 0x34, IQH: 0x80, IQT: 0x88, IQA: 0x90, ICS: 0x9c, IQERCD: 0xb0 };
const QIE = 1n << 26n;
const SRTP = 1n << 30n;
const IQE = 1n << 4n;

function wait(random: Random, at: bigint): Descriptor {
  const data = random.bits(32);
  return [5n | random.flag(30, 4n) | (1n << 5n) | random.flag(30, 6n) | (data << 32n), STATUS + at * 4n];
}

function valid(random: Random, at: bigint, scalable: boolean): Descriptor {
  const did = random.bits(16);
  const pasid = random.bits(20);
  const where = { address: random.bits(48), mask: BigInt(random.below(19)), leafOnly: random.chance(50) };
  const every: Descriptor[] = [
    wait(random, at),
    wait(random, at),
    contextGlobal(),
    contextDomain(did),
    contextDevice(did, random.bits(16), random.bits(2)),
    iotlbGlobal(),
    iotlbDomain(did),
    iotlbPages(did, where),
    interruptGlobal(),
    interruptIndex(random.bits(16), random.bits(4)),
  ];
  const scalableOnly: Descriptor[] = [
    pasidIotlb(did, pasid),
    pasidIotlbPages(did, pasid, where),
    pasidCacheDomain(did),
    pasidCacheOne(did, pasid),
    pasidCacheGlobal(),
  ];
  return random.pick(scalable || random.chance(10) ? [...every, ...scalableOnly] : every);
}

/** A descriptor that the oracle can judge: never one that waits for a device. */
function descriptor(random: Random, at: bigint, queue: Omit<Queue, "descriptors" | "tail">): Descriptor {
  for (;;) {
    const made = [...valid(random, at, queue.scalable)];
    if (queue.wide) made.push(0n, 0n);
    if (random.chance(8)) {
      const index = random.below(made.length);
      made[index]! ^= 1n << BigInt(random.below(64));
    }
    const whole = { ...queue, descriptors: [], tail: 0n };
    const type = bits(made[0]!, 3n, 0n);
    const waits = bits(made[0]!, 11n, 9n) === 0n && (type === 3n || type === 8n || type === 9n);
    const good = invalid(whole, made) === null;
    // A wait for nothing: an error or nothing at all, no source says. A status elsewhere may be no memory.
    const idle = type === 5n && (bits(made[0]!, 6n, 4n) === 0n || bits(made[1]!, 63n, 12n) !== STATUS >> 12n);
    if (isMeant(whole, made) && !(good && (waits || idle))) return made;
  }
}

/** What went wrong with the seed's queue, or null. */
export function huntQueue(seed: number): string | null {
  const random = new Random(seed);
  const scalable = random.chance(60);
  const wide = scalable || random.chance(20);
  const QS = BigInt(random.below(4));
  const bytes = 4096n << QS;
  const size = wide ? 32n : 16n;
  const identification = { VER: 0x60n, CAP, ECAP: ECAP | random.flag(50, 42n), HAW: 46n };
  const common = { identification, scalable, wide, bytes };
  const count = Number(bytes / size);
  const descriptors = Array.from({ length: Math.min(count, 40) }, (_, at) => descriptor(random, BigInt(at), common));
  let tail = BigInt(1 + random.below(descriptors.length - 1)) * size;
  if (random.chance(6)) tail = random.pick([bytes, bytes + size, tail + 16n, (1n << 19n) - size]);
  const queue: Queue = { ...common, descriptors, tail };
  // Memory ends within a large queue.
  const unreadable = random.chance(10) ? 0n : bytes;

  const memory = new PhysicalMemory<HpaPfn>();
  const first = unreadable === 0n ? 0x20 : 0;
  const { words } = memory.addBank(first as HpaPfn, new ArrayBuffer((PAGES - first) * 4096));
  const clock = new Clock();
  const unit = new VtdUnit(
    { name: "dmar", memory, clock, trace: new Trace(clock) },
    { features: decodeCapabilities(CAP, identification.ECAP), version: 0x60 },
  );
  const index = (address: bigint) => Number(address >> 2n) - first * 1024;
  const put = (at: bigint, quadwords: Descriptor) => {
    quadwords.forEach((value, quadword) => {
      const place = index((BigInt(QUEUE) << 12n) + at + BigInt(quadword) * 8n);
      if (place < 0) return;
      words[place] = Number(value & 0xffff_ffffn);
      words[place + 1] = Number(value >> 32n);
    });
  };
  const read = (offset: number) => BigInt(unit.registers.mmioRead(offset, 4) >>> 0);
  const write = (offset: number, value: bigint, width: 4 | 8 = 4) =>
    unit.registers.mmioWrite(offset, width, Number(value & 0xffff_ffffn), Number(value >> 32n));
  const status = (address: bigint) => BigInt(words[index(address)]!);

  descriptors.forEach((each, at) => {
    put(BigInt(at) * size, each);
  });
  write(REGISTER.RTADDR, scalable ? 1n << 10n : 0n, 8);
  write(REGISTER.GCMD, SRTP);
  write(REGISTER.IQA, (BigInt(QUEUE) << 12n) | QS | (wide ? 1n << 11n : 0n), 8);
  write(REGISTER.GCMD, QIE);
  write(REGISTER.IQT, tail, 8);
  unit.drain();

  const expected = executeQueue(queue, unreadable);
  const wrong = differs(expected);
  if (wrong !== null) return describe(queue, wrong);
  if (expected.stopped === null || expected.head === queue.tail || unreadable === 0n) return null;
  if (expected.stopped.includes(1) || expected.stopped.includes(6)) return null;
  // As a driver does.
  const mark = random.bits(32);
  const mended = [...descriptors];
  mended[Number(expected.head / size)] = [0x25n | (mark << 32n), STATUS + 0xff0n, ...(wide ? [0n, 0n] : [])];
  put(expected.head, mended[Number(expected.head / size)]!);
  write(REGISTER.FSTS, IQE);
  unit.drain();
  const after = executeQueue({ ...queue, descriptors: mended });
  const still = differs(after);
  return still === null ? null : describe(queue, `after IQE was cleared: ${still}`);

  function differs({ head, stopped, written, IWC }: QueueOutcome): string | null {
    const at = read(REGISTER.IQH) | (read(REGISTER.IQH + 4) << 32n);
    if (at !== head) return `IQH is ${hex(at)}, not ${hex(head)}`;
    const error = (read(REGISTER.FSTS) & IQE) !== 0n;
    if (error !== (stopped !== null)) return error ? "IQE is set" : "IQE is not set";
    const code = Number(read(REGISTER.IQERCD) & 0xfn);
    if (stopped !== null && (code === 0 || (stopped.length > 0 && !stopped.includes(code))))
      return `IQEI is ${code}, not ${stopped.join(" or ")}`;
    for (const [address, data] of written)
      if (status(address) !== data) return `status at ${hex(address)} is ${hex(status(address))}, not ${hex(data)}`;
    descriptors.forEach((_each, slot) => {
      const address = STATUS + BigInt(slot) * 4n;
      if (!written.has(address) && status(address) !== 0n)
        throw new Error(`a wait at ${slot} wrote that should not have`);
    });
    return IWC === ((read(REGISTER.ICS) & 1n) !== 0n) ? null : `IWC is not ${IWC}`;
  }
}

function describe({ scalable, wide, bytes, tail, descriptors }: Queue, what: string): string {
  const lines = descriptors.map((each, at) => `  ${at}: ${each.map(hex).join(" ")}`);
  return [`${what} (scalable ${scalable}, wide ${wide}, ${bytes} bytes, IQT ${hex(tail)})`, ...lines].join("\n");
}
