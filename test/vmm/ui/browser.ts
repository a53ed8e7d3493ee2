// A real browser for the page's tests: Debian's chromium, driven by Playwright's client. Where there is none, the tests say so and are left out.

import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { TRACE_VERSION } from "../../../host/base/trace-json.ts";
import { type ExtraFile, UiServer } from "../../../vmm/cli/ui-server.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
/** Built before the tests (test/build.setup.ts). */
export const PAGE_FOLDER = join(root, "dist", "ui");
/** Screenshots: artefacts of CI, not part of the project. */
const SHOTS = process.env.NESTBOX_SCREENSHOTS ?? join(root, ".cache", "theatre-screenshots");

const KNOWN = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
export const CHROMIUM = process.env.NESTBOX_CHROMIUM ?? KNOWN.find((file) => existsSync(file)) ?? null;
if (CHROMIUM === null) {
  console.warn("SKIPPED: the walk theatre in a browser: there is no chromium here (Debian: apt install chromium)");
}

export interface Visit {
  readonly page: Page;
  /** What the page complained of: errors, refusals of its policy, requests that failed. */
  readonly complaints: string[];
}

export class Theatre {
  readonly url: string;
  readonly #browser: Browser;
  readonly #server: UiServer | null;
  /** Names of the files that pages and workers have asked for since the last visit. */
  served: string[] = [];
  readonly #contexts: BrowserContext[] = [];

  private constructor(browser: Browser, url: string, server: UiServer | null) {
    this.#browser = browser;
    this.#server = server;
    this.url = url;
  }

  static async #launch(): Promise<Browser> {
    // Root in a container has no user namespaces for chromium's own sandbox.
    const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    return await chromium.launch({ executablePath: CHROMIUM!, args });
  }

  /** What somebody else serves there. */
  static async at(url: string): Promise<Theatre> {
    return new Theatre(await Theatre.#launch(), url, null);
  }

  /** The page of this folder, with the scenarios it is served with. */
  static async open(folder = PAGE_FOLDER, extra: readonly ExtraFile[] = []): Promise<Theatre> {
    const server = new UiServer(folder, extra);
    const port = await server.listen(0, false);
    return new Theatre(await Theatre.#launch(), `http://127.0.0.1:${port}/`, server);
  }

  /** CPU time of the whole browser so far, seconds: what it costs on a machine that does something else, too. */
  async cpuSeconds(): Promise<number> {
    const session = await this.#browser.newBrowserCDPSession();
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    await session.detach();
    return processInfo.reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  }

  /** A page of its own, with nothing remembered. */
  async visit(hash = "", options: { width?: number; dark?: boolean } = {}): Promise<Visit> {
    const { width = 1280, dark = false } = options;
    const context = await this.#browser.newContext({
      viewport: { width, height: 900 },
      colorScheme: dark ? "dark" : "light",
      acceptDownloads: true,
    });
    this.#contexts.push(context);
    const page = await context.newPage();
    this.served = [];
    context.on("request", (request) => this.served.push(new URL(request.url()).pathname.slice(1)));
    page.setDefaultTimeout(300_000);
    const complaints: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(String(error.stack)));
    page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
    page.on("dialog", (dialog) => {
      complaints.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    await page.goto(`${this.url}${hash}`);
    return { page, complaints };
  }

  /** Closes the pages that were visited. */
  async leave(): Promise<void> {
    for (const context of this.#contexts.splice(0)) await context.close();
  }

  async close(): Promise<void> {
    await this.leave();
    await this.#browser.close();
    this.#server?.close();
  }
}

/** Keeps a picture of the whole page. */
export async function shoot(page: Page, name: string): Promise<void> {
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}

/** Waits until tables and caches have been asked about the moment shown. */
export async function settled(page: Page): Promise<void> {
  await page.waitForSelector(".verdict");
  await page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null);
}

/** Saves this moment as a scenario, as a person does. */
export async function savedScenario(page: Page): Promise<{ readonly name: string; readonly text: string }> {
  await page.click('summary:has-text("save")');
  const [saved] = await Promise.all([
    page.waitForEvent("download"),
    page.click('details.menu button:has-text("as a scenario")'),
  ]);
  return { name: saved.suggestedFilename(), text: readFileSync((await saved.path())!, "utf8") };
}

/** A trace of a million events, or as many: walks of nine loads, and the DMA that each was for, a page apart. */
export function writeMillion(file: string, events = 1_000_000): void {
  const fd = openSync(file, "w");
  const lines = [`{"nestbox-trace":${TRACE_VERSION}}`];
  for (let seq = 1; seq <= events; seq++) {
    const load = `"type":"walk","where":"host","iommu":"iommu0","deviceId":8,"table":"stage2","level":${seq % 3},"space":"spa","address":"0x8000${seq.toString(16)}","entry":"0x201628005f","cached":false,"serves":1`;
    const dma = `"type":"dma","device":"0000:00:01.0","deviceId":8,"iova":"0x${(seq * 4096).toString(16)}","spa":"0x1000","length":4,"write":true,"result":"ok"`;
    lines.push(`{"seq":${seq},"time":${seq},"cause":0,${seq % 10 === 0 ? dma : load}}`);
    if (lines.length < 10_000) continue;
    writeSync(fd, `${lines.join("\n")}\n`);
    lines.length = 0;
  }
  writeSync(fd, lines.map((line) => `${line}\n`).join(""));
  closeSync(fd);
}

/** Drops a file on the page, as a person does. */
export async function drop(page: Page, name: string, contents: Uint8Array | string, right = false): Promise<void> {
  const bytes = typeof contents === "string" ? new TextEncoder().encode(contents) : contents;
  const data = await page.evaluateHandle(
    ([file, base64]) => {
      const transfer = new DataTransfer();
      const raw = Uint8Array.from(atob(base64!), (character) => character.charCodeAt(0));
      transfer.items.add(new File([raw], file!));
      return transfer;
    },
    [name, Buffer.from(bytes).toString("base64")],
  );
  const clientX = right ? 1_000_000 : 1;
  await page.dispatchEvent("body", "drop", { dataTransfer: data, clientX });
}
