// Memory of foreign processes as a modelled host's physical memory: which frames its pages are, and how long.

import { describe, expect, it } from "vitest";
import type { PrivateMemory } from "../../../host/adapters/foreign-pages.ts";
import { HostedFrames } from "../../../host/adapters/hosted-frames.ts";
import type { HpaPfn } from "../../../host/base/address.ts";
import { ACCESS_FAULT, ACCESS_OK, PhysicalMemory } from "../../../host/base/memory.ts";
import type { FrameRun } from "../../../host/kernel/file.ts";
import { HostFrames } from "../../../host/kernel/host-frames.ts";

const RAM = 0x800000 as HpaPfn;

/** A process whose every byte is known: what was written, else the low byte of its page number. */
class KnownProcess implements PrivateMemory {
  alive = true;
  readonly written = new Map<number, number>();

  readAt(address: number, into: Uint8Array): boolean {
    for (let i = 0; i < into.length; i++) {
      into[i] = this.written.get(address + i) ?? Math.floor((address + i) / 4096) & 0xff;
    }
    return this.alive;
  }

  writeAt(address: number, from: Uint8Array): boolean {
    for (const [i, byte] of from.entries()) this.written.set(address + i, byte);
    return this.alive;
  }

  addressOf(): number | null {
    return null;
  }
}

function setup() {
  const memory = new PhysicalMemory<HpaPfn>();
  memory.addBank(RAM, new ArrayBuffer(16 * 4096));
  const host = new HostFrames(memory, { base: RAM, pages: 16 });
  const frames = new HostedFrames(host);
  const start = () => {
    const process = new KnownProcess();
    frames.memories.add(process);
    return process;
  };
  const pin = (process: KnownProcess, first: number, count: number, from = 0x1000, to = 0x9000): FrameRun[] => {
    const runs = frames.privateRuns(process, first, count, from, to);
    if (typeof runs === "number") throw new Error(`refused: ${runs}`);
    for (const run of runs) frames.pins.pin(run);
    return runs;
  };
  return { memory, host, frames, start, pin };
}

describe("private pages of a process", () => {
  it("are consecutive frames, one page one frame, at the same place in a large page as in user space", () => {
    const { frames, start, pin } = setup();
    const process = start();
    const [run] = pin(process, 0x1234, 0x300);
    expect(run!.count).toBe(0x300);
    expect(run!.frame % 512).toBe(0x1234 % 512);
    const [again] = pin(process, 0x1300, 1);
    expect(again!.frame - run!.frame).toBe(0x1300 - 0x1234);
    expect(frames.pins.countOf(again!.frame)).toBe(2);
    const [other] = pin(start(), 0x1234, 1);
    expect(other!.frame).not.toBe(run!.frame);
  });

  it("are read and written where the process has them, also across pages; nothing else is", () => {
    const { memory, start, pin } = setup();
    const process = start();
    const [run] = pin(process, 0x2000, 4, 0x2000, 0x2004);
    const frame = run!.frame as HpaPfn;
    const bytes = new Uint8Array(16);
    expect(memory.read(frame, 4088, bytes, 0, 16)).toBe(ACCESS_OK);
    expect([...bytes]).toEqual([...Array(8).fill(0), ...Array(8).fill(1)]);
    expect(memory.store64((frame + 2) as HpaPfn, 8, 0x44332211, 0x88776655)).toBe(ACCESS_OK);
    expect([...Array(8).keys()].map((i) => process.written.get(0x2002 * 4096 + 8 + i))).toEqual([
      0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
    ]);
    expect(memory.load64((frame + 2) as HpaPfn, 8)).toBe(ACCESS_OK);
    expect([memory.lo, memory.hi]).toEqual([0x44332211, 0x88776655]);
    expect(memory.load32((frame + 2) as HpaPfn, 12)).toBe(ACCESS_OK);
    expect(memory.lo).toBe(0x88776655);
    expect(memory.compareExchange64((frame + 2) as HpaPfn, 8, 0x44332211, 0x88776655, 1, 2)).toBe(ACCESS_OK);
    expect(memory.load64((frame + 2) as HpaPfn, 8)).toBe(ACCESS_OK);
    expect([memory.lo, memory.hi]).toEqual([1, 2]);
    expect(memory.contains(frame, 4)).toBe(true);
    expect(memory.contains(frame, 5)).toBe(false);
    expect(memory.load64((frame + 4) as HpaPfn, 0)).toBe(ACCESS_FAULT);
    expect(memory.read((frame + 3) as HpaPfn, 4090, bytes, 0, 16)).toBe(ACCESS_FAULT);
    expect(memory.windowAt(frame)).toBe(null);
  });

  it("cannot be reached when the process is gone, and leave the machine with their last pin", () => {
    const { memory, frames, start, pin } = setup();
    const process = start();
    const [run] = pin(process, 0x2000, 8);
    const frame = run!.frame as HpaPfn;
    process.alive = false;
    frames.ended(process);
    expect(memory.contains(frame)).toBe(true);
    expect(memory.load64(frame, 0)).toBe(ACCESS_FAULT);
    frames.pins.unpin(run!);
    expect(memory.contains(frame)).toBe(false);
    expect(frames.pins.total).toBe(0);
    // One without a pin goes at once.
    const idle = start();
    const [once] = pin(idle, 0x2000, 1);
    frames.pins.unpin(once!);
    expect(memory.contains(once!.frame as HpaPfn)).toBe(true);
    idle.alive = false;
    frames.ended(idle);
    expect(memory.contains(once!.frame as HpaPfn)).toBe(false);
  });

  it("of a process that maps ever new places do not pile up", () => {
    const { memory, frames, start, pin } = setup();
    const process = start();
    const kept = pin(process, 0x100000, 1, 0x100000, 0x100001)[0]!;
    const seen: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const first = 0x200000 + i * 16;
      const [run] = pin(process, first, 2, first, first + 8);
      seen.push(run!.frame);
      frames.pins.unpin(run!);
    }
    expect(seen.filter((frame) => memory.contains(frame as HpaPfn)).length).toBeLessThanOrEqual(256);
    expect(memory.contains(kept.frame as HpaPfn)).toBe(true);
  });

  it("that lie partly in a span take the rest from another, and nothing overlaps", () => {
    const { start, pin } = setup();
    const process = start();
    pin(process, 0x2000, 4, 0x2000, 0x2004);
    // The mapping has grown on both sides.
    const runs = pin(process, 0x1ff0, 0x20, 0x1ff0, 0x2010);
    expect(runs.map(({ count }) => count)).toEqual([0x10, 4, 0xc]);
    const ends = runs.map(({ frame, count }) => [frame, frame + count] as const).sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < ends.length; i++) expect(ends[i]![0]).toBeGreaterThanOrEqual(ends[i - 1]![1]);
  });
});
