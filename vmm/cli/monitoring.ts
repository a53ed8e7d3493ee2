// What holds a running machine for people and programs: the control of the run, the monitor, and the socket that leads to it.

import type { Trace } from "../../host/base/trace.ts";
import type { Machine, Service } from "../machine.ts";
import { Monitor, type MonitoredVm } from "../monitor/monitor.ts";
import { RunControl } from "../monitor/run-control.ts";
import type { RunGate } from "./kernel-pace.ts";
import { MonitorSessions } from "./monitor-sessions.ts";
import { RemoteLink } from "./remote-link.ts";

export interface MonitorOptions {
  /** Path of the monitor's socket. */
  readonly monitor?: string;
  /** Stand before the first instruction until told to go on. */
  readonly paused?: true;
}

/** What the person at the terminal is told of the socket. */
export function monitorAt({ monitor, paused }: MonitorOptions): string {
  return paused === true
    ? `the machine stands before its first instruction; to let it go on: nestbox monitor ${monitor} continue`
    : `the monitor listens: nestbox monitor ${monitor}`;
}

/** A machine that is held. */
export interface HeldMachine {
  readonly vm: MonitoredVm;
  /** Instructions, or traps, done so far by this one and those before it. */
  readonly progress: () => number;
  /** From within the run: has it return after what is being done. */
  readonly interrupt: () => void;
}

export class Monitoring implements RunGate {
  readonly control: RunControl;
  readonly monitor: Monitor;
  quitting = false;
  onArrival: () => void = () => {};
  readonly #link: RemoteLink | null;
  readonly #sessions: MonitorSessions | null;
  #held: HeldMachine | null = null;
  #closed = false;

  private constructor(trace: Trace, link: RemoteLink | null, paused: boolean) {
    const held = (): HeldMachine => {
      if (this.#held === null) throw new Error("no machine is held yet");
      return this.#held;
    };
    this.control = new RunControl(
      { trace, progress: () => held().progress(), interrupt: () => held().interrupt() },
      paused,
    );
    this.monitor = new Monitor(
      {
        position: () => held().vm.position(),
        tree: () => held().vm.tree(),
        ids: () => held().vm.ids(),
        sheets: () => held().vm.sheets(),
        walk: (...access) => held().vm.walk(...access),
        assign: (assignment) => held().vm.assign(assignment),
        unassign: (device) => held().vm.unassign(device),
        inject: (rules) => held().vm.inject(rules),
        quit: () => {
          this.quitting = true;
          held().vm.quit();
        },
      },
      this.control,
    );
    this.#link = link;
    this.#sessions = link === null ? null : new MonitorSessions(link, this.monitor);
    if (link !== null) link.onArrival = () => this.onArrival();
  }

  /** Listens where the options say so. Throws UsageError. */
  static async open(options: MonitorOptions, trace: Trace): Promise<Monitoring> {
    const link = options.monitor === undefined ? null : await RemoteLink.listen(options.monitor, "--monitor");
    return new Monitoring(trace, link, options.paused === true);
  }

  /** From here on it is about this machine: the first, or one after a reboot. */
  hold(machine: HeldMachine): void {
    this.#held = machine;
  }

  serve(): void {
    this.#sessions?.serve();
  }

  /** Has requests served at the traps of a guest that holds the thread from its first instruction to its last. */
  serveAtTraps(machine: Machine): void {
    const { control } = this;
    const link = this.#link;
    const gate: Service = {
      get flagged() {
        return link?.pending === true || control.due || (control.paused && !machine.stopping);
      },
      service: () => {
        this.serve();
        control.arrived();
        while (control.paused && !machine.stopping) {
          link?.wait();
          this.serve();
        }
      },
    };
    machine.addService(gate);
  }

  /** Tells everybody how the run ended, and lets go of the socket; only the first time. */
  async close(end: Readonly<Record<string, unknown>>): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#sessions?.close(end);
  }
}
