// A program as compilers make them (programs/known-answers.c), built with Debian's cross compiler where there is one: its answers are known from
// standards, or computed here in this machine's own arithmetic.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { Board, Exit } from "./board.ts";

const GCC = "riscv64-linux-gnu-gcc";
const OBJCOPY = "riscv64-linux-gnu-objcopy";
const present = spawnSync(GCC, ["--version"]).status === 0 && spawnSync(OBJCOPY, ["--version"]).status === 0;
const SOURCE = fileURLToPath(new URL("programs/known-answers.c", import.meta.url));
const FLAGS = [
  ...["-nostdlib", "-static", "-no-pie", "-fno-pie", "-ffreestanding", "-mabi=lp64d", "-mcmodel=medany"],
  ...["-fno-builtin", "-fno-math-errno", "-ffp-contract=off", "-fno-stack-protector"],
  ...["-Wl,-Ttext=0x80000000", "-Wl,--build-id=none", "-Wl,--no-relax"],
];

function build(flags: readonly string[]): { image: Uint8Array; entry: bigint; answers: bigint } {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-vcpu-"));
  try {
    const elf = join(folder, "program");
    const compiled = spawnSync(GCC, [...FLAGS, ...flags, "-o", elf, SOURCE, "-lgcc"], { encoding: "utf8" });
    if (compiled.status !== 0) throw new Error(compiled.stderr);
    spawnSync(OBJCOPY, ["-O", "binary", elf, `${elf}.bin`]);
    const symbols = spawnSync("riscv64-linux-gnu-nm", [elf], { encoding: "utf8" }).stdout;
    const address = (name: string): bigint =>
      BigInt(`0x${new RegExp(`^([0-9a-f]+) . ${name}$`, "m").exec(symbols)![1]!}`);
    return { entry: address("_start"), image: new Uint8Array(readFileSync(`${elf}.bin`)), answers: address("answers") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
function mandelbrot(): bigint {
  let sum = 0n;
  for (let y = 0; y < 48; y++) {
    for (let x = 0; x < 48; x++) {
      const cr = x * (3 / 48) - 2.25;
      const ci = y * (2.5 / 48) - 1.25;
      let [zr, zi, n] = [0, 0, 0];
      while (n < 200 && zr * zr + zi * zi <= 4) {
        const next = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci;
        zr = next;
        n++;
      }
      sum += BigInt(n * (x + 48 * y + 1));
    }
  }
  return sum;
}

function singles(): bigint {
  let sum = 0;
  for (let n = 1; n < 2000; n++) sum = Math.fround(sum + Math.fround(Math.fround(Math.sqrt(n)) / (n + 3)));
  return BigInt(new Uint32Array(new Float32Array([sum]).buffer)[0]!);
}

function harmonic(): bigint {
  let sum = 0;
  for (let n = 1; n <= 5000; n++) sum += 1 / n;
  return new BigUint64Array(new Float64Array([sum]).buffer)[0]!;
}

const sha = (text: string, from: number): bigint =>
  BigInt(
    `0x${createHash("sha256")
      .update(text)
      .digest("hex")
      .slice(from * 8, from * 8 + 16)}`,
  );

if (!present) console.warn("SKIPPED: no riscv64-linux-gnu-gcc here, compiled programs are not run");

describe.skipIf(!present)("a compiled program", () => {
  const factorial = Array.from({ length: 33 }, (_, n) => BigInt(n + 1)).reduce((product, n) => product * n, 1n);
  const expected: [string, bigint][] = [
    ["CRC-32 check value", 0xcbf43926n],
    ["first SHA-256 constant", 0x428a2f98n],
    ["first SHA-256 initial value", 0x6a09e667n],
    ["SHA-256 of abc", sha("abc", 0)],
    ["its end", sha("abc", 6)],
    ["SHA-256 of 1000 a", sha("a".repeat(1000), 0)],
    ["placements of eight queens", 92n],
    ["Mandelbrot sum", mandelbrot()],
    ["a sum in binary32", singles()],
    ["harmonic number", harmonic()],
    ["33! high", factorial >> 64n],
    ["33! low", BigInt.asUintN(64, factorial)],
    ["33! divided", (factorial / 1000000007n) % 1000000009n],
    ["end mark", 0x600dn],
  ];

  it.each([
    ["-O0", "-march=rv64gc"],
    ["-O2", "-march=rv64gc"],
    ["-O3", "-march=rv64g"],
    ["-Os", "-march=rv64gc_zba_zbb_zbs"],
    ["-O3", "-march=rv64gc_zba_zbb_zbs"],
  ])("%s %s finds the known answers, interpreted and translated", (...flags) => {
    const { image, entry, answers } = build(flags);
    for (const translate of [false, true, { interval: 1000, samples: 1 }] as const) {
      const board = new Board({ translate });
      board.core.ram.set(image);
      board.core.start(0, entry, 0n);
      board.write("sstatus", 1n << 13n);
      expect(board.run(200_000_000)).toBe(Exit.Wfi);
      expected.forEach(([name, value], n) => {
        expect(board.load64(answers + BigInt(n * 8)).toString(16), name).toBe(value.toString(16));
      });
    }
  });
});
