// A little of `nestbox fuzz recording` in every test run, and that what it changes is something that can be replayed.

import { describe, expect, it } from "vitest";
import { ReplayDifference } from "../../host/adapters/recording/expected-records.ts";
import { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import { JsonLinesSink } from "../../host/base/trace-json.ts";
import { replayHost } from "../../vmm/cli/record-host.ts";
import { putTogether, takeApart } from "../host/adapters/recording/container.ts";
import { pretendRun } from "./recording/pretend-run.ts";
import { ending, fuzzer } from "./recording.ts";

function traceOf(recording: Buffer): string {
  let text = "";
  const sink = new JsonLinesSink((piece) => {
    text += piece;
  });
  replayHost(RecordingReader.of("recording", recording), { sinks: [sink], say: () => {} });
  sink.end();
  return text;
}

describe("a recording", () => {
  it("of a script of messages gives its trace again, with DMA, faults, interrupts and what was injected", () => {
    const { recording, trace } = pretendRun();
    expect(traceOf(recording)).toBe(trace);
    for (const what of [/"type":"dma".*"result":"ok"/, /"result":"aborted"/, /"type":"irq"/, /"type":"injection"/]) {
      expect(trace).toMatch(what);
    }
  });

  it("whose answers to a program were changed differs at the first of them", () => {
    const parts = takeApart(pretendRun().recording);
    const records = Buffer.concat(parts.chunks);
    // The last answer that succeeded: RSP, sequence number, result 0.
    const answer = records.lastIndexOf(Buffer.from("2000000011000000", "hex"));
    expect(answer).toBeGreaterThan(0);
    records.writeInt32LE(-5, answer + 12);
    const changed = putTogether({ ...parts, chunks: [records] });
    expect(() => traceOf(changed)).toThrow(ReplayDifference);
    expect(() => traceOf(changed)).toThrow(
      /^record \d+, while (IOCTL 0x3b\w\w of descriptor 7|READ|WRITE) is handled: its answer is -?\d+, the recorded one -?\d+$/,
    );
  });

  it("that is hostile ends in a line", async () => {
    const ends = new Set<string>();
    for (let seed = 1; seed <= 60; seed++) {
      const finding = await fuzzer.round(seed, (what) => ends.add(what.replace(/^.*: /, "")));
      expect(finding).toBeNull();
    }
    expect([...ends].sort()).toEqual(["differs", "refused", "replayed"]);
  });

  it("is what the fuzzer begins from", () => {
    expect(ending(pretendRun().recording)).toBe("replayed");
  });
});
