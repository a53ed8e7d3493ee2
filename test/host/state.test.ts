// A host with its kernel, hardware and devices: saved while devices work, disturbed and restored, it does what a host does that was left
// alone - the same trace, the same bytes, the same answers to a process.

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { restoreTree, StateError, type Stateful } from "../../host/base/state.ts";
import { Trace } from "../../host/base/trace.ts";
import { traceLine } from "../../host/base/trace-json.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import * as R from "../../host/devices/edu/registers.ts";
import { Host } from "../../host/host.ts";
import { Random } from "./devices/nvme/hostile-guest.ts";
import { eduDma, eduOutcome, User } from "./kernel/machine.ts";
import { digest, machineOf, memoryPart, saved } from "./saved-machine.ts";

const IOVA = 0x10_0000n;
const PAGES = 16;
const MSI = 1;

/** Two devices in a process's hands, interrupts on eventfds, memory mapped. */
class Bench {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly host = new Host(builtInHosts[0]!, { clock: this.clock, trace: this.trace });
  readonly tree: Stateful;
  readonly seen: unknown[] = [];
  readonly #names: string[];
  readonly #user: User;
  readonly #devices;
  readonly #iommufd: number;
  readonly #ioas: number;
  readonly #memory: bigint;

  constructor() {
    const { host } = this;
    this.#names = host.deviceNames.filter((name) => host.functionOf(name) instanceof Edu).slice(0, 2);
    const user = new User(host.createProcess());
    this.#user = user;
    this.#iommufd = user.iommufd();
    this.#ioas = user.ioas(this.#iommufd);
    this.#memory = user.process.memory.allocate(PAGES * 4096);
    this.#devices = this.#names.map((name) => {
      const vfio = user.open(host.vfioPath(name));
      user.bind(vfio, this.#iommufd);
      user.attach(vfio, this.#ioas);
      user.enableDevice(vfio);
      const { eventfd, result } = user.irq(vfio, MSI);
      expect(result).toBe(0);
      return { name, bar: user.bar0(vfio), eventfd };
    });
    for (let page = 0; page < PAGES; page++) this.#map(page);
    // RAM is the host's to save; what processes lend it is saved here.
    const parts: Record<string, Stateful> = { trace: this.trace, host };
    for (const { basePfn, bytes } of host.memory.banks.slice(1)) parts[`lent ${basePfn}`] = memoryPart(bytes);
    this.tree = machineOf(this.clock, parts);
  }

  #map(page: number): number {
    const at = BigInt(page) * 4096n;
    return this.#user.map(this.#iommufd, this.#ioas, this.#memory + at, 4096, IOVA + at);
  }

  run(random: Random, steps: number): void {
    const { clock, host, seen } = this;
    for (let i = 0; i < steps; i++) {
      const { name, bar, eventfd } = random.pick(this.#devices);
      const page = random.below(PAGES);
      switch (random.below(7)) {
        case 0:
        case 1:
          eduDma(bar, IOVA + BigInt(page * 4096 + 4000), 1 + random.below(200), random.below(2) === 0, true);
          break;
        case 2:
          bar.mmioWrite(R.STATUS, 4, R.STATUS_RAISE_INTERRUPT, 0);
          bar.mmioWrite(R.FACTORIAL, 4, random.below(10), 0);
          break;
        case 3:
          seen.push(this.#user.unmap(this.#iommufd, this.#ioas, IOVA + BigInt(page) * 4096n, 4096n));
          break;
        case 4:
          seen.push(this.#map(page));
          break;
        case 5:
          if (random.below(3) === 0)
            host.inject(random.pick([[], [`device:${name}=slow/300`], [`device:${name}=dead`]]));
          else seen.push(eduOutcome(bar), bar.mmioRead(R.FACTORIAL, 4));
          break;
        default: {
          // What is due fires; an interrupt that has just arrived waits for the next round.
          clock.advance(random.pick([0, 500, 1000, 4000]));
          clock.fireDue();
          seen.push(clock.now, clock.pending, this.#user.count(eventfd));
        }
      }
    }
    seen.push({ ...host.dmaCounters });
  }

  /** All that can be told of the host from here on. */
  after(random: Random): unknown {
    const { seen, trace } = this;
    seen.length = 0;
    const hash = createHash("sha256");
    const sink = { event: (event: Parameters<typeof traceLine>[0]) => hash.update(traceLine(event)) };
    trace.addSink(sink);
    this.run(random, 80);
    trace.removeSink(sink);
    return [...seen, hash.digest("hex"), digest(this.tree)];
  }
}

describe("a host", () => {
  it.each([1, 2, 3, 4])("goes on as if its state had never been taken (seed %i)", (seed) => {
    const random = new Random(seed);
    const twin = random.copy();
    const bench = new Bench();
    bench.run(random, 100);
    const document = saved(bench.tree);
    bench.run(new Random(seed + 100), 60);
    restoreTree(bench.tree, document);
    const left = new Bench();
    left.run(twin, 100);
    expect(bench.after(random.copy())).toEqual(left.after(random.copy()));
  });

  it("refuses a document of a host whose device has been pulled out since", () => {
    const bench = new Bench();
    const document = saved(bench.tree);
    const free = bench.host.deviceNames.at(-1)!;
    bench.host.pullOut(free);
    expect(() => restoreTree(bench.tree, document)).toThrow(StateError);
    expect(() => restoreTree(bench.tree, document)).toThrow(`${free} is not plugged in here`);
  });
});
