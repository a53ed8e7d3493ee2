// One iommufd request being handled: the caller, the context, and the structure as copied from user space (Linux: iommufd_ucmd).

import { EFAULT, EINVAL, ENOMEM } from "../../uapi/errno.ts";
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
  /** The same as doublewords, which most structures are whole numbers of: these are copied faster. */
  readonly #doublewords: BigUint64Array;
  /** How much of the structure the caller knows. */
  userSize = 0;
  /** A call is using it. */
  busy = false;
  #context: IommufdContext | null = null;
  #call: CallContext | null = null;
  #at: UserAddress = 0;
  #created: IommufdObject | null = null;

  /** For requests whose structure has so many bytes, one after another. */
  constructor(structureBytes: number) {
    this.#doublewords = new BigUint64Array(Math.ceil(structureBytes / 8));
    const { buffer } = this.#doublewords;
    this.words = new Uint32Array(buffer, 0, Math.ceil(structureBytes / 4));
    this.bytes = new Uint8Array(buffer, 0, structureBytes);
  }

  /**
   * What it stands for now: fetches a structure that begins with its size, as the caller knows it, of `minimum` bytes at least. 0, -EFAULT, -EINVAL
   * for less, -E2BIG.
   */
  begin(context: IommufdContext, call: CallContext, at: UserAddress, minimum: number): number {
    this.#context = context;
    this.#call = call;
    this.#at = at;
    const { words } = this;
    const { length } = this.bytes;
    // The machine's own VMM asks with the whole structure nearly always: its size comes with it. What others have in memory is not read before its time.
    if (typeof at === "number" && (length & 7) === 0 && readUser(call.memory, at, this.#doublewords, length) === 0) {
      this.userSize = words[0]!;
      if (words[0] === length) return 0;
    }
    return this.#beginWithSize(call, at, minimum);
  }

  #beginWithSize(call: CallContext, at: UserAddress, minimum: number): number {
    if (readUser(call.memory, at, this.bytes, 4) < 0) return -EFAULT;
    this.userSize = this.words[0]!;
    return this.userSize < minimum ? -EINVAL : copyStruct(call.memory, at, this.userSize, this.bytes);
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
    return writeUser(this.call.memory, this.#at, (length & 7) === 0 ? this.#doublewords : this.bytes, length);
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
