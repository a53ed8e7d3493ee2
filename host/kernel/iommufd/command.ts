// One iommufd request being handled: the caller, the context, and the structure as copied from user space (Linux: iommufd_ucmd).

import { ENOMEM } from "../../uapi/errno.ts";
import type { CallContext, UserAddress } from "../file.ts";
import type { IommufdContext } from "./context.ts";
import type { IommufdObject, ObjectType } from "./object-table.ts";
import { copyStruct, readUser, writeUser } from "./user-copy.ts";

// Not state: within one request.
export class IommufdCommand {
  /** The kernel's whole structure. Handlers put their outputs here and `respond`. */
  readonly bytes: Uint8Array;
  /** The same as words: structures are made of them. */
  readonly words: Uint32Array;
  /** How much of the structure the caller knows. */
  userSize = 0;
  #context: IommufdContext | null = null;
  #call: CallContext | null = null;
  #at: UserAddress = 0;
  #created: IommufdObject | null = null;

  /** For requests whose structure has so many bytes, one after another. */
  constructor(structureBytes: number) {
    this.words = new Uint32Array(Math.ceil(structureBytes / 4));
    this.bytes = new Uint8Array(this.words.buffer, 0, structureBytes);
  }

  /** What it stands for now: fetches a structure of which the caller knows `userSize` bytes. 0, -E2BIG or -EFAULT. */
  begin(context: IommufdContext, call: CallContext, at: UserAddress, userSize: number): number {
    this.#context = context;
    this.#call = call;
    this.#at = at;
    this.userSize = userSize;
    if (userSize === this.bytes.length && (userSize & 3) === 0) {
      return readUser(call.memory, at, this.words, userSize);
    }
    return copyStruct(call.memory, at, userSize, this.bytes);
  }

  get context(): IommufdContext {
    return this.#context!;
  }

  get call(): CallContext {
    return this.#call!;
  }

  /** Where the structure is in user space. */
  get address(): bigint {
    return BigInt(this.#at);
  }

  /** Copies the structure back, as much of it as the caller has. */
  respond(): number {
    const length = Math.min(this.userSize, this.bytes.length);
    return writeUser(this.call.memory, this.#at, (length & 3) === 0 ? this.words : this.bytes, length);
  }

  /**
   * Reserves an id for the object this request creates: it becomes visible if the handler succeeds and is destroyed (its
   * `destroy` runs) if the handler fails. 0 or -ENOMEM.
   */
  create(object: IommufdObject): number {
    if (this.context.environment.injector.allocation(object.type)) return -ENOMEM;
    this.context.objects.reserve(object);
    this.#created = object;
    return 0;
  }

  /** The handler has returned `result`. */
  finish(result: number): void {
    const object = this.#created;
    if (object === null) return;
    this.#created = null;
    if (result < 0) this.context.objects.abortAndDestroy(object);
    else this.context.objects.finalize(object);
  }

  /** The visible object of a type with this id, or null (-ENOENT for the caller). */
  find<T extends IommufdObject>(id: number, type: ObjectType): T | null {
    return this.context.find<T>(id, type);
  }
}
