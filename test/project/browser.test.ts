// The core runs in a browser: the library, with hosts, kernel, VMM and scenarios, bundles for one without a single `node:` import, and
// runs where no Node global exists.

import { fileURLToPath } from "node:url";
import { runInNewContext } from "node:vm";
import { build } from "esbuild";
import { describe, expect, it } from "vitest";

const entry = fileURLToPath(new URL("../../vmm/scenario/index.ts", import.meta.url));

describe("the library", () => {
  it("bundles for a browser and runs a scenario with nothing but what browsers have", async () => {
    const result = await build({
      entryPoints: [entry],
      bundle: true,
      write: false,
      platform: "browser",
      format: "iife",
      globalName: "nestbox",
      target: "es2022",
      logLevel: "silent",
    });
    expect(result.errors).toEqual([]);
    const code = result.outputFiles[0]!.text;
    expect(code).not.toMatch(/require\("node:|from "node:/);
    const page = { WebAssembly, TextEncoder, TextDecoder, URL, performance, console, outcome: "" };
    const script = `${code}
      const findHost = (name) => nestbox.builtInHosts.find((host) => host.name === name);
      const story = nestbox.scenario("in a page", (t) => {
        const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
        const device = vm.device("00:02.0");
        const stage1 = vm.stage1();
        const page = vm.ram.allocate();
        stage1.map(0x1000n, page, 4096n);
        device.installContext(stage1);
        t.expect(device.dmaWrite(0x1000n, Uint8Array.of(7)).ok, "the DMA goes through");
        t.equal(vm.ram.read(page, 1)[0], 7, "the byte");
        device.dmaRead(0x5000n, 1);
        vm.expectFault({ cause: 13, device });
      });
      const defaultHost = findHost(nestbox.DEFAULT_HOST);
      const result = nestbox.runScenario(story, { seed: 0, defaultHost, findHost });
      outcome = result.passed ? "passed" : result.message;`;
    runInNewContext(script, page, { timeout: 500_000 });
    expect(page.outcome).toBe("passed");
  });
});
