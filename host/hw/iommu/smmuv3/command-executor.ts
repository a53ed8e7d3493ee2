// What a command does (§4, §7.1), whichever queue it came from: the SMMU's own (number 0) or one of a CMDQV beside it.
//
// Each command is wholly executed before the next, except ATC_INV, which is outstanding until its completions are in; only CMD_SYNC waits for
// those, and only for its own queue's.

import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PREFETCH_ADDR,
  CMD_PREFETCH_CONFIG,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_EL2_VAA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
  CS_IRQ,
  commandName,
} from "../../../arch/smmuv3/commands.ts";
import type { ConfigurationCache } from "../../../arch/smmuv3/parts/configuration-cache.ts";
import type { EventQueue } from "../../../arch/smmuv3/parts/event-queue.ts";
import type { TlbInvalidations } from "../../../arch/smmuv3/parts/tlb-invalidations.ts";
import { CERROR_ATC_INV_SYNC, CERROR_ILL, CERROR_NONE } from "../../../arch/smmuv3/registers.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ALL_PAGES, type AtsInvalidations } from "../ats-invalidations.ts";
import type { HardwareState } from "./hardware-state.ts";

/** Not an error: the command is not done yet. */
export const WAIT = -1;
const SSEC = 1 << 10;
/** PRI response codes by CMD_PRI_RESP.Resp (§4.5.2). */
const RESPONSES = [15, 1, 0] as const;

/** What commands act on. */
export interface CommandTargets {
  readonly state: HardwareState;
  readonly configurations: ConfigurationCache;
  readonly tlb: TlbInvalidations;
  readonly events: EventQueue;
  readonly ats: AtsInvalidations;
}

export class CommandExecutor implements Stateful {
  /** The last command was a CMD_SYNC that completed and asks for an interrupt: it follows once CONS has moved. */
  signals = false; // not state: within a call
  readonly #state: HardwareState;
  readonly #configurations: ConfigurationCache;
  readonly #tlb: TlbInvalidations;
  readonly #events: EventQueue;
  readonly #ats: AtsInvalidations;
  /** Per queue: something was invalidated since its last CMD_SYNC. */
  readonly #invalidated: Uint8Array;

  /** `queues`: how many there are. */
  constructor({ state, configurations, tlb, events, ats }: CommandTargets, queues: number) {
    this.#state = state;
    this.#configurations = configurations;
    this.#tlb = tlb;
    this.#events = events;
    this.#ats = ats;
    this.#invalidated = new Uint8Array(queues);
  }

  saveState(): StateRecord {
    return { invalidated: [...this.#invalidated] };
  }

  restoreState(state: StateReader): void {
    state.numbers("invalidated", this.#invalidated);
  }

  reset(): void {
    this.#invalidated.fill(0);
  }

  /** As HardwareIommu.skipCommand. */
  skip: ((name: string) => boolean) | null = null; // not state: wiring

  /** A queue starts anew. */
  started(queue: number): void {
    this.#invalidated[queue] = 0;
  }

  /** CERROR_NONE: consumed; WAIT: fetch it again later; or the error that stops the queue. */
  execute(w0: number, w1: number, w2: number, w3: number, queue: number): number {
    this.signals = false;
    if (this.skip?.(commandName(BigInt(w0 >>> 0)) ?? "illegal") === true) return CERROR_NONE;
    if ((w0 & SSEC) !== 0) return CERROR_ILL;
    const { features } = this.#state;
    const opcode = w0 & 0xff;
    switch (opcode) {
      case CMD_PREFETCH_CONFIG:
      case CMD_PREFETCH_ADDR:
        // Hints: nothing is fetched ahead.
        return CERROR_NONE;
      case CMD_CFGI_STE:
        this.#invalidated[queue] = 1;
        this.#configurations.invalidateStream(w1 >>> 0);
        return CERROR_NONE;
      case CMD_CFGI_STE_RANGE:
        this.#invalidated[queue] = 1;
        this.#configurations.invalidateStreams(w1 >>> 0, (w2 & 0x1f) + 1);
        return CERROR_NONE;
      case CMD_CFGI_CD:
      case CMD_CFGI_CD_ALL:
        if (!features.S1P) return CERROR_ILL;
        this.#invalidated[queue] = 1;
        if (opcode === CMD_CFGI_CD) this.#configurations.invalidateContext(w1 >>> 0, w0 >>> 12);
        else this.#configurations.invalidateContexts(w1 >>> 0);
        return CERROR_NONE;
      case CMD_TLBI_NH_ALL:
      case CMD_TLBI_NH_ASID:
      case CMD_TLBI_NH_VA:
      case CMD_TLBI_NH_VAA:
      case CMD_TLBI_EL2_ALL:
      case CMD_TLBI_EL2_ASID:
      case CMD_TLBI_EL2_VA:
      case CMD_TLBI_EL2_VAA:
      case CMD_TLBI_S12_VMALL:
      case CMD_TLBI_S2_IPA:
      case CMD_TLBI_NSNH_ALL:
        this.#invalidated[queue] = 1;
        return this.#tlb.execute(opcode, w0, w1, w2, w3) ? CERROR_NONE : CERROR_ILL;
      case CMD_ATC_INV:
        return features.ATS ? this.#invalidateAtc(w0, w1, w2, w3, queue) : CERROR_ILL;
      case CMD_PRI_RESP: {
        const response = (w2 >>> 12) & 3;
        if (!features.PRI || response === 3) return CERROR_ILL;
        if (this.#state.enabled)
          this.#ats.respond(w1 >>> 0, (w0 & (1 << 11)) !== 0 ? w0 >>> 12 : -1, w2 & 0x1ff, RESPONSES[response]!);
        return CERROR_NONE;
      }
      case CMD_RESUME:
        if (features.STALL_MODEL === 1) return CERROR_ILL;
        this.#events.resume(w1 >>> 0, w2 & 0xffff, (w0 & (1 << 12)) !== 0, (w0 & (1 << 13)) !== 0);
        return CERROR_NONE;
      case CMD_STALL_TERM:
        if (features.STALL_MODEL === 1) return CERROR_ILL;
        this.#events.terminate(w1 >>> 0);
        return CERROR_NONE;
      case CMD_SYNC:
        return this.#sync((w0 >>> 12) & 3, queue);
      default:
        return CERROR_ILL;
    }
  }

  /** TLB invalidations at the beginning of a run of commands of a queue: how many there were. What is illegal is left for `execute`. */
  executeTlbis(words: Int32Array, first: number, run: number, queue: number): number {
    if (this.skip !== null) return 0;
    const tlb = this.#tlb;
    let done = 0;
    for (let at = first; done < run; at += 4) {
      const w0 = words[at]!;
      const opcode = w0 & 0xff;
      if (opcode !== CMD_TLBI_NH_VA && opcode !== CMD_TLBI_NH_ASID && opcode !== CMD_TLBI_NH_VAA) {
        if (opcode !== CMD_TLBI_NH_ALL && opcode !== CMD_TLBI_S2_IPA && opcode !== CMD_TLBI_S12_VMALL) break;
      }
      if ((w0 & SSEC) !== 0 || !tlb.execute(opcode, w0, words[at + 1]!, words[at + 2]!, words[at + 3]!)) break;
      done++;
    }
    if (done > 0) {
      this.signals = false;
      this.#invalidated[queue] = 1;
    }
    return done;
  }

  #invalidateAtc(w0: number, w1: number, w2: number, w3: number, queue: number): number {
    const size = w2 & 0x3f;
    if (size > 52) return CERROR_ILL;
    if (!this.#state.enabled) return CERROR_NONE;
    const ssid = (w0 & (1 << 11)) !== 0 ? w0 >>> 12 : -1;
    const global = ssid >= 0 && (w0 & (1 << 9)) !== 0;
    const pages = 2 ** size;
    const pfn = (w3 >>> 0) * 0x100000 + (w2 >>> 12);
    const sent =
      size === 52
        ? this.#ats.invalidate(w1 >>> 0, ssid, 0, ALL_PAGES, global, queue)
        : this.#ats.invalidate(w1 >>> 0, ssid, pfn - (pfn % pages), pages, global, queue);
    return sent ? CERROR_NONE : WAIT;
  }

  /** §4.6.3. Everything before has executed; only ATS invalidations can be outstanding. */
  #sync(signal: number, queue: number): number {
    if (signal === 3) return CERROR_ILL;
    const pending = this.#ats.settle(queue);
    if (pending === "waiting") return WAIT;
    if (pending === "timed-out") return CERROR_ATC_INV_SYNC;
    if (this.#invalidated[queue] === 1) {
      this.#invalidated[queue] = 0;
      this.#events.retryUnrecorded();
    }
    // SEV is an event to processors that wait: there is nobody to tell.
    this.signals = signal === CS_IRQ;
    return CERROR_NONE;
  }
}
