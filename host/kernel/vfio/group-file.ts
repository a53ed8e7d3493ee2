// An open VFIO group, /dev/vfio/$GROUP (Linux: vfio/group.c): its requests. What the group is in, and who holds that, is the group's
// own (group.ts).

import { NO_PASID } from "../../devices/ports.ts";
import { EBADF, EBADFD, EFAULT, EINVAL, ENODEV, ENOTTY } from "../../uapi/errno.ts";
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_IOCTLS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfioGroupStatus,
} from "../../uapi/vfio-container.ts";
import { type CallContext, OpenFile } from "../file.ts";
import { IommufdFile } from "../iommufd/context.ts";
import { compatibilityIoasId, type IommufdContext } from "../iommufd/in-kernel.ts";
import type { LiveObjects } from "../live-objects.ts";
import { VfioContainerFile } from "./container.ts";
import type { VfioDevice } from "./device.ts";
import { VfioDeviceFile } from "./device-file.ts";
import type { VfioGroup } from "./group.ts";
import { readBytes, readRequest, writeBytes } from "./user-request.ts";

/** A device's name and options take at most a page, its zero byte included. */
const NAME_BYTES = 4096;

export class VfioGroupFile extends OpenFile {
  readonly path: string;
  readonly #group: VfioGroup;
  readonly #live: LiveObjects;

  constructor(path: string, group: VfioGroup, live: LiveObjects) {
    super();
    this.path = path;
    this.#group = group;
    this.#live = live;
    group.openedFile = this;
    live.created("vfio group file");
  }

  override ioctlName(request: number): string | null {
    return VFIO_GROUP_IOCTLS.get(request) ?? null;
  }

  override ioctl(call: CallContext, request: number, argument: bigint): number {
    switch (request) {
      case VFIO_GROUP_GET_STATUS:
        return this.#status(call, argument);
      case VFIO_GROUP_SET_CONTAINER:
        return this.#setContainer(call, argument);
      case VFIO_GROUP_UNSET_CONTAINER:
        return this.#group.leave();
      case VFIO_GROUP_GET_DEVICE_FD:
        return this.#deviceFd(call, argument);
      default:
        return -ENOTTY;
    }
  }

  #status(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioGroupStatus);
    if (typeof request === "number") return request;
    const { iommuGroup, hasIommu } = this.#group;
    if (iommuGroup === null) return -ENODEV;
    const viable = hasIommu || iommuGroup.ownerCount === 0 ? VFIO_GROUP_FLAGS_VIABLE : 0;
    const flags = viable | (hasIommu ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0);
    return writeBytes(call, argument, vfioGroupStatus.encode({ argsz: request.size, flags }));
  }

  #setContainer(call: CallContext, argument: bigint): number {
    const bytes = new Uint8Array(4);
    if (readBytes(call, argument, bytes) < 0) return -EFAULT;
    const fd = new DataView(bytes.buffer).getInt32(0, true);
    const file = fd < 0 ? -EBADF : call.descriptors.lookup(fd);
    if (typeof file === "number") return file;
    if (file instanceof VfioContainerFile) return this.#group.enterContainer(file);
    if (file instanceof IommufdFile) return this.#group.enterIommufd(file.context);
    // The group's own state is looked at before what the descriptor is.
    return this.#group.refusesToEnter || -EBADFD;
  }

  #deviceFd(call: CallContext, argument: bigint): number {
    const name = readName(call, argument);
    if (typeof name === "number") return name;
    const device = this.#named(name);
    if (typeof device === "number") return device;
    const fd = call.descriptors.reserve();
    if (fd < 0) return fd;
    const file = this.#openDevice(device);
    if (typeof file === "number") {
      call.descriptors.cancel(fd);
      return file;
    }
    call.descriptors.install(fd, file, null);
    return fd;
  }

  /** The device that a name means, or a negated errno. */
  #named(text: string): VfioDevice | number {
    for (const device of this.#group.devices) {
      const matches = device.operations.matches(text);
      if (matches !== false) return matches === true ? device : matches;
    }
    return -ENODEV;
  }

  /** A device may be opened several times; the first open enables it, the last close disables it. */
  #openDevice(device: VfioDevice): VfioDeviceFile | number {
    const group = this.#group;
    if (!group.hasIommu) return -EINVAL;
    const opened = device.fileOpened();
    if (opened < 0) return opened;
    if (device.openCount === 0) {
      const result = group.iommufd !== null ? openOnIommufd(device, group.iommufd) : openInContainer(device, group);
      if (result < 0) {
        device.fileClosed();
        return result;
      }
    }
    device.openCount++;
    return new VfioDeviceFile(`anon_inode:[vfio-device]${device.name}`, device, true, () => deviceClosed(device));
  }

  protected override release(): void {
    this.#group.fileReleased();
    this.#live.destroyed("vfio group file");
  }
}

function deviceClosed(device: VfioDevice): void {
  if (--device.openCount > 0) return;
  if (device.bound !== null) {
    device.close();
  } else {
    device.disable();
    device.group.unuseContainer();
  }
}

function openInContainer(device: VfioDevice, group: VfioGroup): number {
  const used = group.useContainer();
  if (used === 0) device.enable();
  return used;
}

/** Binds the device to the context and attaches it to the compatibility IOAS (vfio_iommufd_compat_attach_ioas). */
function openOnIommufd(device: VfioDevice, context: IommufdContext): number {
  const id = device.open(context);
  if (id < 0) return id;
  device.openCount = 0;
  const ioas = compatibilityIoasId(context);
  const attached = ioas < 0 ? ioas : device.attach(NO_PASID, ioas);
  if (attached < 0) device.close();
  return attached < 0 ? attached : 0;
}

/** A name from user space, up to its zero byte: -EINVAL when that does not come within a page. */
function readName(call: CallContext, argument: bigint): string | number {
  const byte = new Uint8Array(1);
  let name = "";
  for (let i = 0; i < NAME_BYTES; i++) {
    if (readBytes(call, argument + BigInt(i), byte) < 0) return -EFAULT;
    if (byte[0] === 0) return name;
    name += String.fromCharCode(byte[0]!);
  }
  return -EINVAL;
}
