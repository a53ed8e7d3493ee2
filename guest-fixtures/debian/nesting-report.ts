// What a trace says of an assigned function whose guest has a stage 1 of its own: the structures as the guest wrote them, and every DMA of the function as the host's hardware saw it.

import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

export interface NestingReport {
  /** First doubleword of the stream table entry and of the context descriptor, as the guest wrote them; null: never read. */
  readonly streamTableEntry: string | null;
  readonly contextDescriptor: string | null;
  /** DMAs of the function at the host's hardware, its messages included. */
  readonly dmas: number;
  readonly refused: number;
  /** Of these, before the function was first attached to a nested domain. */
  readonly beforeNesting: number;
  /** What the function was attached to, in order. */
  readonly domains: readonly string[];
}

interface TraceEvent {
  readonly type?: string;
  readonly where?: string;
  readonly table?: string;
  readonly entry?: string;
  readonly deviceId?: number;
  readonly device?: string;
  readonly result?: string;
  readonly domain?: string;
}

/** `hostName`: the function at the host; `guestId`: its id at the guest's IOMMU. */
export async function nestingReport(trace: string, hostName: string, guestId: number): Promise<NestingReport> {
  let streamTableEntry: string | null = null;
  let contextDescriptor: string | null = null;
  let dmas = 0;
  let refused = 0;
  let beforeNesting = 0;
  const domains: string[] = [];
  for await (const line of createInterface({ input: createReadStream(trace) })) {
    const event = JSON.parse(line) as TraceEvent;
    if (event.type === "walk" && event.where === "guest" && event.deviceId === guestId) {
      if (event.table === "STE") streamTableEntry = event.entry ?? null;
      else if (event.table === "CD") contextDescriptor = event.entry ?? null;
    } else if (event.type === "dma" && event.device === hostName) {
      dmas++;
      if (event.result !== "ok" && event.result !== "msi") refused++;
    } else if (event.type === "attach" && event.device === hostName && event.domain !== undefined) {
      domains.push(event.domain);
      if (event.domain === "nested" && !domains.slice(0, -1).includes("nested")) beforeNesting = dmas;
    }
  }
  return { streamTableEntry, contextDescriptor, dmas, refused, beforeNesting, domains };
}
