// Tables that several commands print: who is who, and what a guest-visible IOMMU offers.

import Table from "cli-table3";
import { hex } from "../../host/base/address.ts";
import type { IdRow } from "../view/ids.ts";
import type { CapabilitySheet } from "../viommu/kind.ts";
import { fitted, widthOf } from "./terminal.ts";

/** Columns of a table's last column, at the least. */
const NARROWEST = 12;

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

/** A table; on a terminal its last column is as wide as there is room for, and its texts are broken between words. */
function tableText(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)) + 2);
  const last = widths.length - 1;
  const before = widths.slice(0, last).reduce((sum, width) => sum + width, 0) + widths.length + 1;
  widths[last] = Math.max(NARROWEST, Math.min(widths[last]!, widthOf(process.stdout) - before));
  const table = new Table({ head: [...head], style: { head: [], border: [] }, colWidths: widths, wordWrap: true });
  for (const row of rows) table.push([...row]);
  return table.toString();
}
