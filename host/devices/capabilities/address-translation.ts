// The extended capabilities of a function that translates addresses itself: ATS (PCIe 6.0 §10.5.1), Page Request Interface
// (§10.5.2) and PASID (§7.8.9). They hold what software enabled; the device model asks them before it uses the service.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { ConfigSpace } from "../config-space.ts";
import { type Capability, touched } from "./capability.ts";

/** Offsets from the capability's start; the two 16-bit registers of ATS and PASID, and of PRI, stand at the same places. */
const CAPABILITY = 4;
const CONTROL = 6;

const PRI_CONTROL = 4;
const PRI_STATUS = 6;
const PRI_CAPACITY = 8;
const PRI_ALLOCATION = 12;
const PRI_ENABLE = 1;
const PRI_RESET = 2;
const PRI_RESPONSE_FAILURE = 1;
const PRI_UNEXPECTED_INDEX = 2;
const PRI_STOPPED = 1 << 8;
const PRI_PASID_REQUIRED = 1 << 15;

export class AtsCapability implements Capability, Stateful {
  readonly id = 0x000f;
  readonly extendedVersion = 1;
  readonly bytes = 8;
  readonly #queueDepth: number;
  readonly #onChange: () => void;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  #wasEnabled = false;

  /**
   * `queueDepth`: invalidation requests that the function accepts at once, 1 to 32. `onChange`: ATS was switched on or off;
   * what the function has cached is void (§10.3.3).
   */
  constructor(queueDepth: number, onChange: () => void) {
    this.#queueDepth = queueDepth;
    this.#onChange = onChange;
  }

  written(): void {
    if (this.enabled === this.#wasEnabled) return;
    this.#wasEnabled = this.enabled;
    this.#onChange();
  }

  reset(): void {
    this.#wasEnabled = false;
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    const pageAligned = 1 << 5;
    const globalInvalidate = 1 << 6;
    config.declare(at + CAPABILITY, 2, { value: (this.#queueDepth & 0x1f) | pageAligned | globalInvalidate });
    config.declare(at + CONTROL, 2, { writable: 0x801f });
  }

  get enabled(): boolean {
    return (this.#config!.get16(this.#at + CONTROL) & 0x8000) !== 0;
  }

  saveState(): StateRecord {
    return { wasEnabled: this.#wasEnabled };
  }

  restoreState(state: StateReader): void {
    this.#wasEnabled = state.boolean("wasEnabled");
  }
}

export class PriCapability implements Capability {
  readonly id = 0x0013;
  readonly extendedVersion = 1;
  readonly bytes = 16;
  readonly #capacity: number;
  readonly #pasidInResponses: boolean;
  readonly #onReset: () => void;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  /** `capacity`: page requests that the function can have outstanding. `onReset`: software cleared its request state. */
  constructor(capacity: number, pasidInResponses: boolean, onReset: () => void) {
    this.#capacity = capacity;
    this.#pasidInResponses = pasidInResponses;
    this.#onReset = onReset;
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    config.declare(at + PRI_CONTROL, 2, { writable: PRI_ENABLE | PRI_RESET });
    config.declare(at + PRI_STATUS, 2, {
      value: PRI_STOPPED | (this.#pasidInResponses ? PRI_PASID_REQUIRED : 0),
      oneToClear: PRI_RESPONSE_FAILURE | PRI_UNEXPECTED_INDEX,
    });
    config.declare(at + PRI_CAPACITY, 4, { value: this.#capacity });
    config.declare(at + PRI_ALLOCATION, 4, { writable: 0xffffffff });
  }

  /** Page requests may be sent: enabled, within the allocation, not stopped by a response failure. */
  mayRequest(outstanding: number): boolean {
    const config = this.#config!;
    return (
      (config.get16(this.#at + PRI_CONTROL) & PRI_ENABLE) !== 0 &&
      (config.get16(this.#at + PRI_STATUS) & PRI_RESPONSE_FAILURE) === 0 &&
      outstanding < Math.min(this.#capacity, config.get32(this.#at + PRI_ALLOCATION))
    );
  }

  responseFailed(): void {
    this.#setStatus(PRI_RESPONSE_FAILURE | PRI_STOPPED);
  }

  unexpectedIndex(): void {
    this.#setStatus(PRI_UNEXPECTED_INDEX);
  }

  #setStatus(bits: number): void {
    const at = this.#at + PRI_STATUS;
    this.#config!.set16(at, this.#config!.get16(at) | bits);
  }

  written(from: number, to: number): void {
    if (!touched(from, to, PRI_CONTROL, 2)) return;
    const config = this.#config!;
    const control = config.get16(this.#at + PRI_CONTROL);
    const enabled = (control & PRI_ENABLE) !== 0;
    // Reset always reads 0 and does something only while the interface is off (§10.5.2.2).
    config.set16(this.#at + PRI_CONTROL, control & PRI_ENABLE);
    if ((control & PRI_RESET) !== 0 && !enabled) this.#onReset();
    const status = config.get16(this.#at + PRI_STATUS);
    config.set16(this.#at + PRI_STATUS, enabled ? status & ~PRI_STOPPED : status | PRI_STOPPED);
  }
}

export class PasidCapability implements Capability {
  readonly id = 0x001b;
  readonly extendedVersion = 1;
  readonly bytes = 8;
  readonly #width: number;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  /** `width`: bits of a PASID, 1 to 20. */
  constructor(width: number) {
    this.#width = width;
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    const privilegedMode = 1 << 2;
    config.declare(at + CAPABILITY, 2, { value: privilegedMode | (this.#width << 8) });
    config.declare(at + CONTROL, 2, { writable: 0x5 });
  }

  get enabled(): boolean {
    return (this.#config!.get16(this.#at + CONTROL) & 1) !== 0;
  }

  get privilegedEnabled(): boolean {
    return (this.#config!.get16(this.#at + CONTROL) & 4) !== 0;
  }

  /** True if the function can put `pasid` on the bus now. */
  accepts(pasid: number): boolean {
    return this.enabled && pasid < 2 ** this.#width;
  }
}
