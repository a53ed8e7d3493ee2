// The walk theatre in a person's hands, in a real browser: with the keyboard alone, by a link, with changes, compared, filtered, taken apart, from any
// server.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import { CHROMIUM, PAGE_FOLDER, savedScenario, settled, shoot, Theatre } from "./browser.ts";

const STALE = "#story=the-stale-iotlb-entry&kind=riscv";
const KINDS = Object.keys(VIOMMU_KINDS);

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
    await page.waitForFunction(() => /put=\d+:flip:0x[0-9a-f]+:0/.test(location.hash));
    // The tables no longer say what the hardware has cached of them.
    await page.waitForSelector(".truth tr.stale");
    expect(await page.textContent(".truth tr.stale .badge")).toBe("STALE");
    await page.click('fieldset.try button:has-text("writes")');
    await page.waitForSelector('button:has-text("undo your 2 changes")');
    await page.waitForSelector('.verdict .headline:has-text("went through")');
    await settled(page);
    const { text: saved } = await savedScenario(page);
    expect(saved).toMatch(/import \{ scenario \} from "nestbox";/);
    expect(saved).toMatch(/memory\.store64/);
    await page.click('button:has-text("undo your 2 changes")');
    await page.waitForSelector('button:has-text("undo your")', { state: "detached" });
    await page.waitForFunction(() => !/put=/.test(location.hash));
    expect(complaints).toEqual([]);
  });

  it("compares two moments side by side, and marks what differs", async () => {
    const { page } = await theatre.visit(STALE);
    await settled(page);
    await page.click('button:has-text("compare")');
    expect(await page.locator(".pane").count()).toBe(2);
    expect(await page.locator(".cell.differs").count()).toBe(0);
    await page.keyboard.press("End");
    await page.waitForSelector(".cell.differs");
    expect(await page.locator(".position").textContent()).toMatch(/refused|writes/);
    await settled(page);
    await shoot(page, "compare-moments");
  });

  it.each(KINDS)(
    "shows what tables say beside what the caches of %s hold, a stale entry until it is invalidated",
    async (kind) => {
      const { page } = await theatre.visit(`#story=the-stale-iotlb-entry&kind=${kind}`);
      const row = async (): Promise<string[]> => {
        await settled(page);
        return await page.locator(".truth tbody tr td").allTextContents();
      };
      const [agree, , memory, cached] = await row();
      expect(agree).toBe("agree");
      // The same page, with the rights that the tables give.
      expect(memory).toBe(`${cached} RW`);
      expect(cached).toMatch(/^0x[0-9a-f]+$/);
      await page.keyboard.press("2");
      expect(await row()).toEqual(["STALE", "no", "—", cached]);
      expect(await page.textContent('section[aria-label="Intent and truth"] header')).toMatch(/a stale entry/);
      await page.keyboard.press("3");
      expect(await row()).toEqual(["nothing there", "no", "—", "—"]);
    },
  );

  it("shows a story on two kinds side by side, whichever two, and steps both to the next chapter", async () => {
    const { page, complaints } = await theatre.visit("#story=a-fault-comes-home");
    await settled(page);
    await page.click('button:has-text("side by side")');
    await page.waitForSelector(".side:nth-child(2) .verdict");
    await page.selectOption(".side:nth-child(2) .pane-title select", "vtd");
    await page.waitForFunction(() => /kind=riscv,vtd/.test(location.hash));
    await page.keyboard.press("4");
    await settled(page);
    const headlines = await page.locator(".verdict .headline").allTextContents();
    expect(headlines).toEqual([expect.stringMatching(/host's fault/), expect.stringMatching(/host's fault/)]);
    // What a guest hears of its host's fault is the architecture's choice.
    expect(await page.textContent(".side:nth-child(1) .cell.failing")).toMatch(/goes to the guest/);
    expect(await page.textContent(".side:nth-child(2) .cell.failing")).toMatch(/guest hears nothing/);
    expect(complaints).toEqual([]);
  });

  it.each(KINDS)(
    "takes table entries, commands and fault records of %s apart, field by field with their sections",
    async (kind) => {
      const { page } = await theatre.visit(`#story=a-fault-comes-home&kind=${kind}`);
      await settled(page);
      await page.keyboard.press("2");
      const structures = () => page.locator(".detail .structure:has(.fields)");
      expect(await structures().count()).toBe(1);
      expect(await structures().first().textContent()).toMatch(/level \d at 0x[0-9a-f]+.*(§|DDI 0487|Sv39)/s);
      for (const type of ["command", "fault"]) {
        await page.fill(".filter input", `type:${type}`);
        await page.click(`.lines button:has(.type:text-is("${type}"))`);
        const entry = page.locator('.detail .structure:has(h3:has-text("Queue entry"))');
        expect(await entry.locator("tbody tr").count()).toBeGreaterThan(2);
        expect(await entry.textContent()).toMatch(/§/);
      }
    },
  );

  it("leads from a translation that was remembered to the walk it is from, and back in time with it", async () => {
    const { page } = await theatre.visit("#story=bypass-to-nested&kind=riscv");
    await settled(page);
    await page.keyboard.press("4");
    expect(await page.textContent('section[aria-label="Walk"]')).toMatch(/remembered this translation/);
    const at = await page.textContent(".position");
    await page.click('button:has-text("the walk of event")');
    expect(await page.locator(".cell").count()).toBeGreaterThan(10);
    expect(await page.textContent(".position")).not.toBe(at);
  });

  it("filters by device, page, time and type, in the words of the command line", async () => {
    const { page } = await theatre.visit("#story=a-fault-comes-home&kind=riscv");
    await settled(page);
    const count = () => page.textContent(".events header .muted");
    const lines = () => page.locator(".lines .text").allTextContents();
    await page.fill(".filter input", "type:dma");
    await page.waitForFunction(() => / of /.test(document.querySelector(".events header .muted")!.textContent!));
    expect(await count()).toMatch(/^4 of /);
    await page.fill(".filter input", "device:00:01.0 type:dma iova:0x9000");
    await page.waitForFunction(() => /^1 of /.test(document.querySelector(".events header .muted")!.textContent!));
    expect(await lines()).toEqual([expect.stringMatching(/0000:00:01\.0 reads 4 bytes at IOVA 0x9000/)]);
    await page.fill(".filter input", "device:00:02.0 type:dma");
    await page.waitForFunction(() => /^0 of /.test(document.querySelector(".events header .muted")!.textContent!));
    await page.fill(".filter input", "time:..1ns");
    await page.waitForFunction(() =>
      /^[1-9]\d* of /.test(document.querySelector(".events header .muted")!.textContent!),
    );
  });

  it("zooms into its timeline, moves along it, and goes where somebody points", async () => {
    const { page } = await theatre.visit(STALE);
    await settled(page);
    const range = () => page.textContent(".timeline header .muted");
    expect(await range()).toBe("");
    for (let n = 0; n < 3; n++) await page.click('button[aria-label="Zoom in"]');
    const near = await range();
    expect(near).toMatch(/^events \d+ to \d+$/);
    await page.click('button[aria-label="Earlier events"]');
    expect(await range()).not.toBe(near);
    expect(await page.locator(".cursor").count()).toBe(0);
    // The first event in sight, wherever that is.
    await page.click(".timeline canvas", { position: { x: 78, y: 4 } });
    const first = Number(/events (\d+)/.exec((await range())!)![1]);
    expect(await page.textContent(".position")).toMatch(new RegExp(`^event ${first} of`));
    await page.click('.timeline button:has-text("all")');
    expect(await range()).toBe("");
    expect(await page.locator(".cursor").count()).toBe(1);
  });

  it("tells a screen reader what everything is: regions, headings, tables, and what has changed", async () => {
    const { page } = await theatre.visit(STALE);
    await settled(page);
    expect(await page.getByRole("columnheader", { name: /stage 2 level/ }).count()).toBeGreaterThan(0);
    await page.keyboard.press("f");
    await settled(page);
    for (const region of ["Story", "Verdict", "Timeline", "Walk", "Intent and truth", "Events", "Detail", "Objects"])
      expect([region, await page.getByRole("region", { name: region, exact: true }).count()]).toEqual([region, 1]);
    expect(await page.getByRole("heading", { level: 1 }).textContent()).toMatch(/Walk theatre/);
    expect(await page.getAttribute(".verdict", "aria-live")).toBe("polite");
    expect(await page.getByRole("img", { name: /events; event \d+ is shown/ }).count()).toBe(1);
    // A cell says in words what its colour says.
    const cell = page.getByRole("button", {
      name: /loaded from 0x[0-9a-f]+.*guest's fault.*§|guest's fault\..*finds it/s,
    });
    expect(await cell.count()).toBe(1);
    expect(await page.getByRole("searchbox", { name: /Filter events/ }).count()).toBe(1);
    expect(await page.getByRole("toolbar", { name: "Steps" }).getByRole("button").allTextContents()).toEqual([
      expect.stringMatching(/previous chapter/),
      ...["◀ back", "step ▶", "next chapter »", "next fault", "its cause"],
    ]);
    await page.click('summary:has-text("in words")');
    expect(await page.textContent(".objects details")).toMatch(/device \d+ 0000:00:01\.0.*attached to nested HWPT/s);
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
