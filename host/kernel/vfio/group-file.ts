// An open VFIO group, /dev/vfio/$GROUP (Linux: vfio/group.c): it enters a container - a real one, or an iommufd acting as one - and
// then gives out its devices.
//
//     SET_CONTAINER   container: the group is claimed at once (EPERM).   iommufd: only a compatibility IOAS is made
//     GET_DEVICE_FD   container: needs SET_IOMMU.                         iommufd: the device is bound and attached (EPERM now)
//     close           leaves the container; device files hold a reference, so it never runs under an open device

import { NO_PASID } from "../../devices/ports.ts";
import { EBADFD, EBUSY, EFAULT, EINVAL, ENODEV, ENOTTY } from "../../uapi/errno.ts";
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
import { type IommufdContext, IommufdFile } from "../iommufd/context.ts";
import { compatibilityIoasId, createCompatibilityIoas } from "../iommufd/in-kernel.ts";
import type { LiveObjects } from "../live-objects.ts";
import { type VfioContainer, VfioContainerFile } from "./container.ts";
import type { VfioDevice } from "./device.ts";
import { VfioDeviceFile } from "./device-file.ts";
import type { VfioGroup } from "./group.ts";
import { readBytes, readRequest, writeBytes } from "./user-request.ts";

type GroupContainer =
  | { readonly kind: "container"; readonly container: VfioContainer; readonly file: VfioContainerFile }
  | { readonly kind: "iommufd"; readonly context: IommufdContext };

/** Device names longer than this are no names. */
const NAME_BYTES = 256;

export class VfioGroupFile extends OpenFile {
  readonly path: string;
  readonly #group: VfioGroup;
  readonly #live: LiveObjects;
  #container: GroupContainer | null = null;
  /** Open device files made by this group. */
  #devicesOpen = 0;

  constructor(path: string, group: VfioGroup, live: LiveObjects) {
    super();
    this.path = path;
    this.#group = group;
    this.#live = live;
    group.opened = true;
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
        return this.#unsetContainer();
      case VFIO_GROUP_GET_DEVICE_FD:
        return this.#deviceFd(call, argument);
      default:
        return -ENOTTY;
    }
  }

  #status(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioGroupStatus);
    if (typeof request === "number") return request;
    const set = VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE;
    const viable = this.#group.iommuGroup.ownerCount === 0 ? VFIO_GROUP_FLAGS_VIABLE : 0;
    const flags = this.#container !== null ? set : viable;
    return writeBytes(call, argument, vfioGroupStatus.encode({ argsz: request.size, flags }));
  }

  #setContainer(call: CallContext, argument: bigint): number {
    const bytes = new Uint8Array(4);
    if (readBytes(call, argument, bytes) < 0) return -EFAULT;
    const fd = new DataView(bytes.buffer).getInt32(0, true);
    if (fd < 0) return -EINVAL;
    const file = call.descriptors.lookup(fd);
    if (typeof file === "number") return file;
    if (this.#container !== null) return -EINVAL;
    const { iommuGroup } = this.#group;
    if (iommuGroup.members.length === 0) return -ENODEV;
    if (file instanceof VfioContainerFile) {
      const attached = file.container.attachGroup(iommuGroup, this.#group);
      if (attached < 0) return attached;
      this.#container = { kind: "container", container: file.container, file: file.get() };
      return 0;
    }
    if (!(file instanceof IommufdFile)) return -EBADFD;
    const created = createCompatibilityIoas(file.context);
    if (created < 0) return created;
    file.get();
    this.#container = { kind: "iommufd", context: file.context };
    return 0;
  }

  #unsetContainer(): number {
    if (this.#container === null) return -EINVAL;
    if (this.#devicesOpen > 0) return -EBUSY;
    this.#leave();
    return 0;
  }

  #leave(): void {
    const container = this.#container;
    this.#container = null;
    if (container?.kind === "container") {
      container.container.detachGroup(this.#group.iommuGroup);
      container.file.put();
    } else if (container?.kind === "iommufd") {
      container.context.file.put();
    }
  }

  #deviceFd(call: CallContext, argument: bigint): number {
    const name = readName(call, argument);
    if (typeof name === "number") return name;
    const device = [...this.#group.devices].find((known) => known.name === name);
    if (device === undefined) return -ENODEV;
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

  /** A device may be opened several times; the first open enables it, the last close disables it. */
  #openDevice(device: VfioDevice): VfioDeviceFile | number {
    const container = this.#container;
    if (container === null) return -EINVAL;
    if (container.kind === "container" && !container.container.ready) return -EINVAL;
    const opened = device.fileOpened();
    if (opened < 0) return opened;
    if (device.openCount === 0) {
      const result = container.kind === "iommufd" ? openOnIommufd(device, container.context) : 0;
      if (result < 0) {
        device.fileClosed();
        return result;
      }
      if (container.kind === "container") device.enable();
    }
    device.openCount++;
    this.#devicesOpen++;
    this.get();
    return new VfioDeviceFile(`anon_inode:[vfio-device]${device.name}`, device, true, () => this.#deviceClosed(device));
  }

  #deviceClosed(device: VfioDevice): void {
    this.#devicesOpen--;
    if (--device.openCount === 0) {
      if (device.bound !== null) device.close();
      else device.disable();
    }
    this.put();
  }

  protected override release(): void {
    this.#leave();
    this.#group.opened = false;
    this.#live.destroyed("vfio group file");
  }
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

/** A name from user space, up to its zero byte. */
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
