// The walk theatre in a real browser: as a person meets it, under its own policy, with nothing but its files.

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { STORIES } from "../../../vmm/ui/story/stories.ts";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import { CHROMIUM, settled, shoot, Theatre } from "./browser.ts";

const KINDS = Object.keys(VIOMMU_KINDS);
const TWO = KINDS.slice(0, 2).join(",");

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

  it("says whose fault it is, why, and where the news goes, before anybody has touched anything", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const verdict = await page.textContent(".verdict");
    expect(verdict).toMatch(/The guest's own fault/);
    expect(verdict).toMatch(/not set up.*§/s);
    expect(verdict).toMatch(/hardware queue.*kernel passes it on.*guest finds it.*interrupt/s);
    expect(await page.textContent(".cell.failing")).toMatch(/guest's fault.*goes to the guest/s);
    expect(complaints).toEqual([]);
    await shoot(page, "first-sight");
  });

  for (const { id, title, beats } of STORIES) {
    for (const kinds of [...KINDS, TWO]) {
      it(`tells "${title}" on ${kinds}, chapter by chapter`, async () => {
        const { page, complaints } = await theatre.visit(`#story=${id}&kind=${kinds}`);
        await settled(page);
        for (const [n, { title: chapter, says }] of beats.entries()) {
          if (n > 0) await page.keyboard.press("PageDown");
          await page.waitForSelector(`.chapters [aria-current="step"]:has-text("${chapter}")`);
          expect((await page.textContent(".says"))?.trim()).toBe(says.join(" "));
          await settled(page);
          await shoot(page, `${id}-${kinds.replace(",", "+")}-${n + 1}`);
        }
        expect(await page.locator(".pane").count()).toBe(kinds.split(",").length);
        expect(complaints).toEqual([]);
      });
    }
  }
});
