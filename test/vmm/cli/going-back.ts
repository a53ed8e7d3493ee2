// That one event back, from anywhere, a replayed machine is what it was on its way forward: at random events of a recording.

import { SeededRandom } from "../../../host/base/seeded-random.ts";
import { differences, lead } from "./scripted-replay.ts";

export interface GoneBack {
  /** Events from which it went back, and how often that needed a checkpoint. */
  readonly compared: number;
  readonly moves: number;
  /** The first differences, a line each. */
  readonly problems: readonly string[];
}

/** Number of the last event that the guest itself has brought, in a trace. */
export function lastOf(trace: string): number {
  const line = trace
    .trimEnd()
    .split("\n")
    .findLast((text) => text.includes('"type":"mmio"'));
  return (JSON.parse(line!) as { readonly seq: number }).seq;
}

/** Goes forward to `count` random events up to `last`, then, in another order, to the event behind each and one back. */
export async function goBack(recording: string, last: number, count: number, seed: number): Promise<GoneBack> {
  const random = new SeededRandom(seed);
  const forward = new Map<number, ReadonlyMap<string, string>>();
  const problems: string[] = [];
  let [compared, moves] = [0, 0];
  await lead(recording, function* (standing) {
    const first = standing.event;
    const events = new Set<number>();
    // Half of them where such a guest is done with finding its devices.
    for (let n = 0; events.size < Math.min(count, (last - first) / 4); n++) {
      const earliest = n % 2 === 0 ? first : Math.max(first, last - 600);
      events.add(earliest + 1 + random.below(last - earliest - 1));
    }
    for (const event of [...events].sort((a, b) => a - b)) {
      yield event;
      forward.set(standing.event, standing.state());
    }
    const froms = [...forward.keys()].map((event) => ({ event, order: random.below(2 ** 32) }));
    for (const { event } of froms.sort((a, b) => a.order - b.order)) {
      yield event + 1;
      const before = standing.moves;
      // `back 1`: the event before the last that has happened.
      for (let from = standing.event; standing.event > event; from--) yield from - 1;
      moves += standing.moves - before;
      compared++;
      const wrong = differences(forward.get(event)!, standing.state());
      if (standing.event !== event) problems.push(`back to event ${event} it stands at ${standing.event}`);
      else if (wrong.length > 0) problems.push(`back at event ${event} ${wrong.slice(0, 5).join(", ")} differ`);
      if (problems.length > 4) return;
    }
  });
  return { compared, moves, problems };
}
