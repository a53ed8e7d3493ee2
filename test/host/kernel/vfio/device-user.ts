// A user of a machine's device 0108: its cdev open, with or without a bound iommufd.
import { expect } from "vitest";
import { type MachineOptions, machine, name } from "../machine.ts";

export const RID = 0x0108;

/** The device's cdev open and an iommufd, not bound; `end()` ends the process and looks for what it left. */
export function open(options: MachineOptions = {}) {
  const host = machine(options);
  host.assign();
  const user = host.user();
  const iommufd = user.iommufd();
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, iommufd, vfio, end };
}

/** As `open`, bound: `device` is its id. */
export function bound(options: MachineOptions = {}) {
  const parts = open(options);
  const device = parts.user.bind(parts.vfio, parts.iommufd);
  expect(device).toBeGreaterThan(0);
  return { ...parts, device };
}
