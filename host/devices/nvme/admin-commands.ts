// Admin commands (NVMe 1.4 §5): queues, identify, features, log pages, abort, asynchronous event requests. Those that answer with
// data fill the staging buffer and send it; those that touch the controller's queues do so through a port.

import { pfnOfHalves } from "../../base/address.ts";
import type { AsynchronousEvents } from "./asynchronous-events.ts";
import type { BlockStore } from "./block-store.ts";
import {
  ABORT,
  ASYNCHRONOUS_EVENT_LIMIT_EXCEEDED,
  ASYNCHRONOUS_EVENT_REQUEST,
  COMMAND_SEQUENCE_ERROR,
  COMPLETION_QUEUE_INVALID,
  CREATE_COMPLETION_QUEUE,
  CREATE_SUBMISSION_QUEUE,
  DELETE_COMPLETION_QUEUE,
  DELETE_SUBMISSION_QUEUE,
  EVERY_NAMESPACE,
  FEATURE_NOT_SAVEABLE,
  FEATURE_NUMBER_OF_QUEUES,
  GET_FEATURES,
  GET_LOG_PAGE,
  IDENTIFY,
  INVALID_FIELD,
  INVALID_INTERRUPT_VECTOR,
  INVALID_LOG_PAGE,
  INVALID_NAMESPACE,
  INVALID_OPCODE,
  INVALID_QUEUE_DELETION,
  INVALID_QUEUE_IDENTIFIER,
  INVALID_QUEUE_SIZE,
  LOG_ERROR,
  LOG_FIRMWARE,
  LOG_HEALTH,
  NAMESPACE,
  PAGE_BYTES,
  PRP_OFFSET_INVALID,
  SET_FEATURES,
  SUCCESS,
  TRANSFER_BYTES,
} from "./commands.ts";
import type { DataPointer } from "./data-pointer.ts";
import { Features } from "./features.ts";
import {
  type ControllerIdentity,
  IDENTIFY_ACTIVE_NAMESPACES,
  IDENTIFY_BYTES,
  IDENTIFY_CONTROLLER,
  IDENTIFY_DESCRIPTORS,
  IDENTIFY_NAMESPACE,
  identifyActiveNamespaces,
  identifyController,
  identifyDescriptors,
  identifyNamespace,
} from "./identify.ts";
import { ERROR_LOG_BYTES, FIRMWARE_LOG_BYTES, HEALTH_LOG_BYTES, type LogPages } from "./log-pages.ts";
import { type Command, CompletionQueue, SubmissionQueue } from "./queue.ts";

/** Not a status: the command stays with the controller. */
export const HELD = -1;

/** The controller's queues, by id; 0 is the admin pair. */
export interface QueueTable {
  readonly submission: (SubmissionQueue | null)[];
  readonly completion: (CompletionQueue | null)[];
  /** Most entries of a queue. */
  readonly mostEntries: number;
  /** Interrupt vectors that a completion queue may use now. */
  readonly vectors: () => number;
  /** CC.IOSQES and CC.IOCQES have the sizes that the controller knows. */
  readonly entrySizesValid: () => boolean;
  /** Ends every command in flight that came from `queue`. */
  readonly abandon: (queue: SubmissionQueue) => void;
  /** Ends the command in flight `commandId` of queue `id` with "abort requested"; false if there is none. */
  readonly abort: (id: number, commandId: number) => boolean;
}

export interface AdminParts {
  readonly queues: QueueTable;
  readonly data: DataPointer;
  readonly features: Features;
  readonly logs: LogPages;
  readonly events: AsynchronousEvents;
  readonly store: BlockStore;
  readonly identity: ControllerIdentity;
  readonly now: () => number;
}

const PHYSICALLY_CONTIGUOUS = 1;
const INTERRUPTS_ENABLED = 2;
const SAVE = 0x80000000;
const RETAIN_EVENT = 1 << 15;

export class AdminCommands {
  /** Dword 0 of the completion of the command just carried out. */
  result = 0; // not state: read at once
  readonly #parts: AdminParts;

  constructor(parts: AdminParts) {
    this.#parts = parts;
  }

  /** Carries out a command; returns its status or HELD. */
  execute(command: Command): number {
    this.result = 0;
    switch (command.opcode) {
      case DELETE_SUBMISSION_QUEUE:
        return this.#deleteSubmissionQueue(command.words[10]! & 0xffff);
      case CREATE_SUBMISSION_QUEUE:
        return this.#createSubmissionQueue(command);
      case GET_LOG_PAGE:
        return this.#getLogPage(command);
      case DELETE_COMPLETION_QUEUE:
        return this.#deleteCompletionQueue(command.words[10]! & 0xffff);
      case CREATE_COMPLETION_QUEUE:
        return this.#createCompletionQueue(command);
      case IDENTIFY:
        return this.#identify(command);
      case ABORT:
        return this.#abort(command.words[10]! & 0xffff, command.words[10]! >>> 16);
      case SET_FEATURES:
        return this.#setFeatures(command);
      case GET_FEATURES:
        return this.#getFeatures(command);
      case ASYNCHRONOUS_EVENT_REQUEST:
        return this.#parts.events.hold(command.id) ? HELD : ASYNCHRONOUS_EVENT_LIMIT_EXCEEDED;
      default:
        return INVALID_OPCODE;
    }
  }

  /** Status of the checks that both kinds of queue share, for a queue that is to be number `id` (§5.3, §5.4). */
  #checkNewQueue(table: readonly (object | null)[], id: number, { words }: Command): number {
    const { queues } = this.#parts;
    const entries = (words[10]! >>> 16) + 1;
    if (id === 0 || id >= table.length || table[id] !== null) return INVALID_QUEUE_IDENTIFIER;
    if (entries < 2 || entries > queues.mostEntries || !queues.entrySizesValid()) return INVALID_QUEUE_SIZE;
    // CAP.CQR: queues are contiguous.
    if ((words[11]! & PHYSICALLY_CONTIGUOUS) === 0) return INVALID_FIELD;
    return (words[6]! & (PAGE_BYTES - 1)) === 0 ? SUCCESS : PRP_OFFSET_INVALID;
  }

  #createCompletionQueue(command: Command): number {
    const { queues } = this.#parts;
    const { words } = command;
    const id = words[10]! & 0xffff;
    const status = this.#checkNewQueue(queues.completion, id, command);
    if (status !== SUCCESS) return status;
    const vector = words[11]! >>> 16;
    const interrupts = (words[11]! & INTERRUPTS_ENABLED) !== 0;
    if (vector >= queues.vectors()) return INVALID_INTERRUPT_VECTOR;
    const entries = (words[10]! >>> 16) + 1;
    queues.completion[id] = new CompletionQueue(id, pfnOfHalves(words[6]!, words[7]!), entries, interrupts, vector);
    return SUCCESS;
  }

  #createSubmissionQueue(command: Command): number {
    const { queues } = this.#parts;
    const { words } = command;
    const id = words[10]! & 0xffff;
    const completionId = words[11]! >>> 16;
    const status = this.#checkNewQueue(queues.submission, id, command);
    if (status !== SUCCESS) return status;
    if (completionId === 0 || completionId >= queues.completion.length) return INVALID_QUEUE_IDENTIFIER;
    const completion = queues.completion[completionId] ?? null;
    if (completion === null) return COMPLETION_QUEUE_INVALID;
    const pfn = pfnOfHalves(words[6]!, words[7]!);
    queues.submission[id] = new SubmissionQueue(id, pfn, (words[10]! >>> 16) + 1, completion);
    return SUCCESS;
  }

  #deleteSubmissionQueue(id: number): number {
    const { queues } = this.#parts;
    const queue = queues.submission[id] ?? null;
    if (id === 0 || queue === null) return INVALID_QUEUE_IDENTIFIER;
    queues.submission[id] = null;
    queue.completion.users--;
    queues.abandon(queue);
    return SUCCESS;
  }

  #deleteCompletionQueue(id: number): number {
    const { queues } = this.#parts;
    const queue = queues.completion[id] ?? null;
    if (id === 0 || queue === null) return INVALID_QUEUE_IDENTIFIER;
    if (queue.users > 0) return INVALID_QUEUE_DELETION;
    queues.completion[id] = null;
    return SUCCESS;
  }

  #identify(command: Command): number {
    const { data, store, identity } = this.#parts;
    const { buffer } = data;
    const { namespace } = command;
    switch (command.words[10]! & 0xff) {
      case IDENTIFY_NAMESPACE:
        if (namespace !== NAMESPACE) return INVALID_NAMESPACE;
        identifyNamespace(buffer, store, identity);
        break;
      case IDENTIFY_CONTROLLER:
        identifyController(buffer, identity);
        break;
      case IDENTIFY_ACTIVE_NAMESPACES:
        if (namespace >= EVERY_NAMESPACE - 1) return INVALID_NAMESPACE;
        identifyActiveNamespaces(buffer, namespace);
        break;
      case IDENTIFY_DESCRIPTORS:
        if (namespace !== NAMESPACE) return INVALID_NAMESPACE;
        identifyDescriptors(buffer, identity);
        break;
      default:
        return INVALID_FIELD;
    }
    return data.toHost(command, IDENTIFY_BYTES);
  }

  /** Abort is best effort: bit 0 of the result says that nothing was aborted (§5.1). */
  #abort(queue: number, commandId: number): number {
    this.result = this.#parts.queues.abort(queue, commandId) ? 0 : 1;
    return SUCCESS;
  }

  #getFeatures({ words }: Command): number {
    const { features } = this.#parts;
    const status = features.get(words[10]! & 0xff, (words[10]! >>> 8) & 7, words[11]!);
    this.result = features.result;
    return status;
  }

  #setFeatures({ words }: Command): number {
    const { features, queues } = this.#parts;
    const feature = words[10]! & 0xff;
    const value = words[11]!;
    if (!Features.has(feature)) return INVALID_FIELD;
    if ((words[10]! & SAVE) !== 0) return FEATURE_NOT_SAVEABLE;
    if (feature === FEATURE_NUMBER_OF_QUEUES) {
      // 65535 is not a number of queues; the number cannot change under queues that exist (§5.21.1.7).
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) return INVALID_FIELD;
      const created = (queue: object | null, id: number) => id > 0 && queue !== null;
      if (queues.submission.some(created) || queues.completion.some(created)) return COMMAND_SEQUENCE_ERROR;
      this.result = features.numberOfQueues;
      return SUCCESS;
    }
    return features.set(feature, value);
  }

  #getLogPage(command: Command): number {
    const { data, logs, events, now } = this.#parts;
    const { words, namespace } = command;
    const page = words[10]! & 0xff;
    const dwords = (words[10]! >>> 16) + (words[11]! & 0xffff) * 0x10000 + 1;
    const offset = words[13]! * 2 ** 32 + words[12]!;
    if (dwords * 4 > TRANSFER_BYTES || (words[12]! & 3) !== 0) return INVALID_FIELD;
    if (namespace !== 0 && namespace !== EVERY_NAMESPACE && namespace !== NAMESPACE) return INVALID_NAMESPACE;
    let bytes: number;
    switch (page) {
      case LOG_ERROR:
        bytes = ERROR_LOG_BYTES;
        logs.errorLog(data.buffer);
        break;
      case LOG_HEALTH:
        bytes = HEALTH_LOG_BYTES;
        logs.healthLog(data.buffer, now());
        break;
      case LOG_FIRMWARE:
        bytes = FIRMWARE_LOG_BYTES;
        logs.firmwareLog(data.buffer);
        break;
      default:
        return INVALID_LOG_PAGE;
    }
    if (offset > bytes) return INVALID_FIELD;
    if (offset > 0) data.buffer.copyWithin(0, offset, bytes);
    const status = data.toHost(command, Math.min(dwords * 4, bytes - offset));
    if (status === SUCCESS && (words[10]! & RETAIN_EVENT) === 0) events.logPageRead(page);
    return status;
  }
}
