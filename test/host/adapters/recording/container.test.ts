// Recordings as files: what was written is read, and a file that is not as it was written is refused before any record of it is looked at.

import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RecordingError } from "../../../../host/adapters/recording/recording-format.ts";
import { RecordingReader } from "../../../../host/adapters/recording/recording-reader.ts";
import { RecordingWriter } from "../../../../host/adapters/recording/recording-writer.ts";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { putTogether, takeApart } from "./container.ts";

const HEADER = { kind: "test", version: 7, nestbox: "0.0.1", run: { seed: 3 } };

let folder: string;
let path: string;
const lines: string[] = [];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-recording-"));
  path = join(folder, "a.recording");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Bytes that do not compress. */
function noise(seed: number, length: number): Buffer {
  const random = new SeededRandom(seed);
  return Buffer.from(Array.from({ length }, () => random.below(256)));
}

function small(): Buffer {
  const writer = new RecordingWriter(path, HEADER, (line) => lines.push(line));
  for (const value of [0, 127, 128, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
    writer.begin(9, 5);
    writer.number(value);
    writer.flag(value > 127);
    writer.wide(0xfedc_ba98_7654_3210n);
    writer.double(-0.5);
    writer.bytes(Buffer.from("hello"));
  }
  expect(writer.close({ end: "here" })).toBe(true);
  return readFileSync(path);
}

function refusal(bytes: Buffer): string {
  try {
    RecordingReader.of("file", bytes);
  } catch (error) {
    if (error instanceof RecordingError) return error.message;
    throw error;
  }
  return "taken";
}

describe("a recording", () => {
  it("gives back what was put into it, and is its user's alone", () => {
    small();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const reader = RecordingReader.open(path);
    expect(reader.header).toEqual(HEADER);
    expect(reader.trailer).toMatchObject({ chunks: 1, records: 5, result: { end: "here" } });
    for (const value of [0, 127, 128, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
      expect(reader.next()).toBe(9);
      expect([reader.number(), reader.flag(), reader.wide(), reader.double()]).toEqual([
        ...[value, value > 127, 0xfedc_ba98_7654_3210n, -0.5],
      ]);
      expect(reader.bytes().toString()).toBe("hello");
    }
    expect(reader.next()).toBe(0);
    reader.close();
  });

  it("keeps records of any size whole and in order, compressed or not, faster than they can be compressed", () => {
    const writer = new RecordingWriter(path, HEADER, (line) => lines.push(line));
    const pieces = Array.from({ length: 60 }, (_, i) => [noise(i, 1000 * i), Buffer.alloc(70_000 * i, i)]).flat();
    // All of it in one turn of the event loop, so that no compression has ended meanwhile.
    for (const piece of pieces) {
      writer.begin(1, piece.length);
      writer.bytes(piece);
    }
    writer.close(null);
    const reader = RecordingReader.open(path);
    for (const piece of pieces) {
      reader.next();
      expect(reader.bytes().equals(piece)).toBe(true);
    }
    expect(reader.next()).toBe(0);
    expect(reader.trailer.records).toBe(pieces.length);
    reader.close();
  });

  it("is smaller when it is written in time", async () => {
    const writer = new RecordingWriter(path, HEADER, (line) => lines.push(line));
    for (let i = 0; i < 40; i++) {
      writer.begin(1, 1 << 20);
      writer.bytes(Buffer.alloc(1 << 20, i));
      await new Promise((next) => setTimeout(next, 2));
    }
    writer.close(null);
    expect(statSync(path).size).toBeLessThan(20 << 20);
    const reader = RecordingReader.open(path);
    for (let i = 0; i < 40; i++) {
      reader.next();
      expect(reader.bytes()[77]).toBe(i);
    }
    reader.close();
  });

  it("is found again from the beginning of any of its chunks", () => {
    const writer = new RecordingWriter(path, HEADER, (line) => lines.push(line));
    const chunks = Array.from({ length: 5 }, (_, i) => {
      writer.turn();
      const chunk = writer.chunks;
      for (let j = 0; j <= i; j++) {
        writer.begin(2);
        writer.number(10 * i + j);
      }
      return chunk;
    });
    writer.close(null);
    const reader = RecordingReader.open(path);
    for (const [i, chunk] of chunks.entries()) {
      reader.seek(chunk);
      reader.next();
      expect(reader.number()).toBe(10 * i);
    }
    reader.close();
  });

  it("is what its page says it is", () => {
    const file = small();
    const parts = takeApart(file);
    expect(JSON.parse(parts.header.toString())).toEqual(HEADER);
    expect(parts.chunks).toHaveLength(1);
    // Type; 0; no; the wide; the double -0.5; 5 bytes.
    const wide = "1032547698badcfe";
    expect(parts.chunks[0]!.subarray(0, 25).toString("hex")).toBe(`090000${wide}000000000000e0bf0568656c6c6f`);
    expect(refusal(putTogether(parts))).toBe("taken");
  });

  it("is refused when any byte is missing at its end, or is another", () => {
    const file = small();
    for (let length = 0; length < file.length; length++) {
      expect(refusal(file.subarray(0, length))).toMatch(/cut short|is no recording of nestbox's/);
    }
    for (let at = 0; at < file.length; at++) {
      const other = Buffer.from(file);
      other[at]! ^= 0x10;
      expect(refusal(other)).toMatch(/has been changed|no recording of nestbox's|of version|cut short/);
    }
  });

  it.each([
    [
      "another version",
      (parts: ReturnType<typeof takeApart>) => ({ ...parts, version: 2 }),
      /is a recording of version 2; this/,
    ],
    ["no header", (parts) => ({ ...parts, header: Buffer.from("[") }), /no header/],
    [
      "a header that does not say the kind",
      (parts) => ({ ...parts, header: Buffer.from("{}") }),
      /what it is a recording of/,
    ],
    ["a trailer that says nothing", (parts) => ({ ...parts, trailer: Buffer.from("{}") }), /what it holds/],
  ] as [string, (parts: ReturnType<typeof takeApart>) => ReturnType<typeof takeApart>, RegExp][])(
    "with %s is refused even though its hash is right",
    (_what, change, message) => {
      expect(refusal(putTogether(change(takeApart(small()))))).toMatch(message);
    },
  );

  it.each([
    ["a chunk that says it is longer than the file", [0, 9999, 9999]],
    ["a chunk of nothing", [0, 0, 0]],
    ["a chunk of an unknown codec", [7, 8, 8]],
    ["a chunk that inflates to gigabytes", [1, 0x7fff_ffff, 8]],
    ["a chunk that is not compressed but says so", [1, 9, 8]],
    ["a chunk that compression made larger", [1, 3, 8]],
  ])("with %s is refused when that is reached", (_what, words) => {
    const parts = takeApart(small());
    const whole = putTogether({ ...parts, chunks: [deflateRawSync(Buffer.from([9, 0, 0]), { level: 0 })] });
    const at = 18 + parts.header.length;
    for (const [i, word] of words.entries()) whole.writeUInt32LE(word, at + 4 * i);
    const body = whole.subarray(0, whole.length - 32);
    createHash("sha256").update(body).digest().copy(whole, body.length);
    expect(() => RecordingReader.of("file", whole).next()).toThrow(RecordingError);
  });

  it("with a number that goes on for ever is refused, zeroes too", () => {
    const parts = takeApart(small());
    for (const byte of [0x80, 0xff]) {
      const endless = Buffer.concat([Buffer.from([9]), Buffer.alloc(4000, byte), Buffer.from([0])]);
      const reader = RecordingReader.of("file", putTogether({ ...parts, chunks: [endless] }));
      reader.next();
      expect(() => reader.number()).toThrow(/record 1 is malformed \(number\)/);
    }
  });

  it("that cannot be begun is one line", () => {
    expect(() => new RecordingWriter(join(folder, "none/b"), HEADER, () => {})).toThrow(RecordingError);
    expect(() => RecordingReader.open(join(folder, "none"))).toThrow(/no such file/);
    expect(() => RecordingReader.open(folder)).toThrow(RecordingError);
  });

  it("ends with a line, and not the run, at a record that is larger than any chunk", () => {
    lines.length = 0;
    const writer = new RecordingWriter(path, HEADER, (line) => lines.push(line));
    writer.begin(1, 5);
    writer.bytes(Buffer.from("hello"));
    const huge = Buffer.alloc(2 ** 26 + 1);
    writer.begin(2, huge.length);
    writer.bytes(huge);
    // Whoever is recorded notices nothing.
    for (let i = 0; i < 1000; i++) {
      writer.begin(1, 5);
      writer.number(2 ** 40);
      writer.wide(1n);
      writer.bytes(Buffer.from("hello"));
    }
    expect(writer.good).toBe(false);
    expect(writer.close(null)).toBe(false);
    expect(lines).toEqual([
      expect.stringMatching(/a.recording: cannot hold \d+ bytes that were read at once; the run/),
    ]);
    expect(() => RecordingReader.open(path)).toThrow(/cut short/);
  });

  it.skipIf(!existsSync("/dev/full"))("says once that the disk is full, and lets whoever is recorded go on", () => {
    lines.length = 0;
    const writer = new RecordingWriter("/dev/full", HEADER, (line) => lines.push(line));
    for (let i = 0; i < 100; i++) {
      writer.begin(1, 1 << 18);
      writer.bytes(Buffer.alloc(1 << 18, i));
    }
    expect(writer.good).toBe(false);
    expect(writer.close(null)).toBe(false);
    expect(lines).toEqual([
      "recording /dev/full: no space is left on the disk; the run goes on without it, and the file will be refused",
    ]);
  });
});
