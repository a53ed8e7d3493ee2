// What is to fail, as a person writes it down:
//
//     ioctl:IOMMU_HWPT_ALLOC=ENOMEM       every call of this name fails with this errno
//     ioctl:IOMMU_IOAS_MAP@3=EFAULT       the third one only          (@3+ the third and all later ones)
//     ioctl:VFIO_DEVICE_RESET%20=EBUSY    each with a chance of 20 percent
//     ioctl:IOMMU_HWPT_INVALIDATE=drop    it answers success and does nothing
//     ioctl:IOMMU_IOAS_MAP=delay/50000    it takes 50000 ns more
//     ioctl:IOMMU_HWPT_INVALIDATE@2=corrupt   one bit of its entries (its data, or its structure) is another
//     command:IOTINVAL.VMA@3=drop         a command in the queue of the host's IOMMU is taken as done
//     allocation@12                       the twelfth allocation fails; allocation:domain@2 the second of that kind
//     entry:0000:00:01.0@3=corrupt/10     bit 10 of the third entry of user space's stage 1 that this device's DMA comes to use is another, in memory;
//                                         without /10: some bit
//     event:veventq@5                     the fifth event is lost (the queue says so); event:fault%10 page requests, answered INVALID
//     erratum:read-only-stage2            the hardware has this quirk
//     device:0000:00:01.0=dead            the device no longer answers and sends nothing
//     device:edu0=slow/5000               every access and transfer of it takes 5000 ns more
//
// What ails a device is the host's to do (host/host.ts, `inject`); the plan only says it.
// A plan is seeded: chances fall the same way in every run with the same seed. Everything it does is a trace event.

import { SeededRandom } from "../base/seeded-random.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import type { Trace } from "../base/trace.ts";
import { errnoOf } from "../uapi/errno.ts";
import { ERRATA, type Erratum, type EventQueueKind, type Injector, type Tampering } from "./inject.ts";
import { requireSame } from "./same-objects.ts";

/** Which of the occasions are meant. */
type When =
  | { readonly kind: "always" }
  | { readonly kind: "nth"; readonly nth: number; readonly andLater: boolean }
  | { readonly kind: "chance"; readonly percent: number };

interface Rule {
  readonly text: string;
  readonly point: "ioctl" | "allocation" | "event" | "erratum" | "command" | "entry";
  /** Name of what fails; "" any. */
  readonly name: string;
  readonly when: When;
  /** Negated errno, of ioctl rules that fail the call. */
  readonly error: number;
  /** What other ioctl rules do. */
  readonly effect: "drop" | "corrupt" | "delay" | null;
  readonly delayNs: number;
  /** Which bit of an entry; -1: any. */
  readonly bit: number;
  seen: number;
}

/** What a device rule asks for. */
export interface DeviceRule {
  readonly text: string;
  readonly device: string;
  readonly dead: boolean;
  readonly delayNs: number;
}

/** A rule that cannot be understood: a sentence that quotes it. */
export class InjectionSyntaxError extends Error {}

const RULE =
  /^(ioctl|allocation|event|erratum|command)(?::([A-Za-z0-9_. -]+?))?(?:@(\d+)(\+)?|%(\d+))?(?:=(\w+)(?:\/(\d+))?)?$/;

const ENTRY_RULE = /^entry:([0-9a-z:._-]+?)(?:@(\d+)(\+)?|%(\d+))?=corrupt(?:\/(\d+))?$/;

/** Entries that a device's DMA has come by; what is beyond is forgotten all at once. */
const REMEMBERED_ENTRIES = 65536;

const DEVICE_RULE = /^device:([0-9a-z:._-]+)=(?:(dead)|slow\/(\d+))$/;

function parseDevice(text: string): DeviceRule {
  const match = DEVICE_RULE.exec(text);
  if (match === null)
    throw new InjectionSyntaxError(
      `injection "${text}": expected device:NAME=dead or device:NAME=slow/NS, a name as 0000:00:01.0 or edu0`,
    );
  return { text, device: match[1]!, dead: match[2] !== undefined, delayNs: Number(match[3] ?? 0) };
}

function parseEntry(text: string): Rule {
  const match = ENTRY_RULE.exec(text);
  const bit = Number(match?.[5] ?? -1);
  if (match === null || bit > 63)
    throw new InjectionSyntaxError(
      `injection "${text}": expected entry:DEVICE[@N|@N+|%P]=corrupt[/BIT], a name as 0000:00:01.0 or edu0, a bit from 0 to 63`,
    );
  const [, name, nth, later, percent] = match;
  const when = parseWhen(nth, later, percent, text);
  return { text, point: "entry", name: name!, when, error: 0, effect: "corrupt", delayNs: 0, bit, seen: 0 };
}

function parseWhen(
  nth: string | undefined,
  later: string | undefined,
  percent: string | undefined,
  text: string,
): When {
  const fail = (why: string) => new InjectionSyntaxError(`injection "${text}": ${why}`);
  if (nth !== undefined && Number(nth) === 0) throw fail("occasions are counted from 1");
  if (nth !== undefined) return { kind: "nth", nth: Number(nth), andLater: later !== undefined };
  if (percent === undefined) return { kind: "always" };
  if (Number(percent) > 100) throw fail("a chance is at most 100 percent");
  return { kind: "chance", percent: Number(percent) };
}

function parse(text: string): Rule {
  if (text.startsWith("entry:")) return parseEntry(text);
  const match = RULE.exec(text);
  const fail = (why: string) => new InjectionSyntaxError(`injection "${text}": ${why}`);
  if (match === null)
    throw fail(
      "expected ioctl:NAME[@N|@N+|%P]=ERRNO|drop|corrupt|delay/NS, command:NAME[@N|@N+|%P]=drop, allocation[:KIND][@N|%P], event:QUEUE[@N|%P], erratum:NAME, entry:DEVICE[@N|@N+|%P]=corrupt[/BIT] or device:NAME=…",
    );
  const [, point, name = "", nth, later, percent, word, ns] = match;
  const when = parseWhen(nth, later, percent, text);
  let error = 0;
  let effect: Rule["effect"] = null;
  if ((ns !== undefined) !== (word === "delay")) throw fail("a delay, and nothing else, takes a time: delay/NS");
  if (point === "ioctl") {
    if (name === "") throw fail("an ioctl needs a name");
    if (word === "drop" || word === "corrupt" || word === "delay") {
      effect = word;
    } else {
      const number = word === undefined ? undefined : errnoOf(word);
      if (number === undefined) throw fail(word === undefined ? "an ioctl needs =ERRNO" : `there is no errno ${word}`);
      error = -number;
    }
  } else if (point === "command") {
    if (name === "" || word !== "drop") throw fail("a command needs a name and =drop");
  } else if (word !== undefined) {
    throw fail("only an ioctl takes an errno");
  }
  if (point === "event" && name !== "veventq" && name !== "fault") throw fail("the queues are veventq and fault");
  if (point === "erratum" && !ERRATA.includes(name as Erratum)) throw fail(`the errata are ${ERRATA.join(", ")}`);
  if (point === "erratum" && when.kind !== "always") throw fail("an erratum is there or not");
  return { text, point: point as Rule["point"], name, when, error, effect, delayNs: Number(ns ?? 0), bit: -1, seen: 0 };
}

/** Names that rules may use. */
export interface KnownNames {
  readonly ioctl: Iterable<string>;
  readonly allocation: Iterable<string>;
}

/** A rule with a mistyped name would never come to anything, and nobody would notice. */
function checkName({ text, point, name }: Rule, known: KnownNames): void {
  if (name === "" || (point !== "ioctl" && point !== "allocation")) return;
  const names = [...known[point]];
  if (names.includes(name)) return;
  const [nearest] = names.toSorted((a, b) => distance(a, name) - distance(b, name));
  throw new InjectionSyntaxError(`injection "${text}": there is no ${point} ${name}; ${nearest}?`);
}

/** Levenshtein's: characters to insert, remove or exchange. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const exchanged = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(exchanged, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}

export class InjectionPlan implements Injector, Stateful {
  readonly #rules: readonly Rule[];
  /** What is to ail which device. */
  readonly devices: readonly DeviceRule[];
  readonly #random: SeededRandom;
  readonly #trace: Trace | null;
  readonly #passTime: (ns: number) => void;
  #injected = 0;
  /** Of each device that entry rules name: entries that its DMA has used, by address. */
  readonly #entries = new Map<string, Map<bigint, bigint>>();

  /** Throws InjectionSyntaxError for a rule it does not understand, or that names a call or an allocation there is not (`known`). */
  constructor(
    rules: readonly string[],
    seed = 0,
    trace: Trace | null = null,
    known: KnownNames | null = null,
    passTime: (ns: number) => void = () => {},
  ) {
    this.#passTime = passTime;
    this.#rules = rules.filter((rule) => !rule.startsWith("device:")).map(parse);
    if (known !== null) for (const rule of this.#rules) checkName(rule, known);
    this.devices = rules.filter((rule) => rule.startsWith("device:")).map(parseDevice);
    this.#random = new SeededRandom(seed);
    this.#trace = trace;
  }

  /** How often something was made to fail (errata not counted). */
  get injected(): number {
    return this.#injected;
  }

  /** Rules that have not come to anything yet: a test of a failure that never happened is no test. */
  get unused(): readonly string[] {
    return this.#rules.filter((rule) => rule.seen === 0).map((rule) => rule.text);
  }

  /** What the last `ioctl` asks for besides an errno. */
  tampering: Tampering | null = null; // not state: within a call

  ioctl(name: string): number {
    const rule = this.#hit("ioctl", name);
    const effect = rule?.effect ?? null;
    this.tampering =
      effect === null ? null : { kind: effect, delayNs: rule!.delayNs, pick: (most) => this.#random.below(most) };
    return rule?.error ?? 0;
  }

  passTime(ns: number): void {
    this.#passTime(ns);
  }

  /** A command is about to be executed by the host's IOMMU: true takes it as done. */
  skipCommand(name: string): boolean {
    return this.#hit("command", name) !== null;
  }

  /** There are rules about commands: hardware need not ask where there are none. */
  get skipsCommands(): boolean {
    return this.#rules.some(({ point }) => point === "command");
  }

  /** Names of the devices that entry rules are about. */
  get entryDevices(): readonly string[] {
    return this.#rules.filter(({ point }) => point === "entry").map(({ name }) => name);
  }

  /**
   * A device's DMA goes by a stage-1 entry: the bit of it that is to be another, -1 none. An occasion is the first use of an entry as it
   * stands: one that an IOMMU has cached already would show nothing.
   */
  corruptedBit(device: string, address: bigint, entry: bigint): number {
    let known = this.#entries.get(device);
    if (known === undefined) {
      known = new Map();
      this.#entries.set(device, known);
    }
    if (known.get(address) === entry) return -1;
    if (known.size >= REMEMBERED_ENTRIES) known.clear();
    known.set(address, entry);
    const rule = this.#hit("entry", device);
    if (rule === null) return -1;
    const bit = rule.bit >= 0 ? rule.bit : this.#random.below(64);
    known.set(address, entry ^ (1n << BigInt(bit)));
    return bit;
  }

  allocation(what: string): boolean {
    return this.#hit("allocation", what) !== null;
  }

  loseEvent(queue: EventQueueKind): boolean {
    return this.#hit("event", queue) !== null;
  }

  erratum(erratum: Erratum): boolean {
    const rule = this.#rules.find((candidate) => candidate.point === "erratum" && candidate.name === erratum);
    if (rule !== undefined) rule.seen++;
    return rule !== undefined;
  }

  /** Every rule about this point counts the occasion; the first one that applies is returned. */
  #hit(point: Rule["point"], name: string): Rule | null {
    let hit: Rule | null = null;
    for (const rule of this.#rules) {
      if (rule.point !== point || (rule.name !== "" && rule.name !== name)) continue;
      rule.seen++;
      if (hit === null && this.#applies(rule)) hit = rule;
    }
    if (hit === null) return null;
    this.#injected++;
    if (this.#trace?.on) this.#trace.emit({ type: "injection", point, name, rule: hit.text });
    return hit;
  }

  #applies(rule: Rule): boolean {
    const { when, seen } = rule;
    if (when.kind === "always") return true;
    if (when.kind === "chance") return this.#random.below(100) < when.percent;
    return when.andLater ? seen >= when.nth : seen === when.nth;
  }

  saveState(): StateRecord {
    return {
      injected: this.#injected,
      seen: this.#rules.map(({ text, seen }) => ({ rule: text, seen })),
      entries: [...this.#entries].map(([device, known]) => ({
        device,
        known: [...known].map(([address, entry]) => ({ address, entry })),
      })),
    };
  }

  /** The rules must be the same. */
  restoreState(state: StateReader): void {
    const saved = state.records("seen");
    requireSame(
      state,
      this.#rules.map(ruleName),
      saved.map((rule, index) => `rule ${index} ${rule.text("rule")}`),
    );
    for (const [index, rule] of this.#rules.entries()) rule.seen = saved[index]!.number("seen");
    this.#injected = state.number("injected");
    this.#entries.clear();
    for (const device of state.records("entries")) {
      const known = new Map<bigint, bigint>();
      for (const entry of device.records("known")) known.set(entry.bigint("address"), entry.bigint("entry"));
      this.#entries.set(device.text("device"), known);
    }
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["random", this.#random];
  }
}

function ruleName({ text }: Rule, index: number): string {
  return `rule ${index} ${text}`;
}
