// The devices behind one vIOMMU, and what each one's DMA goes through: blocked, bypass or nested, the same in the host.
//
//   ddtp or IODIR.INVAL_DDT ─▶ read the device's context in guest memory ─▶ same as installed? nothing; else one host call
//
// A blocked device keeps the cause that hardware would give (256–260, 268); it is reported when a transaction arrives, not when
// the command runs. A context that the host refuses is blocked with cause 259, the errno kept; other devices go on.

import { TC_DTF } from "../../../host/arch/riscv/device-context.ts";
import { CAUSE_ALL_INBOUND_DISALLOWED, CAUSE_DDT_MISCONFIGURED } from "../../../host/arch/riscv/fault-records.ts";
import { EEXIST, ENODEV } from "../../../host/uapi/errno.ts";
import type { ViommuHost } from "../host-port.ts";
import type { Disposition, PluggedDevice, PluggedState } from "../kind.ts";
import { type CanonicalContext, canonicalise, DDTP_BARE_CONTEXT, encodeContext, sameContext } from "./context.ts";

export interface DeviceState extends PluggedState {
  disposition: Disposition;
  /** While blocked: what hardware would report. Kept afterwards, for transactions that arrived before. */
  cause: number;
  /** tc.DTF of the context; false where no context was found. */
  faultsDisabled: boolean;
  /** What is installed, unless blocked. */
  context: CanonicalContext | null;
  /** 0, or the errno with which the host refused the context last read. */
  refusal: number;
  /** Blocked by being detached: to be attached again before it gets a context. */
  detached: boolean;
  /** The host could not even block it: nothing is known about its DMA. */
  lost: boolean;
  /** To be read again. */
  marked: boolean;
}

/** Outcome of reading a context. */
export interface LocatedContext {
  /** 0: `words` holds a sound context, or `bare`. */
  readonly cause: number;
  readonly bare: boolean;
  /** Why, where the cause alone does not say. */
  readonly detail: string;
}

/** Reads a device's context from guest memory as ddtp says; leaves it in `words` (halves). */
export interface ContextReader {
  readonly words: Uint32Array;
  locate(deviceId: number): LocatedContext;
}

export class Dispositions {
  readonly #byId = new Map<number, DeviceState>();
  readonly #host: ViommuHost | null;
  readonly #reader: ContextReader;
  readonly #report: (message: string) => void;
  /** Contexts with a first stage installed. */
  nestedInstalled = 0;
  /** Contexts with V = 1 and a Bare first stage installed. */
  bypassInstalled = 0;
  /** Called when a device's context changed or went: what it asked for is void. */
  onChanged: (state: DeviceState) => void = () => {};

  constructor(host: ViommuHost | null, reader: ContextReader, report: (message: string) => void) {
    this.#host = host;
    this.#reader = reader;
    this.#report = report;
  }

  get all(): IterableIterator<DeviceState> {
    return this.#byId.values();
  }

  find(guestId: number): DeviceState | undefined {
    return this.#byId.get(guestId);
  }

  findHandle(handle: number): DeviceState | undefined {
    for (const state of this.#byId.values()) if (state.device.handle === handle) return state;
    return undefined;
  }

  /** Adds a device, blocked until its context is read; 0, -EEXIST for an id that is taken, or a negated errno of the host's. */
  add(device: PluggedDevice): number {
    if (this.#byId.has(device.guestId)) return -EEXIST;
    if (!device.emulated) {
      // A vIOMMU without a host has nothing that could keep an assigned device's DMA in bounds.
      if (this.#host === null) return -ENODEV;
      const errno = this.#host.attach(device.handle, BigInt(device.guestId));
      if (errno < 0) return errno;
    }
    this.#byId.set(device.guestId, {
      device,
      disposition: "blocked",
      cause: CAUSE_ALL_INBOUND_DISALLOWED,
      faultsDisabled: false,
      context: null,
      refusal: 0,
      detached: false,
      lost: false,
      marked: true,
    });
    return 0;
  }

  /** Takes a device out; 0 or a negated errno of the host's (it is gone here in any case). */
  remove(guestId: number): number {
    const state = this.#byId.get(guestId);
    if (state === undefined) return 0;
    this.#byId.delete(guestId);
    this.onChanged(state);
    return state.device.emulated || this.#host === null ? 0 : this.#host.detach(state.device.handle);
  }

  /** Marks one device (-1: all) to be read again; false if there is none. */
  mark(guestId: number): boolean {
    if (guestId >= 0) {
      const state = this.#byId.get(guestId);
      if (state === undefined) return false;
      state.marked = true;
      return true;
    }
    for (const state of this.#byId.values()) state.marked = true;
    return this.#byId.size > 0;
  }

  /** Reads and installs what is marked. */
  installMarked(): void {
    for (const state of this.#byId.values()) {
      if (!state.marked) continue;
      state.marked = false;
      this.#install(state);
    }
  }

  #install(state: DeviceState): void {
    const { device } = state;
    const located = this.#reader.locate(device.guestId);
    const found = located.cause === 0 && !located.bare;
    state.faultsDisabled = found && (this.#reader.words[0]! & TC_DTF) !== 0;
    if (located.cause !== 0) {
      state.refusal = 0;
      this.#block(state, located.cause);
      return;
    }
    const wanted = located.bare ? DDTP_BARE_CONTEXT : canonicalise(this.#reader.words, device);
    if (state.disposition !== "blocked" && state.context !== null && sameContext(state.context, wanted)) return;
    const errno = this.#give(state, wanted);
    if (errno < 0) {
      state.refusal = errno;
      state.faultsDisabled = false;
      this.#block(state, CAUSE_DDT_MISCONFIGURED, true);
      return;
    }
    const changed = state.context !== null;
    state.refusal = 0;
    state.lost = false;
    state.disposition = wanted.disposition;
    state.context = wanted;
    if (wanted.disposition === "nested") this.nestedInstalled++;
    else this.bypassInstalled++;
    if (changed) this.onChanged(state);
  }

  #give(state: DeviceState, context: CanonicalContext): number {
    const { device } = state;
    if (device.emulated || this.#host === null) return 0;
    const attached = this.#attachAgain(state, this.#host);
    if (attached < 0) return attached;
    // ddtp Bare lets a process_id pass, a context with fsc Bare and PDTV=0 does not (§3.3 steps 1 and 4): two kinds of bypass.
    if (context === DDTP_BARE_CONTEXT) return this.#host.setBypass(device.handle);
    return this.#host.setNested(device.handle, encodeContext(context));
  }

  /** A device that had to be detached gets its place behind the vIOMMU back; 0 or a negated errno. */
  #attachAgain(state: DeviceState, host: ViommuHost): number {
    if (!state.detached) return 0;
    const errno = host.attach(state.device.handle, BigInt(state.device.guestId));
    if (errno === 0) state.detached = false;
    return errno;
  }

  /** `again`: the host may hold anything after a refusal, so it is told even if the device was blocked already. */
  #block(state: DeviceState, cause: number, again = false): void {
    const { device } = state;
    const was = state.disposition;
    state.cause = cause;
    const detached = state.detached;
    if (was === "blocked" && !again && !state.lost && !detached) return;
    state.disposition = "blocked";
    state.context = null;
    if (was !== "blocked") this.onChanged(state);
    if (device.emulated || this.#host === null) return;
    // Attached again it is blocked; that it can be seen to the guest (its faults) needs the attachment.
    let errno = detached ? this.#attachAgain(state, this.#host) : this.#host.setBlocked(device.handle);
    if (detached && errno < 0) return;
    // A host that cannot block a device that way may still be able to take it out altogether.
    if (errno < 0) {
      errno = this.#host.detach(device.handle);
      state.detached = true;
    }
    state.lost = errno < 0;
    if (state.lost) this.#report(`device ${device.name} (host ${device.hostName ?? "?"}) could not be blocked`);
  }
}
