// One debugger's session: packets in, packets out. What the packets mean is in the GDB manual, "Remote Protocol"; threads are CPUs, numbered from 1. The
// machine stands while a debugger waits for a prompt: it is all-stop. An answer that is empty says that a packet is not known here.

import { continueBack, stepBack } from "./back.ts";
import { targetDescription } from "./debugged-cpu.ts";
import {
  addressOf,
  bytesOfHex,
  encodePacket,
  hexOf,
  hexOfNumber,
  hexOfText,
  MOST_PAYLOAD,
  numberOfBytes,
  PacketReader,
  type Received,
} from "./packet.ts";
import type { GdbTarget, Halt, WatchKind } from "./target.ts";

export interface SessionPorts {
  /** Bytes to the debugger. */
  send(bytes: Uint8Array): void;
  /** A line for the monitor; its answer, as text. */
  monitor(line: string, answer: (text: string) => void): void;
  /** The machine ends; the session is over. */
  kill(): void;
  /** The debugger goes; the machine runs on. */
  detach(): void;
}

const OK = "OK";
const NOTHING = "E01";
/** EFAULT: no memory there. */
const NO_MEMORY = "E0e";
const WATCH_KINDS: readonly (WatchKind | null)[] = [null, null, "watch", "rwatch", "awatch"];
const SIGINT = "02";
const SIGTRAP = "05";

// Not state: a debugger is outside of the machine.
export class GdbSession {
  readonly #target: GdbTarget;
  readonly #ports: SessionPorts;
  readonly #reader = new PacketReader();
  /** CPU of g, p, m and their like, and of s and c. */
  #cpu = 0;
  #runCpu = 0;
  #acknowledges = true;
  #running = false;
  #over = false;
  #halt: Halt;

  constructor(target: GdbTarget, ports: SessionPorts) {
    this.#target = target;
    this.#ports = ports;
    this.#cpu = target.current;
    this.#runCpu = target.current;
    this.#halt = { cpu: target.current, why: "trap" };
  }

  /** Bytes of the debugger's. */
  take(bytes: Uint8Array): void {
    for (const received of this.#reader.take(bytes)) {
      if (this.#over) return;
      this.#received(received);
    }
  }

  /** The machine has ended with a status. */
  ended(status: number): void {
    if (this.#over) return;
    if (this.#running) this.#reply(`W${(status & 0xff).toString(16).padStart(2, "0")}`);
    this.#over = true;
  }

  #received(received: Received): void {
    if (received.kind === "interrupt") {
      if (this.#running) this.#target.interrupt();
      return;
    }
    // The connection loses nothing: who wants something again has only waited long for it, and would take the second one for the next answer.
    if (received.kind === "acknowledged" || received.kind === "again") return;
    if (this.#acknowledges) this.#ports.send(Uint8Array.of(received.kind === "packet" ? 0x2b : 0x2d));
    // While the machine runs a debugger has nothing to say but to interrupt it.
    if (received.kind !== "packet" || (this.#running && received.payload !== "vCtrlC")) return;
    const answer = this.#answer(received.payload);
    if (answer !== null) this.#reply(answer);
  }

  #reply(payload: string): void {
    this.#ports.send(encodePacket(payload));
  }

  /** null: none, or none yet. */
  #answer(payload: string): string | null {
    const rest = payload.slice(1);
    switch (payload[0]) {
      case "?":
        return this.#stopReply(this.#halt);
      case "g":
        return this.#target.registers.map(({ bits, read }) => hexOfNumber(read(this.#cpu), bits / 8)).join("");
      case "G":
        return this.#writeAll(rest);
      case "p": {
        const register = this.#target.registers[Number.parseInt(rest, 16)];
        return register === undefined ? NOTHING : hexOfNumber(register.read(this.#cpu), register.bits / 8);
      }
      case "P":
        return this.#writeRegister(rest);
      case "m":
        return this.#read(rest);
      case "M":
      case "X":
        return this.#write(payload);
      case "Z":
      case "z":
        return this.#point(payload);
      case "H":
        return this.#select(rest);
      case "T":
        return this.#thread(rest) === null ? NOTHING : OK;
      case "c":
      case "s":
        return this.#legacyResume(payload[0], rest);
      case "C":
      case "S":
        return this.#legacyResume(payload[0] === "C" ? "c" : "s", rest.split(";")[1] ?? "");
      case "b":
        return this.#back(rest);
      case "v":
        return this.#v(payload);
      case "q":
      case "Q":
        return this.#query(payload);
      case "D":
        this.#over = true;
        this.#reply(OK);
        this.#ports.detach();
        return null;
      case "k":
        this.#over = true;
        this.#ports.kill();
        return null;
      default:
        return "";
    }
  }

  // --- registers and memory ---

  #writeRegister(rest: string): string {
    const [name, value] = rest.split("=");
    const number = Number.parseInt(name ?? "", 16);
    const register = this.#target.registers[number];
    const bytes = bytesOfHex(value ?? "");
    if (register === undefined || bytes === null || bytes.length !== register.bits / 8) return NOTHING;
    return refusal(this.#target.writeRegister(this.#cpu, number, numberOfBytes(bytes)));
  }

  /** All registers: those that a debugger only reads keep their values. */
  #writeAll(rest: string): string {
    const { registers } = this.#target;
    const bytes = bytesOfHex(rest);
    const size = registers.reduce((sum, { bits }) => sum + bits / 8, 0);
    if (bytes === null || bytes.length !== size) return NOTHING;
    let at = 0;
    for (const [number, { bits, write }] of registers.entries()) {
      const value = numberOfBytes(bytes.subarray(at, at + bits / 8));
      at += bits / 8;
      const refused = write === undefined ? null : this.#target.writeRegister(this.#cpu, number, value);
      if (refused !== null) return refusal(refused);
    }
    return OK;
  }

  #read(rest: string): string {
    const [address, length] = rest.split(",").map(addressOf);
    if (address === undefined || address === null || length === undefined || length === null) return NOTHING;
    const bytes = this.#target.read(this.#cpu, address, Math.min(Number(length), MOST_PAYLOAD / 2));
    return bytes.length === 0 && length > 0n ? NO_MEMORY : hexOf(bytes);
  }

  #write(payload: string): string {
    const colon = payload.indexOf(":");
    const [address, length] = payload.slice(1, Math.max(colon, 1)).split(",").map(addressOf);
    if (colon < 0 || address === undefined || address === null || length === undefined || length === null)
      return NOTHING;
    const data = payload.slice(colon + 1);
    const bytes = payload[0] === "X" ? Uint8Array.from(data, (byte) => byte.charCodeAt(0)) : bytesOfHex(data);
    if (bytes === null || BigInt(bytes.length) !== length) return NOTHING;
    return bytes.length === 0 ? OK : refusal(this.#target.write(this.#cpu, address, bytes));
  }

  /** Z and z: type, address, kind (of a watchpoint: bytes). */
  #point(payload: string): string {
    const [type, at, size] = payload.slice(1).split(";")[0]!.split(",");
    const address = addressOf(at);
    const length = addressOf(size);
    if (type === undefined || address === null || length === null || length > 0x10_0000n) return NOTHING;
    const target = this.#target;
    const adds = payload[0] === "Z";
    if (type === "0" || type === "1") {
      if (adds) return refusal(target.addBreakpoint(address));
      target.removeBreakpoint(address);
      return OK;
    }
    const kind = /^[234]$/.test(type) ? WATCH_KINDS[Number(type)] : undefined;
    if (kind === undefined || kind === null) return "";
    if (adds) return refusal(target.addWatchpoint(this.#cpu, kind, address, Number(length)));
    target.removeWatchpoint(kind, address, Number(length));
    return OK;
  }

  // --- threads ---

  /** Hg and Hc: −1 is all, 0 any. */
  #select(rest: string): string {
    const thread = rest.slice(1);
    const any = thread === "-1" || thread === "0";
    const cpu = any ? this.#halt.cpu : this.#thread(thread);
    if (cpu === null) return NOTHING;
    if (rest[0] === "g") this.#cpu = cpu;
    else if (rest[0] === "c") this.#runCpu = cpu;
    else return NOTHING;
    return OK;
  }

  /** A thread's CPU; null: there is none. */
  #thread(text: string): number | null {
    const cpu = /^[0-9a-f]{1,8}$/i.test(text) ? Number.parseInt(text, 16) - 1 : -1;
    return cpu >= 0 && cpu < this.#target.cpus ? cpu : null;
  }

  // --- running ---

  #legacyResume(action: "c" | "s", at: string): string | null {
    if (at !== "") {
      const address = addressOf(at);
      if (address === null) return NOTHING;
      const pc = this.#target.registers.findIndex(({ name }) => name === "pc");
      const refused = this.#target.writeRegister(this.#runCpu, pc, address);
      if (refused !== null) return refusal(refused);
    }
    this.#run(action === "s" ? this.#runCpu : null);
    return null;
  }

  /** The first step that is asked for is done; all others run, as the machine has it. */
  #continue(actions: string): string | null {
    let stepped: number | null = null;
    for (const action of actions.split(";").filter((one) => one !== "")) {
      const [what = "", thread] = action.split(":");
      if (!/^([cs]|[CS][0-9a-f]{2}|t)$/i.test(what)) return NOTHING;
      const all = thread === undefined || thread === "-1" || thread === "0";
      const cpu = all ? this.#runCpu : this.#thread(thread);
      if (cpu === null) return NOTHING;
      if (what[0]!.toLowerCase() === "s") stepped ??= cpu;
    }
    this.#run(stepped);
    return null;
  }

  /** `cpu`: does one instruction of it; null: runs on. */
  #run(cpu: number | null): void {
    this.#running = true;
    const halted = (halt: Halt): void => this.#halted(halt);
    if (cpu === null) this.#target.resume(halted);
    else this.#target.step(cpu, halted);
  }

  #back(rest: string): string | null {
    if (this.#target.past === null) return "";
    if (rest !== "s" && rest !== "c") return "";
    this.#running = true;
    if (rest === "s") stepBack(this.#target, this.#runCpu, (halt) => this.#halted(halt));
    else continueBack(this.#target, (halt) => this.#halted(halt));
    return null;
  }

  #halted(halt: Halt): void {
    if (!this.#running || this.#over) return;
    this.#running = false;
    this.#halt = halt;
    this.#cpu = halt.cpu;
    this.#runCpu = halt.cpu;
    if (halt.text !== undefined) this.#reply(`O${hexOfText(`nestbox: ${halt.text}\n`)}`);
    this.#reply(this.#stopReply(halt));
  }

  #stopReply({ cpu, why, watch }: Halt): string {
    const signal = why === "interrupt" ? SIGINT : SIGTRAP;
    const reasons = [`thread:${(cpu + 1).toString(16)};`];
    if (watch !== undefined) reasons.push(`${watch.kind}:${watch.address.toString(16)};`);
    if (why === "begin" || why === "end") reasons.push(`replaylog:${why};`);
    return `T${signal}${reasons.join("")}`;
  }

  #v(payload: string): string | null {
    if (payload === "vCont?") return "vCont;c;C;s;S";
    if (payload.startsWith("vCont;")) return this.#continue(payload.slice(6));
    if (payload === "vCtrlC") {
      // Of a machine that runs, the stop is the answer.
      if (!this.#running) return OK;
      this.#target.interrupt();
      return null;
    }
    if (payload.startsWith("vKill")) {
      this.#over = true;
      this.#reply(OK);
      this.#ports.kill();
      return null;
    }
    return "";
  }

  // --- queries ---

  #query(payload: string): string | null {
    const [name] = payload.split(/[:,;]/);
    const rest = payload.slice(name!.length + 1);
    switch (name) {
      case "qSupported": {
        const back = this.#target.past === null ? "" : ";ReverseStep+;ReverseContinue+";
        return `PacketSize=${MOST_PAYLOAD.toString(16)};qXfer:features:read+;vContSupported+;QStartNoAckMode+${back}`;
      }
      case "QStartNoAckMode":
        this.#acknowledges = false;
        return OK;
      case "qXfer":
        return this.#transfer(rest);
      case "qC":
        return `QC${(this.#cpu + 1).toString(16)}`;
      case "qfThreadInfo":
        return `m${Array.from({ length: this.#target.cpus }, (_, cpu) => (cpu + 1).toString(16)).join(",")}`;
      case "qsThreadInfo":
        return "l";
      case "qThreadExtraInfo": {
        const cpu = this.#thread(rest);
        return cpu === null ? NOTHING : hexOfText(`CPU ${cpu}, ${this.#target.stateOf(cpu)}`);
      }
      case "qAttached":
        return "1";
      case "qSymbol":
        return OK;
      case "qRcmd":
        return this.#command(rest);
      case "qqemu.PhyMemMode":
        return this.#target.physical ? "1" : "0";
      case "Qqemu.PhyMemMode":
        if (rest !== "0" && rest !== "1") return NOTHING;
        this.#target.physical = rest === "1";
        return OK;
      default:
        return "";
    }
  }

  /** features:read:target.xml:OFFSET,LENGTH. */
  #transfer(rest: string): string {
    const [object, verb, annex, range] = rest.split(":");
    if (object !== "features" || verb !== "read") return "";
    const [offset, length] = (range ?? "").split(",").map(addressOf);
    if (annex !== "target.xml") return "E00";
    if (offset === undefined || offset === null || length === undefined || length === null) return NOTHING;
    const text = targetDescription(this.#target.cpu);
    const from = Number(offset);
    const to = from + Math.min(Number(length), MOST_PAYLOAD / 2);
    return `${to < text.length ? "m" : "l"}${text.slice(from, to)}`;
  }

  #command(hex: string): string | null {
    const bytes = bytesOfHex(hex);
    if (bytes === null) return NOTHING;
    const line = new TextDecoder().decode(bytes).trim();
    this.#ports.monitor(line === "" ? "help" : line, (text) => {
      if (this.#over) return;
      const all = hexOfText(`${text}\n`);
      // What does not fit into one packet is output before the answer.
      for (let at = 0; at < all.length; at += MOST_PAYLOAD / 2) this.#reply(`O${all.slice(at, at + MOST_PAYLOAD / 2)}`);
      this.#reply(OK);
    });
    return null;
  }
}

/** OK, or an error that GDB prints. */
function refusal(why: string | null): string {
  return why === null ? OK : `E.${why}`;
}
