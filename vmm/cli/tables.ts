// Tables that several commands print: who is who, and what a guest-visible IOMMU offers.

import { hex } from "../../host/base/address.ts";
import type { IdRow } from "../view/ids.ts";
import type { CapabilitySheet } from "../viommu/kind.ts";
import { fitted, tableText } from "./terminal.ts";

export function identityTable(rows: readonly IdRow[]): string {
  const head = ["guest", "guest id", "vDEVICE", "vIOMMU", "host", "host id", "group"];
  const cells = rows.map((row) => {
    const host = row.hostDeviceId === null ? "no DMA seen" : hex(row.hostDeviceId);
    const guest = [row.guestBdf, row.guestDeviceId === null ? null : hex(row.guestDeviceId), row.vdevice, row.viommu];
    const names = [...guest.map((name) => String(name ?? "-")), row.hostBdf, host];
    return [...names, String(row.group ?? "?")];
  });
  return tableText(head, cells);
}

export interface NamedSheet {
  readonly viommu: string;
  /** Host's name of the IOMMU under it. */
  readonly host: string | null;
  /** Registers' values, in hex. */
  readonly registers: Readonly<Record<string, string>>;
  readonly rows: CapabilitySheet["rows"];
}

export function capabilityTable({ viommu, host, registers, rows }: NamedSheet): string {
  const values = Object.entries(registers).map(([register, value]) => `${register} ${value}`);
  // Bits say little by themselves where there are several registers.
  const several = rows.some(({ register }) => register !== undefined);
  const cells = rows.map((row) => {
    const bits = row.high === row.low ? String(row.low) : `${row.high}:${row.low}`;
    const cell = [bits, row.name, String(row.host ?? "-"), String(row.guest), row.rule];
    return several ? [row.register ?? "", ...cell] : cell;
  });
  const head = ["bits", "name", "host", "guest", "rule"];
  const title = fitted(`${viommu}, over ${host}: ${values.join(", ")}`);
  return `${title}\n${tableText(several ? ["register", ...head] : head, cells)}`;
}
