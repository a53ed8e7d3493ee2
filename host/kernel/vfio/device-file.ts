// An open device: /dev/vfio/devices/vfioN (cdev), or what GROUP_GET_DEVICE_FD returns (Linux: vfio/device_cdev.c, vfio_main.c); what is its
// bus's goes to its operations. A cdev gives access only after BIND_IOMMUFD; before that everything else is EINVAL.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EBADFD, EFAULT, EINVAL, ENOTTY, EOPNOTSUPP } from "../../uapi/errno.ts";
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_IOCTLS,
  vfioDeviceAttachIommufdPt,
  vfioDeviceBindIommufd,
  vfioDeviceDetachIommufdPt,
  vfioDeviceFeature,
} from "../../uapi/vfio.ts";
import { type CallContext, type FileMapping, type MmapRequest, OpenFile, type PostedWrites } from "../file.ts";
import { IommufdFile } from "../iommufd/context.ts";
import { copyStruct } from "../iommufd/user-copy.ts";
import type { VfioDevice } from "./device.ts";
import { readBytes, readMore, readRequest, writeBytes } from "./user-request.ts";

/** A VF token is a UUID. */
const TOKEN_BYTES = 16;

export class VfioDeviceFile extends OpenFile {
  readonly path: string;
  readonly device: VfioDevice;
  readonly #byGroup: boolean;
  readonly #onRelease: () => void;
  #access: boolean;
  /** Where read and write without a position go on. */
  #position = 0n;
  readonly #mappings = new Set<FileMapping>(); // not state: they end with the file

  /** `byGroup`: opened through the group, with access at once. `onRelease` runs after the device was closed. */
  constructor(path: string, device: VfioDevice, byGroup: boolean, onRelease: () => void = () => {}) {
    super();
    this.path = path;
    this.device = device;
    this.#byGroup = byGroup;
    this.#access = byGroup;
    this.#onRelease = onRelease;
  }

  override ioctlName(request: number): string | null {
    return VFIO_DEVICE_IOCTLS.get(request)?.name ?? null;
  }

  override ioctlFields(call: CallContext, request: number, argument: bigint): Record<string, bigint | number | string> {
    const device = this.device.name;
    const layout = VFIO_DEVICE_IOCTLS.get(request)?.layout ?? null;
    if (layout === null) return { device };
    const bytes = new Uint8Array(layout.bytes);
    const size = new Uint8Array(4);
    if (call.memory.read(argument, size) < 0) return { device };
    const length = Math.min(layout.bytes, new DataView(size.buffer).getUint32(0, true));
    const readable = call.memory.read(argument, bytes.subarray(0, length)) >= 0;
    return readable ? { device, ...layout.decode(bytes) } : { device };
  }

  override ioctl(call: CallContext, request: number, argument: bigint): number {
    if (request === VFIO_DEVICE_BIND_IOMMUFD) return this.#bind(call, argument);
    if (!this.#access) return -EINVAL;
    switch (request) {
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        return this.#byGroup ? -ENOTTY : this.#attach(call, argument);
      case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        return this.#byGroup ? -ENOTTY : this.#detach(call, argument);
      case VFIO_DEVICE_FEATURE:
        return this.#feature(call, argument);
      default:
        return this.device.operations.ioctl(call, request, argument, !this.#byGroup);
    }
  }

  #bind(call: CallContext, argument: bigint): number {
    const bytes = new Uint8Array(vfioDeviceBindIommufd.bytes);
    const size = new Uint8Array(4);
    if (readBytes(call, argument, size) < 0) return -EFAULT;
    const userSize = new DataView(size.buffer).getUint32(0, true);
    if (userSize < 16) return -EINVAL;
    const copied = copyStruct(call.memory, argument, userSize, bytes);
    if (copied < 0) return copied;
    const { flags, iommufd, token_uuid_ptr } = vfioDeviceBindIommufd.decode(bytes);
    if (iommufd < 0 || (flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) return -EINVAL;
    if (this.#byGroup) return -EINVAL;
    const { device } = this;
    const blocked = device.group.blockForCdev();
    if (blocked < 0) return blocked;
    const result = this.#bindTo(call, argument, iommufd, flags, token_uuid_ptr);
    if (result < 0) device.group.unblock();
    return result;
  }

  #bindTo(call: CallContext, argument: bigint, iommufd: number, flags: number, token: bigint): number {
    const { device } = this;
    if (this.#access) return -EINVAL;
    // A token belongs to devices with virtual functions: this one has none, so any token is one too many.
    if ((flags & VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) {
      return readBytes(call, token, new Uint8Array(TOKEN_BYTES)) < 0 ? -EFAULT : -EINVAL;
    }
    const file = call.descriptors.lookup(iommufd);
    if (typeof file === "number") return file;
    if (!(file instanceof IommufdFile)) return -EBADFD;
    // By its node a device is opened once.
    if (device.openCount > 0) return -EINVAL;
    const id = device.open(file.context);
    if (id < 0) return id;
    const out = vfioDeviceBindIommufd.fields.out_devid;
    const reply = new Uint8Array(4);
    new DataView(reply.buffer).setUint32(0, id, true);
    if (writeBytes(call, argument + BigInt(out.offset), reply) < 0) {
      device.close();
      return -EFAULT;
    }
    this.#access = true;
    return 0;
  }

  #attach(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioDeviceAttachIommufdPt, 12);
    if (typeof request === "number") return request;
    const { flags, pt_id } = request.values;
    if ((flags & ~VFIO_DEVICE_ATTACH_PASID) !== 0) return -EINVAL;
    const { offset } = vfioDeviceAttachIommufdPt.fields.pasid;
    const withPasid = (flags & VFIO_DEVICE_ATTACH_PASID) !== 0;
    if (withPasid && !this.device.operations.attachesPasids) return -EOPNOTSUPP;
    const pasid = withPasid ? readMore(call, argument, request.size, offset) : 0;
    if (pasid < 0) return pasid;
    const { device } = this;
    const where = withPasid ? pasid : NO_PASID;
    const id = device.attach(where, pt_id);
    if (id < 0) return id;
    const reply = new Uint8Array(4);
    new DataView(reply.buffer).setUint32(0, id, true);
    if (writeBytes(call, argument + 8n, reply) < 0) {
      device.detach(where);
      return -EFAULT;
    }
    return 0;
  }

  #detach(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioDeviceDetachIommufdPt, 8);
    if (typeof request === "number") return request;
    const { flags } = request.values;
    if ((flags & ~VFIO_DEVICE_DETACH_PASID) !== 0) return -EINVAL;
    const { offset } = vfioDeviceDetachIommufdPt.fields.pasid;
    const withPasid = (flags & VFIO_DEVICE_DETACH_PASID) !== 0;
    if (withPasid && !this.device.operations.attachesPasids) return -EOPNOTSUPP;
    const pasid = withPasid ? readMore(call, argument, request.size, offset) : 0;
    if (pasid < 0) return pasid;
    this.device.detach(withPasid ? pasid : NO_PASID);
    return 0;
  }

  #feature(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioDeviceFeature);
    if (typeof request === "number") return request;
    const { flags } = request.values;
    const known =
      VFIO_DEVICE_FEATURE_MASK | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE;
    if ((flags & ~known) !== 0) return -EINVAL;
    const both = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
    if ((flags & VFIO_DEVICE_FEATURE_PROBE) === 0 && (flags & both) === both) return -EINVAL;
    const feature = flags & VFIO_DEVICE_FEATURE_MASK;
    const header = vfioDeviceFeature.bytes;
    const data = argument + BigInt(header);
    return this.device.operations.feature(call, feature, flags, data, request.size - header);
  }

  override read(call: CallContext, va: bigint, length: number, position: bigint): number {
    return this.#transfer(call, va, length, position, false);
  }

  override write(call: CallContext, va: bigint, length: number, position: bigint): number {
    return this.#transfer(call, va, length, position, true);
  }

  /** At a position, or (-1: read and write without one) at the file's own, which moves on by what was transferred. */
  #transfer(call: CallContext, va: bigint, length: number, position: bigint, write: boolean): number {
    if (!this.#access) return -EINVAL;
    const own = position === -1n;
    const { operations } = this.device;
    const done = operations.access(call, va, length, own ? this.#position : position, write);
    if (own && done > 0 && operations.advancesPosition) this.#position += BigInt(done);
    return done;
  }

  override postedWrites(position: bigint): PostedWrites | null {
    return this.#access && position >= 0n ? this.device.operations.postedWrites(position) : null;
  }

  override mmap(_call: CallContext, request: MmapRequest): FileMapping | number {
    if (!this.#access) return -EINVAL;
    const mapping = this.device.operations.map(request);
    if (typeof mapping !== "number") this.#mappings.add(mapping);
    return mapping;
  }

  protected override release(): void {
    const { device } = this;
    for (const mapping of this.#mappings) mapping.close();
    if (this.#byGroup) {
      this.#onRelease();
    } else if (this.#access) {
      device.close();
      device.group.unblock();
    }
    device.fileClosed();
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), access: this.#access, position: this.#position };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.#access = state.boolean("access");
    this.#position = state.bigint("position");
  }
}
