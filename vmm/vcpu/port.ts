// What a vCPU asks of its machine. Every call is a trap: the machine lets virtual time pass, does the access, then fires what fell
// due. Addresses are guest-physical, as doubles (what lies at or past 2^53 is nowhere). None of these throws.

import type { AccessSize } from "../../host/base/mmio.ts";

export interface VcpuPort {
  /** High half of the last 8-byte load, unsigned. */
  readonly high: number;
  load(address: number, size: AccessSize): number;
  store(address: number, size: AccessSize, lo: number, hi: number): void;
  /**
   * Lets time pass until an interrupt is pending for this vCPU; returns and takes it (component guests: the vector; see the
   * machine's interrupt controller). Returns -1 when nothing can ever happen again (no event is scheduled), -2 when the run must
   * stop (time limit, host asked).
   */
  wait(): number;
  /** Takes a pending interrupt without waiting; -1 if none. */
  poll(): number;
  /** Bytes for the console. */
  console(bytes: Uint8Array): void;
  /** True once the run must end: the vCPU returns control at its next chance. */
  readonly stopping: boolean;
}
