// `nestbox fuzz recording`: recordings that are not as they were written. One whose bytes were changed is refused. One whose content was changed, with a hash that is right
// and headers, records and answers of somebody else's choosing, is replayed to some end: an outcome, a difference, or a refusal, each a line; nothing
// else may be thrown, and nothing may go on for ever.

import { ReplayDifference } from "../../host/adapters/recording/expected-records.ts";
import { RecordingError } from "../../host/adapters/recording/recording-format.ts";
import { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import type { Count, Finding, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { replayHost } from "../../vmm/cli/record-host.ts";
import { type Parts, putTogether, takeApart } from "../host/adapters/recording/container.ts";
import { pretendRun } from "./recording/pretend-run.ts";

let original: Buffer | null = null;

/** Numbers that mean something, or nearly. */
const EDGES = [0, 1, 2, 3, 7, 8, 16, 18, 20, 48, 63, 64, 0x7f, 0x80, 0xfe, 0xff];

/** A recording that has been tampered with. */
export function mutated(seed: number): { readonly bytes: Buffer; readonly what: string } {
  original ??= pretendRun().recording;
  const random = new SeededRandom(seed);
  const kind = random.below(10);
  if (kind === 0) {
    const bytes = Buffer.from(original);
    bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
    return { bytes, what: "changed" };
  }
  if (kind === 1) return { bytes: original.subarray(0, random.below(original.length)), what: "cut short" };
  const parts = takeApart(original);
  if (kind === 2) return { bytes: putTogether(withHeader(parts, random)), what: "another header" };
  const records = Buffer.concat(parts.chunks);
  const times = 1 + random.below(4);
  let changed: Buffer = records;
  for (let i = 0; i < times; i++) changed = changeRecords(changed, random);
  const cut = random.below(4) === 0 ? random.below(changed.length) : 0;
  const chunks = [changed.subarray(0, cut), changed.subarray(cut)].filter(({ length }) => length > 0);
  return { bytes: putTogether({ ...parts, chunks }), what: "other records" };
}

/** Pieces left out, doubled, or of other bytes. */
export function changeRecords(records: Buffer, random: SeededRandom): Buffer {
  const at = random.below(records.length);
  const piece = records.subarray(at, at + random.below(64));
  const other = random.below(records.length);
  switch (random.below(5)) {
    case 0:
      return Buffer.concat([records.subarray(0, at), records.subarray(at + piece.length)]);
    case 1:
      return Buffer.concat([records.subarray(0, other), piece, records.subarray(other)]);
    case 2: {
      const changed = Buffer.from(records);
      changed[at] = EDGES[random.below(EDGES.length)]!;
      return changed;
    }
    case 3: {
      const changed = Buffer.from(records);
      for (let i = at; i < Math.min(at + 9, changed.length); i++) changed[i] = random.below(256);
      return changed;
    }
    default: {
      const changed = Buffer.from(records);
      changed[at]! ^= 1 << random.below(8);
      return changed;
    }
  }
}

/** A header with one of its characters, or one of its values, changed. */
function withHeader(parts: Parts, random: SeededRandom): Parts {
  const header = Buffer.from(parts.header);
  if (random.below(2) === 0) {
    header[random.below(header.length)] = 0x20 + random.below(0x5f);
    return { ...parts, header };
  }
  const document = JSON.parse(header.toString());
  const values = [null, -1, 1e300, "", "x", [], {}, true, 0.5, [null], { file: "/etc/passwd" }];
  const names = Object.keys(document.run);
  const target = random.below(3) === 0 ? document : document.run;
  target[random.below(3) === 0 ? "host" : names[random.below(names.length)]!] = values[random.below(values.length)];
  if (typeof document.run?.host === "object" && random.below(2) === 0) {
    const device = document.run.host?.devices?.[random.below(2)];
    if (device != null) device[Object.keys(device)[random.below(3)]!] = values[random.below(values.length)];
  }
  return { ...parts, header: Buffer.from(JSON.stringify(document)) };
}

/** How a replay ends: a word. What is none of them is thrown. */
export function ending(bytes: Buffer): "refused" | "differs" | "replayed" {
  try {
    const reader = RecordingReader.of("recording", bytes);
    replayHost(reader, { sinks: [{ event: () => {} }], say: () => {} });
    return "replayed";
  } catch (error) {
    if (error instanceof RecordingError || error instanceof ReplayDifference) {
      if (error.message === "" || /\n/.test(error.message)) throw new Error(`not one line: ${error.message}`);
      return error instanceof RecordingError ? "refused" : "differs";
    }
    throw error;
  }
}

function round(seed: number, count: Count): Finding | null {
  const { bytes, what } = mutated(seed);
  const end = ending(bytes);
  count(`${what}: ${end}`, 1);
  if ((what === "changed" || what === "cut short") && end !== "refused")
    return { problem: `a recording that is ${what} was ${end}` };
  return null;
}

export const fuzzer: Fuzzer = {
  about:
    "recordings with other bytes, records and headers than were written: each is refused, differs or is replayed, in a line",
  round,
};
