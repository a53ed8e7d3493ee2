// RV64 harts for a debugger: org.gnu.gdb.riscv.cpu, .fpu, .csr and .virtual, and satp's Sv39, Sv48 and Sv57 (privileged specification, "Virtual Address
// Translation Process") without permissions and without setting A or D.

import type { HartRegister, Rv64Core } from "../vcpu/riscv64/core.ts";
import type { DebuggedCpu, Register, RegisterFeature } from "./debugged-cpu.ts";

const X_NAMES =
  "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split(" ");
const F_NAMES =
  "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11".split(
    " ",
  );
/** CSRs that are read as they stand. */
const CSRS = ["sie", "stvec", "sscratch", "sepc", "scause", "stval", "satp", "stimecmp"] as const;
const POINTERS = new Set(["sp", "gp", "tp", "fp"]);

const FS = 3n << 13n;
const UXL_64 = 2n << 32n;
const SD = 1n << 63n;

const V = 1n;
const LEAF = 2n | 8n; // R or X
const PPN = 0xfff_ffff_ffffn;

export class Rv64Debugged implements DebuggedCpu {
  readonly architecture = "riscv:rv64";
  readonly features: readonly RegisterFeature[];
  readonly #core: Rv64Core;
  readonly #load: (address: bigint) => bigint | null;

  /** `load`: the doubleword of RAM at a guest-physical address; null: there is none. */
  constructor(core: Rv64Core, load: (address: bigint) => bigint | null) {
    this.#core = core;
    this.#load = load;
    this.features = [
      { name: "org.gnu.gdb.riscv.cpu", registers: [...X_NAMES.map((name, n) => this.#x(name, n)), this.#pc()] },
      {
        name: "org.gnu.gdb.riscv.fpu",
        registers: [
          ...F_NAMES.map((name, n) => this.#f(name, n)),
          this.#field("fflags", "fflags", 0x1fn),
          this.#field("frm", "frm", 7n),
          {
            ...{ name: "fcsr", bits: 32, group: "float" },
            read: (hart) => core.read(hart, "fflags") | (core.read(hart, "frm") << 5n),
            write: (hart, value) => {
              core.write(hart, "fflags", value & 0x1fn);
              core.write(hart, "frm", (value >> 5n) & 7n);
            },
          },
        ],
      },
      {
        name: "org.gnu.gdb.riscv.csr",
        registers: [
          { name: "sstatus", bits: 64, group: "system", read: (hart) => this.#sstatus(hart) },
          ...CSRS.map((name): Register => ({ name, bits: 64, group: "system", read: (hart) => core.read(hart, name) })),
          { name: "scounteren", bits: 64, group: "system", read: (hart) => core.read(hart, "scounteren") },
          { name: "senvcfg", bits: 64, group: "system", read: (hart) => core.read(hart, "senvcfg") },
        ],
      },
      {
        name: "org.gnu.gdb.riscv.virtual",
        registers: [{ name: "priv", bits: 64, group: "system", read: (hart) => core.read(hart, "mode") }],
      },
    ];
  }

  translate(hart: number, address: bigint): bigint | null {
    const satp = this.#core.read(hart, "satp");
    const scheme = Number(satp >> 60n);
    if (scheme === 0) return address;
    const levels = scheme - 5; // 8: 3, 9: 4, 10: 5
    if (levels < 3 || levels > 5) return null;
    const width = 12 + 9 * levels;
    if (BigInt.asUintN(64, BigInt.asIntN(width, address)) !== address) return null;
    let table = (satp & PPN) << 12n;
    for (let level = levels - 1; level >= 0; level--) {
      const shift = BigInt(12 + 9 * level);
      const entry = this.#load(table + ((address >> shift) & 511n) * 8n);
      if (entry === null || (entry & V) === 0n) return null;
      let page = (entry >> 10n) & PPN;
      if ((entry & LEAF) === 0n) {
        table = page << 12n;
        continue;
      }
      let bits = shift;
      // Svnapot: 64 KiB, the low bits of the PPN say so.
      if (entry >> 63n !== 0n && level === 0) {
        bits = 16n;
        page &= ~15n;
      }
      const within = (1n << bits) - 1n;
      return ((page << 12n) & ~within) | (address & within);
    }
    return null;
  }

  codeChanged(): void {
    for (let hart = 0; hart < this.#core.harts; hart++) this.#core.fenceInstructions(hart);
  }

  #x(name: string, index: number): Register {
    return {
      ...{
        name,
        bits: 64,
        group: "general",
        type: name === "ra" ? "code_ptr" : POINTERS.has(name) ? "data_ptr" : "int",
      },
      read: (hart) => this.#core.x(hart, index),
      write: (hart, value) => this.#core.setX(hart, index, value),
    };
  }

  #pc(): Register {
    return {
      ...{ name: "pc", bits: 64, type: "code_ptr", group: "general" },
      read: (hart) => this.#core.read(hart, "pc"),
      write: (hart, value) => this.#core.write(hart, "pc", value & ~1n),
    };
  }

  #f(name: string, index: number): Register {
    return {
      ...{ name, bits: 64, type: "ieee_double", group: "float" },
      read: (hart) => this.#core.f(hart, index),
      write: (hart, value) => this.#core.setF(hart, index, value),
    };
  }

  #field(name: string, field: HartRegister, mask: bigint): Register {
    return {
      ...{ name, bits: 32, type: "int", group: "float" },
      read: (hart) => this.#core.read(hart, field),
      write: (hart, value) => this.#core.write(hart, field, value & mask),
    };
  }

  #sstatus(hart: number): bigint {
    const status = this.#core.read(hart, "sstatus");
    return status | UXL_64 | ((status & FS) === FS ? SD : 0n);
  }
}
