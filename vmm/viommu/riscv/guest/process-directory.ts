// A device's process directory in guest RAM (§3.2), as a scenario's guest builds it: as deep as its PASIDs need.

import type { RiscvCapabilities } from "../../../../host/arch/riscv/capabilities.ts";
import { PDTP_PD8, PDTP_PD17, PDTP_PD20 } from "../../../../host/arch/riscv/device-context.ts";
import {
  PC_V,
  PROCESS_CONTEXT_BYTES,
  processDirectoryIndex,
  processDirectoryLevels,
  processIdBits,
} from "../../../../host/arch/riscv/process-context.ts";
import type { FirstStage, GuestMemory } from "../../guest-driver.ts";
import { Stage1 } from "./stage1.ts";

export class ProcessDirectory {
  readonly mode: number;
  readonly #ram: GuestMemory;
  readonly #root: bigint;

  constructor(ram: GuestMemory, mode: number) {
    this.mode = mode;
    this.#ram = ram;
    this.#root = ram.allocate();
  }

  /** The shallowest mode that the IOMMU has and that reaches `pasid`; null if none does. */
  static modeFor(pasid: number, capabilities: Pick<RiscvCapabilities, "PD8" | "PD17" | "PD20">): number | null {
    const modes = [
      [PDTP_PD8, capabilities.PD8],
      [PDTP_PD17, capabilities.PD17],
      [PDTP_PD20, capabilities.PD20],
    ] as const;
    return modes.find(([mode, there]) => there && pasid < 2 ** processIdBits(mode))?.[0] ?? null;
  }

  /** pdtp: MODE and PPN (§3.1.3.5). */
  get pdtp(): bigint {
    return (BigInt(this.mode) << 60n) | (this.#root >> 12n);
  }

  /** Writes a process context (§3.2.3), ta last; "blocked": V = 0, "bypass": fsc Bare. */
  write(pasid: number, stage: FirstStage<Stage1>): void {
    const at = this.#context(pasid);
    const [ta, fsc] =
      stage === "blocked"
        ? [0n, 0n]
        : stage instanceof Stage1
          ? [BigInt(PC_V) | (BigInt(stage.pscid) << 12n), stage.fsc]
          : [BigInt(PC_V), 0n];
    this.#ram.write64(at, 0n);
    this.#ram.write64(at + 8n, fsc);
    this.#ram.write64(at, ta);
  }

  #context(pasid: number): bigint {
    let table = this.#root;
    for (let level = processDirectoryLevels(this.mode) - 1; level > 0; level--) {
      const at = table + BigInt(processDirectoryIndex(pasid, level) * 8);
      let entry = this.#ram.read64(at);
      if ((entry & 1n) === 0n) {
        entry = ((this.#ram.allocate() >> 12n) << 10n) | 1n;
        this.#ram.write64(at, entry);
      }
      table = ((entry >> 10n) & 0xfffffffffffn) << 12n;
    }
    return table + BigInt(processDirectoryIndex(pasid, 0) * PROCESS_CONTEXT_BYTES);
  }
}
