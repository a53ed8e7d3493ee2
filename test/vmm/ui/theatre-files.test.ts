// Files from anywhere in the walk theatre: traces and guest images, dropped or chosen, good and hostile, in a real browser.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { TRACE_VERSION } from "../../../host/base/trace-json.ts";
import { runStory } from "../../../vmm/ui/run/live.ts";
import { storyOf } from "../../../vmm/ui/story/stories.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../../vmm/viommu/kinds.ts";
import { CHROMIUM, drop, settled, shoot, Theatre, writeMillion } from "./browser.ts";

const HEAD = `{"nestbox-trace":${TRACE_VERSION}}\n`;
const KINDS = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
const image = (name: string) => readFileSync(new URL(`../../../guest-fixtures/build/${name}.wasm`, import.meta.url));

describe.skipIf(CHROMIUM === null)("files in the walk theatre", () => {
  let theatre: Theatre;
  beforeAll(async () => {
    theatre = await Theatre.open();
  });
  afterEach(async () => {
    await theatre.leave();
  });
  afterAll(async () => {
    await theatre.close();
  });

  it("a recorded trace of each kind is opened where it first fails, with whose fault it is", async () => {
    for (const kind of KINDS) {
      const { page, complaints } = await theatre.visit();
      await settled(page);
      await drop(page, `${kind}.jsonl`, runStory(storyOf("a-fault-comes-home")!, kind, []).text);
      await page.waitForSelector('option:has-text(".jsonl")', { state: "attached" });
      expect(await page.textContent(".verdict .headline")).toMatch(/guest's own fault/);
      // A trace says what was read, not what stands in memory.
      expect(await page.textContent('section[aria-label="Intent and truth"]')).toMatch(/recorded trace/);
      // Chapters are its steps; nothing is put in.
      expect(await page.locator(".chapters button").count()).toBe(4);
      expect(await page.locator("fieldset.try").count()).toBe(0);
      // A link cannot name somebody's file.
      expect(await page.evaluate(() => location.hash)).toBe("");
      expect(complaints).toEqual([]);
    }
  });

  it("two recordings stand side by side, each stepped for itself, and what differs in their walks is marked", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const story = storyOf("bypass-to-nested")!;
    const changed = runStory(storyOf("a-fault-comes-home")!, "riscv", []).text;
    await drop(page, "left.jsonl", runStory(story, "riscv", []).text);
    await page.waitForSelector('option:has-text("left.jsonl")', { state: "attached" });
    await drop(page, "right.jsonl", changed, true);
    await page.waitForSelector('.side:nth-child(2) .pane-title:has-text("right.jsonl")');
    expect(await page.locator(".pane").count()).toBe(2);
    const counts = () => page.locator(".events header .muted").allTextContents();
    const [left, right] = (await counts()).map(Number);
    expect(left).not.toBe(right);
    // The side that was dropped last is the one that keys step.
    const marks = () => page.locator('.lines [aria-current="true"] .number').allTextContents();
    const before = await marks();
    await page.keyboard.press("ArrowRight");
    const after = await marks();
    expect([after[0], Number(after[1])]).toEqual([before[0], Number(before[1]) + 1]);
    await page.click(".side:nth-child(1) .verdict");
    await page.keyboard.press("ArrowLeft");
    expect((await marks())[1]).toBe(after[1]);
    expect(Number((await marks())[0])).toBe(Number(after[0]) - 1);
    // Both at the end: one walk leads to a page, the other to nowhere.
    await page.keyboard.press("End");
    await page.click(".side:nth-child(2) .verdict");
    await page.keyboard.press("End");
    await page.click('.side:nth-child(1) button:has-text("the walk of event")');
    await page.waitForSelector(".side:nth-child(1) .cell.differs");
    expect(await page.locator(".side:nth-child(2) .cell.differs").count()).toBeGreaterThan(0);
    await shoot(page, "compare-recordings");
    expect(complaints).toEqual([]);
  });

  it("a file is opened beside what is shown with the keyboard alone", async () => {
    const { page } = await theatre.visit();
    await settled(page);
    const folder = mkdtempSync(join(tmpdir(), "nestbox-theatre-"));
    try {
      writeMillion(join(folder, "short.jsonl"), 1000);
      await page.focus('summary:has-text("open")');
      await page.keyboard.press("Enter");
      await page.keyboard.press("Tab");
      await page.keyboard.press("Tab");
      const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Enter")]);
      await chooser.setFiles(join(folder, "short.jsonl"));
      await page.waitForSelector('.side:nth-child(2) .pane-title:has-text("short.jsonl")');
      expect(await page.locator(".pane").count()).toBe(2);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("shows the texts of a hostile trace as texts, and refuses what is none, in a line", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const markup = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'";
    const event = (seq: number, fields: object) => JSON.stringify({ seq, time: seq, cause: seq - 1, ...fields });
    const hostile =
      HEAD +
      [
        event(1, { type: "step", name: markup }),
        event(2, {
          type: "ioctl",
          process: markup,
          fd: 1,
          name: "IOMMU_VIOMMU_ALLOC",
          result: 0,
          fields: { [markup]: markup },
        }),
        event(3, {
          type: "walk",
          where: "host",
          iommu: markup,
          deviceId: 1,
          kind: "__proto__",
          table: markup,
          level: 4,
          space: "spa",
          address: "0x0",
          entry: "0xffffffffffffffff",
          cached: false,
          text: markup,
        }),
        event(4, {
          type: "fault",
          where: "hardware",
          iommu: markup,
          kind: "constructor",
          faultCause: -1,
          deviceId: 1,
          iotval: "0x0",
          iotval2: "0x0",
          ttyp: -5,
          text: markup,
        }),
        event(5, {
          type: "dma",
          device: markup,
          deviceId: 1,
          iova: "0xffffffffffffffff",
          length: -1,
          write: true,
          result: "aborted",
        }),
        "",
      ].join("\n");
    await drop(page, `${markup}.jsonl`, hostile);
    await page.waitForSelector(`.lines:has-text("onerror")`);
    for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "End"])
      await page.keyboard.press(key);
    expect(await page.locator("img, #page script").count()).toBe(0);
    await shoot(page, "hostile-trace");
    const refused: [string, RegExp][] = [
      ["", /line 1 is not JSON/],
      ["\u0000\u0001", /not JSON/],
      [`${HEAD}{"seq":1`, /no event/],
      [
        `${HEAD}${event(1, { type: "step", name: "\u001b[31m" })}\n`,
        /line 2 is not a trace event: step without a proper name/,
      ],
      ['{"nestbox-trace":7}\n', /version 7; this reads versions 1 to 2/],
    ];
    for (const [text, reason] of refused) {
      await drop(page, "bad.jsonl", text);
      await page.waitForSelector(".banner");
      expect(await page.textContent(".banner")).toMatch(reason);
      await page.click(".banner button");
    }
    expect(complaints).toEqual([]);
  });

  it("opens a trace of a million events, steps through it and filters it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "nestbox-theatre-"));
    try {
      const file = join(folder, "million.jsonl");
      writeMillion(file);
      const { page, complaints } = await theatre.visit();
      await settled(page);
      await page.setInputFiles('input[type="file"]', file);
      await page.waitForFunction(() => document.querySelector(".events header .muted")?.textContent === "1000000");
      const step = async (key: string, position: RegExp): Promise<void> => {
        await page.keyboard.press(key);
        await page.waitForFunction(
          (wanted) => new RegExp(wanted).test(document.querySelector(".position")?.textContent ?? ""),
          position.source,
        );
      };
      // How long it takes: npm run bench -- ui.
      await step("End", /event 1000000 of 1000000/);
      await step("ArrowLeft", /event 999999 /);
      await step("ArrowLeft", /event 999998 /);
      await step("Home", /event 1 of/);
      await page.fill(".filter input", "type:dma iova:0xf4240000..");
      await page.waitForFunction(() =>
        /^\d+ of 1000000$/.test(document.querySelector(".events header .muted")?.textContent ?? ""),
      );
      // Every tenth event is a DMA, to the page of its own number: those from 1,000,000 on is one.
      expect(await page.textContent(".events header .muted")).toBe("1 of 1000000");
      expect(complaints).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("transpiles and runs a dropped image under its policy, and only then loads the transpiler", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    expect(theatre.served.filter((name) => /^jco/.test(name))).toEqual([]);
    await drop(page, "hello.wasm", image("hello"));
    await page.waitForSelector('section[aria-label="Messages"]');
    expect(await page.textContent(".messages")).toMatch(/\S/);
    expect(theatre.served).toContain("jco/component.js");
    expect(complaints).toEqual([]);
  });

  it("refuses a hostile image in a line, and ends one that never ends", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const garbage = Uint8Array.of(0, 0x61, 0x73, 0x6d, 0xff, 0xff, 0xff, 0xff, 1, 2, 3);
    for (const [name, bytes] of [
      ["garbage.wasm", garbage],
      ["other-world.wasm", image("error-other-world")],
      ["core.wasm", image("error-core-module")],
      ["endless.wasm", image("error-endless-loop")],
    ] as const) {
      await drop(page, name, bytes);
      await page.waitForSelector(`.banner:has-text("${name}")`);
      const said = await page.textContent(".banner");
      expect(said).toMatch(name === "endless.wasm" ? /did not end within .* was ended/ : /\w{5}/);
      await page.click(".banner button");
    }
    // The page goes on.
    await page.keyboard.press("2");
    expect(await page.textContent('.chapters [aria-current="step"]')).toMatch(/Bypass/);
    expect(complaints).toEqual([]);
  });
});
