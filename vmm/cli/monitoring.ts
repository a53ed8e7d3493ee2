// What holds a running machine for people and programs: the control of the run, the monitor, and the socket that leads to it.

import type { Trace } from "../../host/base/trace.ts";
import type { HeldByDebugger, Past } from "../gdb/target.ts";
import type { Machine, Service } from "../machine.ts";
import { Monitor, type MonitoredVm } from "../monitor/monitor.ts";
import { RunControl } from "../monitor/run-control.ts";
import { GdbServer } from "./gdb-server.ts";
import type { RunGate } from "./kernel-pace.ts";
import { MonitorSessions } from "./monitor-sessions.ts";
import { RemoteLink } from "./remote-link.ts";

export interface MonitorOptions {
  /** Path of the monitor's socket. */
  readonly monitor?: string;
  /** Port of the loopback interface at which a debugger is served; 0: any. */
  readonly gdb?: number;
  /** Stand before the first instruction until told to go on. */
  readonly paused?: true;
}

/** What the person at the terminal is told of a debugger's port. */
export function debuggerAt(port: number, paused: boolean): string {
  return `${paused ? "the machine waits for a debugger" : "a debugger may come"}: gdb-multiarch -ex "target remote :${port}"`;
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
  /** What a debugger may have; left out: this machine has no registers. */
  readonly debugged?: HeldByDebugger;
  /** Of a replay. */
  readonly past?: Past;
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
  readonly #gdb: GdbServer | null;

  private constructor(trace: Trace, link: RemoteLink | null, gdb: RemoteLink | null, paused: boolean) {
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
        get journey() {
          return held().vm.journey;
        },
        quit: () => {
          this.quitting = true;
          held().vm.quit();
        },
      },
      this.control,
    );
    this.#link = link;
    this.#sessions = link === null ? null : new MonitorSessions(link, this.monitor);
    const { control, monitor } = this;
    const quit = (): void => {
      this.quitting = true;
    };
    this.#gdb = gdb === null ? null : new GdbServer({ link: gdb, trace, control, monitor, quit });
    for (const one of [link, gdb]) if (one !== null) one.onArrival = () => this.onArrival();
  }

  /** Listens where the options say so. Throws UsageError. */
  static async open(options: MonitorOptions, trace: Trace): Promise<Monitoring> {
    const link = options.monitor === undefined ? null : await RemoteLink.listen(options.monitor, "--monitor");
    const gdb = options.gdb === undefined ? null : await RemoteLink.listen(options.gdb, "--gdb");
    return new Monitoring(trace, link, gdb, options.paused === true);
  }

  /** The port at which a debugger is served; null: none is. */
  get gdbPort(): number | null {
    return this.#gdb?.port ?? null;
  }

  /** From here on it is about this machine: the first, or one after a reboot. */
  hold(machine: HeldMachine): void {
    this.#held = machine;
    if (machine.debugged !== undefined) this.#gdb?.hold(machine.debugged, machine.past ?? null);
  }

  serve(): void {
    this.#sessions?.serve();
    this.#gdb?.serve();
  }

  /** Has requests served at the traps of a guest that holds the thread from its first instruction to its last. */
  serveAtTraps(machine: Machine): void {
    const { control } = this;
    const link = this.#link;
    // What is asked may have what is due done first.
    let serving = false;
    const gate: Service = {
      get flagged() {
        if (serving) return false;
        return link?.pending === true || control.due || (control.paused && !machine.stopping);
      },
      service: () => {
        serving = true;
        this.serve();
        control.arrived();
        while (control.paused && !machine.stopping) {
          link?.wait();
          this.serve();
        }
        serving = false;
      },
    };
    machine.addService(gate);
  }

  /** Tells everybody how the run ended, and lets go of the socket; only the first time. */
  async close(end: Readonly<Record<string, unknown>> & { readonly status: number }): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#sessions?.close(end);
    await this.#gdb?.close(end.status);
  }
}
