// The monitor: answers requests about a machine and to it. What it says is plain data, addresses "0x…", so that a program reads it and a person's terminal
// draws it (vmm/cli/monitor-text.ts).

import { hex } from "../../host/base/address.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import { traceLine } from "../../host/base/trace-json.ts";
import { EVENT_FIELDS } from "../../host/base/trace-shape.ts";
import type { IdRow } from "../view/ids.ts";
import { subtree, type Tree } from "../view/machine-tree.ts";
import { walkGrid } from "../view/walk-grid.ts";
import { walkText, whyText } from "../view/walk-text.ts";
import { collectWalks } from "../view/walks.ts";
import type { CapabilitySheet } from "../viommu/kind.ts";
import { helpOf, shapeOf } from "./command-shapes.ts";
import type { Argument, Request } from "./request.ts";
import type { RunControl, Stop, Waiter } from "./run-control.ts";

/** What the host's IOMMU says of an access of a guest's device. */
export interface AskedWalk {
  /** Of a walk of the tables as they are now. */
  readonly events: readonly TracedEvent[];
  /** Physical address that its caches hold for the page, whatever the tables say by now; null: none. */
  readonly remembered: bigint | null;
}

/** A place in a run: instructions that all CPUs have executed, and the number of the last event of its trace. */
export interface Place {
  readonly instructions: number;
  readonly event: number;
}

/** A machine that can be made to stand anywhere in its run: a replay's. Only between two steps. */
export interface Journey {
  readonly here: Place;
  /** Has it stand behind what brought an event; tells `waiter` once it does. */
  toEvent(event: number, waiter: Waiter): void;
  /** The same, where so many instructions have been executed. */
  toInstruction(instructions: number, waiter: Waiter): void;
}

/** A machine as the monitor sees it, whatever executes its guest. Verbs throw `VmRefusal`. */
export interface MonitoredVm {
  /** Where it stands: time, instructions or traps, CPUs. */
  position(): Readonly<Record<string, unknown>>;
  tree(): Tree;
  ids(): readonly IdRow[];
  sheets(): readonly { readonly viommu: string; readonly host: string | null; readonly sheet: CapabilitySheet }[];
  walk(device: string, iova: bigint, pasid: number, write: boolean): AskedWalk;
  assign(assignment: string): void;
  unassign(device: string): void;
  inject(rules: readonly string[]): void;
  /** Null: what it did is done. */
  readonly journey: Journey | null;
  /** Ends the run. */
  quit(): void;
}

/** The machine does not do what it is asked, in one line. */
export class VmRefusal extends Error {}

export type Answer = { readonly ok: true; readonly result: unknown } | { readonly ok: false; readonly error: string };

const PLAIN = Symbol("later");

export class Monitor {
  readonly #vm: MonitoredVm;
  readonly #control: RunControl;

  constructor(vm: MonitoredVm, control: RunControl) {
    this.#vm = vm;
    this.#control = control;
  }

  /** Answers at once, or once the machine stands (step, until). Never throws for what a request asks. */
  execute(request: Request, answer: (answer: Answer) => void): void {
    try {
      const result = this.#do(request, (stop) => answer({ ok: true, result: this.#standing(stop) }));
      if (result !== PLAIN) answer({ ok: true, result });
    } catch (error) {
      if (!(error instanceof VmRefusal)) throw error;
      answer({ ok: false, error: error.message });
    }
  }

  /** As `status` has it, for whoever is told of a stop. */
  standing(stop: Stop): unknown {
    return this.#standing(stop);
  }

  #do({ command, arguments: given }: Request, stopped: (stop: Stop) => void): unknown {
    const vm = this.#vm;
    const control = this.#control;
    switch (command) {
      case "help": {
        const name = given.command as string | undefined;
        const shape = name === undefined ? undefined : shapeOf(name);
        if (name !== undefined && shape === undefined)
          throw new VmRefusal(`there is no command ${JSON.stringify(name)}`);
        return { lines: helpOf(shape) };
      }
      case "status":
        return this.#standing(control.stop);
      case "pause":
        control.pause();
        return this.#standing(control.stop);
      case "continue":
        control.resume();
        return this.#standing(null);
      case "step": {
        const count = (given.n as number | undefined) ?? 1;
        if (given.event === true) control.untilEvent(() => true, count, stopped);
        else control.step(count, stopped);
        return PLAIN;
      }
      case "until": {
        const type = given.type as string;
        if (!EVENT_FIELDS.has(type))
          throw new VmRefusal(`${type} is no type of event (there are ${[...EVENT_FIELDS.keys()].join(", ")})`);
        control.untilEvent((event) => event.type === type, 1, stopped);
        return PLAIN;
      }
      case "goto":
        this.#journey.toEvent(given.event as number, stopped);
        return PLAIN;
      case "back": {
        const { here } = this.#journey;
        this.#journey.toEvent(here.event - ((given.n as number | undefined) ?? 1), stopped);
        return PLAIN;
      }
      case "inspect": {
        const part = subtree(vm.tree(), (given.path as string | undefined) ?? "");
        if (part === null) throw new VmRefusal(`inspect ${given.path}: there is no such part`);
        return part;
      }
      case "ids":
        return vm.ids();
      case "caps":
        return vm.sheets().map(({ viommu, host, sheet }) => ({
          viommu,
          host,
          registers: Object.fromEntries(Object.entries(sheet.registers).map(([name, value]) => [name, hex(value, 16)])),
          rows: sheet.rows,
        }));
      case "walk":
        return this.#walk(given);
      case "device-add":
        vm.assign(given.assignment as string);
        return {};
      case "device-remove":
        vm.unassign(given.device as string);
        return {};
      case "inject":
        vm.inject(given.rule as readonly string[]);
        return {};
      case "quit":
        vm.quit();
        control.resume();
        return {};
    }
  }

  get #journey(): Journey {
    const { journey } = this.#vm;
    if (journey !== null) return journey;
    throw new VmRefusal("only the replay of a kernel goes back: boot --record FILE, then replay FILE --monitor SOCKET");
  }

  #walk(given: Readonly<Record<string, Argument>>): unknown {
    const { device, iova, pasid, write, why } = given;
    const { events, remembered } = this.#vm.walk(
      device as string,
      iova as bigint,
      (pasid as number) ?? -1,
      write === true,
    );
    const walk = collectWalks(events).at(-1);
    if (walk === undefined) throw new VmRefusal(`walk: no IOMMU stands before ${device}`);
    const grid = walkGrid(walk);
    const plain: unknown = JSON.parse(
      JSON.stringify(grid, (_key, value: unknown) => (typeof value === "bigint" ? `0x${value.toString(16)}` : value)),
    );
    const text = walkText(grid, { width: 120, colours: false }).split("\n");
    if (remembered !== null) {
      const stale = remembered === walk.spa ? "" : ", which is not what the tables say: it is stale";
      text.push(`the IOTLB holds SPA ${hex(remembered)}${stale}`);
    }
    return {
      text,
      cached: remembered === null ? null : hex(remembered),
      ...(why === true ? { why: whyText(grid) } : {}),
      grid: plain,
    };
  }

  #standing(stop: Stop | null): unknown {
    const position = this.#vm.position();
    if (stop === null) return { state: "running", ...position };
    const event = stop.reason === "event" ? { event: JSON.parse(traceLine(stop.event)) as unknown } : {};
    const cpu = stop.reason === "breakpoint" ? { cpu: stop.cpu } : {};
    return { state: "paused", reason: stop.reason, ...cpu, ...event, ...position };
  }
}
