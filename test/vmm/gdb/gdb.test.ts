// GDB's remote protocol over a real socket, packet by packet, with both CPUs on small guests.

import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { RAM_BASE, UART_BASE } from "../../../vmm/memory-map.ts";
import { nestbox } from "../cli/command-line.ts";
import { Program } from "../rv64-program.ts";
import { addi } from "../vcpu/riscv64/encode.ts";
import { DebuggedRun, Debugger, littleEndian } from "./client.ts";
import { arm64Guest, copies, DATA, type DebugGuest, HIGH, rv64Guest } from "./guests.ts";

let folder: string;
let run: DebuggedRun | null = null;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-gdb-"));
});
afterEach(() => {
  run?.child.kill("SIGKILL");
  run = null;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const hex = (value: bigint | number): string => value.toString(16);
const little = (word: number): string => Buffer.from(Uint32Array.of(word).buffer).toString("hex");

function fileOf(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const BARE = ["--viommu", "none", "--memory", "16M"];

async function debug(kernel: string, ...args: string[]): Promise<Debugger> {
  const started = await DebuggedRun.start("boot", "--kernel", kernel, "--gdb", "0", "--paused", ...args);
  run = started.run;
  const debug = await Debugger.connect(started.port);
  return debug.withoutAcks();
}

describe.each([rv64Guest(), arm64Guest()])("a debugger of a $name machine", (guest: DebugGuest) => {
  const start = (...args: string[]) => debug(fileOf(guest.name, guest.file), ...BARE, ...args);
  /** To the loop, after `rounds` rounds of it. */
  async function inLoop(rounds = 0, ...args: string[]): Promise<Debugger> {
    const it = await start(...args);
    expect(await it.ask(`Z0,${hex(guest.loop)},4`)).toBe("OK");
    for (let round = 0; round <= rounds; round++) expect(await it.ask("c")).toBe("T05thread:1;");
    return it;
  }

  it("is told what it is: features, acknowledgements, threads, registers", async () => {
    const started = await DebuggedRun.start(
      ...["boot", "--kernel", fileOf(guest.name, guest.file), "--gdb", "0", "--paused", ...BARE],
    );
    run = started.run;
    const it = await Debugger.connect(started.port);
    const supported = await it.ask("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386");
    expect(supported).toBe("PacketSize=4000;qXfer:features:read+;vContSupported+;QStartNoAckMode+");
    expect(it.acknowledged).toBe(1);
    it.socket.write("$g#00"); // a wrong checksum: it is asked for again
    await it.withoutAcks();
    expect(it.refused).toBe(1);
    const before = it.acknowledged;
    expect(await it.ask("vMustReplyEmpty")).toBe("");
    expect(it.acknowledged).toBe(before);
    expect(await it.ask("?")).toBe("T05thread:1;");
    expect(await it.ask("qAttached")).toBe("1");
    expect(await it.ask("qC")).toBe("QC1");
    expect(await it.ask("qfThreadInfo")).toBe("m1");
    expect(await it.ask("qsThreadInfo")).toBe("l");
    expect(await it.ask("T1")).toBe("OK");
    expect(await it.ask("T2")).toBe("E01");
    expect(await it.ask("vCont?")).toBe("vCont;c;C;s;S");

    let xml = "";
    for (let at = 0; ; at += 500) {
      const piece = await it.ask(`qXfer:features:read:target.xml:${hex(at)},1f4`);
      xml += piece.slice(1);
      if (piece[0] === "l") break;
      expect(piece).toHaveLength(501);
    }
    expect(xml).toContain(`<architecture>${guest.architecture}</architecture>`);
    const registers = [...xml.matchAll(/<reg name="(\w+)" bitsize="(\d+)"/g)];
    expect(registers).toHaveLength(guest.registers);
    const bytes = registers.reduce((sum, [, , bits]) => sum + Number(bits) / 8, 0);
    expect(await it.ask("g")).toHaveLength(2 * bytes);
    expect(registers.findIndex(([, name]) => name === "pc")).toBe(guest.pc);
    expect(await it.register(guest.pc)).toBe(BigInt(RAM_BASE));
    expect(await it.ask("pfff")).toBe("E01");
    expect(await it.ask("qXfer:features:read:other.xml:0,10")).toBe("E00");
  });

  it("stops at breakpoints and steps from there, reads code and counts", async () => {
    const it = await inLoop(2);
    expect(await it.register(guest.pc)).toBe(guest.loop);
    expect(await it.register(guest.counter)).toBe(2n);
    expect(await it.memory(guest.loop, 20)).toBe(guest.words.map(little).join(""));
    for (const offset of [4, 8, 12, 16, 0]) {
      expect(await it.ask("vCont;s:1")).toBe("T05thread:1;");
      expect(await it.register(guest.pc)).toBe(guest.loop + BigInt(offset));
    }
    expect(await it.register(guest.counter)).toBe(3n);
    expect(await it.ask(`Z1,${hex(guest.loop + 12n)},4`)).toBe("OK");
    expect(await it.ask(`z0,${hex(guest.loop)},4`)).toBe("OK");
    expect(await it.ask("vCont;c")).toBe("T05thread:1;");
    expect(await it.register(guest.pc)).toBe(guest.loop + 12n);
    expect(await it.ask(`z1,${hex(guest.loop + 12n)},4`)).toBe("OK");
    // 100,000 instructions from here on it is still at it, and Ctrl-C finds it there
    it.send("c");
    it.socket.write(Uint8Array.of(3));
    expect(await it.next()).toBe("T02thread:1;");
    const pc = await it.register(guest.pc);
    expect(pc >= guest.loop && pc < guest.loop + 20n).toBe(true);
    expect((await it.register(guest.counter)) >= 3n).toBe(true);
  });

  it("reads and writes memory by the tables of the CPU, or past them, and registers", async () => {
    const it = await inLoop(1);
    const data = HIGH + BigInt(DATA);
    const physical = BigInt(RAM_BASE + DATA);
    expect(littleEndian(await it.memory(data, 8))).toBe(41n);
    expect(await it.memory(physical, 16)).toBe(await it.memory(data, 16));
    // where no table leads, and where a range ends
    expect(await it.memory(0x1000_0000n, 4)).toBe("E0e");
    expect(await it.memory(HIGH + (16n << 20n) - 4n, 8)).toHaveLength(8);
    expect(await it.ask("qqemu.PhyMemMode")).toBe("0");
    expect(await it.ask("Qqemu.PhyMemMode:1")).toBe("OK");
    expect(await it.memory(data, 8)).toBe("E0e");
    expect(littleEndian(await it.memory(physical, 8))).toBe(41n);
    // a device's registers are not memory: reading them could change them
    expect(await it.memory(BigInt(UART_BASE), 1)).toBe("E0e");
    expect(await it.ask("Qqemu.PhyMemMode:0")).toBe("OK");

    expect(await it.ask(`M${hex(data)},2:e703`)).toBe("OK");
    await it.ask("c");
    expect(littleEndian(await it.memory(data + 8n, 8))).toBe(1000n);
    expect(await it.ask(`X${hex(data)},4:${"#$}*"}`)).toBe("OK");
    expect(await it.memory(data, 4)).toBe(Buffer.from("#$}*").toString("hex"));
    expect(await it.ask(`X${hex(data)},0:`)).toBe("OK");
    expect(await it.ask(`M${hex(data)},3:0000`)).toBe("E01");
    expect(await it.ask(`M${hex(0x1000_0000)},1:00`)).toMatch(/^E\./);

    expect(await it.ask(`P${hex(guest.counter)}=0102030000000000`)).toBe("OK");
    expect(await it.register(guest.counter)).toBe(0x30201n);
    await it.ask("c");
    expect(await it.register(guest.counter)).toBe(0x30202n);
    const all = await it.ask("g");
    expect(await it.ask(`P${hex(guest.counter)}=0000000000000000`)).toBe("OK");
    expect(await it.ask(`G${all}`)).toBe("OK");
    expect(await it.ask("g")).toBe(all);
    expect(await it.ask("G00")).toBe("E01");
    // code that is written is code that runs: the instruction that counts is one that adds two
    const two = guest.words[3]! + (guest.name === "arm64" ? 1 << 10 : 1 << 20);
    expect(await it.ask(`M${hex(guest.loop + 12n)},4:${little(two)}`)).toBe("OK");
    await it.ask("c");
    expect(await it.register(guest.counter)).toBe(0x30204n);
  });

  it("stops before watched loads and stores, whatever address they came by", async () => {
    const it = await inLoop();
    await it.ask(`z0,${hex(guest.loop)},4`);
    const stored = HIGH + BigInt(DATA) + 8n;
    const low = BigInt(RAM_BASE + DATA);
    expect(await it.ask(`Z2,${hex(stored)},8`)).toBe("OK");
    expect(await it.ask("c")).toBe(`T05thread:1;watch:${hex(stored)};`);
    expect(await it.register(guest.pc)).toBe(guest.loop + 8n);
    expect(littleEndian(await it.memory(stored, 8))).toBe(0n);
    expect(await it.ask("s")).toBe("T05thread:1;");
    expect(littleEndian(await it.memory(stored, 8))).toBe(42n);
    expect(await it.ask("c")).toBe(`T05thread:1;watch:${hex(stored)};`);
    expect(await it.register(guest.counter)).toBe(1n);
    expect(await it.ask(`z2,${hex(stored)},8`)).toBe("OK");
    // a byte of what is loaded, by its other address
    expect(await it.ask(`Z3,${hex(low + 5n)},1`)).toBe("OK");
    expect(await it.ask("c")).toBe(`T05thread:1;rwatch:${hex(low + 5n)};`);
    expect(await it.register(guest.pc)).toBe(guest.loop);
    expect(await it.ask(`z3,${hex(low + 5n)},1`)).toBe("OK");
    // both, and the byte that is touched first
    expect(await it.ask(`Z4,${hex(low)},10`)).toBe("OK");
    expect(await it.ask("c")).toBe(`T05thread:1;awatch:${hex(low + 8n)};`);
    expect(await it.ask("c")).toBe(`T05thread:1;awatch:${hex(low)};`);
    expect(await it.ask(`z4,${hex(low)},10`)).toBe("OK");
    expect(await it.ask(`Z2,${hex(0x1000_0000)},8`)).toMatch(/^E\./);
    expect(await it.ask(`Z5,${hex(low)},8`)).toBe("");
  });

  it("has CPUs as threads, and steps the one that it is asked to", async () => {
    const it = await inLoop(0, "--cpus", "2");
    expect(await it.ask("qfThreadInfo")).toBe("m1,2");
    expect(await it.ask(`z0,${hex(guest.loop)},4`)).toBe("OK");
    expect(Buffer.from(await it.ask("qThreadExtraInfo,2"), "hex").toString()).toBe("CPU 1, runs");
    expect(await it.ask("Hg2")).toBe("OK");
    const other = await it.register(guest.pc);
    expect(await it.ask("vCont;s:2")).toBe("T05thread:2;");
    const next = await it.register(guest.pc);
    if (other >= guest.second) expect(next).toBe(other === guest.second ? guest.second + 4n : guest.second);
    expect(await it.ask("vCont;s:2;c")).toBe("T05thread:2;");
    expect(await it.ask(`Z0,${hex(guest.second + 4n)},4`)).toBe("OK");
    expect(await it.ask("vCont;c")).toBe("T05thread:2;");
    expect(await it.register(guest.pc)).toBe(guest.second + 4n);
    // the other one, from where its turn left it
    expect(await it.ask("Hg1")).toBe("OK");
    const before = await it.register(guest.pc);
    expect(await it.ask(`z0,${hex(guest.second + 4n)},4`)).toBe("OK");
    expect(await it.ask("vCont;s:1")).toBe("T05thread:1;");
    const place = Number(before - guest.loop) / 4;
    expect(await it.register(guest.pc)).toBe(guest.loop + BigInt(((place + 1) % 5) * 4));
    expect(await it.ask("Hg3")).toBe("E01");
  });

  it("asks the monitor", async () => {
    const it = await inLoop();
    expect(await it.monitor("status")).toMatch(/state: paused\nreason: breakpoint\n/);
    expect(await it.monitor("")).toContain("continue");
    expect(await it.monitor("nonsense")).toMatch(/^there is no command "nonsense"/);
    expect(await it.ask("qRcmd,0")).toBe("E01");
  });

  it("and leaves: killed, the run ends; detached, or gone, it runs on", async () => {
    const killed = await inLoop();
    killed.send("k");
    expect(await run!.ended()).toBe(0);
    const it = await inLoop();
    const second = await Debugger.connect(Number(/target remote :(\d+)/.exec(run!.errors)![1]));
    expect(await second.next()).toBe("<closed>");
    expect(await it.ask("D")).toBe("OK");
    // a debugger that is still there is one too many
    const port = Number(/target remote :(\d+)/.exec(run!.errors)![1]);
    const next = async (): Promise<Debugger> => {
      for (;;) {
        const one = await Debugger.connect(port);
        if ((await one.ask("?")) !== "<closed>") return one.withoutAcks();
      }
    };
    const third = await next();
    const counter = await third.register(guest.counter);
    third.socket.destroy();
    // breakpoints have gone with those who set them
    let fourth = await next();
    while ((await fourth.register(guest.counter)) <= counter) {
      await fourth.ask("D");
      fourth = await next();
    }
    expect(await fourth.ask("vKill;1")).toBe("OK");
    expect(await run!.ended()).toBe(0);
  });
});

describe("a run under a debugger", () => {
  const EDU = ["--assign", "0000:00:01.0@00:02.0"];

  it("stops when a device's DMA touches what is watched, and says which device", async () => {
    const to = RAM_BASE + 0x30000;
    const it = await debug(fileOf("copies", copies(to).imageFile), ...BARE, ...EDU);
    expect(await it.ask(`Z2,${hex(to + 60)},8`)).toBe("OK");
    it.send("c");
    const text = Buffer.from((await it.next()).slice(1), "hex").toString();
    expect(text).toMatch(
      /^nestbox: device 0000:00:01\.0 wrote guest-physical 0x8003003c by DMA \(64 bytes at IOVA 0x80030000/,
    );
    expect(await it.next()).toBe(`T05thread:1;watch:${hex(to + 60)};`);
    expect(await it.ask(`z2,${hex(to + 60)},8`)).toBe("OK");
    expect(await it.ask("c")).toBe("W00");
    expect(await run!.ended()).toBe(0);
    expect(run!.output).toContain("done");
  });

  it("has the trace that it has without, if the debugger only looks", async () => {
    const kernel = fileOf("copies", copies(RAM_BASE + 0x30000).imageFile);
    const trace = (name: string) =>
      createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex");
    const args = [...BARE, ...EDU, "--trace"];
    expect(nestbox("boot", "--kernel", kernel, ...args, join(folder, "alone")).status).toBe(0);
    const it = await debug(kernel, ...args, join(folder, "watched"));
    await it.ask(`Z0,${hex(RAM_BASE + 64 + 40)},4`);
    await it.ask(`Z4,${hex(RAM_BASE + 0x30000)},8`);
    let stops = 0;
    for (let reply = await it.ask("c"); !reply.startsWith("W"); ) {
      if (reply.startsWith("T")) {
        stops++;
        await it.ask("g");
        await it.memory(BigInt(RAM_BASE), 256);
        it.send(stops % 3 === 0 ? "c" : "s");
      }
      reply = await it.next();
    }
    expect(stops).toBeGreaterThan(2);
    await run!.ended();
    expect(trace("watched")).toBe(trace("alone"));
  });

  it("is refused where nothing could be debugged", () => {
    expect(nestbox("boot", "--gdb", "0").errors).toMatch(/--gdb needs --kernel/);
    const kernel = fileOf("endless", new Program().emit(addi(0, 0, 0)).jump(0).imageFile);
    expect(nestbox("boot", "--kernel", kernel, "--gdb", "70000").errors).toMatch(/expected a port/);
    const recorded = nestbox("boot", "--kernel", kernel, "--gdb", "0", "--record", join(folder, "r"));
    expect(recorded.errors).toMatch(/--record and --gdb/);
    expect(recorded.status).toBe(2);
  });
});
