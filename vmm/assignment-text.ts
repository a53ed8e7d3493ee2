// "HOST-BDF@GUEST-BDF[/NAME]": how a person writes which host device goes where, on the command line and in scenarios alike.

import { type PciPlace, parsePlace } from "./pci/host-bridge.ts";

export interface WrittenAssignment {
  /** As written; the domain may be left out. */
  readonly hostBdf: string;
  readonly place: PciPlace;
  /** Name of the vIOMMU it is put behind; left out: the one named after its own IOMMU. */
  readonly viommu?: string;
}

/** What is expected, for messages. */
export const ASSIGNMENT_FORM =
  "expected HOST-BDF@GUEST-BDF, such as 0000:00:01.0@00:02.0 (00:03.0/00.0: behind a root port; /NAME at the end: behind a vIOMMU of that name)";

/** Undefined if the text is no assignment. A NAME begins with a letter, which tells it from a place behind a root port. */
export function parseAssignment(text: string): WrittenAssignment | undefined {
  const match = /^([^@\s]+)@([0-9a-f:.]+(?:\/[01][0-9a-f]\.[0-7])?)(?:\/([a-z][a-z0-9_-]*))?$/i.exec(text);
  const place = match === null ? undefined : parsePlace(match[2]!);
  if (match === null || place === undefined) return undefined;
  const viommu = match[3];
  return { hostBdf: match[1]!, place, ...(viommu === undefined ? {} : { viommu }) };
}
