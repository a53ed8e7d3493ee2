// A vCPU that executes a WebAssembly component (guest-fixtures/wit/guest.wit). The guest runs natively in the engine's sandbox; each
// imported call is a trap into the machine's VcpuPort:
//
//     guest `call load32`  →  function bound below (halves to one number)  →  VcpuPort.load  →  bus
//
// Imports are bound without glue: a core module gets the function itself, which takes the canonical ABI's plain numbers. That is sound
// because image-check.ts has compared every signature, and because nothing but `console.write` touches memory: ours, whose bounds it
// checks. `run` is the core function likewise.
//
// RAM: the core module imports `env.memory`; whatever the component meant to give it, it gets the machine's memory.
//
// A guest ends by returning from `run`, by `exit`, by a trap of the engine, when the machine says stop, or at the wall limit. After
// any of these it is dead: an instance left in the middle of a call is never entered again.

import { printable } from "../../../host/base/printable.ts";
import type { VcpuPort } from "../port.ts";
import { guestStack } from "./guest-stack.ts";
import type { ComponentPlatform, PlatformRegion } from "./platform.ts";
import type { PreparedComponent } from "./prepare.ts";
import { REGION_KINDS } from "./world.ts";

export type GuestOutcome =
  /** `run` returned, or the guest called `exit`. */
  | { readonly kind: "exited"; readonly status: number }
  /** The engine stopped the guest: its message, and the guest's frames, innermost first. */
  | { readonly kind: "trapped"; readonly message: string; readonly stack: readonly string[] }
  /** The machine's `stopping` was honoured. */
  | { readonly kind: "stopped" }
  /** The guard's limit ended the run. */
  | { readonly kind: "wall-limit" }
  /** The image does not fit this machine (its RAM, say). */
  | { readonly kind: "refused"; readonly message: string };

/**
 * Runs `body` under a limit on wall time; undefined when the limit ended it. The shell supplies it (vmm/cli/wall-limit.ts), because
 * only the engine's embedder can stop a WebAssembly loop.
 */
export type RunGuard = <T extends object>(body: () => T) => T | undefined;

export interface ComponentVcpuOptions {
  readonly image: PreparedComponent;
  /** Guest RAM, initial = maximum, so that it never moves. */
  readonly memory: WebAssembly.Memory;
  readonly port: VcpuPort;
  readonly platform: ComponentPlatform;
}

/** Thrown by a trap to leave the guest; never seen outside this file. */
class LeaveGuest extends Error {}
/** The guest broke the canonical ABI. */
class GuestMisuse extends Error {}

const HIGH = 0x1_0000_0000;
/** Characters of an engine's message; it may quote names of the image. */
const LONGEST_MESSAGE = 300;

/**
 * Not state: a component guest runs on the engine's own stack, which nobody can write down. What stands for it is the recording of the run up to
 * there; the machine around it is saved at any trap.
 */
export class ComponentVcpu {
  readonly #options: ComponentVcpuOptions;
  #dead = false;
  #exitStatus: number | null = null;

  constructor(options: ComponentVcpuOptions) {
    this.#options = options;
  }

  /** True once the guest has ended: it cannot run again. */
  get dead(): boolean {
    return this.#dead;
  }

  /** Runs the guest to its end. Throws only for a bug of the VMM, or if the guest has run before. */
  run(guard: RunGuard = (body) => body()): GuestOutcome {
    if (this.#dead) throw new Error("this guest has ended already");
    try {
      return guard(() => this.#enter()) ?? { kind: "wall-limit" };
    } finally {
      this.#dead = true;
    }
  }

  #enter(): GuestOutcome {
    const { image, memory } = this.#options;
    let linked = false;
    try {
      let takesRam = false;
      const world = this.#bindings();
      const run = image.link({
        worldFunction: (space, name) => world[space]?.[name],
        instantiate(module, imports) {
          if (imports.env?.memory !== undefined) {
            takesRam = true;
            imports.env.memory = memory;
          }
          return new WebAssembly.Instance(module, imports);
        },
      });
      linked = true;
      if (!takesRam) {
        return {
          kind: "refused",
          message: "does not take the machine's RAM; build it with an imported memory (env.memory)",
        };
      }
      const status = run();
      if (typeof status !== "number") return { kind: "refused", message: "run returned no exit status" };
      return this.#options.port.stopping ? { kind: "stopped" } : { kind: "exited", status: status >>> 0 };
    } catch (error) {
      return this.#endOf(error, linked);
    }
  }

  /** What an exception out of the guest means. */
  #endOf(error: unknown, linked: boolean): GuestOutcome {
    if (error instanceof LeaveGuest) {
      return this.#exitStatus === null ? { kind: "stopped" } : { kind: "exited", status: this.#exitStatus };
    }
    if (error instanceof GuestMisuse) return { kind: "trapped", message: error.message, stack: guestStack(error) };
    if (error instanceof WebAssembly.RuntimeError) {
      return {
        kind: "trapped",
        message: this.#describe(printable(error.message, LONGEST_MESSAGE)),
        stack: guestStack(error),
      };
    }
    // The engine's word for a guest that recurses without end.
    if (error instanceof RangeError && /call stack|recursion/i.test(error.message)) {
      return { kind: "trapped", message: "stack overflow", stack: guestStack(error) };
    }
    if (error instanceof WebAssembly.LinkError || (!linked && error instanceof RangeError)) {
      const mebibytes = this.#options.memory.buffer.byteLength / 2 ** 20;
      return {
        kind: "refused",
        message: `does not fit this machine's ${mebibytes} MiB of RAM or its imports: ${printable(error.message, LONGEST_MESSAGE)}`,
      };
    }
    if (typeof WebAssembly.Exception === "function" && error instanceof WebAssembly.Exception) {
      return { kind: "trapped", message: "uncaught WebAssembly exception", stack: [] };
    }
    throw error;
  }

  #describe(message: string): string {
    if (!/out of bounds/.test(message) || /table/.test(message)) return message;
    return `${message} (RAM has ${this.#options.memory.buffer.byteLength} bytes)`;
  }

  /** The world's functions by interface and name (world.ts). */
  #bindings(): Readonly<Record<string, Readonly<Record<string, (...parameters: never[]) => unknown>>>> {
    const { port, platform, memory } = this.#options;
    const ram = new Uint8Array(memory.buffer);
    const vcpu = this;
    /** Leaves the guest if the run is over. */
    const leave = (): never => {
      throw new LeaveGuest();
    };
    const region = (kind: number, index: number): PlatformRegion | undefined => {
      const name = REGION_KINDS[kind];
      return name === undefined ? undefined : platform.regions[name]?.[index >>> 0];
    };
    const device = (kind: number, index: number) => {
      const name = REGION_KINDS[kind];
      return name === undefined ? null : (platform.device?.(name, index >>> 0) ?? null);
    };
    // Canonical ABI values are i32: unsigned parameters arrive signed and may have junk above their width.
    return {
      "nestbox:guest/mmio@0.1.0": {
        load8(low: number, high: number): number {
          const value = port.load((high >>> 0) * HIGH + (low >>> 0), 1);
          return port.stopping ? leave() : value;
        },
        load16(low: number, high: number): number {
          const value = port.load((high >>> 0) * HIGH + (low >>> 0), 2);
          return port.stopping ? leave() : value;
        },
        load32(low: number, high: number): number {
          const value = port.load((high >>> 0) * HIGH + (low >>> 0), 4);
          return port.stopping ? leave() : value;
        },
        load64(low: number, high: number): number {
          const value = port.load((high >>> 0) * HIGH + (low >>> 0), 8);
          return port.stopping ? leave() : value;
        },
        "high-half"(): number {
          return port.high;
        },
        store8(low: number, high: number, value: number): void {
          port.store((high >>> 0) * HIGH + (low >>> 0), 1, value & 0xff, 0);
          if (port.stopping) leave();
        },
        store16(low: number, high: number, value: number): void {
          port.store((high >>> 0) * HIGH + (low >>> 0), 2, value & 0xffff, 0);
          if (port.stopping) leave();
        },
        store32(low: number, high: number, value: number): void {
          port.store((high >>> 0) * HIGH + (low >>> 0), 4, value >>> 0, 0);
          if (port.stopping) leave();
        },
        store64(low: number, high: number, valueLow: number, valueHigh: number): void {
          port.store((high >>> 0) * HIGH + (low >>> 0), 8, valueLow >>> 0, valueHigh >>> 0);
          if (port.stopping) leave();
        },
      },
      "nestbox:guest/interrupts@0.1.0": {
        // -2 gives the guest one chance to return by itself; its next trap leaves it.
        wait: () => (port.stopping ? leave() : port.wait()),
        poll: () => {
          const number = port.poll();
          return port.stopping ? leave() : number;
        },
      },
      "nestbox:guest/console@0.1.0": {
        write(pointer: number, length: number): void {
          const start = pointer >>> 0;
          const end = start + (length >>> 0);
          if (end > ram.length) throw new GuestMisuse(`console write past RAM (RAM has ${ram.length} bytes)`);
          if (port.stopping) leave();
          port.console(ram.slice(start, end));
        },
      },
      "nestbox:guest/platform@0.1.0": {
        count: (kind: number) => {
          const name = REGION_KINDS[kind];
          return name === undefined ? 0 : (platform.regions[name]?.length ?? 0);
        },
        base: (kind: number, index: number) => BigInt(region(kind, index)?.base ?? 0),
        size: (kind: number, index: number) => BigInt(region(kind, index)?.size ?? 0),
        "iommu-line": (index: number, vector: number) => platform.iommuLine(index >>> 0, vector >>> 0),
        "iommu-of": (requesterId: number) => platform.iommuOf(requesterId >>> 0),
        "pci-line": (requesterId: number, pin: number) => platform.pciLine(requesterId >>> 0, pin >>> 0),
        "device-id": (kind: number, index: number) => device(kind, index)?.id ?? -1,
        "device-iommu": (kind: number, index: number) => device(kind, index)?.iommu ?? -1,
        "device-line": (kind: number, index: number) => device(kind, index)?.line ?? -1,
      },
      "nestbox:guest/time@0.1.0": {
        now: () => BigInt(Math.floor(platform.now())),
        alarm: (delay: bigint, number: number) => platform.alarm(Number(BigInt.asUintN(64, delay)), number >>> 0),
      },
      "nestbox:guest/power@0.1.0": {
        exit(status: number): void {
          vcpu.#exitStatus ??= status >>> 0;
          leave();
        },
      },
    };
  }
}
