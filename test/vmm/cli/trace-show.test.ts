// `nestbox trace show`: the events that fit, in the words of the walk theatre's filter, of a file as it is and as it grows.

import { spawn } from "node:child_process";
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { GrowingTrace } from "../../../vmm/cli/trace-lines.ts";
import { nestbox, nestboxFile } from "./command-line.ts";

const folder = mkdtempSync(join(tmpdir(), "nestbox-trace-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const HEAD = '{"nestbox-trace":2}\n';
const dma = (seq: number, device: string, iova: string) =>
  `{"seq":${seq},"time":${seq * 1000},"cause":0,"type":"dma","device":"${device}","deviceId":${device.includes("02") ? 16 : 8},"iova":"${iova}","length":4,"write":true,"result":"ok"}\n`;
const irq = (seq: number) =>
  `{"seq":${seq},"time":${seq * 1000},"cause":0,"type":"irq","where":"guest","source":"x","vector":1}\n`;

describe("nestbox trace show", () => {
  it("prints the events that fit every option, a line each, or as the trace has them", () => {
    const file = join(folder, "some.jsonl");
    const wanted = dma(3, "0000:00:01.0", "0x4010");
    writeFileSync(file, HEAD + irq(1) + dma(2, "0000:00:02.0", "0x4000") + wanted + dma(4, "0000:00:01.0", "0x9000"));
    const only = ["--type", "dma", "--device", "0000:00:01.0", "--time", "1us..5us", "--iova", "0x4000..0x4fff"];
    const text = nestbox("trace", "show", file, ...only);
    expect([text.status, text.output.trimEnd().split("\n").length]).toEqual([0, 1]);
    expect(text.output).toMatch(/^ +3 +3\.0 us {2}0000:00:01\.0 writes 4 bytes at IOVA 0x4010/);
    expect(nestbox("trace", "show", file, ...only, "--json").output).toBe(wanted);
    expect(nestbox("trace", "show", file, "vector").output).toMatch(/^ +1 .*interrupt \(guest\)/);
  });

  it("says what is wrong with an option, and with a file", () => {
    const file = join(folder, "bad.jsonl");
    writeFileSync(file, `${HEAD}{}\n`);
    const option = nestbox("trace", "show", file, "--time", "soon");
    expect([option.status, option.errors]).toEqual([2, expect.stringMatching(/--time: "soon" is none; write 2us/)]);
    const damaged = nestbox("trace", "show", file);
    expect([damaged.status, damaged.errors]).toEqual([
      2,
      expect.stringMatching(/bad\.jsonl: line 2 is not a trace event/),
    ]);
  });

  it("follows a file that grows, until it is interrupted", async () => {
    const file = join(folder, "growing.jsonl");
    writeFileSync(file, HEAD + irq(1) + dma(2, "d", "0x1000"));
    const child = spawn(process.execPath, [nestboxFile, "trace", "show", file, "--type", "dma", "--json", "--follow"]);
    let output = "";
    const until = (text: string) =>
      new Promise<void>((seen) => {
        const look = (): void => {
          if (output.includes(text)) seen();
          else child.stdout.once("data", look);
        };
        look();
      });
    child.stdout.on("data", (bytes) => {
      output += String(bytes);
    });
    const ended = new Promise<number | null>((end) => child.once("exit", end));
    await until('"seq":2');
    // Half a line is none yet.
    const next = dma(3, "d", "0x2000");
    appendFileSync(file, next.slice(0, 20));
    appendFileSync(file, next.slice(20) + irq(4));
    await until('"seq":3');
    child.kill("SIGINT");
    expect(await ended).toBe(0);
    expect(output).toBe(dma(2, "d", "0x1000") + next);
  });

  it("of a file that is begun anew says so, and takes no half lines", () => {
    const file = join(folder, "anew.jsonl");
    writeFileSync(file, HEAD + irq(1).slice(0, 10));
    const trace = new GrowingTrace(file);
    expect(String(trace.next())).toBe(HEAD);
    expect(trace.next()).toBeNull();
    appendFileSync(file, irq(1).slice(10));
    expect(String(trace.next())).toBe(HEAD + irq(1));
    writeFileSync(file, "");
    expect(() => trace.next()).toThrow(/begun anew/);
    trace.close();
  });
});
