// The trace of the default guest tells one DMA's story from the guest's store to the bytes, and back from a fault to the guest's interrupt,
// each event with its cause.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { parseTrace } from "../../../host/base/trace-json.ts";
import { nestbox } from "./command-line.ts";

const folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
let events: TracedEvent[];
let bySeq: Map<number, TracedEvent>;

beforeAll(() => {
  const file = join(folder, "trace.jsonl");
  expect(nestbox("boot", "--trace", file).status).toBe(0);
  events = [...parseTrace(readFileSync(file, "utf8"))];
  bySeq = new Map(events.map((event) => [event.seq, event]));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Types of an event and its causes, first cause first; "where" appended where there is one. */
function story(event: TracedEvent | undefined): string[] {
  const chain: string[] = [];
  for (let at = event; at !== undefined; at = bySeq.get(at.cause)) {
    chain.unshift("where" in at ? `${at.type} ${at.where}` : at.type);
  }
  return chain;
}

describe("the trace of the default guest", () => {
  it("shows how a guest's store to the tail register becomes a device context in the host", () => {
    const nested = events.find((event) => event.type === "attach" && /fsc=0x8/.test(event.detail));
    expect(story(nested)).toEqual(["mmio", "command guest", "ioctl", "attach"]);
    expect(nested).toMatchObject({ device: expect.stringMatching(/^0000:00:0[12]\.0$/) });
  });

  it("shows the first DMA: the guest's store that started it, each load of its walk at host addresses, and the bytes", () => {
    const dma = events.find((event) => event.type === "dma")!;
    expect(dma).toMatchObject({ result: "ok" });
    expect(story(dma)).toEqual(["mmio", "dma"]);
    const steps = events.filter(
      (event) => event.type === "walk" && event.where === "host" && event.cause === dma.cause && event.seq < dma.seq,
    );
    const tables = steps.map((event) => event.type === "walk" && `${event.table} ${event.level}`);
    // Three directory levels, then for each of three first-stage levels and the final address a second-stage walk (Sv48x4 ends at
    // level 1, for guest RAM is mapped with 2 MiB leaves).
    const second = ["stage2 3", "stage2 2", "stage2 1"];
    expect(tables).toEqual([
      ...["DDT 2", "DDT 1", "DDT 0"],
      ...[...second, "stage1 2", ...second, "stage1 1", ...second, "stage1 0", ...second],
    ]);
    // The guest's tables are at 0x8000_0000 and up for the guest, elsewhere in the host.
    for (const step of steps) {
      expect(step.type === "walk" && step.space === "spa" && step.address >= 0x8_0000_0000n).toBe(true);
    }
  });

  it("shows how a fault comes back: hardware, kernel, the guest's fault queue, the guest's interrupt", () => {
    const delivered = events.filter(
      (event) => event.type === "irq" && event.where === "guest" && event.source === "message",
    );
    expect(delivered.map(story)).toContainEqual([
      ...["mmio", "fault hardware", "irq host", "fault kernel", "fault guest", "irq guest"],
    ]);
  });

  it("numbers events without gaps, never lets time go back, and names only earlier causes", () => {
    // A system call is numbered when it begins and written when its result is known: after what it caused.
    const inOrder = [...events].sort((a, b) => a.seq - b.seq);
    expect(inOrder.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    let time = 0;
    for (const event of inOrder) {
      expect(event.cause).toBeLessThan(event.seq);
      expect(event.time).toBeGreaterThanOrEqual(time);
      time = event.time;
    }
  });
});
