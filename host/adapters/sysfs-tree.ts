// The device nodes and the sysfs of a served host as real files below a folder: what programs list, resolve and read is there; what they open
// as a device is the server's (shim/paths.c). A node is a file with its device number, as in sysfs: "511:0".
//
//     dev/iommu  dev/vfio/vfio  dev/vfio/GROUP  dev/vfio/devices/vfioN
//     sys/bus/pci/devices/BDF → ../../../devices/pciDDDD:BB/BDF           (as Linux has it: links into sys/devices)
//     sys/kernel/iommu_groups/GROUP/devices/BDF   sys/class/iommu/NAME   sys/class/vfio-dev/vfioN   sys/bus/pci/drivers/vfio-pci/BDF   sys/bus/platform/devices/NAME

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { ServedDevice, ServedHost } from "./served-host.ts";

/** Lays the tree out below `root`. */
export function writeSysfs(root: string, host: ServedHost): void {
  const tree = new Tree(root);
  for (const path of host.nodes) tree.file(path, `${text(host.deviceNumber(path))}\n`);
  tree.folder("/sys/bus/pci/devices");
  tree.folder("/sys/kernel/iommu_groups");
  for (const device of host.devices) writeDevice(tree, device);
}

function text(number: number): string {
  return `${number >>> 20}:${number & 0xfffff}`;
}

class Tree {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  folder(path: string): string {
    const place = join(this.#root, path);
    mkdirSync(place, { recursive: true });
    return place;
  }

  file(path: string, content: string | Uint8Array): void {
    this.folder(dirname(path));
    writeFileSync(join(this.#root, path), content);
  }

  link(path: string, target: string): void {
    this.folder(dirname(path));
    symlinkSync(relative(dirname(path), target), join(this.#root, path));
  }
}

function writeDevice(tree: Tree, device: ServedDevice): void {
  const { name, pci, driver, group, iommu, vfio } = device;
  const bus = pci === null ? "/sys/bus/platform" : "/sys/bus/pci";
  const folder = `/sys/devices/${pci === null ? "platform" : `pci${name.slice(0, 7)}`}/${name}`;
  if (pci !== null) writeFunction(tree, folder, device.driver ?? "", name, pci);
  tree.file(`${folder}/numa_node`, "-1\n");
  tree.file(`${folder}/driver_override`, "(null)\n");
  tree.link(`${bus}/devices/${name}`, folder);
  tree.link(`${folder}/subsystem`, bus);
  if (driver !== null) {
    tree.link(`${bus}/drivers/${driver}/${name}`, folder);
    tree.link(`${folder}/driver`, `${bus}/drivers/${driver}`);
  }
  if (group !== null) {
    tree.link(`/sys/kernel/iommu_groups/${group}/devices/${name}`, folder);
    tree.link(`${folder}/iommu_group`, `/sys/kernel/iommu_groups/${group}`);
  }
  if (iommu !== null) {
    tree.folder(`/sys/class/iommu/${iommu}/devices`);
    tree.link(`/sys/class/iommu/${iommu}/devices/${name}`, folder);
    tree.link(`${folder}/iommu`, `/sys/class/iommu/${iommu}`);
  }
  if (vfio !== null) {
    const node = `${folder}/vfio-dev/vfio${vfio}`;
    tree.file(`${node}/dev`, `511:${vfio}\n`);
    tree.link(`${node}/device`, folder);
    tree.link(`/sys/class/vfio-dev/vfio${vfio}`, node);
  }
}

function writeFunction(
  tree: Tree,
  folder: string,
  driver: string,
  name: string,
  { config, bars }: NonNullable<ServedDevice["pci"]>,
): void {
  const view = new DataView(config.buffer, config.byteOffset, config.length);
  const write = (file: string, line: string): void => tree.file(`${folder}/${file}`, `${line}\n`);
  const half = (at: number): string => `0x${view.getUint16(at, true).toString(16).padStart(4, "0")}`;
  const classCode = (view.getUint32(8, true) >>> 8).toString(16).padStart(6, "0");
  write("vendor", half(0));
  write("device", half(2));
  write("subsystem_vendor", half(0x2c));
  write("subsystem_device", half(0x2e));
  write("class", `0x${classCode}`);
  write("revision", `0x${config[8]!.toString(16).padStart(2, "0")}`);
  write("irq", "0");
  write("enable", "0");
  const id = (at: number): string => view.getUint16(at, true).toString(16).toUpperCase().padStart(4, "0");
  const lines = [`DRIVER=${driver}`, `PCI_CLASS=${classCode.toUpperCase()}`, `PCI_ID=${id(0)}:${id(2)}`];
  write("uevent", [...lines, `PCI_SLOT_NAME=${name}`].join("\n"));
  tree.file(`${folder}/config`, config);
  const hex = (value: bigint): string => `0x${value.toString(16).padStart(16, "0")}`;
  const resources = bars.map(
    ({ base, bytes, flags }) => `${hex(base)} ${hex(bytes === 0n ? 0n : base + bytes - 1n)} ${hex(flags)}`,
  );
  write("resource", resources.join("\n"));
}
