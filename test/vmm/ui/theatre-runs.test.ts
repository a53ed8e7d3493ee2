// What runs in the walk theatre beside its stories: scenarios that `nestbox ui` is given, guests that were transpiled when the page was built. And the
// way of somebody new: from the command to whose fault it is and why, and a link that opens that moment elsewhere.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { nestbox, nestboxFile } from "../cli/command-line.ts";
import { CHROMIUM, savedScenario, settled, shoot, Theatre } from "./browser.ts";

/** Two of one step each, with a seed and a sweep; one that fails; one that throws what it likes. */
const OWN = `import { scenario } from "nestbox";
export default [
  scenario("random page", (t) => {
    const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    t.step("somewhere");
    device.dmaRead(BigInt(t.random.below(1000) + 1) * 4096n, 4);
  }),
  scenario("does not hold", (t) => t.expect(false, "what never holds")),
  scenario("throws", () => { throw { toString: null }; }),
];
`;

describe.skipIf(CHROMIUM === null)("the walk theatre", () => {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-theatre-"));
  let child: ReturnType<typeof spawn>;
  let theatre: Theatre;
  beforeAll(async () => {
    writeFileSync(join(folder, "own.scenario.ts"), OWN);
    const given = ["test/scenarios", join(folder, "own.scenario.ts")];
    child = spawn(process.execPath, [nestboxFile, "ui", "--port", "0", ...given], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const url = await new Promise<string>((listening) => {
      child.stdout!.once("data", (bytes) => listening(/http:\/\/127\.0\.0\.1:\d+\//.exec(String(bytes))![0]));
    });
    theatre = await Theatre.at(url);
  });
  afterEach(async () => {
    await theatre.leave();
  });
  afterAll(async () => {
    await theatre.close();
    const ended = new Promise((end) => child.once("exit", end));
    child.kill("SIGINT");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });

  it("takes somebody new from the command to whose fault it is, why, and where the news goes, and a link there elsewhere", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    // Nothing has been pressed: a fault is on screen, in words.
    expect(await page.textContent(".verdict .headline")).toMatch(/guest's own fault/);
    expect(await page.textContent(".verdict .why")).toMatch(/not set up.*§/s);
    expect(await page.locator(".way li").count()).toBeGreaterThan(2);
    // The next one, by the button that says so; its link, as it stands in the address bar.
    await page.selectOption('select[aria-label="What is shown"]', "story a-fault-comes-home");
    await page.waitForSelector('.chapters button:has-text("A right is missing")');
    await page.click('button:has-text("next fault")');
    await settled(page);
    const seen = (other: typeof page) =>
      Promise.all([".verdict", ".position", ".says"].map((part) => other.textContent(part)));
    const link = page.url();
    const elsewhere = await theatre.visit(new URL(link).hash);
    await settled(elsewhere.page);
    expect(await seen(elsewhere.page)).toEqual(await seen(page));
    expect([...complaints, ...elsewhere.complaints]).toEqual([]);
  });

  it("runs every scenario there is, to its end, with its steps as chapters", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const options = await page
      .locator("option[value^='scenario ']")
      .evaluateAll((all) => all.map((one) => [(one as HTMLOptionElement).value, one.textContent ?? ""] as const));
    expect(options.length).toBeGreaterThan(20);
    for (const [value, name] of options) {
      if (/^scenario own\.js/.test(value)) continue;
      await page.selectOption('select[aria-label="What is shown"]', value);
      await page.waitForFunction((wanted) => location.hash.includes(wanted), hashOf(value));
      expect([name, await page.locator(".banner, .narration .problem").allTextContents()]).toEqual([name, []]);
    }
    expect(complaints).toEqual([]);
  });

  it("runs a scenario of one's own with the seed that the link says, the same each time", async () => {
    const spot = async (seed: number): Promise<string> => {
      const { page } = await theatre.visit(`#scenario=own.js&index=0&seed=${seed}`);
      await settled(page);
      expect(await page.textContent(".chapters")).toMatch(/somewhere/);
      return (await page.textContent(".verdict .access"))!;
    };
    const [first, again, other] = [await spot(1), await spot(1), await spot(2)];
    expect(first).toMatch(/reads IOVA 0x[0-9a-f]+000/);
    expect([again === first, other === first]).toEqual([true, false]);
  });

  it("says how a scenario that does not hold, or throws, has ended", async () => {
    for (const [index, reason] of [
      [1, /expectation: expected: what never holds/],
      [2, /error: /],
    ] as const) {
      const { page, complaints } = await theatre.visit(`#scenario=own.js&index=${index}`);
      await page.waitForSelector(".narration .problem, .banner");
      // It ended before anything was traced, and keys have nowhere to go.
      for (const key of ["ArrowRight", "f", "c", "End", "1"]) await page.keyboard.press(key);
      expect(await page.textContent(".position")).toBe("no event");
      expect(await page.textContent(".narration .problem")).toMatch(reason);
      expect(complaints).toEqual([]);
    }
  });

  it("saves what a scenario shows as a scenario that passes on the command line", async () => {
    const { page } = await theatre.visit("#scenario=stale-iotlb.js&index=0");
    await settled(page);
    await page.keyboard.press("f");
    expect(await page.textContent(".verdict .headline")).toMatch(/guest's own fault/);
    const { name, text } = await savedScenario(page);
    expect(text).toMatch(/import \{ scenario \} from "nestbox";/);
    writeFileSync(join(folder, name), text);
    const { output, errors } = nestbox("scenario", join(folder, name));
    expect(output + errors).toMatch(/1 passed, 0 failed/);
  });

  it("runs every built-in guest, transpiled when the page was built, on each kind that it knows, to its end", async () => {
    const { page, complaints } = await theatre.visit();
    await settled(page);
    const names = await page
      .locator("option[value^='image ']")
      .evaluateAll((all) => all.map((one) => (one as HTMLOptionElement).value.split(" ")[1]!));
    expect(names).toEqual(["nested-dma", "hello", "two-iommus"]);
    for (const name of names) {
      await page.selectOption('select[aria-label="What is shown"]', `image ${name}`);
      await page.waitForFunction((wanted) => location.hash.includes(`image=${wanted}&`), name);
      // Another recording is seen whole, however long the one before was.
      expect(await page.textContent(".timeline header .muted")).toBe("");
      const kinds = await page.locator(".kinds button:not(:text('side by side'))").allTextContents();
      expect(kinds.length).toBeGreaterThan(1);
      for (const kind of kinds) {
        await page.click(`.kinds button:text-is("${kind}")`);
        await page.waitForSelector(`.kinds button[aria-pressed="true"]:text-is("${kind}")`);
        await settled(page);
        expect([name, kind, await page.locator(".narration .problem, .banner").allTextContents()]).toEqual([
          name,
          kind,
          [],
        ]);
        expect(await page.textContent(".messages")).toMatch(/\S/);
        if (name !== "nested-dma") continue;
        expect(await page.textContent(".messages")).toMatch(/done: all steps hold/);
        expect(await page.textContent(".verdict .headline")).toMatch(/fault|refused/);
        expect(await page.locator(".truth tbody tr").count()).toBeGreaterThan(0);
        await shoot(page, `nested-dma-${kind.replaceAll(" ", "-")}`);
      }
    }
    expect(complaints).toEqual([]);
  });
});

/** "scenario stale.js 1" as the address says it. */
function hashOf(option: string): string {
  const [, name, index] = option.split(" ");
  return `scenario=${name}&index=${index}&`;
}
