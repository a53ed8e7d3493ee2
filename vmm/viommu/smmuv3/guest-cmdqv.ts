// The guest's CMDQV (Tegra241), behind the SMMU's registers: a register map of one VINTF (host/arch/smmuv3/parts/cmdqv-registers.ts) over queues that
// are the hardware's (guest-queues.ts), and an interrupt of its own, wire 4.
//
//     vIOMMU + 0x20000   configuration, VCMDQs: traps
//            + 0x50000   VINTF page 0: the hardware's page once a queue is there; traps before
//            + 0x60000   VINTF page 1: traps
//
// SID_MATCH and SID_REPLACE are remembered and nothing else: which device a StreamID names is said by vDEVICEs. HYP_OWN reads 0: a guest's queues
// take the commands of a guest.

import { CmdqvRegisters, type CmdqvShape } from "../../../host/arch/smmuv3/parts/cmdqv-registers.ts";
import { WIRE_CMDQV } from "../../../host/arch/smmuv3/parts/interrupts.ts";
import { REGISTER_BYTES } from "../../../host/arch/smmuv3/registers.ts";
import {
  CMDQV_PAGE_BYTES,
  cmdqvBytes,
  cmdqvRegisterAt,
  vintfPage0,
  vintfPage1,
} from "../../../host/arch/smmuv3/tegra241-cmdqv.ts";
import type { AccessSize, MmioPort } from "../../../host/base/mmio.ts";
import type { Stateful, StateRecord } from "../../../host/base/state.ts";
import { iommuHwInfoTegra241Cmdqv } from "../../../host/uapi/smmuv3-nesting.ts";
import type { HardwareQueues } from "../host-port.ts";
import type { ViommuOptions } from "../kind.ts";
import { GuestQueues } from "./guest-queues.ts";

/** Where it stands behind the vIOMMU's base. */
export const CMDQV_OFFSET = REGISTER_BYTES;
/** One VINTF is the guest's. */
export const CMDQV_BYTES = cmdqvBytes(1);

/** What the guest's CMDQV is: GET_HW_INFO says what a VINTF of the host's has. */
export function guestShape(info: Uint8Array): CmdqvShape {
  const { version, log2vcmdqs, log2vsids } = iommuHwInfoTegra241Cmdqv.decode(info);
  return { version, log2vcmdqs, log2vintfs: 0, log2vsids };
}

export interface GuestCmdqvParts {
  readonly name: string;
  readonly shape: CmdqvShape;
  readonly host: HardwareQueues;
  readonly mapPage: NonNullable<ViommuOptions["mapPage"]>;
  /** log2 of the commands of a queue, at most. */
  readonly mostLog2: number;
  readonly wire: (wire: number, asserted: boolean) => void;
  readonly report: (message: string) => void;
}

export class GuestCmdqv implements Stateful {
  readonly queues: GuestQueues;
  readonly registers: CmdqvRegisters;
  readonly #parts: GuestCmdqvParts;

  constructor(parts: GuestCmdqvParts) {
    this.#parts = parts;
    const { shape, host, mostLog2, mapPage, name, report } = parts;
    this.registers = new CmdqvRegisters(shape, false);
    const trapped = new PartOfRegisters(this.registers, vintfPage0(0));
    this.queues = new GuestQueues(1 << shape.log2vcmdqs, {
      registers: this.registers,
      host,
      mostLog2,
      showPage: (page) => {
        mapPage(CMDQV_OFFSET + vintfPage0(0), null);
        this.#map(vintfPage0(0), CMDQV_PAGE_BYTES, page ?? trapped, page === null ? "cmdqv-trap" : "cmdqv-page");
      },
      failed: (queue) => {
        if (!this.registers.isSilent(queue)) this.#raise();
      },
      report: (message) => report(`${name}: ${message}`),
    });
    this.registers.queues = this.queues;
    this.#map(0, vintfPage0(0), this.registers, "cmdqv");
    this.#map(vintfPage0(0), CMDQV_PAGE_BYTES, trapped, "cmdqv-trap");
    this.#map(vintfPage1(0), CMDQV_PAGE_BYTES, new PartOfRegisters(this.registers, vintfPage1(0)), "cmdqv-page1");
  }

  #map(offset: number, bytes: number, port: MmioPort, name: string): void {
    const registerName = (at: number): string => cmdqvRegisterAt(offset + at).name;
    this.#parts.mapPage(CMDQV_OFFSET + offset, port, { bytes, name, registerName });
  }

  /** The host says that queues stand at errors; which, their registers say. */
  errorsReported(): void {
    const { allocation } = this.registers;
    for (let logical = 0; logical < allocation.count(0); logical++) {
      const queue = allocation.queueOf(0, logical);
      if (this.queues.errors(queue) === 0 || this.registers.isSilent(queue)) continue;
      this.#raise();
      return;
    }
  }

  /** An edge. */
  #raise(): void {
    this.#parts.wire(WIRE_CMDQV, true);
    this.#parts.wire(WIRE_CMDQV, false);
  }

  reset(): void {
    this.registers.reset();
    this.queues.reset();
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["registers", this.registers];
    yield ["queues", this.queues];
  }
}

/** A register map from some offset on. Not state: the registers are another's. */
class PartOfRegisters implements MmioPort {
  readonly #registers: CmdqvRegisters;
  readonly #base: number;

  constructor(registers: CmdqvRegisters, base: number) {
    this.#registers = registers;
    this.#base = base;
  }

  get high(): number {
    return this.#registers.high;
  }

  mmioRead(offset: number, size: AccessSize): number {
    return this.#registers.mmioRead(this.#base + offset, size);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#registers.mmioWrite(this.#base + offset, size, lo, hi);
  }
}
