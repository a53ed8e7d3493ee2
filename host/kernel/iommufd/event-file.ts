// The file of an event queue object (fault queue, vEVENTQ): it refers to its object and to the context for as long as it is open.

import { ESPIPE } from "../../uapi/errno.ts";
import { POLLIN } from "../../uapi/system-calls.ts";
import { type CallContext, OpenFile } from "../file.ts";
import type { IommufdContext } from "./context.ts";
import { IommufdObject } from "./object-table.ts";

/** What a queue object does behind its file. */
export abstract class EventQueue extends IommufdObject {
  readonly context: IommufdContext;
  /** null before `openFile` and after the file has gone. */
  file: EventFile | null = null; // not state: a descriptor's, which are the same

  constructor(context: IommufdContext) {
    super();
    this.context = context;
  }

  abstract readonly pollEvents: number;
  abstract readonly deliverable: boolean;
  abstract read(call: CallContext, va: bigint, length: number): number;
  abstract write(call: CallContext, va: bigint, length: number): number;

  /** Makes the file and takes a descriptor number for it. */
  openFile(path: string, call: CallContext): number {
    this.file = new EventFile(path, this);
    return call.descriptors.reserve();
  }

  /** A creation failed: the file goes before its object. */
  override beforeAbort(): void {
    this.file?.put();
  }
}

export class EventFile extends OpenFile {
  readonly path: string;
  readonly #queue: EventQueue;

  constructor(path: string, queue: EventQueue) {
    super();
    this.path = path;
    this.#queue = queue;
    queue.users++;
    queue.context.file.get();
    queue.context.environment.live.created("event file");
  }

  override read(call: CallContext, va: bigint, length: number, position: bigint): number {
    // The files are not seekable: pread has no meaning, at no offset.
    if (position >= 0n) return -ESPIPE;
    return this.#queue.read(call, va, length);
  }

  override write(call: CallContext, va: bigint, length: number, position: bigint): number {
    if (position >= 0n) return -ESPIPE;
    return this.#queue.write(call, va, length);
  }

  override poll(): number {
    return this.#queue.pollEvents | (this.#queue.deliverable ? POLLIN : 0);
  }

  /** The queue has become readable. */
  ready(): void {
    this.wake();
  }

  protected override release(): void {
    const { context } = this.#queue;
    this.#queue.file = null;
    this.#queue.users--;
    context.environment.live.destroyed("event file");
    context.file.put();
  }
}
