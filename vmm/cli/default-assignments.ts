// What a machine is given where nobody says: two devices of the host's, ids crossed over between host and guest, so that a mix-up of the
// two fails. edu devices before others, for the default guest drives those; never one that shares its iommu group.

import type { HostDescription } from "../../host/description.ts";
import { iommuGroups } from "../../host/description.ts";

const GUEST_PLACES = ["00:02.0", "00:01.0"];

/** "HOST-BDF@GUEST-BDF", at most two, behind one IOMMU. */
export function defaultAssignments(host: HostDescription): string[] {
  const alone = new Set(iommuGroups(host).flatMap(({ devices }) => (devices.length === 1 ? devices : [])));
  const candidates = host.devices.filter(({ bdf }) => alone.has(bdf)).sort((a, b) => (a.bdf < b.bdf ? -1 : 1));
  const behind = host.iommus.map(({ name }) => candidates.filter(({ iommu }) => iommu === name));
  const edu = behind.map((devices) => devices.filter(({ model }) => model === "edu"));
  // The first IOMMU with two edu devices; failing that with two devices; failing that with one.
  const chosen =
    edu.find(({ length }) => length >= 2) ??
    behind.find(({ length }) => length >= 2) ??
    behind.find(({ length }) => length === 1) ??
    [];
  return chosen.slice(0, GUEST_PLACES.length).map(({ bdf }, index) => `${bdf}@${GUEST_PLACES[index]}`);
}

/** Why there is nothing to assign by default, and what would help. */
export function whyNothing(host: HostDescription): string {
  const groups = iommuGroups(host);
  const shared = groups.find(({ devices }) => devices.length > 1);
  if (host.devices.length === 0) return `host ${host.name} has no devices; add some to its description ("devices")`;
  if (groups.length === 0) {
    return `no device of host ${host.name} is behind an IOMMU; add one to its description ("iommus", and "iommu" of the device)`;
  }
  return (
    `every device of host ${host.name} shares its iommu group; assign one with ` +
    `--assign ${shared!.devices[0]}@${GUEST_PLACES[0]} --allow-shared-group`
  );
}
