// Bringing an SMMUv3 up as Linux does (arm_smmu_device_hw_probe, arm_smmu_device_reset), its command queue with its errors, and its record queues.

import { describe, expect, it } from "vitest";
import { commandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { IDR0, IDR1 } from "../../../../../host/arch/smmuv3/identification.ts";
import { CR0, REG, REGISTERS } from "../../../../../host/arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../../host/base/memory.ts";
import type { AccessSize } from "../../../../../host/base/mmio.ts";
import { Trace } from "../../../../../host/base/trace.ts";
import { ACCESS_READ, REFUSED, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../../../../host/hw/iommu/smmuv3/smmu.ts";
import { HostFrames } from "../../../../../host/kernel/host-frames.ts";
import { DeviceAttachments } from "../../../../../host/kernel/iommu/attachments.ts";
import type { IommuDevice } from "../../../../../host/kernel/iommu/driver.ts";
import { Smmuv3Instance } from "../../../../../host/kernel/iommu/smmuv3/instance.ts";
import { bypassEntry } from "../../../../../host/kernel/iommu/smmuv3/stream-entries.ts";
import { waitForHardware } from "../../../../../host/kernel/iommu/wait.ts";
import { EINVAL, ENODEV, ENOMEM, ENXIO, ERANGE, ETIMEDOUT } from "../../../../../host/uapi/errno.ts";

const RAM = 0x10_0000 as HpaPfn;

interface Meddling {
  /** What a read of a register gives in place of what it holds. */
  read?: (offset: number, value: number) => number;
  registerBytes?: number;
  ramPages?: number;
  /** Message interrupts that there are; absent: none at all. */
  messages?: number;
}

/** An SMMU, its driver's instance that has not probed it yet, and what crosses between them. */
function bench(options: Smmuv3Options = {}, meddling: Meddling = {}) {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  const ramPages = meddling.ramPages ?? 2048;
  memory.addBank(RAM, new ArrayBuffer(ramPages * 4096));
  const frames = new HostFrames(memory, { base: RAM, pages: ramPages });
  const smmu = new Smmuv3({ name: "smmu0", memory, clock, trace }, options);
  const writes: { name: string; value: number }[] = [];
  const registers = {
    high: 0,
    mmioRead(offset: number, size: AccessSize): number {
      const value = smmu.registers.mmioRead(offset, size);
      this.high = smmu.registers.high;
      return meddling.read?.(offset, value) ?? value;
    },
    mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
      writes.push({
        name: REGISTERS.find((register) => register.offset === offset)?.name ?? `0x${offset.toString(16)}`,
        value: lo,
      });
      smmu.registers.mmioWrite(offset, size, lo, hi);
    },
  };
  const hardware = new Proxy(smmu, {
    get(target, property) {
      if (property === "registers") return registers;
      if (property === "registerBytes" && meddling.registerBytes !== undefined) return meddling.registerBytes;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, property, value) => Reflect.set(target, property, value, target),
  });
  const events: bigint[][] = [];
  const requests: bigint[][] = [];
  const lost: string[] = [];
  let messages = meddling.messages ?? 0;
  const instance = new Smmuv3Instance(
    {
      hardware,
      frames,
      wait: (what, done, timeout) => waitForHardware(clock, what, done, timeout),
      // An address that no memory answers: what would be a message is an error that can be seen.
      requestMessage:
        meddling.messages === undefined ? null : () => (messages-- > 0 ? { address: 0x7000_0000n, data: 1 } : null),
      defer: (event) => {
        clock.schedule(0, event);
      },
    },
    {
      event: (words) => events.push([...words]),
      pageRequest: (words) => requests.push([...words]),
      eventsLost: () => lost.push("events"),
      pageRequestsLost: () => lost.push("requests"),
    },
  );
  const run = () => {
    while (clock.nextDeadline <= clock.now) clock.fireDue();
  };
  return { clock, trace, memory, frames, smmu, instance, writes, events, requests, lost, run };
}

const up = (options: Smmuv3Options = {}, meddling: Meddling = {}) => {
  const made = bench(options, meddling);
  expect(made.instance.probe()).toBe(0);
  return made;
};

const device = (deviceId: number): IommuDevice => ({
  name: `device ${deviceId}`,
  deviceId,
  maxPasids: 0,
  hasAts: false,
  hasPri: false,
  isVirtualFunction: false,
  attachments: new DeviceAttachments(),
  driverData: null,
});

const traits = { overridesAttributes: false, choosesStalls: true, el2: true, stalls: false };

describe("probing", () => {
  const field = (register: number, shape: typeof IDR0 | typeof IDR1, name: string, value: bigint): Meddling => ({
    read(offset, held) {
      if (offset !== register) return held;
      const words = [BigInt(held >>> 0)];
      (shape as typeof IDR0).set(words, name as "S1P", value);
      return Number(words[0]);
    },
  });
  it.each<[string, Smmuv3Options, Meddling, number]>([
    ["tables big-endian only", { features: { TTENDIAN: 3 } }, {}, -ENXIO],
    ["TTENDIAN reserved", {}, field(REG.IDR0, IDR0, "TTENDIAN", 1n), -ENXIO],
    ["neither stage", {}, { read: (offset, value) => (offset === REG.IDR0 ? value & ~3 : value) }, -ENXIO],
    ["VMSAv8-32 alone", {}, field(REG.IDR0, IDR0, "TTF", 1n), -ENXIO],
    ["preset tables", {}, field(REG.IDR1, IDR1, "TABLES_PRESET", 1n), -ENXIO],
    ["preset queues", {}, field(REG.IDR1, IDR1, "QUEUES_PRESET", 1n), -ENXIO],
    ["relative queues", {}, field(REG.IDR1, IDR1, "REL", 1n), -ENXIO],
    ["a command queue of 64", { features: { CMDQS: 6 } }, {}, -ENXIO],
    ["one page of registers", {}, { registerBytes: 0x10000 }, -EINVAL],
    ["no memory", {}, { ramPages: 16 }, -ENOMEM],
    [
      "CR0 that is not acknowledged",
      {},
      { read: (offset, value) => (offset === REG.CR0ACK ? value ^ 1 : value) },
      -ETIMEDOUT,
    ],
    [
      "CR0ACK that shows what was not written",
      {},
      { read: (offset, value) => (offset === REG.CR0ACK ? value | 0x40 : value) },
      -ETIMEDOUT,
    ],
    [
      "IRQ_CTRL that is not acknowledged",
      {},
      { read: (offset, value) => (offset === REG.IRQ_CTRLACK ? 0x10 : value) },
      -ETIMEDOUT,
    ],
  ])("refuses %s, and gives back what it took", (_what, options, meddling, errno) => {
    const { instance, frames, clock } = bench(options, meddling);
    const before = clock.now;
    expect(instance.probe()).toBe(errno);
    if (errno === -ETIMEDOUT) expect(clock.now - before).toBeGreaterThanOrEqual(1e9);
    instance.shutDown();
    expect(frames.usedPages).toBe(0);
  });

  it("takes tables of either order, and the least command queue", () => {
    up({ features: { TTENDIAN: 0, CMDQS: 7 } });
  });

  it("writes registers in the order of Linux's reset", () => {
    const { writes } = up({ features: { MSI: false } });
    // CR0 values one by one: off, commands, events, page requests, ATS checks, translation.
    const control = writes.filter(({ name }) => name === "CR0").map(({ value }) => CR0.describe([BigInt(value)]));
    expect(control).toEqual([
      "",
      "CMDQEN=1",
      "EVENTQEN=1 CMDQEN=1",
      "PRIQEN=1 EVENTQEN=1 CMDQEN=1",
      "PRIQEN=1 EVENTQEN=1 CMDQEN=1 ATSCHK=1",
      "SMMUEN=1 PRIQEN=1 EVENTQEN=1 CMDQEN=1 ATSCHK=1",
    ]);
    const names = writes.map(({ name }) => name);
    expect(names.filter((name, i) => name !== names[i - 1])).toEqual([
      "CR0",
      "CR1",
      "CR2",
      "STRTAB_BASE",
      "STRTAB_BASE_CFG",
      "CMDQ_BASE",
      "CMDQ_PROD",
      "CMDQ_CONS",
      "CR0",
      // CFGI_ALL, TLBI_EL2_ALL, TLBI_NSNH_ALL, a CMD_SYNC behind each.
      "CMDQ_PROD",
      "EVENTQ_BASE",
      "EVENTQ_PROD",
      "EVENTQ_CONS",
      "CR0",
      "PRIQ_BASE",
      "PRIQ_PROD",
      "PRIQ_CONS",
      "CR0",
      "IRQ_CTRL",
      "GERROR_IRQ_CFG0",
      "EVENTQ_IRQ_CFG0",
      "PRIQ_IRQ_CFG0",
      "IRQ_CTRL",
      "CR0",
    ]);
    expect(writes.find(({ name }) => name === "CR1")?.value).toBe(0xd75);
  });

  it("blocks what an SMMU that is on lets through, before it turns it off", () => {
    const { smmu, instance, writes } = bench();
    smmu.registers.mmioWrite(REG.CR0, 4, 1, 0);
    expect(instance.probe()).toBe(0);
    expect(writes[0]).toMatchObject({ name: "GBPA" });
    expect(smmu.registers.mmioRead(REG.GBPA, 4) & (1 << 20)).not.toBe(0);
  });

  it("issues its first invalidations one by one", () => {
    const made = bench();
    const names: string[] = [];
    made.trace.addSink({ event: (event) => event.type === "command" && names.push(event.name) });
    made.instance.probe();
    expect(names).toEqual(["CFGI_STE_RANGE", "SYNC", "TLBI_EL2_ALL", "SYNC", "TLBI_NSNH_ALL", "SYNC"]);
  });
});

describe("streams", () => {
  it("without a device abort in silence, those of a device as its entry says", () => {
    const { instance, smmu, events, run } = up();
    const translate = (stream: number) => smmu.translate(stream, -1, false, ACCESS_READ, 5, 0, false, -1);
    const one = device(0x1_0105);
    expect(instance.addDevice(one)).toBe(0);
    expect(translate(0x1_0105)).toBe(REFUSED);
    // A neighbour in the same second-level table, too.
    expect(translate(0x1_0106)).toBe(REFUSED);
    expect(instance.writeStreamEntry(one, bypassEntry(traits))).toBe(true);
    expect(translate(0x1_0105)).toBe(TRANSLATED);
    expect(translate(0x1_0106)).toBe(REFUSED);
    run();
    expect(events).toEqual([]);
    instance.removeDevice(one);
    expect(translate(0x1_0105)).toBe(REFUSED);
  });

  it("outside of the table, or another's, are refused", () => {
    const { instance } = up({ features: { SIDSIZE: 6, ST_LEVEL: 0 } });
    expect(instance.addDevice(device(64))).toBe(-ERANGE);
    expect(instance.addDevice(device(63))).toBe(0);
    expect(instance.addDevice(device(63))).toBe(-ENODEV);
  });

  it("of which nobody has a table are C_BAD_STREAMID", () => {
    const { smmu, events, run } = up();
    expect(smmu.translate(0x2_0000, -1, false, ACCESS_READ, 5, 0, false, -1)).toBe(REFUSED);
    run();
    expect(events.map(([word]) => [Number(word! & 0xffn), Number(word! >> 32n)])).toEqual([[2, 0x2_0000]]);
  });
});

describe.each<[string, Smmuv3Options]>([
  ["messages", {}],
  ["CONS", { features: { MSI: false } }],
])("the command queue, with CMD_SYNC seen by %s", (_how, options) => {
  const TLBI = encodeCommand("TLBI_NSNH_ALL");

  it("hands commands over in batches of 64, and a CMD_SYNC behind the last", () => {
    const { instance, writes, smmu } = up(options);
    writes.length = 0;
    for (let i = 0; i < 130; i++) instance.queue.push(TLBI);
    expect(instance.queue.sync()).toBe(0);
    const handed = writes.filter(({ name }) => name === "CMDQ_PROD").map(({ value }) => value);
    const start = handed[0]! - 64;
    expect(handed).toEqual([start + 64, start + 128, start + 131]);
    expect(smmu.registers.mmioRead(REG.CMDQ_CONS, 4)).toBe(start + 131);
    // Nothing to wait for: no CMD_SYNC.
    writes.length = 0;
    expect(instance.queue.sync()).toBe(0);
    expect(writes).toEqual([]);
  });

  it("goes round a small ring as often as it takes", () => {
    const made = up({ features: { ...options.features, CMDQS: 7 } });
    let commands = 0;
    made.trace.addSink({ event: (event) => event.type === "command" && event.name === "TLBI_NSNH_ALL" && commands++ });
    for (let round = 0; round < 7; round++) {
      for (let i = 0; i < 300; i++) made.instance.queue.push(TLBI);
      expect(made.instance.queue.sync()).toBe(0);
    }
    expect(commands).toBe(2100);
  });

  it("makes a command that the hardware does not take a CMD_SYNC, and goes on", () => {
    const { instance, smmu, trace } = up(options);
    const names: (string | null)[] = [];
    trace.addSink({ event: (event) => event.type === "command" && names.push(event.name) });
    expect(instance.issue([TLBI, [0xeen, 0n], TLBI])).toBe(0);
    expect(names).toEqual(["TLBI_NSNH_ALL", "illegal", "SYNC", "TLBI_NSNH_ALL", "SYNC"]);
    expect(instance.queue.errors).toBe(1);
    expect(smmu.registers.mmioRead(REG.GERROR, 4)).toBe(smmu.registers.mmioRead(REG.GERRORN, 4));
    expect(commandName(TLBI[0])).toBe("TLBI_NSNH_ALL");
    // Two and more, too, also at the very end.
    expect(
      instance.issue([
        [0xeen, 0n],
        [0xefn, 0n],
      ]),
    ).toBe(0);
    expect(instance.queue.errors).toBe(3);
  });

  it("gives a CMD_SYNC that does not come to an end a second, and goes on with the next", () => {
    const meddling = { stuck: false };
    const made = up(options);
    const { drain } = made.smmu;
    made.smmu.drain = () => {
      if (!meddling.stuck) drain.call(made.smmu);
    };
    meddling.stuck = true;
    const before = made.clock.now;
    expect(made.instance.issue([TLBI])).toBe(-ETIMEDOUT);
    expect(made.clock.now - before).toBeGreaterThanOrEqual(1e9);
    meddling.stuck = false;
    expect(made.instance.issue([TLBI])).toBe(0);
  });

  it("that no longer makes room takes nothing more, and says so", () => {
    const made = up({ features: { ...options.features, CMDQS: 7 } });
    made.smmu.drain = () => {};
    for (let i = 0; i < 400; i++) made.instance.queue.push(TLBI);
    expect(made.instance.queue.sync()).toBe(-ETIMEDOUT);
    const before = made.clock.now;
    expect(made.instance.issue([TLBI])).toBe(-ETIMEDOUT);
    expect(made.clock.now).toBe(before);
  });
});

describe("interrupts", () => {
  it.each([
    ["by message where there are enough of them", 3, 0x7000_0000],
    ["by wire where there are too few", 2, 0],
    ["by wire where there are none", 0, 0],
  ])("come %s", (_how, messages, address) => {
    const { smmu, events, run } = up({}, { messages });
    for (const register of [REG.GERROR_IRQ_CFG0, REG.EVENTQ_IRQ_CFG0, REG.PRIQ_IRQ_CFG0]) {
      expect(smmu.registers.mmioRead(register, 8)).toBe(address);
    }
    smmu.translate(0x5_0000, -1, false, ACCESS_READ, 5, 0, false, -1);
    run();
    expect(events.length).toBe(address === 0 ? 1 : 0);
  });
});

describe("errata", () => {
  it.each([
    ["MMU-600 r1p2", 0x483, 0x12, false],
    ["MMU-600 r2p0", 0x483, 0x20, true],
    ["MMU-700 r1p0", 0x487, 0x10, false],
    ["MMU-700 r1p1", 0x487, 0x11, true],
    ["another maker's", 0x999, 0x00, true],
  ])("nesting on %s", (_name, product, release, nests) => {
    const { instance } = up({ iidr: ((product << 20) | (release << 12) | 0x43b) >>> 0 });
    expect(instance.supportsNesting).toBe(nests);
  });
});

describe("an MMU-700 of the first releases", () => {
  it("gets a CMD_SYNC behind every 63 commands", () => {
    const iidr = (release: number) => ((0x487 << 20) | (release << 12) | 0x43b) >>> 0;
    const syncs = (release: number): number => {
      const made = up({ iidr: iidr(release) });
      let count = 0;
      made.trace.addSink({ event: (event) => event.type === "command" && event.name === "SYNC" && count++ });
      made.instance.issue(Array.from({ length: 130 }, () => encodeCommand("TLBI_NSNH_ALL")));
      return count;
    };
    expect(syncs(0x00)).toBe(3);
    expect(syncs(0x10)).toBe(3);
    expect(syncs(0x11)).toBe(1);
  });
});

describe("records", () => {
  /** Makes `count` records: transactions of a stream that has no table. */
  const fault = (smmu: Smmuv3, count: number) => {
    for (let i = 0; i < count; i++) smmu.translate(0x5_0000 + i * 256, -1, false, ACCESS_READ, 5, 0, false, -1);
  };

  it("come in order, all of them, and once", () => {
    const { smmu, events, run } = up();
    fault(smmu, 5);
    run();
    expect(events.map(([word]) => Number(word! >> 32n) - 0x5_0000)).toEqual([0, 256, 512, 768, 1024]);
    fault(smmu, 1);
    run();
    expect(events.length).toBe(6);
  });

  it("that were lost for want of room are noticed, and the overflow is acknowledged", () => {
    const { smmu, events, lost, run } = up({ features: { EVENTQS: 2 } });
    fault(smmu, 7);
    run();
    expect(events.length).toBe(4);
    expect(lost).toEqual(["events"]);
    fault(smmu, 7);
    run();
    expect([events.length, lost.length]).toEqual([8, 2]);
  });

  it("that come while records are handled are handled, too", () => {
    const made = up();
    let more = 3;
    made.events.push = (...words) => {
      if (more-- > 0) fault(made.smmu, 1);
      return Array.prototype.push.apply(made.events, words);
    };
    fault(made.smmu, 1);
    made.run();
    expect(made.events.length).toBe(4);
  });

  it("whose memory is gone raise a global error, which is acknowledged", () => {
    const { instance, smmu, run } = up();
    // The event queue's base register is guarded: its memory goes instead.
    const base = smmu.registers.mmioRead(REG.EVENTQ_BASE, 8);
    expect(base).not.toBe(0);
    smmu.registers.mmioWrite(REG.CR0, 4, smmu.registers.mmioRead(REG.CR0, 4) & ~4, 0);
    smmu.registers.mmioWrite(REG.EVENTQ_BASE, 8, 0x0000_000c, 0x40);
    smmu.registers.mmioWrite(REG.CR0, 4, smmu.registers.mmioRead(REG.CR0, 4) | 4, 0);
    fault(smmu, 1);
    expect(smmu.registers.mmioRead(REG.GERROR, 4)).not.toBe(smmu.registers.mmioRead(REG.GERRORN, 4));
    run();
    expect(instance.globalErrors).toBe(1);
    expect(smmu.registers.mmioRead(REG.GERROR, 4)).toBe(smmu.registers.mmioRead(REG.GERRORN, 4));
  });
});
