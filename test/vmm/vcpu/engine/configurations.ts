// The ways in which the engine executes one and the same guest. What the guest does must be the same in all of them: to the instruction, in registers, RAM,
// accesses outside RAM and time. A new option of the engine's gets a line here, and every test and fuzzer of determinism has it.
//
// What the guest can see is no configuration: CPUs, how long an instruction takes, the timer's frequency (MACHINES). Decode pages are one only for a guest
// that fences what it changes: until it does, it may see old code or new (CoreOptions.decodePages).
import type { CoreOptions } from "../../../../vmm/vcpu/engine/core.ts";

export interface Configuration {
  readonly name: string;
  readonly translate: NonNullable<CoreOptions["translate"]>;
  readonly decodePages?: number;
  /** No run has more instructions: longer ones are cut. */
  readonly cut?: number;
  /** A debugger sets breakpoints and watchpoints at random, and always lets the guest go on. */
  readonly debugged?: boolean;
  /** Before every so manieth run that is asked for the core is saved, and another one that takes it goes on. */
  readonly moved?: number;
  /** False: as where WebAssembly has no vectors. That is settled where the translator is loaded, so it is for those who can load another. */
  readonly vectors?: false;
}

/** Translates what is met once, so that translated code is what runs. */
const EAGER = { interval: 16, samples: 1 } as const;

/** Everything else is compared with it. */
export const INTERPRETED: Configuration = { name: "interpreted", translate: false };

export const CONFIGURATIONS: readonly Configuration[] = [
  INTERPRETED,
  { name: "as machines have it", translate: true },
  { name: "translated at once", translate: EAGER },
  { name: "translated at once, without vectors", translate: EAGER, vectors: false },
  { name: "a sample at each instruction", translate: { interval: 1, samples: 1 } },
  { name: "a sample at each instruction, 255 wanted", translate: { interval: 1, samples: 255 } },
  { name: "no samples wanted", translate: { interval: 1, samples: 0 } },
  { name: "a sample every 1024 instructions", translate: { interval: 1024, samples: 1 } },
  { name: "a sample every 2^20 instructions, 255 wanted", translate: { interval: 2 ** 20, samples: 255 } },
  { name: "room for one translation", translate: { ...EAGER, capacity: 1 } },
  { name: "room for three, odd intervals", translate: { interval: 7, samples: 2, capacity: 3 } },
  { name: "room for 65536 translations", translate: { ...EAGER, capacity: 65536 } },
  { name: "4 decode pages, interpreted", translate: false, decodePages: 4 },
  { name: "4 decode pages, translated", translate: EAGER, decodePages: 4 },
  { name: "11 decode pages, room for two", translate: { interval: 5, samples: 1, capacity: 2 }, decodePages: 11 },
  { name: "65535 decode pages", translate: EAGER, decodePages: 65535 },
  { name: "debugged, interpreted", translate: false, debugged: true },
  { name: "debugged, translated", translate: EAGER, debugged: true },
  { name: "runs of one instruction, interpreted", translate: false, cut: 1 },
  { name: "runs of one instruction, translated", translate: EAGER, cut: 1 },
  { name: "runs of 7 instructions", translate: { interval: 3, samples: 1 }, cut: 7 },
  { name: "runs of 1000 instructions", translate: EAGER, cut: 1000 },
  { name: "moved, interpreted", translate: false, moved: 13 },
  { name: "moved, translated", translate: EAGER, moved: 11 },
  { name: "moved, 255 samples wanted", translate: { interval: 2, samples: 255 }, moved: 17 },
  { name: "4 decode pages, moved", translate: EAGER, decodePages: 4, moved: 9 },
  {
    name: "all at once",
    ...{ translate: { interval: 3, samples: 2, capacity: 3 }, decodePages: 9, cut: 131, debugged: true, moved: 12 },
  },
];

/** What a guest can see of the engine's options. */
export interface MachineOptions {
  readonly name: string;
  readonly harts: number;
  readonly nsPerInstruction: number;
  readonly timebaseFrequency: number;
}

export const MACHINES: readonly MachineOptions[] = [
  { name: "one CPU", harts: 1, nsPerInstruction: 10, timebaseFrequency: 10_000_000 },
  { name: "two CPUs, ticks of 16 ns", harts: 2, nsPerInstruction: 7, timebaseFrequency: 62_500_000 },
  { name: "three CPUs, slow ones", harts: 3, nsPerInstruction: 1_000_000, timebaseFrequency: 1_000_000_000 },
  { name: "eight CPUs", harts: 8, nsPerInstruction: 1, timebaseFrequency: 1_000_000 },
];

type Draw = (bound: number) => number;

/** Any of the configurations there are; the same draws give the same one. `fences`: the guest fences what it changes, and decode pages are free to choose. */
export function randomConfiguration(draw: Draw, fences: boolean): Configuration {
  const seldom = <T>(value: () => T): T | undefined => (draw(3) === 0 ? value() : undefined);
  const options = {
    translate: draw(6) === 0 ? draw(2) === 0 : randomTranslation(draw),
    decodePages: seldom(() => (fences ? 4 + draw(draw(2) === 0 ? 8 : 60) : undefined)),
    cut: seldom(() => [1, 2, 7, 1000, 1 + draw(300)][draw(5)]!),
    debugged: seldom(() => true),
    moved: seldom(() => 3 + draw(40)),
  };
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return { name: JSON.stringify(given), ...(given as Omit<Configuration, "name">) };
}

function randomTranslation(draw: Draw): Exclude<Configuration["translate"], boolean> {
  const interval = [1, 2, 16, 2 ** 20, 1 + draw(100)][draw(5)]!;
  const samples = [1, 1, 1, 2, 255, 1 + draw(20)][draw(6)]!;
  const capacity = [2048, 2048, 1, 2, 65536, 1 + draw(10)][draw(6)]!;
  return { interval, samples, capacity };
}
