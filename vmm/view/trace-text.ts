// Trace events in plain words, one line each: what a failing scenario prints of its last causes.

import { hex } from "../../host/base/address.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import { errnoName } from "../../host/uapi/errno.ts";

/** "+12.3 us  device 0x8 reads 0x1000: aborted". */
export function eventText(event: TracedEvent): string {
  return `${(event.time / 1000).toFixed(1).padStart(9)} us  ${bodyText(event)}`;
}

/** The same without the time. */
export function bodyText(event: TracedEvent): string {
  switch (event.type) {
    case "mmio": {
      const where = `${event.device} ${event.register ?? `+${hex(event.offset)}`}`;
      return event.write
        ? `guest stores ${hex(event.value)} to ${where}`
        : `guest loads ${hex(event.value)} from ${where}`;
    }
    case "store":
      return `guest stores ${hex(event.value)} to its RAM at ${hex(event.address)}`;
    case "step":
      return `step: ${event.name}`;
    case "command":
      return `${event.where === "guest" ? "guest's" : "hardware's"} command: ${event.text}`;
    case "ioctl":
      return `${event.process} calls ${event.name}: ${event.result < 0 ? errnoName(event.result) : event.result}`;
    case "attach":
      return `host ${event.device}: ${event.domain} (${event.detail})`;
    case "group": {
      const says = {
        none: "have no context",
        one: "have one context",
        differ: "have contexts that differ: all blocked",
      };
      const withheld = event.withheld === "" ? "" : `, ${event.withheld} kept from DMA`;
      return `${event.iommu}: ${event.devices} of ${event.group} ${says[event.contexts]}${withheld}`;
    }
    case "walk":
      return `${event.iommu} loads ${event.table} level ${event.level} at ${event.space} ${hex(event.address)}: ${hex(event.entry)}`;
    case "dma": {
      const verb = event.write ? "writes" : "reads";
      const to = event.spa === undefined ? "" : ` -> ${hex(event.spa)}`;
      return `${event.device} ${verb} ${event.length} bytes at IOVA ${hex(event.iova)}${to}: ${event.result}`;
    }
    case "fault":
      return `fault (${event.where}): ${event.text}`;
    case "injection":
      return `made to fail: ${event.point} ${event.name} (${event.rule})`;
    case "irq":
      return `interrupt (${event.where}): ${event.source} ${event.vector}`;
  }
}

/** The last event and its causes, oldest first; then what happened last, up to `count` lines in all. */
export function lastCauses(events: readonly TracedEvent[], count: number): string[] {
  const bySeq = new Map(events.map((event) => [event.seq, event]));
  const chain: TracedEvent[] = [];
  // Walk loads are many and say little here; the rest tells the story.
  const telling = events.filter((event) => event.type !== "walk");
  let next: TracedEvent | undefined = telling.at(-1);
  while (next !== undefined && chain.length < count) {
    chain.unshift(next);
    next = bySeq.get(next.cause);
  }
  const rest = telling.filter((event) => !chain.includes(event)).slice(-Math.max(0, count - chain.length));
  return [...rest, ...chain].sort((a, b) => a.seq - b.seq).map(eventText);
}
