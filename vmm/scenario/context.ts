// What a scenario's body works with: hosts, VMs, expectations. Everything a scenario makes is disposed of when it ends, and a host that
// still holds a live object then has leaked: the scenario fails.

import type { Clock } from "../../host/base/clock.ts";
import { printable } from "../../host/base/printable.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { Trace, TracedEvent } from "../../host/base/trace.ts";
import type { HostDescription } from "../../host/description.ts";
import { Host, type HostKinds } from "../../host/host.ts";
import type { ViommuKind } from "../viommu/kind.ts";
import { DEFAULT_KIND, type DefaultKind, VIOMMU_KINDS, type ViommuKindName } from "../viommu/kinds.ts";
import { ExpectationFailed } from "./scenario.ts";
import { ScenarioVm, type VmOptions } from "./vm.ts";

/** Kinds of IOMMU that a scenario may use, guest-visible and in hosts. */
export interface ScenarioKinds {
  readonly viommus: Readonly<Record<string, ViommuKind>>;
  readonly host: HostKinds;
}

/** What the runner gives a scenario. */
export interface ContextParts {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly seed: number;
  readonly sweepValue: unknown;
  /** The host of VMs that name none. */
  readonly defaultHost: HostDescription;
  readonly findHost: (name: string) => HostDescription;
  /** Kinds of IOMMU; default those that ship. */
  readonly kinds?: ScenarioKinds;
  /** Called at each step; may end the scenario by throwing. */
  readonly onStep: (name: string, context: ScenarioContext) => void;
  /** Messages for the person who runs the scenario. */
  readonly report: (message: string) => void;
}

/** A VM of whichever kind. */
export type AnyVm = ScenarioVm<ViommuKindName>;

export class ScenarioContext {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly seed: number;
  /** Seeded: the same in every run with the same seed. */
  readonly random: SeededRandom;
  /** The value of the parameter sweep in this run; undefined without one. */
  readonly value: unknown;
  readonly messages: string[] = [];
  readonly #parts: ContextParts;
  readonly #hosts: Host[] = [];
  readonly #vms: AnyVm[] = [];
  readonly #steps: string[] = [];
  /** By name; "" is the runner's default. */
  readonly #named = new Map<string, Host>();

  constructor(parts: ContextParts) {
    this.#parts = parts;
    this.clock = parts.clock;
    this.trace = parts.trace;
    this.seed = parts.seed;
    this.random = new SeededRandom(parts.seed);
    this.value = parts.sweepValue;
  }

  /** VMs made so far. */
  get vms(): readonly AnyVm[] {
    return this.#vms;
  }

  get hosts(): readonly Host[] {
    return this.#hosts;
  }

  get steps(): readonly string[] {
    return this.#steps;
  }

  /** The host under test: by name, or the runner's default (each made once); by description, one more. */
  host(which?: string | HostDescription): Host {
    const name = which === undefined ? "" : typeof which === "string" ? which : null;
    const before = name === null ? undefined : this.#named.get(name);
    if (before !== undefined) return before;
    const description =
      which === undefined ? this.#parts.defaultHost : typeof which === "string" ? this.#parts.findHost(which) : which;
    const kinds = this.#parts.kinds?.host;
    const host = new Host(description, {
      clock: this.clock,
      trace: this.trace,
      ...(kinds === undefined ? {} : { kinds }),
    });
    this.#hosts.push(host);
    if (name !== null) this.#named.set(name, host);
    return host;
  }

  /** A VM with its vIOMMU brought up. Throws HostRefusal if the host refuses a device. */
  vm<K extends ViommuKindName = DefaultKind>(options: VmOptions<K> = {}): ScenarioVm<K> {
    const name = options.kind ?? DEFAULT_KIND;
    const kinds: Readonly<Record<string, ViommuKind>> = this.#parts.kinds?.viommus ?? VIOMMU_KINDS;
    if (!Object.hasOwn(kinds, name)) {
      throw new Error(`no kind of IOMMU "${name}" (there is ${Object.keys(kinds).join(", ")})`);
    }
    const kind = kinds[name]!;
    // The usual kind's VMs run on the host under test; another kind needs one that has it.
    const usual = name === DEFAULT_KIND ? undefined : kind.guest.host;
    const host = options.host ?? this.host(options.services === true ? (kind.guest.servicesHost ?? usual) : usual);
    const vm = new ScenarioVm<K>(kind, host, options, this.clock, this.trace, (message) => {
      this.messages.push(message);
      this.#parts.report(message);
    });
    this.#vms.push(vm as unknown as AnyVm);
    return vm;
  }

  /** Names the moment, for messages and `--at`. */
  step(name: string): void {
    this.#steps.push(name);
    // A name of the scenario's own; what a trace holds is fit to be shown.
    if (this.trace.on) this.trace.emit({ type: "step", name: printable(String(name)) });
    this.#parts.onStep(name, this);
  }

  /** Fails the scenario unless the condition holds. */
  expect(condition: boolean, message: string): void {
    if (!condition) throw new ExpectationFailed(`expected: ${message}`);
  }

  /** Fails the scenario unless both are equal: numbers, bigints, strings, booleans, or bytes. */
  equal(actual: unknown, expected: unknown, message: string): void {
    const [left, right] = [show(actual), show(expected)];
    if (left !== right) throw new ExpectationFailed(`${message}: expected ${right}, found ${left}`);
  }

  /** Lets virtual time pass: clock events fire and VMs do their work. */
  advance(ns: number): void {
    if (!(ns >= 0 && ns < Number.POSITIVE_INFINITY)) throw new RangeError(`advance takes nanoseconds, not ${ns}`);
    const until = this.clock.now + ns;
    for (;;) {
      const next = Math.min(this.clock.nextDeadline, until);
      this.clock.advanceTo(next);
      this.clock.fireDue();
      for (const vm of this.#vms) vm.settle();
      if (next >= until && this.clock.nextDeadline > until) return;
    }
  }

  /** Collects events of the trace from now on. */
  watch(): TracedEvent[] {
    const events: TracedEvent[] = [];
    this.trace.addSink({ event: (event) => events.push(event) });
    return events;
  }

  /** Disposes of everything; returns what hosts still hold, as text, or null. */
  close(): string | null {
    for (const vm of this.#vms.reverse()) vm[Symbol.dispose]();
    const leaks: string[] = [];
    for (const host of this.#hosts) {
      host[Symbol.dispose]();
      if (host.liveObjects > 0) {
        leaks.push(host.liveKinds.map(([kind, count]) => `${count} ${kind}`).join(", "));
      }
    }
    return leaks.length === 0 ? null : leaks.join("; ");
  }
}

function show(value: unknown): string {
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) return `[${[...value].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}]`;
  if (typeof value === "string") return JSON.stringify(value);
  return String(value);
}
