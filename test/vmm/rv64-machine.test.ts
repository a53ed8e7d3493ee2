// RV64 machines with bare-metal programs. Expectations: RISC-V AIA 1.0 (IMSIC chapter 3, APLIC chapter 4), SBI 2.0, Sstc, the 16550 data
// sheet, and vmm/memory-map.ts for addresses.

import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace, type TracedEvent } from "../../host/base/trace.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import { APLIC_BASE, ECAM_BASE, MSI_BASE, RAM_BASE, UART_BASE } from "../../vmm/memory-map.ts";
import { type KernelImage, KernelImageError } from "../../vmm/platform/kernel-image.ts";
import { Rv64Machine, type Rv64Stop } from "../../vmm/rv64-machine.ts";
import { buildHart } from "../../vmm/vcpu/riscv64/build.mjs";
import { happens } from "../host/base/happens.ts";
import { Random } from "../oracle/random.ts";
import { A0, A1, CSR, HSM, Program, S0, T0, T1 } from "./rv64-program.ts";
import { addi, b, csr, i } from "./vcpu/riscv64/encode.ts";

const MEMORY = 8 * 2 ** 20;
/** The APLIC source of the UART, as the device tree says. */
const UART_SOURCE = 10;
const DATA = RAM_BASE + 0x10_0000;
const IDENTITY = 7;
const OFF = { kind: "off", reset: "shutdown", failure: false };

let core: WebAssembly.Module;
beforeAll(async () => {
  core = await WebAssembly.compile(readFileSync(await buildHart()));
});

class Bench {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly rv64: Rv64Machine;
  output = "";

  constructor(program: Program, options: { harts?: number; sliceInstructions?: number } = {}) {
    const { clock, trace } = this;
    this.rv64 = new Rv64Machine({ core, clock, trace, memoryBytes: MEMORY, harts: 1, ...options });
    this.rv64.machine.onConsole = (bytes) => {
      this.output += String.fromCharCode(...bytes);
    };
    this.load(program.kernel);
  }

  load(kernel: KernelImage, initrd: Uint8Array | null = null): void {
    this.rv64.load({ kernel, initrd, bootArguments: "", viommus: [], seed: new Uint8Array(32) });
  }

  /** Runs, jumping over idle time, until the machine ends or waits for ever. */
  run(): Rv64Stop {
    for (let slices = 0; slices < 1000; slices++) {
      const stop = this.rv64.run();
      if (stop.kind === "off" || stop.kind === "stopped") return stop;
      if (stop.kind === "idle") {
        if (stop.until === Number.POSITIVE_INFINITY) return stop;
        this.rv64.skipTo(stop.until);
      }
    }
    throw new Error("the program does not end");
  }

  word(address: number): number {
    return new DataView(this.rv64.core.ram.buffer).getUint32(this.rv64.core.ramOffset + address - RAM_BASE, true);
  }
}

describe("the console", () => {
  it("prints what is stored to THR and ends at SBI shutdown", () => {
    const bench = new Bench(new Program().print(UART_BASE, "hello\n").reset());
    expect(bench.run()).toEqual(OFF);
    expect(bench.output).toBe("hello\n");
  });

  it("interrupts through APLIC and IMSIC when a byte is typed: the waiting hart claims its identity and reads the byte", () => {
    const program = new Program()
      .enableIdentity(IDENTITY)
      .store(4, APLIC_BASE + 4 * UART_SOURCE, 6) // sourcecfg: level, high
      .store(4, APLIC_BASE + 0x3000 + 4 * UART_SOURCE, IDENTITY) // target: hart 0
      .store(4, APLIC_BASE + 0x1edc, UART_SOURCE) // setienum
      .store(4, APLIC_BASE, 0x100) // domaincfg.IE
      .store(1, UART_BASE + 1, 1) // IER: received data
      .wfi()
      .emit(csr(1, S0, CSR.stopei, 0))
      .storeRegister(4, DATA, S0)
      .load(1, S0, UART_BASE)
      .storeRegister(1, UART_BASE, S0)
      .reset();
    const bench = new Bench(program);
    expect(bench.run()).toEqual({ kind: "idle", until: Number.POSITIVE_INFINITY });
    bench.rv64.type(Uint8Array.of(0x41));
    expect(bench.run()).toEqual(OFF);
    expect(bench.word(DATA)).toBe((IDENTITY << 16) | IDENTITY); // stopei: identity and priority (AIA §3.10)
    expect(bench.output).toBe("A");
  });

  it("keeps what is typed faster than the guest reads, in order", () => {
    const program = new Program();
    for (let k = 0; k < 40; k++) program.load(1, S0, UART_BASE).storeRegister(1, UART_BASE, S0);
    program.reset();
    const bench = new Bench(program);
    const text = "the quick brown fox jumps over a lazy do";
    bench.rv64.type(new TextEncoder().encode(text));
    expect(bench.run()).toEqual(OFF);
    expect(bench.output).toBe(text);
  });
});

describe("time", () => {
  it("a hart that waits for its timer is idle until the instant stimecmp names", () => {
    // 10 MHz: 5000 ticks are 500 µs.
    const program = new Program()
      .csrWrite(CSR.stimecmp, 5000)
      .csrWrite(CSR.sie, 1 << 5)
      .wfi()
      .csrRead(S0, CSR.time)
      .storeRegister(4, DATA, S0)
      .reset();
    const bench = new Bench(program);
    expect(bench.rv64.run()).toEqual({ kind: "idle", until: 500_000 });
    expect(bench.run()).toEqual(OFF);
    expect(bench.word(DATA)).toBe(5000);
  });

  it("a timer that sie masks never wakes, and time does not stand still over it", () => {
    const program = new Program().csrWrite(CSR.stimecmp, 1).csrWrite(CSR.sie, 1 << 9);
    // Long enough for the timer to be due.
    for (let k = 0; k < 40; k++) program.emit(addi(0, 0, 0));
    const bench = new Bench(program.wfi().reset());
    expect(bench.run()).toEqual({ kind: "idle", until: Number.POSITIVE_INFINITY });
  });

  it("ends at the limit on virtual time, to the instruction", () => {
    const program = new Program();
    program.jump(program.here);
    const bench = new Bench(program);
    bench.rv64.machine.timeLimit = 12_340;
    expect(bench.run()).toEqual({ kind: "stopped" });
    expect(bench.clock.now).toBe(12_340);
    expect(bench.rv64.core.executed).toBe(1234); // 10 ns each
  });

  it("a slice ends where stores make others work, and the guest goes on in the next", () => {
    const program = new Program().print(UART_BASE, "AB").reset();
    const bench = new Bench(program);
    let commands = 0;
    bench.rv64.commandsExecuted = () => {
      commands += 1_000_000;
      return commands;
    };
    expect(bench.rv64.run().kind).toBe("slice");
    expect(bench.output).toBe("A");
    expect(bench.rv64.run().kind).toBe("slice");
    expect(bench.output).toBe("AB");
    expect(bench.run().kind).toBe("off");
  });

  it.each([
    ["says that the guest has its IOMMUs do many commands within few instructions", 0, [6 * 999, 12 * 999]],
    ["does not say so where they are far between", 1_000_000, []],
  ])("%s", (_, between, expected) => {
    const program = new Program();
    for (const letter of "ABCDEFGHIJKLM") {
      program.li(T0, between + 1);
      const again = program.here;
      program
        .emit(addi(T0, T0, -1))
        .branchZero(T0, false, again)
        .print(UART_BASE, letter);
    }
    const bench = new Bench(program.reset());
    let commands = 0;
    const told: number[] = [];
    bench.rv64.commandsExecuted = () => {
      commands += 999;
      return commands;
    };
    bench.rv64.onManyCommands = () => told.push(commands);
    while (bench.rv64.run().kind === "slice");
    expect(bench.output).toBe("ABCDEFGHIJKLM");
    expect(told).toEqual(expected);
  });

  it("a device's event fires between instructions, not at the end of a slice", () => {
    const program = new Program();
    program.jump(program.here);
    const bench = new Bench(program);
    let fired = 0;
    bench.clock.schedule(
      5000,
      happens(() => {
        fired = bench.clock.now;
        bench.rv64.machine.stop("requested");
      }),
    );
    expect(bench.run()).toEqual({ kind: "stopped" });
    expect(fired).toBe(5000);
  });
});

describe("SBI system reset", () => {
  it.each([
    ["shutdown", 0, 0, false],
    ["shutdown", 0, 1, true],
    ["cold-reboot", 1, 0, false],
    ["warm-reboot", 2, 0, false],
  ] as const)("%s (type %i, reason %i) ends the machine at once", (reset, kind, reason, failure) => {
    const bench = new Bench(new Program().reset(kind, reason).print(UART_BASE, "not reached"));
    expect(bench.run()).toEqual({ kind: "off", reset, failure });
    expect(bench.output).toBe("");
  });
});

describe("PCI", () => {
  it("configuration space answers for functions that are there, and all ones elsewhere", () => {
    const program = new Program()
      .load(4, S0, ECAM_BASE + (1 << 15))
      .storeRegister(4, DATA, S0)
      .load(4, S0, ECAM_BASE + (2 << 15))
      .storeRegister(4, DATA + 4, S0)
      .reset();
    const bench = new Bench(program);
    bench.rv64.pci.plug(1 << 3, new Edu());
    expect(bench.run()).toEqual(OFF);
    expect(bench.word(DATA)).toBe(0x11e8_1234);
    expect(bench.word(DATA + 4)).toBe(0xffff_ffff);
  });

  it("INTx pins are swizzled over four APLIC sources, as the device tree's interrupt-map says", () => {
    // Slot 2, pin A: source 32 + (2 + 1 − 1) % 4 = 34. in_clrip[1] (0x1d04) reads rectified inputs 32…63 (AIA §4.5.9).
    const program = new Program();
    for (const source of [32, 33, 34, 35]) program.store(4, APLIC_BASE + 4 * source, 6);
    program
      .load(4, S0, APLIC_BASE + 0x1d04)
      .storeRegister(4, DATA, S0)
      .reset();
    const bench = new Bench(program);
    bench.rv64.setIntx(2 << 3, 1, true);
    expect(bench.run()).toEqual(OFF);
    expect(bench.word(DATA)).toBe(1 << 2);
  });
});

/** Hart 0 starts hart 1 (at `entry`), and waits for its message; what hart 1 does is appended by `body`. */
function twoHarts(body: (program: Program) => void): Program {
  const entry = 0x400;
  const program = new Program()
    .enableIdentity(IDENTITY)
    .sbi(HSM, 0, 1, RAM_BASE + entry, 0xabcd)
    .wfi()
    .emit(csr(1, S0, CSR.stopei, 0))
    .storeRegister(4, DATA + 8, S0)
    .reset();
  while (program.here < entry) program.emit(addi(0, 0, 0));
  body(program);
  return program;
}

describe("several harts", () => {
  const started = twoHarts((program) => {
    program
      .storeRegister(4, DATA, A0)
      .storeRegister(4, DATA + 4, A1)
      .store(4, MSI_BASE, IDENTITY); // an IPI: seteipnum_le of hart 0
    program.jump(program.here);
  });

  it("a hart started by HSM gets its id and the opaque value, and its store to another's IMSIC page wakes that one", () => {
    const bench = new Bench(started, { harts: 2 });
    expect(bench.run()).toEqual(OFF);
    expect(bench.word(DATA)).toBe(1);
    expect(bench.word(DATA + 4)).toBe(0xabcd);
    expect(bench.word(DATA + 8)).toBe((IDENTITY << 16) | IDENTITY);
  });

  it("a message gives the waiting hart its turn soon, though the other spins", () => {
    const bench = new Bench(started, { harts: 2 });
    bench.run();
    expect(bench.rv64.core.executed).toBeLessThan(2000);
  });

  it("runs the same way every time", () => {
    const spin = twoHarts((program) => {
      const loop = program.here;
      program
        .emit(addi(S0, S0, 1))
        .li(T0, 30_000)
        .emit(addi(T0, T0, 0));
      program.ifLess(S0, T0, (inner) => inner.jump(loop));
      program.store(4, MSI_BASE, IDENTITY).jump(program.here);
    });
    const ends = [1, 2].map(() => {
      const bench = new Bench(spin, { harts: 2 });
      expect(bench.run()).toEqual(OFF);
      return [bench.clock.now, bench.rv64.core.executed];
    });
    expect(ends[0]).toEqual(ends[1]);
  });

  it("and in whatever pieces it is run: two harts that race for a word, prints, timers and messages", () => {
    // Hart 1 counts in DATA and prints now and then; hart 0 adds what it finds there to DATA + 16 until it has found enough, then ends the machine.
    const program = new Program();
    const other = 0x4000;
    program.enableIdentity(IDENTITY).sbi(HSM, 0, 1, RAM_BASE + other, 0xabcd);
    const poll = program.here;
    program
      .load(4, S0, DATA)
      .storeRegister(4, DATA + 16, S0)
      .emit(addi(9, 9, 1))
      .storeRegister(4, DATA + 20, 9)
      .li(T0, 9_000);
    program.ifLess(S0, T0, (inner) => inner.jump(poll));
    program.reset();
    while (program.here < other) program.emit(addi(0, 0, 0));
    const count = program.here;
    program
      .load(4, S0, DATA)
      .emit(addi(S0, S0, 1))
      .storeRegister(4, DATA, S0)
      .emit(i(0x13, 7, T1, S0, 1023)); // andi
    program
      .emit(b(1, T1, 0, count - program.here))
      .print(UART_BASE, ".")
      .store(4, MSI_BASE, IDENTITY)
      .jump(count);

    const inPieces = (budget: () => number, pauses = false) => {
      const bench = new Bench(program, { harts: 2, sliceInstructions: 700 });
      const events: string[] = [];
      bench.trace.addSink({
        event: (event) => {
          events.push(JSON.stringify(event, (_key, value) => (typeof value === "bigint" ? `${value}` : value)));
          if (pauses) bench.rv64.pause();
        },
      });
      for (;;) {
        const stop = bench.rv64.run(budget());
        if (stop.kind === "off") break;
        if (stop.kind === "idle") bench.rv64.skipTo(stop.until);
        if (stop.kind !== "held") events.push(`${stop.kind} at ${bench.rv64.core.executed}`);
      }
      const words = [DATA, DATA + 16, DATA + 20].map((address) => bench.word(address));
      return { events, words, now: bench.clock.now, executed: bench.rv64.core.executed, output: bench.output };
    };
    const whole = inPieces(() => Number.POSITIVE_INFINITY);
    expect(whole.output).toMatch(/^\.{8,}$/);
    const random = new Random(5);
    expect(inPieces(() => 1)).toEqual(whole);
    expect(inPieces(() => 1 + random.below(300))).toEqual(whole);
    expect(inPieces(() => Number.POSITIVE_INFINITY, true)).toEqual(whole);
  });

  it("harts that all wait are idle until the earliest of their timers", () => {
    const program = twoHarts((inner) => {
      inner
        .csrWrite(CSR.stimecmp, 3000)
        .csrWrite(CSR.sie, 1 << 5)
        .wfi()
        .store(4, MSI_BASE, IDENTITY)
        .jump(inner.here);
    });
    const bench = new Bench(program, { harts: 2 });
    expect(bench.rv64.run()).toEqual({ kind: "idle", until: 300_000 });
    expect(bench.run()).toEqual(OFF);
  });

  it("a machine whose last hart has stopped itself waits for ever", () => {
    const bench = new Bench(new Program().sbi(HSM, 1), { harts: 2 });
    expect(bench.run()).toEqual({ kind: "idle", until: Number.POSITIVE_INFINITY });
  });
});

describe("loading", () => {
  const image = (address: number, bytes: number, memoryBytes = bytes): KernelImage => ({
    ...{ architecture: "riscv64", format: "ELF", relocatable: false, entry: address },
    segments: [{ address, bytes: new Uint8Array(bytes), memoryBytes }],
  });
  it.each<[string, KernelImage, Uint8Array | null]>([
    ["a segment below RAM", image(0x1000, 64), null],
    ["a segment that ends behind RAM", image(RAM_BASE, 64, MEMORY + 1), null],
    ["a segment at an address beyond 2^53", image(2 ** 60, 64), null],
    ["a kernel that leaves no room for the device tree", image(RAM_BASE, 64, MEMORY - 4096), null],
    ["an initrd larger than what is left", image(RAM_BASE, 64, MEMORY / 2), new Uint8Array(MEMORY / 2)],
  ])("refuses %s", (_what, kernel, initrd) => {
    expect(() => new Bench(new Program()).load(kernel, initrd)).toThrow(KernelImageError);
  });

  it("hands over a device tree in RAM: a1, 8-byte aligned, magic first", () => {
    const bench = new Bench(new Program().storeRegister(8, DATA, A1).load(4, S0, DATA).reset());
    bench.run();
    const tree = bench.word(DATA);
    expect(tree % 8).toBe(0);
    expect(bench.word(tree)).toBe(0xedfe0dd0); // d00dfeed, big endian
  });
});

describe("the trace of an RV64 machine", () => {
  it("names registers of UART, APLIC and PCI functions", () => {
    const events: TracedEvent[] = [];
    const program = new Program()
      .store(1, UART_BASE + 1, 0)
      .store(4, APLIC_BASE + 4 * UART_SOURCE, 6)
      .load(2, S0, ECAM_BASE + (1 << 15) + 4)
      .reset();
    const bench = new Bench(program);
    bench.rv64.pci.plug(1 << 3, new Edu());
    bench.trace.addSink({ event: (event) => void events.push(event) });
    bench.run();
    const registers = events.flatMap((event) => (event.type === "mmio" ? [`${event.device} ${event.register}`] : []));
    expect(registers).toEqual(["uart IER/DLM", "aplic sourcecfg[10]", "ecam 00:01.0 Command"]);
  });
});
