// Vendor-specific capability (PCI 3.0 §6.7, id 09h): id, next pointer, length, then bytes of the vendor's own, all read-only here.

import type { ConfigSpace } from "../config-space.ts";
import type { Capability } from "./capability.ts";

export class VendorSpecificCapability implements Capability {
  readonly id = 0x09;
  readonly bytes: number;
  readonly #content: readonly number[];

  /** `content`: the bytes after the length byte. */
  constructor(content: readonly number[]) {
    this.#content = content;
    this.bytes = 3 + content.length;
  }

  place(config: ConfigSpace, at: number): void {
    config.declare(at + 2, 1, { value: this.bytes });
    this.#content.forEach((byte, index) => {
      config.declare(at + 3 + index, 1, { value: byte });
    });
  }
}
