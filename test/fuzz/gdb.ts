// `nestbox fuzz gdb`: a debugger that means harm, at a live small guest: packets of the protocol with fields of its own choosing, damaged ones, bytes of any
// kind, in any pieces, while the machine stands and while it runs. Nothing is thrown, answers are packets of bounded size, one for each packet that asks while
// the machine stands, and the machine can be run and left behind it all.

import { Clock } from "../../host/base/clock.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import { Trace } from "../../host/base/trace.ts";
import { Arm64Machine } from "../../vmm/arm64-machine.ts";
import type { Count, Finding, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { encodePacket, MOST_PAYLOAD, PacketReader } from "../../vmm/gdb/packet.ts";
import { GdbSession } from "../../vmm/gdb/session.ts";
import { GdbTarget } from "../../vmm/gdb/target.ts";
import type { KernelMachine } from "../../vmm/kernel-machine.ts";
import { RAM_BASE } from "../../vmm/memory-map.ts";
import { RunControl } from "../../vmm/monitor/run-control.ts";
import { parseKernelImage } from "../../vmm/platform/kernel-image.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { arm64Guest, DATA, type DebugGuest, HIGH, rv64Guest } from "../vmm/gdb/guests.ts";
import { coreModule as arm64Core } from "../vmm/vcpu/aarch64/core-module.ts";
import { coreModule as rv64Core } from "../vmm/vcpu/riscv64/core-module.ts";

const MEMORY = 4 * 2 ** 20;
const SLICE = 5_000;
/** Bytes that one packet may be answered with: itself, output before it, escaped. */
const MOST_ANSWER = 8 * MOST_PAYLOAD;

class Session {
  readonly machine: KernelMachine;
  readonly control: RunControl;
  readonly target: GdbTarget;
  readonly session: GdbSession;
  readonly guest: DebugGuest;
  readonly #replies = new PacketReader();
  /** Answers of the last bytes. */
  replies: string[] = [];
  sent = 0;
  over: "killed" | "left" | null = null;

  constructor(seed: number) {
    const arm = seed % 2 === 1;
    const clock = new Clock();
    const trace = new Trace(clock);
    const cpus = 1 + (Math.floor(seed / 2) % 3);
    const options = { clock, trace, memoryBytes: MEMORY, sliceInstructions: SLICE };
    this.guest = arm ? arm64Guest() : rv64Guest();
    this.machine = arm
      ? new Arm64Machine({ ...options, core: arm64Core(), cpus })
      : new Rv64Machine({ ...options, core: rv64Core(), harts: cpus });
    this.machine.load({
      kernel: parseKernelImage(this.guest.file),
      initrd: null,
      bootArguments: "",
      viommus: [],
      seed: new Uint8Array(32),
    });
    const progress = () => this.machine.parts.core.executed;
    this.control = new RunControl({ trace, progress, interrupt: () => this.machine.pause() }, true);
    const held = { machine: this.machine, guestAddress: () => -1 };
    this.target = new GdbTarget({ control: this.control, trace, past: null }, held);
    this.session = new GdbSession(this.target, {
      send: (bytes) => {
        this.sent += bytes.length;
        for (const reply of this.#replies.take(bytes)) {
          if (reply.kind === "damaged") throw new Error("an answer is no packet");
          if (reply.kind === "packet") this.replies.push(reply.payload);
        }
      },
      monitor: (line, answer) => answer(`you said ${line}`),
      kill: () => {
        this.over = "killed";
      },
      detach: () => {
        this.over = "left";
      },
    });
  }

  take(bytes: Uint8Array): void {
    this.replies = [];
    this.sent = 0;
    this.session.take(bytes);
    if (this.sent > MOST_ANSWER) throw new Error(`${this.sent} bytes are the answer to ${bytes.length}`);
  }

  /** At most so many slices, as long as it is not held. */
  run(slices: number): void {
    for (let n = 0; n < slices && !this.control.paused; n++) {
      const stop = this.machine.run(this.control.budget);
      this.control.arrived();
      if (stop.kind === "idle") {
        if (!Number.isFinite(stop.until)) return;
        this.machine.skipTo(stop.until);
      } else if (stop.kind === "off" || stop.kind === "stopped") return;
    }
  }
}

/** A field: something that means something, or nothing. */
function field(random: SeededRandom, guest: DebugGuest): string {
  const bases = [
    0n,
    guest.loop,
    guest.second,
    HIGH,
    HIGH + BigInt(DATA),
    BigInt(RAM_BASE),
    BigInt(RAM_BASE + DATA),
    1n << 63n,
  ];
  switch (random.below(8)) {
    case 0:
      return random.below(300).toString(16);
    case 1:
      return (0xffff_ffff_ffff_ffffn - BigInt(random.below(9000))).toString(16);
    case 2:
      return ["", "-1", "zz", "0", "1", "2", "ffffffffffffffffff", ",", ";", ":"][random.below(10)]!;
    case 3:
      return random.below(2 ** 31).toString(16);
    default:
      return BigInt.asUintN(64, bases[random.below(bases.length)]! + BigInt(random.below(64)) - 8n).toString(16);
  }
}

function digits(random: SeededRandom): string {
  return Buffer.from(random.bytes(random.below(random.below(20) === 0 ? 2000 : 40))).toString("hex");
}

const FIXED = [
  ..."? g c s D k bs bc ! R qC qAttached qfThreadInfo qsThreadInfo vCont? vCtrlC vMustReplyEmpty QStartNoAckMode qSymbol:: vKill;1".split(
    " ",
  ),
  ..."qqemu.PhyMemMode Qqemu.PhyMemMode:1 Qqemu.PhyMemMode:0 qSupported:xmlRegisters=i386 vCont;c vCont;s vCont;s:1;c vCont;s:2".split(
    " ",
  ),
];

export function payload(random: SeededRandom, guest: DebugGuest): string {
  const some = () => field(random, guest);
  const letter = (of: string) => of[random.below(of.length)]!;
  switch (random.below(16)) {
    case 0:
    case 1:
      return FIXED[random.below(FIXED.length)]!;
    case 2:
      return `m${some()},${some()}`;
    case 3:
      return `${letter("MX")}${some()},${some()}:${digits(random)}`;
    case 4: {
      const data = digits(random);
      return `M${some()},${(data.length / 2).toString(16)}:${data}`;
    }
    case 5:
    case 6:
      return `${letter("ZZZz")}${letter("0012345")},${some()},${letter("124800")}`;
    case 7:
      return `${letter("ZZZz")}${letter("234")},${some()},${some()}`;
    case 8:
      return `P${random.below(120).toString(16)}=${digits(random)}`;
    case 9: {
      const number = random.below(40);
      return `P${number.toString(16)}=${Buffer.from(random.bytes(8)).toString("hex")}`;
    }
    case 10:
      return `p${some()}`;
    case 11:
      return `${letter("HT")}${letter("gcx")}${some()}`;
    case 12:
      return `vCont;${letter("csCSt")}${some()}:${some()};${letter("cs")}`;
    case 13:
      return `qXfer:features:read:target.xml:${some()},${some()}`;
    case 14:
      return `qRcmd,${digits(random)}`;
    default: {
      const known = FIXED[random.below(FIXED.length)]! + some();
      return (
        known.slice(0, random.below(known.length + 1)) + Buffer.from(random.bytes(random.below(6))).toString("latin1")
      );
    }
  }
}

/** Packets that are whole: each asks once. */
function round(seed: number, count: Count): Finding | null {
  const random = new SeededRandom(seed);
  const it = new Session(seed);
  it.session.take(encodePacket("QStartNoAckMode"));
  if (random.below(4) === 0) for (let n = 0; n < 3; n++) it.take(random.bytes(random.below(200)));
  for (let step = 0; step < 60 && it.over === null; step++) {
    const paused = it.control.paused;
    if (random.below(12) === 0) {
      const bytes = encodePacket(payload(random, it.guest)).slice();
      bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      it.take(bytes);
      it.take(Uint8Array.of(0x23, 0x30, 0x30, 0x03));
      count("damaged", 1);
    } else {
      const asked = payload(random, it.guest);
      const bytes = encodePacket(asked);
      const cut = random.below(bytes.length);
      it.take(bytes.subarray(0, cut));
      it.take(bytes.subarray(cut));
      const said = it.replies.filter((reply) => !reply.startsWith("O") || reply === "OK").length;
      count(paused ? "asked" : "asked while it runs", 1);
      const ended = it.over !== null;
      if (paused && it.control.paused && !ended && said !== 1)
        return { problem: `${JSON.stringify(asked)} has ${said} answers` };
      if (said > 1) return { problem: `${JSON.stringify(asked)} has ${said} answers` };
    }
    it.run(1 + random.below(4));
    if (!it.control.paused && random.below(2) === 0) {
      it.take(Uint8Array.of(0x03));
      if (!it.control.paused) return { problem: "Ctrl-C does not stop it" };
    }
  }
  if (it.over !== null) count(it.over, 1);
  it.target.leave();
  it.control.resume();
  it.run(3);
  return null;
}

export const fuzzer: Fuzzer = {
  about:
    "hostile packets of GDB's remote protocol at a live guest of either instruction set: one answer each, nothing thrown",
  round,
};
