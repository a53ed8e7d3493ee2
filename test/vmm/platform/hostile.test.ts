// Whatever a guest stores to the platform's registers, asks of the SBI or brings as a kernel image: nothing throws, and nothing grows beyond its
// bound.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Clock } from "../../../host/base/clock.ts";
import { Trace } from "../../../host/base/trace.ts";
import { APLIC_BASE, MSI_BASE, RAM_BASE, UART_BASE } from "../../../vmm/memory-map.ts";
import { Aplic } from "../../../vmm/platform/aplic.ts";
import { KernelImageError, parseKernelImage } from "../../../vmm/platform/kernel-image.ts";
import { Uart8250 } from "../../../vmm/platform/uart-8250.ts";
import { Rv64Machine } from "../../../vmm/rv64-machine.ts";
import { buildHart } from "../../../vmm/vcpu/riscv64/build.mjs";
import { Program } from "../rv64-program.ts";

const MEMORY = 4 * 2 ** 20;

let core: WebAssembly.Module;
beforeAll(async () => {
  core = await WebAssembly.compile(readFileSync(await buildHart()));
});

function machine(harts = 2): Rv64Machine {
  const clock = new Clock();
  return new Rv64Machine({ core, clock, trace: new Trace(clock), memoryBytes: MEMORY, harts });
}

const size = fc.constantFrom<1 | 2 | 4 | 8>(1, 2, 4, 8);
const word = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 0x7ff, 0x400, 0xffff_ffff, 1 << 18));
const access = (span: number) =>
  fc.record({ offset: fc.nat(span - 1), size, write: fc.boolean(), low: word, high: word });
const isWord = (value: number): boolean => Number.isInteger(value) && value >= -0x8000_0000 && value <= 0xffff_ffff;

describe("hostile registers", () => {
  it("the UART takes any accesses and any typing: words come back, and at most its FIFO is kept", () => {
    const step = fc.oneof(
      access(0x100),
      fc.nat(255).map((typed) => ({ typed })),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const uart = new Uart8250();
        for (const it of steps) {
          if ("typed" in it) uart.receive(it.typed);
          else if (it.write) uart.mmioWrite(it.offset, it.size, it.low, it.high);
          else expect(isWord(uart.mmioRead(it.offset, it.size))).toBe(true);
        }
        let kept = 0;
        uart.mmioWrite(3, 1, 0, 0); // LCR: DLAB off
        while (uart.mmioRead(5, 1) & 1 && kept < 100) {
          uart.mmioRead(0, 1);
          kept++;
        }
        expect(kept).toBeLessThanOrEqual(16);
      }),
    );
  });

  it("the APLIC takes any accesses and wires, and sends only what an interrupt file or nobody can take", () => {
    const wire = fc.record({ wire: fc.oneof(fc.nat(96), fc.nat(2000)), level: fc.boolean() });
    const registers = fc.constantFrom(
      0,
      4,
      0x1c00,
      0x1cdc,
      0x1d00,
      0x1ddc,
      0x1e00,
      0x1edc,
      0x1fdc,
      0x2000,
      0x3000,
      0x3004,
    );
    const likely = fc.record({
      offset: registers,
      size: fc.constant(4 as const),
      write: fc.boolean(),
      low: word,
      high: word,
    });
    let total = 0;
    fc.assert(
      fc.property(fc.array(fc.oneof(access(0x4000), likely, wire), { maxLength: 200 }), (steps) => {
        let sent = 0;
        const aplic = new Aplic(96, (hart, eiid) => {
          sent++;
          total++;
          expect(hart).toBeLessThan(2 ** 14);
          expect(eiid).toBeLessThan(2 ** 11);
        });
        // Everything is on and aims as far as its bits go; what follows may change that.
        aplic.mmioWrite(0, 4, 1 << 8, 0);
        for (let source = 1; source <= 95; source++) {
          aplic.mmioWrite(4 * source, 4, 4, 0);
          aplic.mmioWrite(0x3000 + 4 * source, 4, 0xffff_ffff, 0);
          aplic.mmioWrite(0x1edc, 4, source, 0);
          if ((source & 1) !== 0) aplic.setWire(source, true);
        }
        for (const it of steps) {
          const before = sent;
          if ("wire" in it) aplic.setWire(it.wire, it.level);
          else if (it.write) aplic.mmioWrite(it.offset, it.size, it.low, it.high);
          else expect(isWord(aplic.mmioRead(it.offset, it.size))).toBe(true);
          // A message clears its source's pending bit: one access sends each source's once at most.
          expect(sent - before).toBeLessThanOrEqual(96);
        }
      }),
    );
    expect(total).toBeGreaterThan(100);
  });

  it("the whole bus takes any access, messages to harts that do not exist included", () => {
    const place = fc.oneof(
      fc.nat(0x3fff).map((offset) => APLIC_BASE + offset),
      fc.nat(0xff).map((offset) => UART_BASE + offset),
      fc.nat(0x7fff).map((offset) => MSI_BASE + offset),
      fc.nat(0xffff_ffff),
      fc.maxSafeInteger().map((address) => Math.abs(address)),
    );
    const bus = fc.record({ address: place, size, write: fc.boolean(), low: word, high: word });
    const rv64 = machine();
    fc.assert(
      fc.property(fc.array(bus, { maxLength: 100 }), (steps) => {
        for (const { address, size: bytes, write, low, high } of steps) {
          if (write) rv64.machine.store(address, bytes, low, high);
          else expect(isWord(rv64.machine.load(address, bytes))).toBe(true);
        }
      }),
    );
  });
});

describe("hostile SBI calls", () => {
  it("any call of any hart is answered with an error code of the specification, and the list of calls stays short", () => {
    const extensions = [0x10, 0x54494d45, 0x735049, 0x52464e43, 0x48534d, 0x53525354, 0x4442434e];
    const wide = fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 9n), fc.constant(BigInt(RAM_BASE)));
    const call = fc.record({
      extension: fc.oneof(fc.constantFrom(...extensions.map(BigInt)), wide),
      fid: wide,
      hart: fc.nat(1),
      arguments: fc.array(wide, { minLength: 6, maxLength: 6 }),
    });
    const rv64 = machine();
    fc.assert(
      fc.property(fc.array(call, { maxLength: 50 }), (calls) => {
        for (const { extension, fid, hart, arguments: values } of calls) {
          for (const [index, value] of values.entries()) rv64.core.setX(hart, 10 + index, value);
          rv64.core.setX(hart, 16, fid);
          rv64.core.setX(hart, 17, extension);
          rv64.sbi.call(hart);
          // SBI 2.0 §3: errors are 0 … −9.
          const error = BigInt.asIntN(64, rv64.core.x(hart, 10));
          expect(error <= 0n && error >= -9n).toBe(true);
        }
      }),
    );
    expect(rv64.sbi.calls.size).toBeLessThanOrEqual((extensions.length + 1) * 17);
  });
});

describe("hostile kernel images", () => {
  /** Loads what the parser lets through: that must fit, or be refused in one line. */
  function load(file: Uint8Array): void {
    try {
      const kernel = parseKernelImage(file);
      machine(1).load({ kernel, initrd: null, bootArguments: "", viommus: [], seed: new Uint8Array(32) });
    } catch (error) {
      expect(error).toBeInstanceOf(KernelImageError);
      expect((error as Error).message).not.toContain("\n");
    }
  }

  it("random bytes are refused", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 256 }), (file) => {
        expect(() => parseKernelImage(file)).toThrow(KernelImageError);
        load(file);
      }),
    );
  });

  it("headers of Image files with random fields are loaded or refused", () => {
    const fields = fc.record({ textOffset: fc.bigInt(0n, 2n ** 64n - 1n), imageSize: fc.bigInt(0n, 2n ** 64n - 1n) });
    fc.assert(
      fc.property(fields, fc.nat(7), fc.nat(300), ({ textOffset, imageSize }, flags, length) => {
        const file = new Program().reset().imageFile.slice(0, Math.max(length, 60));
        const view = new DataView(file.buffer);
        view.setBigUint64(8, textOffset, true);
        view.setBigUint64(16, imageSize, true);
        view.setUint32(24, flags, true);
        load(file);
      }),
      { numRuns: 30 },
    );
  });

  it("ELF files with random headers are loaded or refused", () => {
    const wide = fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 300n), fc.constant(BigInt(RAM_BASE)));
    const header = fc.record({
      tableAt: wide,
      entrySize: fc.nat(0xffff),
      count: fc.nat(0xffff),
      type: fc.nat(4),
      entry: wide,
    });
    const segment = fc.record({ kind: fc.nat(4), offset: wide, address: wide, fileBytes: wide, memoryBytes: wide });
    fc.assert(
      fc.property(
        header,
        segment,
        fc.boolean(),
        (elf, { kind, offset, address, fileBytes, memoryBytes }, plausible) => {
          const file = new Uint8Array(64 + 56 + 64);
          const view = new DataView(file.buffer);
          view.setUint32(0, 0x7f454c46, false);
          file[4] = 2;
          file[5] = 1;
          view.setUint16(16, plausible ? 2 : elf.type, true);
          view.setUint16(18, 243, true);
          view.setBigUint64(24, elf.entry, true);
          view.setBigUint64(32, plausible ? 64n : elf.tableAt, true);
          view.setUint16(54, plausible ? 56 : elf.entrySize, true);
          view.setUint16(56, plausible ? 1 : elf.count, true);
          view.setUint32(64, plausible ? 1 : kind, true);
          view.setBigUint64(72, offset, true);
          view.setBigUint64(88, address, true);
          view.setBigUint64(96, fileBytes, true);
          view.setBigUint64(104, memoryBytes, true);
          load(file);
        },
      ),
      { numRuns: 200 },
    );
  });
});
