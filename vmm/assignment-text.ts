// "HOST@GUEST[/NAME]": how a person writes which host device goes where, on the command line and in scenarios alike. A PCI function goes to a
// guest BDF, a platform device to an id at the guest's IOMMU: "0000:00:01.0@00:02.0", "edu0@0x400".

import { formatDeviceId } from "./assignment-request.ts";
import { formatPlace, type PciPlace, parsePlace } from "./pci/host-bridge.ts";

export interface WrittenAssignment {
  /** As written; of a PCI function the domain may be left out. */
  readonly hostName: string;
  /** The guest's: a place on its PCI bus, or the id of a platform device. */
  readonly place: PciPlace | { readonly guestId: number };
  /** Name of the vIOMMU it is put behind; left out: the one named after its own IOMMU. */
  readonly viommu?: string;
}

/** What is expected, for messages. */
export const ASSIGNMENT_FORM =
  "expected HOST-BDF@GUEST-BDF, such as 0000:00:01.0@00:02.0 (00:03.0/00.0: behind a root port), or of a platform device HOST-NAME@0xID, such as edu0@0x400 (/NAME at the end: behind a vIOMMU of that name)";

/** Ids of platform devices lie below (assignment.ts: HELD_IDS and up are devices that are held). */
const MOST_GUEST_ID = 0x7f_ffff;

/** Undefined if the text is no assignment. A NAME begins with a letter, which tells it from a place behind a root port. */
export function parseAssignment(text: string): WrittenAssignment | undefined {
  const match = /^([^@\s]+)@(0x[0-9a-f]+|[0-9a-f:.]+(?:\/[01][0-9a-f]\.[0-7])?)(?:\/([a-z][a-z0-9_-]*))?$/i.exec(text);
  if (match === null) return undefined;
  const [, hostName, where, viommu] = match as unknown as [string, string, string, string | undefined];
  const place = /^0x/i.test(where) ? guestIdPlace(where) : parsePlace(where);
  if (place === undefined) return undefined;
  return { hostName, place, ...(viommu === undefined ? {} : { viommu }) };
}

function guestIdPlace(text: string): { readonly guestId: number } | undefined {
  const guestId = Number.parseInt(text, 16);
  return guestId <= MOST_GUEST_ID ? { guestId } : undefined;
}

/** The text is about a platform device, as far as one can tell. */
export function isOnPlatform(text: string): boolean {
  const written = parseAssignment(text);
  return written !== undefined && "guestId" in written.place;
}

/** "00:02.0", "0x400". */
export function formatGuestPlace(place: WrittenAssignment["place"]): string {
  return "guestId" in place ? formatDeviceId(place.guestId) : formatPlace(place);
}

/** Why a device of a host's bus cannot go where it is written to go; null: it can. */
export function misplaced(name: string, bus: "pci" | "platform", place: WrittenAssignment["place"]): string | null {
  if (bus === "platform" && !("guestId" in place)) {
    return `${name} is on no bus: say which id it has at the guest's IOMMU, such as ${name}@0x400`;
  }
  if (bus === "pci" && "guestId" in place)
    return `${name} is a PCI function: say where on the guest's bus, such as ${name}@00:02.0`;
  return null;
}
