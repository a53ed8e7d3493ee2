// AArch64 CPUs for a debugger: org.gnu.gdb.aarch64.core and .fpu, system registers, and stage 1 of EL1&0 with 4 KiB granules (DDI 0487, D8) without
// permissions and without setting access flags.

import type { AArch64Core, CpuRegister } from "../vcpu/aarch64/core.ts";
import type { DebuggedCpu, Register, RegisterFeature } from "./debugged-cpu.ts";

const SYSTEM = [
  ..."elr_el1 spsr_el1 esr_el1 far_el1 vbar_el1 sctlr_el1 tcr_el1 ttbr0_el1 ttbr1_el1 mair_el1 cpacr_el1 contextidr_el1".split(
    " ",
  ),
  ..."tpidr_el0 tpidrro_el0 tpidr_el1 cntkctl_el1 cntv_cval_el0 cntv_ctl_el0 par_el1 sp_el0 sp_el1".split(" "),
] as readonly CpuRegister[];

const VECTOR_TYPES = `<vector id="v2d" type="ieee_double" count="2"/><vector id="v2u" type="uint64" count="2"/>
<vector id="v4f" type="ieee_single" count="4"/><vector id="v4u" type="uint32" count="4"/>
<vector id="v8u" type="uint16" count="8"/><vector id="v16u" type="uint8" count="16"/>
<union id="vnd"><field name="f" type="v2d"/><field name="u" type="v2u"/></union>
<union id="vns"><field name="f" type="v4f"/><field name="u" type="v4u"/></union>
<union id="aarch64v"><field name="d" type="vnd"/><field name="s" type="vns"/><field name="h" type="v8u"/><field name="b" type="v16u"/>
<field name="q" type="uint128"/></union>`;
const CPSR_TYPE = `<flags id="cpsr_flags" size="4"><field name="SP" start="0" end="0"/><field name="EL" start="2" end="3"/>
<field name="nRW" start="4" end="4"/><field name="F" start="6" end="6"/><field name="I" start="7" end="7"/><field name="A" start="8" end="8"/>
<field name="D" start="9" end="9"/><field name="V" start="28" end="28"/><field name="C" start="29" end="29"/><field name="Z" start="30" end="30"/>
<field name="N" start="31" end="31"/></flags>`;

const ADDRESS = 0xffff_ffff_f000n;

export class AArch64Debugged implements DebuggedCpu {
  readonly architecture = "aarch64";
  readonly features: readonly RegisterFeature[];
  readonly #core: AArch64Core;
  readonly #load: (address: bigint) => bigint | null;

  /** `load`: the doubleword of RAM at a guest-physical address; null: there is none. */
  constructor(core: AArch64Core, load: (address: bigint) => bigint | null) {
    this.#core = core;
    this.#load = load;
    this.features = [
      {
        name: "org.gnu.gdb.aarch64.core",
        types: CPSR_TYPE,
        registers: [
          ...Array.from({ length: 31 }, (_, n) => this.#x(n)),
          this.#word("sp", 64, "data_ptr", (value) => value),
          this.#word("pc", 64, "code_ptr", (value) => value & ~3n),
          this.#cpsr(),
        ],
      },
      {
        name: "org.gnu.gdb.aarch64.fpu",
        types: VECTOR_TYPES,
        registers: [...Array.from({ length: 32 }, (_, n) => this.#v(n)), this.#fpsr(), this.#fpcr()],
      },
      {
        name: "org.nestbox.aarch64.system",
        registers: SYSTEM.map(
          (name): Register => ({
            name: name.toUpperCase(),
            bits: 64,
            group: "system",
            read: (cpu) => core.read(cpu, name),
          }),
        ),
      },
    ];
  }

  translate(cpu: number, given: bigint): bigint | null {
    const core = this.#core;
    if ((core.read(cpu, "sctlr_el1") & 1n) === 0n) return given;
    const tcr = core.read(cpu, "tcr_el1");
    const upper = (given >> 55n) & 1n;
    // Values outside 16 to 39 behave as the nearest (D24.2.163).
    const size = 64 - Math.min(39, Math.max(16, Number((upper ? tcr >> 16n : tcr) & 63n)));
    const disabled = (tcr >> (upper ? 23n : 7n)) & 1n;
    const granule = upper ? ((tcr >> 30n) & 3n) === 2n : ((tcr >> 14n) & 3n) === 0n;
    if (disabled !== 0n || !granule) return null;
    const ignored = (tcr >> (upper ? 38n : 37n)) & 1n;
    // A tag is what bits 63:56 hold where TBI says so.
    const address = ignored ? BigInt.asUintN(64, BigInt.asIntN(56, given)) : given;
    const expected = upper ? (1n << BigInt(64 - size)) - 1n : 0n;
    if (address >> BigInt(size) !== expected) return null;
    const first = 4 - Math.ceil((size - 12) / 9);
    const entries = BigInt(size - 12 - 9 * (3 - first));
    let table = core.read(cpu, upper ? "ttbr1_el1" : "ttbr0_el1") & 0xffff_ffff_fffen & ~((8n << entries) - 1n);
    for (let level = first; level < 4; level++) {
      const shift = BigInt(12 + 9 * (3 - level));
      const index = (BigInt.asUintN(size, address) >> shift) & 511n;
      const descriptor = this.#load(table + index * 8n);
      if (descriptor === null || (descriptor & 1n) === 0n) return null;
      const isTable = (descriptor & 2n) !== 0n;
      if (level === 3 && !isTable) return null;
      if (level < 3 && isTable) {
        table = descriptor & ADDRESS;
        continue;
      }
      if (level === 0) return null;
      const within = (1n << shift) - 1n;
      return (descriptor & ADDRESS & ~within) | (address & within);
    }
    return null;
  }

  codeChanged(): void {
    for (let cpu = 0; cpu < this.#core.harts; cpu++) this.#core.fenceInstructions(cpu);
  }

  #x(index: number): Register {
    return {
      ...{ name: `x${index}`, bits: 64, type: "int", group: "general" },
      read: (cpu) => this.#core.x(cpu, index),
      write: (cpu, value) => this.#core.setX(cpu, index, value),
    };
  }

  #word(name: "sp" | "pc", bits: 64, type: string, legal: (value: bigint) => bigint): Register {
    return {
      ...{ name, bits, type, group: "general" },
      read: (cpu) => this.#core.read(cpu, name),
      write: (cpu, value) => this.#core.write(cpu, name, legal(value)),
    };
  }

  /** As SPSR_EL1 has it; NZCV and DAIF may be written. */
  #cpsr(): Register {
    const core = this.#core;
    return {
      ...{ name: "cpsr", bits: 32, type: "cpsr_flags", group: "general" },
      read: (cpu) =>
        (core.read(cpu, "nzcv") << 28n) |
        (core.read(cpu, "daif") << 6n) |
        (core.read(cpu, "el") << 2n) |
        core.read(cpu, "spsel"),
      write: (cpu, value) => {
        core.write(cpu, "nzcv", (value >> 28n) & 15n);
        core.write(cpu, "daif", (value >> 6n) & 15n);
      },
    };
  }

  #v(index: number): Register {
    return {
      ...{ name: `v${index}`, bits: 128, type: "aarch64v", group: "vector" },
      read: (cpu) => this.#core.v(cpu, index),
      write: (cpu, value) => this.#core.setV(cpu, index, value),
    };
  }

  #fpsr(): Register {
    return { name: "fpsr", bits: 32, type: "int", group: "float", read: (cpu) => this.#core.floatStatus(cpu) };
  }

  #fpcr(): Register {
    return { name: "fpcr", bits: 32, type: "int", group: "float", read: (cpu) => this.#core.read(cpu, "fpcr") };
  }
}
