// vEVENTQ objects (Linux: iommufd/eventq.c, driver.c): events of one type from one vIOMMU, read from a file as
// `iommufd_vevent_header` + data. Every event has a number (sequence, mod 2^31), lost ones too: when `depth` events wait, or one is
// lost on purpose, the one LOST_EVENTS header moves to the tail; the next event that fits takes its place and the gap shows only in the
// numbers.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from "../../uapi/errno.ts";
import { IOMMU_VEVENTQ_FLAG_LOST_EVENTS, iommufdVeventHeader, iommuVeventqAlloc } from "../../uapi/iommufd.ts";
import type { CallContext } from "../file.ts";
import { requireText } from "../same-objects.ts";
import type { IommufdCommand } from "./command.ts";
import { EventQueue } from "./event-file.ts";
import { nameOfObject } from "./object-table.ts";
import { writeUser } from "./user-copy.ts";
import type { Viommu } from "./viommu.ts";

const HEADER_BYTES = 8;
const MAX_DEPTH = 1 << 19;

interface Vevent {
  sequence: number;
  readonly data: Uint8Array;
}

export class VeventQueue extends EventQueue {
  readonly type = "veventq";
  readonly eventType: number;
  readonly depth: number;
  readonly viommu: Viommu;
  /** Waiting events from #head on; the lost-events header, if waiting, is always the last. */
  #events: Vevent[] = [];
  #head = 0;
  #lost: { sequence: number } | null = null;
  /** Number of the last event; -1 before the first. */
  #sequence = -1;

  constructor(viommu: Viommu, eventType: number, depth: number) {
    super(viommu.context);
    this.viommu = viommu;
    this.eventType = eventType;
    this.depth = depth;
    viommu.users++;
    viommu.eventQueues.set(eventType, this);
  }

  override destroy(): void {
    this.viommu.eventQueues.delete(this.eventType);
    this.viommu.users--;
  }

  get pollEvents(): number {
    return 0;
  }

  get deliverable(): boolean {
    return this.waiting > 0 || this.#lost !== null;
  }

  get waiting(): number {
    return this.#events.length - this.#head;
  }

  /** Queues one event, or counts it as lost when the queue is full. */
  report(data: Uint8Array): number {
    const { injector } = this.context.environment;
    this.#sequence = (this.#sequence + 1) % 0x8000_0000;
    const fails = injector.allocation("vevent");
    if (fails || this.waiting === this.depth || injector.loseEvent("veventq")) {
      this.#lost = { sequence: this.#sequence };
    } else {
      this.#lost = null;
      this.#events.push({ sequence: this.#sequence, data: data.slice() });
    }
    this.file?.ready();
    return fails ? -ENOMEM : 0;
  }

  override read(call: CallContext, va: bigint, length: number): number {
    if (length < HEADER_BYTES) return -EINVAL;
    let done = 0;
    while (this.waiting > 0) {
      const event = this.#events[this.#head]!;
      const bytes = HEADER_BYTES + event.data.length;
      if (length - done < HEADER_BYTES) break;
      if (bytes > length - done) return done > 0 ? done : -EINVAL;
      const message = new Uint8Array(bytes);
      iommufdVeventHeader.patch(message, { flags: 0, sequence: event.sequence });
      message.set(event.data, HEADER_BYTES);
      if (writeUser(call.memory, va + BigInt(done), message) < 0) return done > 0 ? done : -EFAULT;
      this.#take();
      done += bytes;
    }
    if (this.waiting === 0 && this.#lost !== null && length - done >= HEADER_BYTES) {
      const header = { flags: IOMMU_VEVENTQ_FLAG_LOST_EVENTS, sequence: this.#lost.sequence };
      const written = writeUser(call.memory, va + BigInt(done), iommufdVeventHeader.encode(header));
      if (written < 0) return done > 0 ? done : -EFAULT;
      this.#lost = null;
      done += HEADER_BYTES;
    }
    return done;
  }

  #take(): void {
    this.#head++;
    if (this.#head > 1024 && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
  }

  override write(): number {
    return -EINVAL;
  }

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      is: this.#what(),
      events: this.#events.slice(this.#head).map(({ sequence, data }) => ({ sequence, data: data.slice() })),
      lost: this.#lost?.sequence ?? null,
      sequence: this.#sequence,
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "is", this.#what());
    this.#events = state.records("events").map((saved) => ({
      sequence: saved.number("sequence"),
      data: saved.bytes("data").slice(),
    }));
    this.#head = 0;
    const lost = state.optional("lost", (reader, name) => reader.number(name));
    this.#lost = lost === null ? null : { sequence: lost };
    this.#sequence = state.number("sequence");
  }

  #what(): string {
    return `type 0x${this.eventType.toString(16)}, depth ${this.depth}, of ${nameOfObject(this.viommu)}`;
  }
}

export function veventqAlloc(command: IommufdCommand): number {
  const request = iommuVeventqAlloc.decode(command.bytes);
  const { call } = command;
  if (request.flags !== 0 || request.__reserved !== 0 || request.type === 0) return -EOPNOTSUPP;
  if (request.veventq_depth === 0 || request.veventq_depth > MAX_DEPTH) return -EINVAL;
  const viommu = command.find<Viommu>(request.viommu_id, "viommu");
  if (viommu === null) return -ENOENT;
  if (viommu.eventQueues.has(request.type)) return -EEXIST;
  if (command.context.environment.injector.allocation("event file")) return -ENOMEM;
  const queue = new VeventQueue(viommu, request.type, request.veventq_depth);
  const created = command.create(queue);
  if (created < 0) {
    queue.destroy();
    return created;
  }
  const fd = queue.openFile("anon_inode:[iommufd-viommu-event]", call);
  if (fd < 0) return fd;
  iommuVeventqAlloc.patch(command.bytes, { out_veventq_id: queue.id, out_veventq_fd: fd });
  const result = command.respond();
  if (result < 0) call.descriptors.cancel(fd);
  else call.descriptors.install(fd, queue.file!, command.address + 24n);
  return result;
}
