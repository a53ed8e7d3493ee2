// How the walk theatre looks, as pictures for a person to look at (browser.ts says where), and what of it can be measured: nothing past the edge in any
// story, kind, theme or width; the widths are a desk's and a telephone's.

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { STORIES } from "../../../vmm/ui/story/stories.ts";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import { CHROMIUM, settled, shoot, Theatre } from "./browser.ts";

const KINDS = Object.keys(VIOMMU_KINDS);

describe.skipIf(CHROMIUM === null)("the walk theatre's looks", () => {
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

  for (const { id, title } of STORIES) {
    for (const kind of KINDS) {
      it(`"${title}" on ${kind} fits both widths in both themes, nothing past the edge`, async () => {
        const { page, complaints } = await theatre.visit(`#story=${id}&kind=${kind}`);
        await settled(page);
        await page.keyboard.press("2");
        await settled(page);
        for (const width of [1280, 400]) {
          for (const scheme of ["light", "dark"] as const) {
            await page.setViewportSize({ width, height: 900 });
            await page.emulateMedia({ colorScheme: scheme });
            await page.waitForSelector(`html[data-theme="${scheme}"]`, { state: "attached" });
            expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
            await shoot(page, `${id}-${kind}-${width}-${scheme}`);
          }
        }
        expect(complaints).toEqual([]);
      });
    }
  }

  it("two kinds side by side fit a desk, and stand below each other on a telephone", async () => {
    const { page } = await theatre.visit("#story=a-fault-comes-home&kind=smmuv3,vtd");
    await settled(page);
    const tops = () =>
      page.locator(".side").evaluateAll((sides) => sides.map((side) => side.getBoundingClientRect().y));
    const [left, right] = await tops();
    expect(left).toBe(right);
    await page.setViewportSize({ width: 400, height: 900 });
    const [above, below] = await tops();
    expect(below!).toBeGreaterThan(above!);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(400);
    await shoot(page, "side-by-side-400");
  });

  it("on a telephone the failing load and the chapter that is told are in sight without scrolling sideways", async () => {
    const { page } = await theatre.visit("#story=a-fault-comes-home&kind=vtd", { width: 400 });
    await settled(page);
    await page.keyboard.press("4");
    await settled(page);
    for (const [box, inside] of [
      ['section[aria-label="Walk"] .grid-scroll', ".cell.failing"],
      [".chapters", '.chapters [aria-current="step"]'],
    ] as const) {
      const outer = (await page.locator(box).boundingBox())!;
      const inner = (await page.locator(inside).boundingBox())!;
      expect([inner.x >= outer.x - 1, inner.x + inner.width <= outer.x + outer.width + 1]).toEqual([true, true]);
    }
  });

  it("the help and the menus are seen whole", async () => {
    for (const width of [1280, 400]) {
      const { page } = await theatre.visit("", { width });
      await settled(page);
      for (const menu of ["open", "save"]) {
        await page.click(`summary:has-text("${menu}")`);
        const box = (await page.locator("details[open] > div").boundingBox())!;
        expect([box.x >= 0, box.x + box.width <= width]).toEqual([true, true]);
        await shoot(page, `menu-${menu}-${width}`);
        await page.click(`summary:has-text("${menu}")`);
      }
      await page.keyboard.press("?");
      await page.waitForSelector("dialog[open]");
      const box = (await page.locator("dialog").boundingBox())!;
      expect([box.x >= 0, box.x + box.width <= width]).toEqual([true, true]);
      await shoot(page, `help-${width}`);
    }
  });
});
