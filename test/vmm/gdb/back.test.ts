// Backwards by GDB's remote protocol: a recorded run of a small guest, with both CPUs. What it is like to have gone back is compared with what it was like
// to come by.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { RAM_BASE } from "../../../vmm/memory-map.ts";
import { nestbox } from "../cli/command-line.ts";
import { DebuggedRun, Debugger, littleEndian } from "./client.ts";
import { arm64Guest, copies, DATA, type DebugGuest, HIGH, rv64Guest } from "./guests.ts";

let folder: string;
let run: DebuggedRun | null = null;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-back-"));
});
afterEach(() => {
  run?.child.kill("SIGKILL");
  run = null;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const hex = (value: bigint | number): string => value.toString(16);

/** The debugger of a replay of what boot does with these arguments. */
async function replayed(name: string, kernel: Uint8Array, ...args: string[]): Promise<Debugger> {
  const image = join(folder, name);
  const recording = join(folder, `${name}.recording`);
  writeFileSync(image, kernel);
  rmSync(recording, { force: true });
  const made = nestbox(
    "boot",
    "--kernel",
    image,
    "--viommu",
    "none",
    "--memory",
    "16M",
    "--record",
    recording,
    ...args,
  );
  expect(`${made.output}${made.errors}`).toContain(" instructions");
  const started = await DebuggedRun.start("replay", recording, "--gdb", "0", "--paused", "--quiet");
  run = started.run;
  return (await Debugger.connect(started.port)).withoutAcks();
}

const ENDS = ["--time-limit", "5ms"];

describe.each([rv64Guest(), arm64Guest()])("a replay on $name", (guest: DebugGuest) => {
  it("is stepped back, and run back to the breakpoint before, to its beginning and its end", async () => {
    const it = await replayed(guest.name, guest.file, ...ENDS);
    expect(await it.ask("qSupported")).toMatch(/;ReverseStep\+;ReverseContinue\+$/);
    expect(await it.ask(`Z0,${hex(guest.loop)},4`)).toBe("OK");
    const passed: string[] = [];
    for (let round = 0; round < 4; round++) {
      expect(await it.ask("c")).toBe("T05thread:1;");
      passed.push(await it.ask("g"));
    }
    expect(await it.register(guest.counter)).toBe(3n);
    for (const [offset, counter] of [
      [16n, 3n],
      [12n, 2n],
      [8n, 2n],
    ] as const) {
      expect(await it.ask("bs")).toBe("T05thread:1;");
      expect(await it.register(guest.pc)).toBe(guest.loop + offset);
      expect(await it.register(guest.counter)).toBe(counter);
    }
    for (const before of [2, 1, 0]) {
      expect(await it.ask("bc")).toBe("T05thread:1;");
      expect(await it.ask("g")).toBe(passed[before]);
    }
    expect(await it.ask("bc")).toBe("T05thread:1;replaylog:begin;");
    expect(await it.register(guest.pc)).toBe(BigInt(RAM_BASE));
    expect(await it.ask("bs")).toBe("T05thread:1;replaylog:begin;");
    expect(await it.ask("c")).toBe("T05thread:1;");
    expect(await it.ask("g")).toBe(passed[0]);
    // forwards to the end, where a step back is the last instruction
    expect(await it.ask(`z0,${hex(guest.loop)},4`)).toBe("OK");
    expect(await it.ask("c")).toBe("T05thread:1;replaylog:end;");
    const last = await it.ask("g");
    const count = await it.register(guest.counter);
    expect(count > 1000n).toBe(true);
    expect(await it.ask(`Z0,${hex(guest.loop)},4`)).toBe("OK");
    expect(await it.ask("bc")).toBe("T05thread:1;");
    const near = await it.register(guest.counter);
    expect(near === count || near === count - 1n).toBe(true);
    expect(await it.ask(`z0,${hex(guest.loop)},4`)).toBe("OK");
    expect(await it.ask("c")).toBe("T05thread:1;replaylog:end;");
    expect(await it.ask("g")).toBe(last);
  });

  it("goes back to what touched memory, and lets nothing be written", async () => {
    const it = await replayed(guest.name, guest.file, ...ENDS);
    const stored = HIGH + BigInt(DATA) + 8n;
    await it.ask(`Z0,${hex(guest.loop)},4`);
    for (let round = 0; round < 3; round++) await it.ask("c");
    await it.ask(`z0,${hex(guest.loop)},4`);
    await it.ask(`Z2,${hex(stored)},8`);
    expect(await it.ask("bc")).toBe(`T05thread:1;watch:${hex(stored)};`);
    expect(await it.register(guest.counter)).toBe(1n);
    expect(await it.ask("bc")).toBe(`T05thread:1;watch:${hex(stored)};`);
    expect(littleEndian(await it.memory(stored, 8))).toBe(0n);
    expect(await it.ask("bc")).toBe("T05thread:1;replaylog:begin;");
    expect(await it.ask(`P${hex(guest.counter)}=0100000000000000`)).toMatch(/^E\.a replay is what was recorded/);
    expect(await it.ask(`M${hex(RAM_BASE)},1:00`)).toMatch(/^E\.a replay is what was recorded/);
  });

  it("steps one CPU of two back, over the turns of the other", async () => {
    const it = await replayed(guest.name, guest.file, ...ENDS, "--cpus", "2");
    await it.ask(`Z0,${hex(guest.loop)},4`);
    expect(await it.ask("c")).toBe("T05thread:1;");
    await it.ask(`z0,${hex(guest.loop)},4`);
    await it.ask(`Z0,${hex(guest.second + 4n)},4`);
    for (let stops = 0; stops < 3; stops++) expect(await it.ask("c")).toBe("T05thread:2;");
    // the first CPU's last instruction lies before the turn that the second has begun
    expect(await it.ask("Hg1")).toBe("OK");
    const before = await it.ask("g");
    const pc = await it.register(guest.pc);
    expect(await it.ask("Hc1")).toBe("OK");
    expect(await it.ask("bs")).toBe("T05thread:1;");
    const place = Number(pc - guest.loop) / 4;
    expect(await it.register(guest.pc)).toBe(guest.loop + BigInt(((place + 4) % 5) * 4));
    await it.ask(`z0,${hex(guest.second + 4n)},4`);
    expect(await it.ask("vCont;s:1")).toBe("T05thread:1;");
    expect(await it.ask("g")).toBe(before);
  });
});

describe("a replay with a device", () => {
  it("goes back to the DMA that touched memory", async () => {
    const to = RAM_BASE + 0x30000;
    const it = await replayed("copies", copies(to).imageFile, "--assign", "0000:00:01.0@00:02.0");
    expect(await it.ask("c")).toBe("T05thread:1;replaylog:end;");
    const data = await it.memory(BigInt(to), 8);
    await it.ask(`Z2,${hex(to)},8`);
    it.send("bc");
    expect(Buffer.from((await it.next()).slice(1), "hex").toString()).toMatch(/device 0000:00:01\.0 wrote .* by DMA/);
    expect(await it.next()).toBe(`T05thread:1;watch:${hex(to)};`);
    expect(await it.memory(BigInt(to), 8)).toBe(data);
  });
});
