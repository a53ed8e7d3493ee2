// PSCI 1.1 (ARM DEN 0022, §5) and the SMC calling convention (ARM DEN 0028): random calls, and what the documents have them answer. Calls with bit 30 of their number clear take
// the low halves of registers only (DEN 0028 §2.7).
import type { ResetKind } from "../../../vmm/kernel-machine.ts";
import { Psci } from "../../../vmm/platform/psci.ts";
import type { Random } from "../../oracle/random.ts";
import { expectSame } from "./disagreement.ts";

const CALLS = 200;
const IMPLEMENTED = [
  0x84000000, 0x84000002, 0x84000003, 0xc4000003, 0x84000004, 0xc4000004, 0x84000006, 0x84000008, 0x84000009,
  0x8400000a,
];
const NOT_SUPPORTED = -1;
const INVALID_PARAMETERS = -2;
const ALREADY_ON = -4;
const INVALID_ADDRESS = -9;

/** Returns how many calls were made. */
export function randomFirmwareCalls(random: Random): number {
  const cpus = 1 + random.below(8);
  const registers = Array.from({ length: cpus }, () => [0n, 0n, 0n, 0n]);
  const started = Array.from({ length: cpus }, (_, cpu) => cpu === 0);
  const on = started.slice();
  const starts: string[] = [];
  const resets: string[] = [];
  const core = {
    x: (cpu: number, index: number) => registers[cpu]![index]!,
    xLow: (cpu: number, index: number) => Number(registers[cpu]![index]! & 0xffffffffn),
    setX: (cpu: number, index: number, value: bigint) => {
      registers[cpu]![index] = BigInt.asUintN(64, value);
    },
    start: (cpu: number, entry: bigint, argument: bigint) => starts.push(`${cpu} ${entry} ${argument}`),
  };
  const psci = new Psci({ core, started, reset: (kind: ResetKind, failure) => resets.push(`${kind} ${failure}`) });
  for (let call = 0; call < CALLS; call++) {
    const caller = on.indexOf(true) < 0 ? 0 : random.pick([...on.keys()].filter((cpu) => on[cpu] === true));
    if (on[caller] !== true) return call;
    const id = random.chance(85) ? random.pick(IMPLEMENTED) : random.word();
    const odd = (): bigint => (random.chance(20) ? BigInt(random.word()) << 32n : 0n);
    const target = odd() | BigInt(random.chance(90) ? random.below(cpus + 1) : random.word());
    const entry = odd() | BigInt(random.chance(80) ? (random.word() & ~3) >>> 0 : random.word());
    const features = random.chance(60) ? random.pick(IMPLEMENTED) : random.word();
    const arguments_ = [
      odd() | BigInt(id),
      id === 0x8400000a ? odd() | BigInt(features) : target,
      (id & ~0x40000000) === ~~0x84000004 ? odd() | BigInt(random.below(2)) : entry,
      BigInt(random.word()),
    ];
    registers[caller] = arguments_.slice();
    const expected = answer(arguments_, { on, caller });
    const [startsBefore, resetsBefore] = [starts.length, resets.length];
    psci.call(caller);
    expectSame(
      `call 0x${id.toString(16)}(${arguments_.slice(1).join(", ")})`,
      Number(BigInt.asIntN(32, registers[caller]![0]!)),
      expected.value,
    );
    expectSame("CPUs that are on", started.join(), on.join());
    expectSame("CPUs that were started", starts.slice(startsBefore).join(), expected.start ?? "");
    expectSame("resets", resets.slice(resetsBefore).join(), expected.reset ?? "");
  }
  return CALLS;
}

interface Answer {
  readonly value: number;
  readonly start?: string;
  readonly reset?: string;
}

/** What the call answers and does; `on` is changed by it. */
function answer(x: readonly bigint[], { on, caller }: { on: boolean[]; caller: number }): Answer {
  const id = Number(x[0]! & 0xffffffffn);
  const width = (id & 0x40000000) === 0 ? 32 : 64;
  const [first, second, third] = x.slice(1).map((value) => BigInt.asUintN(width, value));
  const target = first! < BigInt(on.length) ? Number(first) : -1;
  switch (id) {
    case 0x84000000:
      return { value: 0x10001 };
    case 0x84000002:
      on[caller] = false;
      return { value: 0 };
    case 0x84000003:
    case 0xc4000003:
      if (target < 0) return { value: INVALID_PARAMETERS };
      if ((second! & 3n) !== 0n) return { value: INVALID_ADDRESS };
      if (on[target] === true) return { value: ALREADY_ON };
      on[target] = true;
      return { value: 0, start: `${target} ${second} ${third}` };
    case 0x84000004:
    case 0xc4000004:
      // since PSCI 1.0 other levels than 0 need not be known
      if (target < 0 || BigInt.asUintN(32, second!) !== 0n) return { value: INVALID_PARAMETERS };
      return { value: on[target] === true ? 0 : 1 };
    case 0x84000006:
      return { value: 2 };
    case 0x84000008:
      return { value: 0, reset: "shutdown false" };
    case 0x84000009:
      return { value: 0, reset: "cold-reboot false" };
    case 0x8400000a:
      return { value: IMPLEMENTED.includes(Number(BigInt.asUintN(32, first!))) ? 0 : NOT_SUPPORTED };
    default:
      return { value: NOT_SUPPORTED };
  }
}
