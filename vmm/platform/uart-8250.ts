// The 8250-family UART ("ns16550a"): the console of RV64 machines. Byte registers at stride 1 (16550 data sheet; what Linux touches
// is in the platform notes of vmm/platform/README.md). Transmission takes no time: THR is always empty again.
//
// guest store to THR → onOutput (the shell's console);  shell → receive() → RBR, interrupt.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";

const RBR_THR_DLL = 0;
const IER_DLM = 1;
const IIR_FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;

const IER_RDI = 1;
const IER_THRI = 2;
const LCR_DLAB = 0x80;
const LSR_DATA_READY = 0x01;
/** Transmitter holding register and shift register empty. */
const LSR_IDLE = 0x60;
/** Carrier detect, data set ready, clear to send: somebody is there. */
const MSR_CONNECTED = 0xb0;
const FIFO_DEPTH = 16;

export class Uart8250 implements MmioPort, Stateful {
  high = 0;

  // not state, to the blank line: wiring
  /** One byte the guest sent. */
  onOutput: (byte: number) => void = () => {};
  /** Level of the interrupt wire. */
  onWire: (asserted: boolean) => void = () => {};
  /** Called when the guest has made room in the receiver. */
  onRoom: () => void = () => {};

  readonly #received: number[] = [];
  #divisor = 1;
  #ier = 0;
  #fcr = 0;
  #lcr = 0;
  #mcr = 0;
  #scratch = 0;
  /** THR-empty interrupt pending: set by enabling it and by a transmission, cleared by reading IIR. */
  #thrEmptyPending = false;
  #wire = false;

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) this.high = 0;
    return size === 1 ? this.#read(offset) : 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 1) this.#write(offset, lo & 0xff);
    this.#updateWire();
  }

  /** Puts a byte into the receiver; false if there is no room (the caller keeps it). */
  receive(byte: number): boolean {
    if (this.#received.length >= FIFO_DEPTH) return false;
    this.#received.push(byte & 0xff);
    this.#updateWire();
    return true;
  }

  #read(offset: number): number {
    switch (offset) {
      case RBR_THR_DLL: {
        if (this.#lcr & LCR_DLAB) return this.#divisor & 0xff;
        const byte = this.#received.shift() ?? 0;
        this.#updateWire();
        this.onRoom();
        return byte;
      }
      case IER_DLM:
        return this.#lcr & LCR_DLAB ? this.#divisor >> 8 : this.#ier;
      case IIR_FCR: {
        const cause = this.#cause();
        if (cause === 0x02) {
          this.#thrEmptyPending = false;
          this.#updateWire();
        }
        return (this.#fcr & 1 ? 0xc0 : 0) | cause;
      }
      case LCR:
        return this.#lcr;
      case MCR:
        return this.#mcr;
      case LSR:
        return LSR_IDLE | (this.#received.length > 0 ? LSR_DATA_READY : 0);
      case MSR:
        return MSR_CONNECTED;
      case SCR:
        return this.#scratch;
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    switch (offset) {
      case RBR_THR_DLL:
        if (this.#lcr & LCR_DLAB) {
          this.#divisor = (this.#divisor & 0xff00) | value;
        } else {
          // Loopback (MCR bit 4) feeds the receiver, nothing leaves.
          if (this.#mcr & 0x10) this.receive(value);
          else this.onOutput(value);
          this.#thrEmptyPending = true;
        }
        break;
      case IER_DLM:
        if (this.#lcr & LCR_DLAB) {
          this.#divisor = (this.#divisor & 0xff) | (value << 8);
        } else {
          // Every write that leaves THRI enabled raises it at once, THR being empty: Linux probes for that.
          this.#ier = value & 0x0f;
          if (value & IER_THRI) this.#thrEmptyPending = true;
        }
        break;
      case IIR_FCR:
        this.#fcr = value & 0xc9;
        if (value & 2) {
          this.#received.length = 0;
          this.onRoom();
        }
        break;
      case LCR:
        this.#lcr = value;
        break;
      case MCR:
        this.#mcr = value & 0x1f;
        break;
      case SCR:
        this.#scratch = value;
        break;
    }
  }

  /** Interrupt identification by priority: received data, THR empty, none (the line never has errors). */
  #cause(): number {
    if (this.#ier & IER_RDI && this.#received.length > 0) return 0x04;
    if (this.#ier & IER_THRI && this.#thrEmptyPending) return 0x02;
    return 0x01;
  }

  #updateWire(): void {
    const asserted = this.#cause() !== 0x01;
    if (asserted === this.#wire) return;
    this.#wire = asserted;
    this.onWire(asserted);
  }

  saveState(): StateRecord {
    return {
      received: this.#received.slice(),
      divisor: this.#divisor,
      ier: this.#ier,
      fcr: this.#fcr,
      lcr: this.#lcr,
      mcr: this.#mcr,
      scratch: this.#scratch,
      thrEmptyPending: this.#thrEmptyPending,
      wire: this.#wire,
    };
  }

  restoreState(state: StateReader): void {
    const received = state.numberList("received");
    if (received.length > FIFO_DEPTH) state.fail("received", `has more than ${FIFO_DEPTH} bytes`);
    this.#received.splice(0, this.#received.length, ...received);
    this.#divisor = state.number("divisor");
    this.#ier = state.number("ier");
    this.#fcr = state.number("fcr");
    this.#lcr = state.number("lcr");
    this.#mcr = state.number("mcr");
    this.#scratch = state.number("scratch");
    this.#thrEmptyPending = state.boolean("thrEmptyPending");
    this.#wire = state.boolean("wire");
  }
}
