// What a run amounted to: one object, printed as text or as JSON (`--report json`).

export interface DeviceIds {
  readonly guestBdf: string;
  readonly guestDeviceId: number;
  readonly hostBdf: string;
  readonly hostDeviceId: number;
  /** null: the machine has no vIOMMU. */
  readonly viommu: string | null;
}

/** What the VMM and its host counted in a run. */
export interface RunCounters {
  /** The guest's commands by kind. */
  readonly commands: Readonly<Record<string, number>>;
  /** System calls of the VMM's by request. */
  readonly ioctls: Readonly<Record<string, number>>;
  readonly ids: readonly DeviceIds[];
  /** Contexts installed with V = 1 and a first stage other than Bare. */
  readonly nestedDomains: number;
  /** Contexts installed with V = 1 and a Bare first stage. */
  readonly bypassDomains: number;
  readonly dma: {
    readonly transfers: number;
    readonly bytes: number;
    readonly aborted: number;
    readonly messages: number;
  };
  /** Fault records written for the guest. */
  readonly faults: number;
}

export interface RunSummary extends RunCounters {
  readonly result: "pass" | "failed" | "fault" | "time-limit";
  /** Exit status of the guest, where it has one; or why it ended. */
  readonly detail: string;
  readonly traps: number;
  readonly virtualNs: number;
  readonly wallMs: number;
  /** Instructions executed, for machines that count them. */
  readonly instructions?: number;
  /** The machine at the end, or the part of it that was asked for. */
  readonly inspect?: unknown;
}

const count = (value: number): string => value.toLocaleString("en-US");

function byKind(counts: Readonly<Record<string, number>>): string {
  const entries = Object.entries(counts).filter(([, times]) => times > 0);
  if (entries.length === 0) return "none";
  return entries.map(([name, times]) => `${name} ${count(times)}`).join(", ");
}

/** Columns that the rows' names take. */
export const SUMMARY_INDENT = 11;

/** The summary as text: names and values. */
export function summaryRows(summary: RunSummary): [name: string, value: string][] {
  const { dma } = summary;
  const rows: [string, string][] = [
    ["result", summary.detail === "" ? summary.result : `${summary.result}: ${summary.detail}`],
    ["traps", count(summary.traps)],
    ["commands", byKind(summary.commands)],
    ["ioctls", byKind(summary.ioctls)],
    ...summary.ids.map((ids): [string, string] => [
      "device id",
      `guest ${ids.guestBdf} (0x${ids.guestDeviceId.toString(16)}) -> host ${ids.hostBdf} (0x${ids.hostDeviceId.toString(16)}), ${ids.viommu ?? "no vIOMMU"}`,
    ]),
    ["stage 1s", `${count(summary.nestedDomains)} nested, ${count(summary.bypassDomains)} bypass`],
    [
      "DMA",
      `${count(dma.transfers)} transfers, ${count(dma.bytes)} bytes, ${count(dma.messages)} MSIs, ${count(dma.aborted)} aborted`,
    ],
    ["faults", `${count(summary.faults)} delivered to the guest`],
    ["time", `${(summary.virtualNs / 1e6).toFixed(3)} ms virtual, ${(summary.wallMs / 1000).toFixed(2)} s wall`],
  ];
  if (summary.instructions !== undefined) {
    const mips = summary.instructions / 1000 / Math.max(1, summary.wallMs);
    rows.push(["vCPU", `${count(summary.instructions)} instructions, ${mips.toFixed(0)} million a second`]);
  }
  return rows;
}
