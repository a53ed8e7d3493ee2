// PCI Express capability, version 2 (PCIe 6.0 §7.5.3), of an endpoint. Functions here sit on the root complex itself, so the
// default port type is Root Complex Integrated Endpoint, whose link registers do not exist and read zero.

import type { ConfigSpace } from "../config-space.ts";
import { type Capability, touched } from "./capability.ts";

const EXPRESS_CAPABILITIES = 0x02;
const DEVICE_CAPABILITIES = 0x04;
const DEVICE_CONTROL = 0x08;
const DEVICE_STATUS = 0x0a;
const DEVICE_CAPABILITIES_2 = 0x24;
const DEVICE_CONTROL_2 = 0x28;

const ROLE_BASED_ERROR_REPORTING = 1 << 15;
const FUNCTION_LEVEL_RESET = 1 << 28;
const INITIATE_FUNCTION_LEVEL_RESET = 1 << 15;
const TRANSACTIONS_PENDING = 1 << 5;
/** End-End TLP Prefix Supported, one prefix: what a PASID needs. */
const END_END_PREFIX = (1 << 21) | (1 << 22);

export const PORT_TYPE_ENDPOINT = 0;
export const PORT_TYPE_INTEGRATED_ENDPOINT = 9;

export interface PciExpressOptions {
  readonly portType?: typeof PORT_TYPE_ENDPOINT | typeof PORT_TYPE_INTEGRATED_ENDPOINT;
  /** The function sends requests with PASID prefixes. */
  readonly prefixes?: boolean;
  /** Software asked for a function-level reset. */
  readonly onReset: () => void;
  /** True while requests of the function's are outstanding. */
  readonly transactionsPending: () => boolean;
}

export class PciExpressCapability implements Capability {
  readonly id = 0x10;
  readonly bytes = 0x3c;
  readonly #options: PciExpressOptions;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  constructor(options: PciExpressOptions) {
    this.#options = options;
  }

  place(config: ConfigSpace, at: number): void {
    const { portType = PORT_TYPE_INTEGRATED_ENDPOINT, prefixes = false } = this.#options;
    this.#config = config;
    this.#at = at;
    config.declare(at + EXPRESS_CAPABILITIES, 2, { value: 2 | (portType << 4) });
    config.declare(at + DEVICE_CAPABILITIES, 4, { value: ROLE_BASED_ERROR_REPORTING | FUNCTION_LEVEL_RESET });
    // Error reporting enables, relaxed ordering, payload size, no snoop, read request size (512), function-level reset.
    config.declare(at + DEVICE_CONTROL, 2, { value: 0x2810, writable: 0xf8ff });
    config.declare(at + DEVICE_STATUS, 2, { oneToClear: 0xf });
    config.declare(at + DEVICE_CAPABILITIES_2, 4, { value: prefixes ? END_END_PREFIX : 0 });
    config.declare(at + DEVICE_CONTROL_2, 2, { writable: 0x001f });
  }

  /** Brings Transactions Pending up to date before software reads it. */
  refresh(): void {
    const at = this.#at + DEVICE_STATUS;
    const status = this.#config!.get16(at) & ~TRANSACTIONS_PENDING;
    this.#config!.set16(at, this.#options.transactionsPending() ? status | TRANSACTIONS_PENDING : status);
  }

  written(from: number, to: number): void {
    if (!touched(from, to, DEVICE_CONTROL, 2)) return;
    const control = this.#config!.get16(this.#at + DEVICE_CONTROL);
    if ((control & INITIATE_FUNCTION_LEVEL_RESET) === 0) return;
    // Initiate Function Level Reset always reads 0; the reset itself puts the register back.
    this.#config!.set16(this.#at + DEVICE_CONTROL, control & ~INITIATE_FUNCTION_LEVEL_RESET);
    this.#options.onReset();
  }
}
