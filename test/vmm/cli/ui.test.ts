// `nestbox ui`: the page's files on loopback, and nothing else of this machine.

import { spawn } from "node:child_process";
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import { nestboxFile } from "./command-line.ts";

const STALE = "test/scenarios/stale-iotlb.scenario.ts";
let child: ReturnType<typeof spawn>;
let port = 0;

beforeAll(async () => {
  child = spawn(process.execPath, [nestboxFile, "ui", "--port", "0", STALE], { stdio: ["ignore", "pipe", "inherit"] });
  port = await new Promise<number>((listening) => {
    child.stdout!.once("data", (bytes) => listening(Number(/127\.0\.0\.1:(\d+)\//.exec(String(bytes))![1])));
  });
});
afterAll(async () => {
  const ended = new Promise<number | null>((end) => child.once("exit", end));
  child.kill("SIGINT");
  expect(await ended).toBe(0);
});

/** A request with its path as it is: no client tidies it up. */
function ask(
  path: string,
  method = "GET",
): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  return new Promise((answered, failed) => {
    request({ host: "127.0.0.1", port, path, method }, (response) => {
      let body = "";
      response.on("data", (bytes) => {
        body += String(bytes);
      });
      response.on("end", () => answered({ status: response.statusCode!, headers: response.headers, body }));
    })
      .on("error", failed)
      .end();
  });
}

describe("nestbox ui", () => {
  it("serves the page with its policy", async () => {
    const { status, headers, body } = await ask("/");
    expect(status).toBe(200);
    expect(body).toMatch(/page\.js/);
    expect(headers["content-security-policy"]).toMatch(/default-src 'none'; script-src 'self' 'wasm-unsafe-eval';/);
    expect(body).toMatch(/http-equiv="Content-Security-Policy"/);
    expect(body).not.toMatch(/unsafe-inline|unsafe-eval(?<!wasm-unsafe-eval)/);
    // No inline script or style: nothing between a script's tags, no style attribute.
    expect(body).not.toMatch(/<script[^>]*>[^<]|<style| style=/);
  });

  it("offers the scenarios it was given, bundled for a browser", async () => {
    const { scenarios } = JSON.parse((await ask("/programme.json")).body) as {
      scenarios: { module: string; names: string[] }[];
    };
    expect(scenarios).toEqual([
      {
        module: "stale-iotlb.js",
        names: Object.keys(VIOMMU_KINDS).map(() => expect.stringMatching(/^stale IOTLB/)),
      },
    ]);
    const { status, headers, body } = await ask("/scenarios/stale-iotlb.js");
    expect([status, headers["content-type"]]).toEqual([200, expect.stringMatching(/javascript/)]);
    expect(body).not.toMatch(/from ?"node:/);
  });

  it.each([
    "/../package.json",
    "/..%2fpackage.json",
    "/images/../../../package.json",
    "//etc/passwd",
    "/images/nested-dma/",
    "/jco/%00",
    "/.git/config",
    "/nothing.js",
  ])("has no %s", async (path) => {
    expect((await ask(path)).status).toBe(404);
  });

  it("only gives", async () => {
    expect((await ask("/", "POST")).status).toBe(405);
    expect(await ask("/", "HEAD")).toMatchObject({ status: 200, body: "" });
  });
});
