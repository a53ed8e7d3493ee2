// What every edu device is, whatever it hangs on: registers (registers.ts), the DMA engine beside (dma-engine.ts), the factorial. Registers
// below 0x80 take 4-byte accesses, the others 4 or 8; anything else reads all ones and changes nothing. The PCI function (edu.ts) and the
// platform device (platform-edu.ts) put it in their places.

import type { ClockEvent } from "../../base/clock.ts";
import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { DmaEngine, type EngineParts } from "./dma-engine.ts";
import * as R from "./registers.ts";

export interface EduRegistersParts extends Omit<EngineParts, "buffer" | "interrupt" | "transfer"> {
  /** DMA between the device's buffer and memory; arguments as DmaPort. */
  readonly transfer: (
    buffer: Uint8Array,
    ...rest: Parameters<EngineParts["transfer"]>
  ) => ReturnType<EngineParts["transfer"]>;
  /** Level that the device wants on its interrupt pin or wire. */
  readonly interruptLevel: (asserted: boolean) => void;
  /** An interrupt has come, for a device that can send messages. */
  readonly message?: () => void;
}

const ALL_ONES = 0xffffffff;

export class EduRegisters implements MmioPort, Stateful {
  high = 0;
  readonly engine: DmaEngine;
  readonly #parts: EduRegistersParts;
  readonly #buffer = new Uint8Array(R.BUFFER_BYTES);
  readonly #factorialDone: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];
  #liveness = 0;
  #factorial = 0;
  #status = 0;
  #interruptStatus = 0;
  #factorialEvent = 0;

  constructor(parts: EduRegistersParts) {
    this.#parts = parts;
    this.#factorialDone = { owner: parts.name, name: "factorial", fire: () => this.#finishFactorial() };
    this.clockEvents = [this.#factorialDone];
    this.engine = new DmaEngine({
      ...parts,
      buffer: this.#buffer,
      transfer: (...transfer) => parts.transfer(this.#buffer, ...transfer),
      interrupt: () => this.#raiseInterrupt(R.INTERRUPT_DMA),
    });
  }

  /** Everything as after power-on; DMA in flight is given up. */
  reset(): void {
    if (this.#factorialEvent !== 0) this.#parts.clock().cancel(this.#factorialEvent);
    this.#factorialEvent = 0;
    this.#liveness = this.#factorial = this.#status = this.#interruptStatus = 0;
    this.#buffer.fill(0);
    this.engine.reset();
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = size === 8 ? ALL_ONES : 0;
    if (offset < R.DMA_SOURCE) {
      if (size !== 4) return size === 8 ? ALL_ONES : 2 ** (8 * size) - 1;
      return this.#readControl(offset);
    }
    if (size < 4) return 2 ** (8 * size) - 1;
    if (size === 8) this.high = this.engine.readWord(offset + 4);
    return this.engine.readWord(offset);
  }

  #readControl(offset: number): number {
    switch (offset) {
      case R.IDENTIFICATION:
        return R.IDENTIFICATION_VALUE;
      case R.LIVENESS:
        return ~this.#liveness >>> 0;
      case R.FACTORIAL:
        return this.#factorial;
      case R.STATUS:
        return this.#status;
      case R.INTERRUPT_STATUS:
        return this.#interruptStatus;
      default:
        return ALL_ONES;
    }
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (offset < R.DMA_SOURCE) {
      if (size === 4) this.#writeControl(offset, lo >>> 0);
    } else if (size === 4 || size === 8) {
      this.engine.write(offset, size, lo >>> 0, hi >>> 0);
    }
  }

  #writeControl(offset: number, value: number): void {
    switch (offset) {
      case R.LIVENESS:
        this.#liveness = value;
        break;
      case R.FACTORIAL:
        if ((this.#status & R.STATUS_COMPUTING) !== 0) break;
        this.#factorial = value;
        this.#status |= R.STATUS_COMPUTING;
        this.#factorialEvent = this.#parts.clock().schedule(R.FACTORIAL_NS, this.#factorialDone);
        break;
      case R.STATUS:
        this.#status = (this.#status & R.STATUS_COMPUTING) | (value & R.STATUS_RAISE_INTERRUPT);
        break;
      case R.INTERRUPT_RAISE:
        this.#raiseInterrupt(value);
        break;
      case R.INTERRUPT_ACKNOWLEDGE:
        this.#interruptStatus = (this.#interruptStatus & ~value) >>> 0;
        this.#parts.interruptLevel(this.#interruptStatus !== 0);
        break;
    }
  }

  #finishFactorial(): void {
    this.#factorialEvent = 0;
    this.#factorial = factorial(this.#factorial);
    this.#status &= ~R.STATUS_COMPUTING;
    if ((this.#status & R.STATUS_RAISE_INTERRUPT) !== 0) this.#raiseInterrupt(R.INTERRUPT_FACTORIAL);
  }

  #raiseInterrupt(bits: number): void {
    this.#interruptStatus = (this.#interruptStatus | bits) >>> 0;
    if (this.#interruptStatus === 0) return;
    this.#parts.interruptLevel(true);
    this.#parts.message?.();
  }

  saveState(): StateRecord {
    return {
      buffer: bytesOf(this.#buffer),
      liveness: this.#liveness,
      factorial: this.#factorial,
      status: this.#status,
      interruptStatus: this.#interruptStatus,
      factorialEvent: this.#factorialEvent,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("buffer", this.#buffer);
    this.#liveness = state.number("liveness");
    this.#factorial = state.number("factorial");
    this.#status = state.number("status");
    this.#interruptStatus = state.number("interruptStatus");
    this.#factorialEvent = state.number("factorialEvent");
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["dma engine", this.engine]];
  }
}

/** n! modulo 2^32. From 34 on the product has 32 factors of two: it is 0, so a hostile n costs no time. */
function factorial(n: number): number {
  if (n >= 34) return 0;
  let product = 1;
  for (let i = 2; i <= n; i++) product = Math.imul(product, i);
  return product >>> 0;
}
