// Replays that go back: by the command line, by the monitor, and a machine's whole state at random events.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildRiscv64NestedDma } from "../../../guest-fixtures/riscv64-nested-dma/build.mjs";
import { nestbox } from "./command-line.ts";
import { goBack, lastOf } from "./going-back.ts";
import { Monitored } from "./monitored.ts";

const image = buildRiscv64NestedDma();
let folder: string;
const at = (name: string): string => join(folder, name);
const linesOf = (file: string): string[] => readFileSync(at(file), "utf8").trimEnd().split("\n");
/** The tree of --inspect, and where the machine stands. */
const standing = (...args: string[]) => {
  const { output, errors, status } = nestbox("replay", ...args, "--quiet", "--json", "--inspect");
  expect(errors).toMatch(/stopped at the event/);
  expect(status).toBe(0);
  const { wallMs: _, ...rest } = JSON.parse(output) as Record<string, unknown>;
  return rest;
};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-timeline-"));
  nestbox("boot", "--record", at("component"), "--trace", at("component.jsonl"));
  if (image === null) return;
  const boot = ["--kernel", image, "--assign", "0000:00:01.0@00:02.0", "--memory", "8M"];
  nestbox("boot", ...boot, "--record", at("kernel"), "--trace", at("kernel.jsonl"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("nestbox replay of a component guest", () => {
  it("--back N is the run up to N events before", () => {
    expect(standing(at("component"), "--to", "3000", "--back", "400")).toEqual(
      standing(at("component"), "--to", "2600"),
    );
  });

  it("--back from the end, and with nothing that fits, says so", () => {
    expect(Number(standing(at("component"), "--back", "1").virtualNs)).toBeGreaterThan(1_000_000);
    const { errors } = nestbox("replay", at("component"), "--until", "type:group", "--back", "1", "--quiet");
    expect(errors).toMatch(/the run has no such event/);
  });

  it("--until takes the words of trace show, and says what is none", () => {
    const show = nestbox("trace", "show", at("component.jsonl"), "--json", "--type", "dma", "--device", "00:02.0");
    const { seq } = JSON.parse(show.output.split("\n")[0]!) as { seq: number };
    const words = standing(at("component"), "--until", "type:dma device:00:02.0");
    expect(words).toEqual(standing(at("component"), "--to", String(seq)));
    const wrong = nestbox("replay", at("component"), "--until", "type:nothing");
    expect([wrong.status, wrong.errors]).toEqual([2, expect.stringMatching(/--until type:nothing: type: there is no/)]);
  });
});

describe.skipIf(image === null)("nestbox replay of a kernel", () => {
  it("is one event back, from forty random ones, what it was on its way forward, with all that it stands on", async () => {
    const { compared, moves, problems } = await goBack(
      at("kernel"),
      lastOf(readFileSync(at("kernel.jsonl"), "utf8")),
      40,
      1,
    );
    expect(problems).toEqual([]);
    expect(compared).toBeGreaterThanOrEqual(35);
    expect(moves).toBeGreaterThanOrEqual(compared);
  });

  it("--back shows the machine as --to does, and writes the trace up to the farthest place once", () => {
    const there = standing(at("kernel"), "--to", "500");
    expect(standing(at("kernel"), "--to", "700", "--back", "200", "--trace", at("back.jsonl"))).toEqual(there);
    const [back, whole] = [linesOf("back.jsonl"), linesOf("kernel.jsonl")];
    expect(back).toEqual(whole.slice(0, back.length));
    expect(back.length).toBeGreaterThan(700);
    const until = standing(at("kernel"), "--until", "fault", "--back", "40");
    expect(Number(until.instructions)).toBeLessThan(Number(standing(at("kernel"), "--until", "fault").instructions));
    const end = nestbox("replay", at("kernel"), "--back", "1", "--quiet");
    expect(end.errors).toMatch(/stopped at the event/);
  });

  it("the monitor goes to any event, back and on, stands at the end, and changes nothing", async () => {
    const machine = await Monitored.replay(at("socket"), at("kernel"), "--quiet", "--trace", at("monitored.jsonl"));
    const monitor = await machine.connect();
    const there = await monitor.result("goto 400");
    expect(there).toMatchObject({ state: "paused", reason: "event" });
    const ids = await monitor.result("ids");
    const later = await monitor.result("goto 900");
    expect(later.instructions).toBeGreaterThan(there.instructions);
    expect(await monitor.result("goto 400")).toEqual(there);
    expect(await monitor.result("ids")).toEqual(ids);
    const back = await monitor.result("back 100");
    expect(back.lastEvent).toBeLessThan(there.lastEvent);
    expect(await monitor.result("step --event 100")).toMatchObject({ reason: "event" });
    expect(await monitor.result("until fault")).toMatchObject({ event: { type: "fault" } });
    const start = await monitor.result("goto 0");
    expect(start).toMatchObject({ reason: "start", instructions: 0 });
    const end = await monitor.result("goto 99999999");
    expect(end).toMatchObject({ state: "paused", reason: "end" });
    expect(await monitor.result("step")).toMatchObject({ reason: "end", instructions: end.instructions });
    expect((await monitor.result("back")).instructions).toBeLessThan(end.instructions);
    for (const change of [
      "device-remove 00:02.0",
      "device-add 0000:00:02.0@00:03.0",
      "inject device:0000:00:01.0=dead",
    ])
      expect(await monitor.ask(change)).toMatchObject({ ok: false, error: expect.stringMatching(/nobody changes it/) });
    await monitor.result("quit");
    expect(await machine.ended()).toBe(0);
    // Each event once, in whatever order it was looked at.
    const [seen, whole] = [linesOf("monitored.jsonl"), linesOf("kernel.jsonl")];
    expect(seen).toEqual(whole.slice(0, seen.length));
    expect(seen.length).toBeGreaterThan(900);
  });
});

describe("what a monitor changes", () => {
  it("is recorded where it was done, and done again there: devices of a component guest removed and added, a host made to fail", async () => {
    const machine = await Monitored.start(
      ...[at("changes"), "--paused", "--record", at("changed"), "--trace", at("changed.jsonl"), "--report", "json"],
    );
    const monitor = await machine.connect();
    await monitor.result("step 700");
    await monitor.result("device-remove 00:01.0");
    expect(await monitor.ask("device-remove 00:01.0")).toMatchObject({ ok: false });
    await monitor.result("step --event 40");
    await monitor.result("inject ioctl:IOMMU_HWPT_ALLOC@2=ENOMEM");
    await monitor.result("device-add 0000:00:02.0@00:01.0");
    await monitor.result("continue");
    await machine.ended();
    const whole = linesOf("changed.jsonl");
    expect(whole.filter((line) => /"VFIO_DEVICE_BIND_IOMMUFD"/.test(line))).toHaveLength(3);
    expect(whole.some((line) => /"type":"injection"/.test(line))).toBe(true);
    const { errors } = nestbox("replay", at("changed"), "--trace", at("again.jsonl"), "--quiet");
    expect(errors).toMatch(/the run is as it was recorded/);
    expect(linesOf("again.jsonl")).toEqual(whole);
  });

  it("the end by a monitor is where it was", async () => {
    const machine = await Monitored.start(
      at("ending"),
      "--paused",
      "--record",
      at("ended"),
      "--trace",
      at("ended.jsonl"),
    );
    const monitor = await machine.connect();
    await monitor.result("step 800");
    await monitor.result("quit");
    await machine.ended();
    const { errors } = nestbox("replay", at("ended"), "--trace", at("again.jsonl"), "--quiet");
    expect(errors).toMatch(/the run is as it was recorded/);
    expect(linesOf("again.jsonl")).toEqual(linesOf("ended.jsonl"));
  });

  it.skipIf(image === null)("a kernel's devices, at any instruction", async () => {
    const boot = ["--kernel", image!, "--assign", "0000:00:01.0@00:02.0", "--memory", "8M"];
    const record = ["--record", at("plugged"), "--trace", at("plugged.jsonl")];
    const machine = await Monitored.start(at("plugging"), ...boot, ...record, "--paused", "--report", "json");
    const monitor = await machine.connect();
    await monitor.result("step 12345");
    await monitor.result("device-add 0000:00:02.0@00:03.0");
    await monitor.result("step 77");
    await monitor.result("device-remove 00:03.0");
    await monitor.result("until dma");
    await monitor.result("inject device:0000:00:01.0=slow/3000");
    await monitor.result("continue");
    await machine.ended();
    const { errors } = nestbox("replay", at("plugged"), "--trace", at("again.jsonl"), "--quiet");
    expect(errors).toMatch(/the run is as it was recorded/);
    expect(linesOf("again.jsonl")).toEqual(linesOf("plugged.jsonl"));
    // And a replay that goes back over it does it again.
    const there = standing(at("plugged"), "--until", "dma", "--back", "30");
    const line = linesOf("plugged.jsonl").find((text) => /"type":"dma"/.test(text))!;
    const seq = (JSON.parse(line) as { readonly seq: number }).seq - 30;
    expect(there).toEqual(standing(at("plugged"), "--to", String(seq)));
  });
});
