// Message-signalled interrupts of the kernel: ids of the machine's interrupt files handed to drivers with a handler (Linux: the
// platform's MSI domain). Files are used in order; a driver writes address and data into a device's MSI or MSI-X registers or into
// an IOMMU. Handlers run when the machine's run loop fires events, never inside of what sent the message.
//
// Where an IOMMU remaps interrupts, a function is given a message that names an entry of its table instead (`MessageRemapper`), and the entry the id.

import { addressOf } from "../base/address.ts";
import type { InterruptFiles, Message } from "../hw/interrupt-files.ts";
import type { LiveObjects } from "./live-objects.ts";

/**
 * From a level interrupt's handler to the same interrupt again, unless user space asks for it: of itself the handler runs once at an instant. A signal may unmask
 * what it tells of (an eventfd that is both), or another device's interrupt whose signal unmasks this one: without time between, they would go on for ever.
 */
export const NEXT_INTERRUPT_NS = 1000;

export interface KernelInterrupt {
  /** Physical address of the doorbell. */
  readonly address: bigint;
  readonly data: number;
  free(): void;
}

/** What a device is programmed to write, instead of what it stands for. */
export interface RemappedMessage {
  readonly address: bigint;
  readonly data: number;
  free(): void;
}

/**
 * Messages by which a requester (a PCI function's name) sends these, whose count is a power of two; those it gets have one address, and data that
 * differ as these do. null: they are sent as they are; a negated errno: there is no room.
 */
export type MessageRemapper = (
  requester: string,
  messages: readonly { readonly address: bigint; readonly data: number }[],
) => readonly RemappedMessage[] | null | number;

export class KernelInterrupts {
  readonly #files: InterruptFiles | null;
  readonly #live: LiveObjects;
  readonly #remap: MessageRemapper;

  constructor(files: InterruptFiles | null, live: LiveObjects, remap: MessageRemapper = () => null) {
    this.#files = files;
    this.#live = live;
    this.#remap = remap;
  }

  /**
   * `count` (a power of two) interrupts of one file with consecutive data, the first a multiple of `count`: what MSI's low data bits
   * need. null when there are none. `requester`: as `request`.
   */
  requestBlock(
    source: string,
    requester: string,
    count: number,
    handlerOf: (index: number) => () => void,
  ): KernelInterrupt[] | null {
    const files = this.#files;
    if (files === null) return null;
    for (let file = 0; file < files.files; file++) {
      const taken: Message[] = [];
      let found: Message[] | null = null;
      for (;;) {
        const message = files.allocate(file, source, requester);
        if (message === null) break;
        taken.push(message);
        const last = taken.slice(-count);
        const first = last[0]!.data;
        if (last.length === count && first % count === 0 && last.every(({ data }, i) => data === first + i)) {
          found = last;
          break;
        }
      }
      for (const message of taken) if (found === null || !found.includes(message)) files.release(message);
      if (found === null) continue;
      return this.#handOut(found, requester, false, handlerOf);
    }
    return null;
  }

  /**
   * A new interrupt with its handler; null when no id is left. `source` names it in traces. `requester` is the PCI function whose
   * message it is; null: an IOMMU's, which no function can send. `boot`: it lives as long as the host.
   */
  request(source: string, requester: string | null, handler: () => void, boot = false): KernelInterrupt | null {
    const files = this.#files;
    if (files === null) return null;
    let message: Message | null = null;
    for (let file = 0; file < files.files && message === null; file++) {
      message = files.allocate(file, source, requester);
    }
    if (message === null) return null;
    return this.#handOut([message], requester, boot, () => handler)?.[0] ?? null;
  }

  /** null, and the ids given back, if they cannot be remapped. */
  #handOut(
    messages: readonly Message[],
    requester: string | null,
    boot: boolean,
    handlerOf: (index: number) => () => void,
  ): KernelInterrupt[] | null {
    const files = this.#files!;
    const direct = messages.map(({ pfn, data }) => ({ address: addressOf(pfn), data }));
    const remapped = requester === null ? null : this.#remap(requester, direct);
    if (typeof remapped === "number") {
      for (const message of messages) files.release(message);
      return null;
    }
    return messages.map((message, index) => {
      files.setHandler(message, handlerOf(index));
      if (!boot) this.#live.created("interrupt");
      let freed = false;
      const sent = remapped?.[index] ?? null;
      const { address, data } = sent ?? direct[index]!;
      return {
        address,
        data,
        free: () => {
          if (freed) return;
          freed = true;
          sent?.free();
          files.release(message);
          if (!boot) this.#live.destroyed("interrupt");
        },
      };
    });
  }
}
