// The devices behind one vIOMMU, and what each one's DMA goes through: blocked, bypass or nested, the same in the host.
//
//   ddtp or IODIR.INVAL_DDT ─▶ read the device's context in guest memory ─▶ same as installed? nothing; else one host call
//
// A blocked device keeps the cause that hardware would give (256–260, 268); it is reported when a transaction arrives, not when
// the command runs. A context that the host refuses is blocked with cause 259, the errno kept; other devices go on.
//
// Devices that the host cannot tell apart (one iommu group) are one stream, which has one context:
//
//     no member has a context              all blocked, each with its own cause
//     those that have one have the same    it is installed; the others are kept from DMA by their Bus Master Enable, without a fault
//                                          record, for the hardware would take their DMA for that of their neighbours
//     contexts differ                      all blocked until they agree; who has one sees cause 259

import { TC_DTF } from "../../../host/arch/riscv/device-context.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_DDT_MISCONFIGURED,
  CAUSE_DDT_NOT_VALID,
} from "../../../host/arch/riscv/fault-records.ts";
import { StateError, type Stateful, type StateReader, type StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { EEXIST, ENODEV } from "../../../host/uapi/errno.ts";
import type { ViommuHost } from "../host-port.ts";
import type { Disposition, PluggedDevice, PluggedState } from "../kind.ts";
import {
  type CanonicalContext,
  canonicalise,
  DDTP_BARE_CONTEXT,
  type DeviceAbilities,
  encodeContext,
  readContext,
  sameContext,
  saveContext,
} from "./context.ts";

/** What has one context in the host: a device, or several that the host cannot tell apart. */
interface Stream {
  /** null: a device alone. */
  readonly name: string | null;
  readonly members: DeviceState[];
  /** What the host has for it; null: blocked. */
  installed: CanonicalContext | null;
  /** As told last, see the head of this file. */
  told: string;
}

export interface DeviceState extends PluggedState {
  readonly stream: Stream;
  /** Its own context as last read, and what it would be blocked with for want of one. */
  wanted: CanonicalContext | null;
  ownCause: number;
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

export class Dispositions implements Stateful {
  readonly #byId = new Map<number, DeviceState>();
  readonly #host: ViommuHost | null;
  readonly #reader: ContextReader;
  readonly #report: (message: string) => void;
  readonly #trace: Trace;
  readonly #iommu: string;
  readonly #shared = new Map<string, Stream>(); // not state: devices' streams, by name
  /** Contexts with a first stage installed. */
  nestedInstalled = 0;
  /** Contexts with V = 1 and a Bare first stage installed. */
  bypassInstalled = 0;
  /** Called when a device's context changed or went: what it asked for is void. */
  onChanged: (state: DeviceState) => void = () => {}; // not state: wiring

  /** `iommu` names the vIOMMU in the trace. */
  constructor(
    host: ViommuHost | null,
    reader: ContextReader,
    report: (message: string) => void,
    trace: Trace,
    iommu: string,
  ) {
    this.#host = host;
    this.#reader = reader;
    this.#report = report;
    this.#trace = trace;
    this.#iommu = iommu;
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
    const name = device.stream ?? null;
    const known = name === null ? undefined : this.#shared.get(name);
    const stream: Stream = known ?? { name, members: [], installed: null, told: "" };
    if (!device.emulated) {
      // A vIOMMU without a host has nothing that could keep an assigned device's DMA in bounds.
      if (this.#host === null) return -ENODEV;
      // What joins an open stream could do DMA through it from the first moment.
      device.allowDma?.(stream.installed === null);
      const errno = this.#host.attach(device.handle, BigInt(device.guestId));
      if (errno < 0) return errno;
    }
    const state: DeviceState = {
      device,
      stream,
      wanted: null,
      ownCause: CAUSE_ALL_INBOUND_DISALLOWED,
      disposition: "blocked",
      cause: CAUSE_ALL_INBOUND_DISALLOWED,
      faultsDisabled: false,
      context: null,
      refusal: 0,
      detached: false,
      lost: false,
      marked: true,
    };
    this.#byId.set(device.guestId, state);
    stream.members.push(state);
    if (name !== null) this.#shared.set(name, stream);
    // What a stream can do depends on all its members.
    for (const member of stream.members) member.marked = true;
    return 0;
  }

  /** Takes a device out; 0 or a negated errno of the host's (it is gone here in any case). */
  remove(guestId: number): number {
    const state = this.#byId.get(guestId);
    if (state === undefined) return 0;
    const { device, stream } = state;
    this.#byId.delete(guestId);
    stream.members.splice(stream.members.indexOf(state), 1);
    this.onChanged(state);
    if (stream.members.length > 0) {
      // The rest may keep the stream open: what leaves has no part in it.
      device.allowDma?.(false);
      for (const member of stream.members) this.#read(member);
      this.#settle(stream);
    } else if (stream.name !== null) {
      this.#shared.delete(stream.name);
    }
    return device.emulated || this.#host === null ? 0 : this.#host.detach(device.handle);
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

  /** Reads and installs what is marked. A stream is settled once all its members have been read: none is caught between two commands. */
  installMarked(): void {
    for (const { marked, stream } of this.#byId.values()) {
      if (!marked) continue;
      for (const member of stream.members) {
        if (!member.marked) continue;
        member.marked = false;
        this.#read(member);
      }
      this.#settle(stream);
    }
  }

  /** What the guest's context of a device says now. */
  #read(state: DeviceState): void {
    const { device, stream } = state;
    state.wanted = null;
    state.faultsDisabled = false;
    state.ownCause = CAUSE_DDT_NOT_VALID;
    if (device.held === true) return;
    const located = this.#reader.locate(device.guestId);
    state.ownCause = located.cause;
    if (located.cause !== 0) return;
    if (located.bare) {
      state.wanted = DDTP_BARE_CONTEXT;
      return;
    }
    state.faultsDisabled = (this.#reader.words[0]! & TC_DTF) !== 0;
    state.wanted = canonicalise(this.#reader.words, stream.name === null ? device : commonAbilities(stream));
  }

  /** Gives a stream what its members' contexts come to. */
  #settle(stream: Stream): void {
    const { members } = stream;
    let context: CanonicalContext | null = null;
    let differ = false;
    for (const { wanted } of members) {
      if (wanted === null) continue;
      if (context === null) context = wanted;
      else if (!sameContext(context, wanted)) differ = true;
    }
    if (stream.name !== null) this.#tell(stream, context, differ);
    if (context === null || differ) {
      for (const member of members) member.refusal = 0;
      this.#block(stream);
      return;
    }
    // Before the stream is open: afterwards it would be too late.
    if (stream.name !== null) for (const { device, wanted } of members) device.allowDma?.(wanted !== null);
    if (stream.installed === null || !sameContext(stream.installed, context)) {
      const errno = this.#give(stream, context);
      if (errno < 0) {
        for (const member of members) {
          member.refusal = member.wanted === null ? 0 : errno;
          member.faultsDisabled = false;
        }
        this.#block(stream, true);
        return;
      }
      stream.installed = context;
      if (context.disposition === "nested") this.nestedInstalled++;
      else this.bypassInstalled++;
    }
    for (const member of members) {
      member.refusal = 0;
      member.lost = false;
      this.#show(member, member.wanted === null ? null : context);
    }
  }

  /** Says, once, what has become of a stream of several devices. */
  #tell(stream: Stream, context: CanonicalContext | null, differ: boolean): void {
    const guests = stream.members.filter(({ device }) => device.held !== true);
    const names = (states: readonly DeviceState[]) => states.map(({ device }) => device.name).join(" ");
    const contexts = differ ? "differ" : context === null ? "none" : "one";
    const withheld = contexts === "one" ? names(guests.filter(({ wanted }) => wanted === null)) : "";
    const devices = names(guests);
    const told = `${contexts} ${devices} ${withheld}`;
    if (told === stream.told) return;
    stream.told = told;
    const group = stream.name!;
    this.#trace.emit({ type: "group", iommu: this.#iommu, group, contexts, devices, withheld });
    if (!differ) return;
    const having = guests.filter(({ wanted }) => wanted !== null).map(({ device }) => device.name);
    this.#report(
      `${group} is one stream to the host, but the contexts of guest devices ${having.join(" and ")} differ: ` +
        `all of it is blocked, with cause ${CAUSE_DDT_MISCONFIGURED}, until they agree`,
    );
  }

  #give(stream: Stream, context: CanonicalContext): number {
    const { device } = stream.members[0]!;
    if (device.emulated || this.#host === null) return 0;
    const attached = this.#attachAgain(stream, this.#host);
    if (attached < 0) return attached;
    // ddtp Bare lets a process_id pass, a context with fsc Bare and PDTV=0 does not (§3.3 steps 1 and 4): two kinds of bypass.
    if (context === DDTP_BARE_CONTEXT) return this.#host.setBypass(device.handle);
    return this.#host.setNested(device.handle, encodeContext(context));
  }

  /** Devices that had to be detached get their places behind the vIOMMU back; 0 or a negated errno. */
  #attachAgain(stream: Stream, host: ViommuHost): number {
    for (const member of stream.members) {
      if (!member.detached) continue;
      const errno = host.attach(member.device.handle, BigInt(member.device.guestId));
      if (errno < 0) return errno;
      member.detached = false;
    }
    return 0;
  }

  /** `again`: the host may hold anything after a refusal, so it is told even if the stream was blocked already. */
  #block(stream: Stream, again = false): void {
    const { members } = stream;
    const { device } = members[0]!;
    const was = stream.installed;
    stream.installed = null;
    for (const member of members) {
      // One that has a context could not get it: the host refused it, or its neighbours' differ.
      member.cause = member.wanted === null ? member.ownCause : CAUSE_DDT_MISCONFIGURED;
      this.#show(member, null);
    }
    const detached = members.some((member) => member.detached);
    const lost = members.some((member) => member.lost);
    if (was === null && !again && !lost && !detached) return;
    if (device.emulated || this.#host === null) return;
    // Attached again it is blocked; that it can be seen to the guest (its faults) needs the attachment.
    let errno = detached ? this.#attachAgain(stream, this.#host) : this.#host.setBlocked(device.handle);
    if (detached && errno < 0) return;
    // A host that cannot block a device that way may still be able to take it out altogether.
    if (errno < 0) {
      errno = 0;
      for (const member of members) {
        errno = Math.min(errno, this.#host.detach(member.device.handle));
        member.detached = true;
      }
    }
    for (const member of members) {
      member.lost = errno < 0;
      // Blocked by the hardware, a device is free to try: the guest is to see the fault.
      member.device.allowDma?.(!member.lost);
      if (!member.lost) continue;
      this.#report(`device ${member.device.name} (host ${member.device.hostName ?? "?"}) could not be blocked`);
    }
  }

  #show(state: DeviceState, context: CanonicalContext | null): void {
    const before = state.context;
    state.context = context;
    state.disposition = context === null ? "blocked" : context.disposition;
    if (context === null && state.wanted === null) state.cause = state.ownCause;
    if (before !== null && (context === null || !sameContext(before, context))) this.onChanged(state);
  }

  saveState(): StateRecord {
    const streams = [...new Set([...this.#byId.values()].map(({ stream }) => stream))];
    return {
      devices: [...this.#byId.values()].map((state) => ({
        guestId: state.device.guestId,
        handle: state.device.handle,
        name: state.device.name,
        wanted: saveContext(state.wanted),
        ownCause: state.ownCause,
        disposition: state.disposition,
        cause: state.cause,
        faultsDisabled: state.faultsDisabled,
        context: saveContext(state.context),
        refusal: state.refusal,
        detached: state.detached,
        lost: state.lost,
        marked: state.marked,
      })),
      streams: streams.map(({ name, members, installed, told }) => ({
        name,
        members: members.map(({ device }) => device.guestId),
        installed: saveContext(installed),
        told,
      })),
      nestedInstalled: this.nestedInstalled,
      bypassInstalled: this.bypassInstalled,
    };
  }

  /** Devices are those that are plugged in now, by handle; the guest's ids for them are the document's. */
  restoreState(state: StateReader): void {
    const plugged = new Map([...this.#byId.values()].map(({ device }) => [device.handle, device]));
    const devices = state.records("devices");
    if (devices.length !== plugged.size) state.fail("devices", `are not ${plugged.size}`);
    const saved = new Map(devices.map((each) => [each.number("guestId"), each]));
    this.#byId.clear();
    this.#shared.clear();
    const states = new Map<number, DeviceState>();
    for (const each of state.records("streams")) {
      const name = each.optional("name", (reader, field) => reader.text(field));
      const installed = readContext(each, "installed");
      const stream: Stream = { name, members: [], installed, told: each.text("told") };
      if (name !== null) this.#shared.set(name, stream);
      for (const guestId of each.numberList("members")) {
        const member = saved.get(guestId);
        const known = member === undefined ? undefined : plugged.get(member.number("handle"));
        if (member === undefined || known === undefined || (known.stream ?? null) !== name) {
          throw new StateError(`${each.path}: members has ${guestId}, which is no device of it here`);
        }
        plugged.delete(known.handle);
        const restored = readDevice(member, stream, { ...known, guestId, name: member.text("name") });
        stream.members.push(restored);
        states.set(guestId, restored);
      }
    }
    for (const guestId of saved.keys()) {
      const restored = states.get(guestId);
      if (restored === undefined) state.fail("streams", `have no device ${guestId}`);
      this.#byId.set(guestId, restored);
    }
    this.nestedInstalled = state.number("nestedInstalled");
    this.bypassInstalled = state.number("bypassInstalled");
  }
}

/** What every device of a stream can do. */
function commonAbilities({ members }: Stream): DeviceAbilities {
  return { ats: members.every(({ device }) => device.ats), pri: members.every(({ device }) => device.pri) };
}

function readDevice(saved: StateReader, stream: Stream, device: PluggedDevice): DeviceState {
  const disposition = DISPOSITIONS.find((each) => each === saved.text("disposition"));
  return {
    device,
    stream,
    wanted: readContext(saved, "wanted"),
    ownCause: saved.number("ownCause"),
    disposition: disposition ?? saved.fail("disposition", "is none"),
    cause: saved.number("cause"),
    faultsDisabled: saved.boolean("faultsDisabled"),
    context: readContext(saved, "context"),
    refusal: saved.number("refusal"),
    detached: saved.boolean("detached"),
    lost: saved.boolean("lost"),
    marked: saved.boolean("marked"),
  };
}

const DISPOSITIONS: readonly Disposition[] = ["blocked", "bypass", "nested"];
