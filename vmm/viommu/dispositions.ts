// The devices behind one vIOMMU, and what each one's DMA goes through: blocked, bypass or nested, the same in the host.
//
//   the guest's tables, or a command that names a device ─▶ read its context ─▶ same as installed? nothing; else one host call
//
// What a context is, and where the guest keeps it, the kind says (`ContextRules`). A blocked device keeps the cause that hardware would
// give; it is reported when a transaction arrives, not when the command runs. A context that the host refuses is blocked, the errno kept;
// other devices go on.
//
// Devices that the host cannot tell apart (one iommu group) are one stream, which has one context:
//
//     no member has a context              all blocked, each with its own cause
//     those that have one have the same    it is installed; the others are kept from DMA by their Bus Master Enable, without a fault
//                                          record, for the hardware would take their DMA for that of their neighbours
//     contexts differ                      all blocked until they agree; who has one sees the cause of an unfit context

import {
  StateError,
  type Stateful,
  type StateReader,
  type StateRecord,
  type StateValue,
} from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import { EEXIST, ENODEV } from "../../host/uapi/errno.ts";
import type { DeviceHandle, ViommuHost } from "./host-port.ts";
import type { Disposition, PluggedDevice, PluggedState } from "./kind.ts";

/** What of the guest's context can mean something, by the device and its host. */
export interface DeviceAbilities {
  readonly ats: boolean;
  readonly pri: boolean;
}

/** What a kind calls a context: what the guest has written for a device, in the form that the host gets. */
export interface ContextRules<C> {
  /** Reads the guest's tables for a device; null: it has none, and `cause` says what its transactions are refused with. */
  read(device: PluggedDevice, abilities: DeviceAbilities): C | null;
  readonly cause: number;
  /** Causes of a device that has not been read yet, of one that is held, and of one whose context the host or its neighbours rule out. */
  readonly unread: number;
  readonly held: number;
  readonly unfit: number;
  /** "cause 259": for messages. */
  describe(cause: number): string;
  disposition(context: C): "bypass" | "nested";
  same(a: C, b: C): boolean;
  /** Gives the host a context; 0 or a negated errno. */
  install(host: ViommuHost, device: DeviceHandle, context: C): number;
  save(context: C): StateValue;
  /** What `save` made, in a field of a document. Throws StateError. */
  restore(state: StateReader, field: string): C;
}

/** What has one context in the host: a device, or several that the host cannot tell apart. */
interface Stream<C> {
  /** null: a device alone. */
  readonly name: string | null;
  readonly members: DeviceState<C>[];
  /** What the host has for it; null: blocked. */
  installed: C | null;
  /** As told last, see the head of this file. */
  told: string;
}

export interface DeviceState<C> extends PluggedState {
  readonly stream: Stream<C>;
  /** Its own context as last read, and what it would be blocked with for want of one. */
  wanted: C | null;
  ownCause: number;
  disposition: Disposition;
  /** While blocked: what hardware would report. Kept afterwards, for transactions that arrived before. */
  cause: number;
  /** What is installed, unless blocked. */
  context: C | null;
  /** 0, or the errno with which the host refused the context last read. */
  refusal: number;
  /** Blocked by being detached: to be attached again before it gets a context. */
  detached: boolean;
  /** The host could not even block it: nothing is known about its DMA. */
  lost: boolean;
  /** To be read again. */
  marked: boolean;
}

export class Dispositions<C> implements Stateful {
  readonly #byId = new Map<number, DeviceState<C>>();
  readonly #host: ViommuHost | null;
  readonly #rules: ContextRules<C>;
  readonly #report: (message: string) => void;
  readonly #trace: Trace;
  readonly #iommu: string;
  readonly #shared = new Map<string, Stream<C>>(); // not state: devices' streams, by name
  /** Contexts with a first stage installed. */
  nestedInstalled = 0;
  /** Contexts with V = 1 and a Bare first stage installed. */
  bypassInstalled = 0;
  /** Called when a device's context changed or went: what it asked for is void. */
  onChanged: (state: DeviceState<C>) => void = () => {}; // not state: wiring

  /** `iommu` names the vIOMMU in the trace. */
  constructor(
    host: ViommuHost | null,
    rules: ContextRules<C>,
    report: (message: string) => void,
    trace: Trace,
    iommu: string,
  ) {
    this.#host = host;
    this.#rules = rules;
    this.#report = report;
    this.#trace = trace;
    this.#iommu = iommu;
  }

  get all(): IterableIterator<DeviceState<C>> {
    return this.#byId.values();
  }

  find(guestId: number): DeviceState<C> | undefined {
    return this.#byId.get(guestId);
  }

  findHandle(handle: number): DeviceState<C> | undefined {
    for (const state of this.#byId.values()) if (state.device.handle === handle) return state;
    return undefined;
  }

  /** Adds a device, blocked until its context is read; 0, -EEXIST for an id that is taken, or a negated errno of the host's. */
  add(device: PluggedDevice): number {
    if (this.#byId.has(device.guestId)) return -EEXIST;
    const name = device.stream ?? null;
    const known = name === null ? undefined : this.#shared.get(name);
    const stream: Stream<C> = known ?? { name, members: [], installed: null, told: "" };
    if (!device.emulated) {
      // A vIOMMU without a host has nothing that could keep an assigned device's DMA in bounds.
      if (this.#host === null) return -ENODEV;
      // What joins an open stream could do DMA through it from the first moment.
      device.allowDma?.(stream.installed === null);
      const errno = this.#host.attach(device.handle, BigInt(device.guestId));
      if (errno < 0) return errno;
    }
    const state: DeviceState<C> = {
      device,
      stream,
      wanted: null,
      ownCause: this.#rules.unread,
      disposition: "blocked",
      cause: this.#rules.unread,
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

  /** Marks the devices whose ids share all but the low `bits` bits with `guestId` (32: all); false if there is none. */
  markRange(guestId: number, bits: number): boolean {
    if (bits >= 32) return this.mark(-1);
    if (bits === 0) return this.mark(guestId);
    let found = false;
    for (const state of this.#byId.values()) {
      if (state.device.guestId >>> bits !== guestId >>> bits) continue;
      state.marked = true;
      found = true;
    }
    return found;
  }

  /**
   * Reads and installs what is marked; then `visit` is called for each device of the streams that were. A stream is settled once all its members have
   * been read: none is caught between two commands.
   */
  installMarked(visit?: (state: DeviceState<C>) => void): void {
    for (const { marked, stream } of this.#byId.values()) {
      if (!marked) continue;
      let settled = stream.name === null;
      for (const member of stream.members) {
        if (!member.marked) continue;
        member.marked = false;
        const { wanted, ownCause } = member;
        this.#read(member);
        settled &&= member.wanted === wanted && member.ownCause === ownCause && isWhereItBelongs(member);
      }
      // Most that a guest has read again is as it was.
      if (!settled) this.#settle(stream);
      if (visit !== undefined) for (const member of stream.members) visit(member);
    }
  }

  /** The host has not done what a context that is installed needs: it is blocked, whatever the guest's says, until that is read again. */
  giveUp(state: DeviceState<C>, errno: number): void {
    for (const member of state.stream.members) if (member.wanted !== null) member.refusal = errno;
    this.#block(state.stream, true);
  }

  /** What the guest's context of a device says now. */
  #read(state: DeviceState<C>): void {
    const { device, stream } = state;
    const rules = this.#rules;
    state.wanted = null;
    state.ownCause = rules.held;
    if (device.held === true) return;
    state.wanted = rules.read(device, stream.name === null ? device : commonAbilities(stream));
    state.ownCause = rules.cause;
  }

  /** Gives a stream what its members' contexts come to. */
  #settle(stream: Stream<C>): void {
    const { members } = stream;
    let context: C | null = null;
    let differ = false;
    for (const { wanted } of members) {
      if (wanted === null) continue;
      if (context === null) context = wanted;
      else if (!this.#rules.same(context, wanted)) differ = true;
    }
    if (stream.name !== null) this.#tell(stream, context, differ);
    if (context === null || differ) {
      for (const member of members) member.refusal = 0;
      this.#block(stream);
      return;
    }
    // Before the stream is open: afterwards it would be too late.
    if (stream.name !== null) for (const { device, wanted } of members) device.allowDma?.(wanted !== null);
    if (stream.installed === null || !this.#rules.same(stream.installed, context)) {
      const errno = this.#give(stream, context);
      if (errno < 0) {
        for (const member of members) {
          member.refusal = member.wanted === null ? 0 : errno;
        }
        this.#block(stream, true);
        return;
      }
      stream.installed = context;
      if (this.#rules.disposition(context) === "nested") this.nestedInstalled++;
      else this.bypassInstalled++;
    }
    for (const member of members) {
      member.refusal = 0;
      member.lost = false;
      this.#show(member, member.wanted === null ? null : context);
    }
  }

  /** Says, once, what has become of a stream of several devices. */
  #tell(stream: Stream<C>, context: C | null, differ: boolean): void {
    const guests = stream.members.filter(({ device }) => device.held !== true);
    const names = (states: readonly DeviceState<C>[]) => states.map(({ device }) => device.name).join(" ");
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
        `all of it is blocked, with ${this.#rules.describe(this.#rules.unfit)}, until they agree`,
    );
  }

  #give(stream: Stream<C>, context: C): number {
    const { device } = stream.members[0]!;
    if (device.emulated || this.#host === null) return 0;
    const attached = this.#attachAgain(stream, this.#host);
    if (attached < 0) return attached;
    return this.#rules.install(this.#host, device.handle, context);
  }

  /** Devices that had to be detached get their places behind the vIOMMU back; 0 or a negated errno. */
  #attachAgain(stream: Stream<C>, host: ViommuHost): number {
    for (const member of stream.members) {
      if (!member.detached) continue;
      const errno = host.attach(member.device.handle, BigInt(member.device.guestId));
      if (errno < 0) return errno;
      member.detached = false;
    }
    return 0;
  }

  /** `again`: the host may hold anything after a refusal, so it is told even if the stream was blocked already. */
  #block(stream: Stream<C>, again = false): void {
    const { members } = stream;
    const { device } = members[0]!;
    const was = stream.installed;
    stream.installed = null;
    let detached = false;
    let lost = false;
    for (const member of members) {
      // One that has a context could not get it: the host refused it, or its neighbours' differ.
      member.cause = member.wanted === null ? member.ownCause : this.#rules.unfit;
      this.#show(member, null);
      detached ||= member.detached;
      lost ||= member.lost;
    }
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

  #show(state: DeviceState<C>, context: C | null): void {
    const before = state.context;
    state.context = context;
    state.disposition = context === null ? "blocked" : this.#rules.disposition(context);
    if (context === null && state.wanted === null) state.cause = state.ownCause;
    if (before !== null && (context === null || !this.#rules.same(before, context))) this.onChanged(state);
  }

  saveState(): StateRecord {
    const streams = [...new Set([...this.#byId.values()].map(({ stream }) => stream))];
    return {
      devices: [...this.#byId.values()].map((state) => ({
        guestId: state.device.guestId,
        handle: state.device.handle,
        name: state.device.name,
        wanted: this.#save(state.wanted),
        ownCause: state.ownCause,
        disposition: state.disposition,
        cause: state.cause,
        context: this.#save(state.context),
        refusal: state.refusal,
        detached: state.detached,
        lost: state.lost,
        marked: state.marked,
      })),
      streams: streams.map(({ name, members, installed, told }) => ({
        name,
        members: members.map(({ device }) => device.guestId),
        installed: this.#save(installed),
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
    const states = new Map<number, DeviceState<C>>();
    for (const each of state.records("streams")) {
      const name = each.optional("name", (reader, field) => reader.text(field));
      const installed = this.#restored(each, "installed");
      const stream: Stream<C> = { name, members: [], installed, told: each.text("told") };
      if (name !== null) this.#shared.set(name, stream);
      for (const guestId of each.numberList("members")) {
        const member = saved.get(guestId);
        const known = member === undefined ? undefined : plugged.get(member.number("handle"));
        if (member === undefined || known === undefined || (known.stream ?? null) !== name) {
          throw new StateError(`${each.path}: members has ${guestId}, which is no device of it here`);
        }
        plugged.delete(known.handle);
        const restored = this.#restoreDevice(member, stream, { ...known, guestId, name: member.text("name") });
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

  #restoreDevice(saved: StateReader, stream: Stream<C>, device: PluggedDevice): DeviceState<C> {
    const disposition = DISPOSITIONS.find((each) => each === saved.text("disposition"));
    return {
      device,
      stream,
      wanted: this.#restored(saved, "wanted"),
      ownCause: saved.number("ownCause"),
      disposition: disposition ?? saved.fail("disposition", "is none"),
      cause: saved.number("cause"),
      context: this.#restored(saved, "context"),
      refusal: saved.number("refusal"),
      detached: saved.boolean("detached"),
      lost: saved.boolean("lost"),
      marked: saved.boolean("marked"),
    };
  }

  #save(context: C | null): StateValue {
    return context === null ? null : this.#rules.save(context);
  }

  #restored(state: StateReader, field: string): C | null {
    return state.optional(field, (reader) => this.#rules.restore(reader, field));
  }
}

/** False if the host has not done for it what its context asks for. */
function isWhereItBelongs<C>({ refusal, lost, detached }: DeviceState<C>): boolean {
  return refusal === 0 && !lost && !detached;
}

/** What every device of a stream can do. */
function commonAbilities<C>({ members }: Stream<C>): DeviceAbilities {
  return { ats: members.every(({ device }) => device.ats), pri: members.every(({ device }) => device.pri) };
}

const DISPOSITIONS: readonly Disposition[] = ["blocked", "bypass", "nested"];
