// One iommufd request being handled: the caller, the context, and the structure as copied from user space (Linux: iommufd_ucmd).

import { ENOMEM } from "../../uapi/errno.ts";
import type { CallContext } from "../file.ts";
import type { IommufdContext } from "./context.ts";
import type { IommufdObject, ObjectType } from "./object-table.ts";
import { writeUser } from "./user-copy.ts";

export class IommufdCommand {
  readonly context: IommufdContext;
  readonly call: CallContext;
  /** Where the structure is in user space, and how much of it the caller knows. */
  readonly address: bigint;
  readonly userSize: number;
  /** The kernel's whole structure. Handlers put their outputs here and `respond`. */
  readonly bytes: Uint8Array;
  #created: IommufdObject | null = null;

  constructor(context: IommufdContext, call: CallContext, address: bigint, userSize: number, bytes: Uint8Array) {
    this.context = context;
    this.call = call;
    this.address = address;
    this.userSize = userSize;
    this.bytes = bytes;
  }

  /** Copies the structure back, as much of it as the caller has. */
  respond(): number {
    return writeUser(
      this.call.memory,
      this.address,
      this.bytes.subarray(0, Math.min(this.userSize, this.bytes.length)),
    );
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
    if (result < 0) this.context.objects.abortAndDestroy(object);
    else this.context.objects.finalize(object);
  }

  /** The visible object of a type with this id, or null (-ENOENT for the caller). */
  find<T extends IommufdObject>(id: number, type: ObjectType): T | null {
    return this.context.find<T>(id, type);
  }
}
