// The walk theatre in a person's hands, in a real browser: with the keyboard alone, in both themes and widths, with files from anywhere, with changes,
// by a link, from any server.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { STORIES } from "../../../vmm/ui/story/stories.ts";
import { CHROMIUM, drop, PAGE_FOLDER, settled, shoot, Theatre, writeMillion } from "./browser.ts";

const HEAD = '{"nestbox-trace":2}\n';
const STALE = "#story=the-stale-iotlb-entry&kind=riscv";
const image = (name: string) => readFileSync(new URL(`../../../guest-fixtures/build/${name}.wasm`, import.meta.url));

describe.skipIf(CHROMIUM === null)("the walk theatre", () => {
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

  it("is no more than 2 MB until somebody drops an image", async () => {
    const { page } = await theatre.visit();
    await settled(page);
    const loaded = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
    expect(loaded.some((name) => /jco|images/.test(name))).toBe(false);
    // What a worker loads is not among the page's entries: all parts there are, each once, are more than it can be.
    const parts = readdirSync(PAGE_FOLDER).filter((name) => /\.(html|js|css|svg|json)$/.test(name));
    const bytes = parts.reduce((sum, name) => sum + statSync(join(PAGE_FOLDER, name)).size, 0);
    expect(bytes).toBeLessThan(2_000_000);
  });

  for (const { id, title } of STORIES) {
    it(`"${title}" fits both widths in both themes, nothing past the edge`, async () => {
      const { page, complaints } = await theatre.visit(`#story=${id}`);
      await settled(page);
      for (const width of [1280, 400]) {
        for (const scheme of ["light", "dark"] as const) {
          await page.setViewportSize({ width, height: 900 });
          await page.emulateMedia({ colorScheme: scheme });
          await page.waitForSelector(`html[data-theme="${scheme}"]`, { state: "attached" });
          expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
          await shoot(page, `${id}-${width}-${scheme}`);
        }
      }
      expect(complaints).toEqual([]);
    });
  }

  it("is used with the keyboard alone", async () => {
    const { page, complaints } = await theatre.visit(STALE);
    await settled(page);
    const position = () => page.textContent(".position");
    await page.keyboard.press("2");
    expect(await position()).toMatch(/writes 0x4000/);
    const at = await position();
    await page.keyboard.press("ArrowLeft");
    expect(await position()).toMatch(/unmaps IOVA 0x4000/);
    await page.keyboard.press("ArrowRight");
    expect(await position()).toBe(at);
    await page.keyboard.press("f");
    expect(await page.textContent(".verdict")).toMatch(/guest's own fault/);
    const faulted = await position();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("c");
    expect(await position()).toBe(faulted);
    await page.keyboard.press("/");
    await page.keyboard.type("type:attach");
    await page.waitForFunction(() =>
      /^\d+ of \d+$/.test(document.querySelector(".events header .muted")?.textContent ?? ""),
    );
    await page.keyboard.press("Control+A");
    await page.keyboard.type("type:nonsense");
    expect(await page.textContent(".events .problem")).toMatch(/there is no "nonsense"/);
    await page.keyboard.press("Tab");
    await page.keyboard.press("?");
    await page.waitForSelector("dialog[open]");
    await page.keyboard.press("Escape");
    await page.waitForSelector("dialog", { state: "detached" });
    // A cell of the walk is a button like any other.
    await page.focus(".cell.failing");
    await page.keyboard.press("Enter");
    expect(await page.getAttribute(".cell.failing", "aria-pressed")).toBe("true");
    expect(await page.textContent(".detail .fields")).toMatch(/V.*R.*W/s);
    const unnamed = await page.evaluate(
      () =>
        [...document.querySelectorAll("button, input:not([type=file]), select")].filter(
          (element) =>
            (element.getAttribute("aria-label") ?? element.textContent ?? "").trim() === "" &&
            element.closest("label") === null,
        ).length,
    );
    expect(unnamed).toBe(0);
    expect(complaints).toEqual([]);
  });

  it("opens at the same moment from a link", async () => {
    const { page } = await theatre.visit("#story=a-fault-comes-home&kind=smmuv3");
    await settled(page);
    await page.keyboard.press("3");
    await page.waitForFunction(() => location.hash.includes("at="));
    const seen = [await page.textContent(".verdict"), await page.textContent(".position")];
    const elsewhere = await theatre.visit(await page.evaluate(() => location.hash));
    await settled(elsewhere.page);
    expect([await elsewhere.page.textContent(".verdict"), await elsewhere.page.textContent(".position")]).toEqual(seen);
    expect(await page.evaluate(() => location.hash)).toMatch(/^#story=a-fault-comes-home&seed=0&kind=smmuv3&at=\d+$/);
  });

  it("runs on from a changed bit and an access of one's own, says so in the link, takes it back, and saves it", async () => {
    const { page, complaints } = await theatre.visit(STALE);
    await settled(page);
    // The entry that the device's write goes through: without W it is refused.
    await page.click('.cell:has-text("VRWU")');
    await page.click('.fields tr:has(th:text-is("V")) button');
    await page.waitForSelector('button:has-text("undo your change")');
    expect(await page.evaluate(() => location.hash)).toMatch(/put=\d+:flip:0x[0-9a-f]+:0/);
    await page.click('fieldset.try button:has-text("writes")');
    await page.waitForSelector('button:has-text("undo your 2 changes")');
    await settled(page);
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      (async () => {
        await page.click("details.menu summary");
        await page.click('details.menu button:has-text("as a scenario")');
      })(),
    ]);
    const saved = readFileSync((await download.path())!, "utf8");
    expect(saved).toMatch(/import \{ scenario \} from "nestbox";/);
    expect(saved).toMatch(/memory\.store64/);
    await page.click('button:has-text("undo your 2 changes")');
    await page.waitForSelector('button:has-text("undo your")', { state: "detached" });
    expect(await page.evaluate(() => location.hash)).not.toMatch(/put=/);
    expect(complaints).toEqual([]);
  });

  it("compares two moments side by side, and marks what differs", async () => {
    const { page } = await theatre.visit(STALE);
    await settled(page);
    await page.click('button:has-text("compare moments")');
    expect(await page.locator(".pane").count()).toBe(2);
    expect(await page.locator(".cell.differs").count()).toBe(0);
    await page.keyboard.press("End");
    await page.waitForSelector(".cell.differs");
    expect(await page.locator(".position").textContent()).toMatch(/refused|writes/);
    await settled(page);
    await shoot(page, "compare-moments");
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
    await drop(page, "hello.wasm", image("hello"));
    await page.waitForSelector('section[aria-label="Messages"]');
    expect(await page.textContent(".messages")).toMatch(/\S/);
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

  it("runs a built-in guest, transpiled when the page was built", async () => {
    const { page, complaints } = await theatre.visit("#image=nested-dma&kind=riscv");
    await settled(page);
    expect(await page.textContent(".messages")).toMatch(/done: all steps hold/);
    await page.keyboard.press("f");
    expect(await page.textContent(".verdict .headline")).toMatch(/fault/);
    await settled(page);
    await shoot(page, "nested-dma");
    expect(complaints).toEqual([]);
  });

  it("is shown by any HTTP server, without special headers", async () => {
    const types: Record<string, string> = {
      html: "text/html",
      js: "text/javascript",
      css: "text/css",
      wasm: "application/wasm",
    };
    const server = createServer((request, response) => {
      const name = request.url === "/" ? "index.html" : request.url!.slice(1);
      response.setHeader("content-type", types[name.split(".").at(-1)!] ?? "application/octet-stream");
      try {
        response.end(readFileSync(join(PAGE_FOLDER, name)));
      } catch {
        response.writeHead(404).end();
      }
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      const { page } = await theatre.visit();
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/#story=the-stale-iotlb-entry`);
      await settled(page);
      // The page's policy stands in the page itself.
      const evaluated = await page.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "document.body.dataset.ran = 'yes'";
        document.body.append(script);
        return document.body.dataset.ran ?? "no";
      });
      expect(evaluated).toBe("no");
      expect(await page.textContent(".verdict")).toMatch(/went through/);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
});
