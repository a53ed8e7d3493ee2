// Hosts with less memory than a machine takes, page by page: whatever does not fit is refused in words, never a broken invariant, and
// nothing of a refused machine stays behind.

import { describe, expect, it } from "vitest";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import { HostRefusal } from "../../vmm/vfio/host-refusal.ts";

const PAGE = 4096;

/** How a machine with one device went on a host with so many pages. */
function outcomeWith(name: string, pages: number): "no host" | "no machine" | "runs" {
  const host = { ...builtInHosts.find((candidate) => candidate.name === name)!, memory: pages * PAGE };
  let outcome: "no host" | "no machine" | "runs" = "no host";
  const result = runScenario(
    scenario("small", (t) => {
      try {
        t.host();
        outcome = "no machine";
        const vm = t.vm({ memory: 16 * 65536, assign: ["0000:00:01.0@00:02.0"] });
        const device = vm.device("00:02.0");
        const stage1 = vm.stage1();
        stage1.map(0x1000n, vm.ram.allocate(), 4096n);
        device.installContext(stage1);
        device.dmaWrite(0x1000n, Uint8Array.of(1));
        vm.takeFaults();
        outcome = "runs";
      } catch (error) {
        if (!(error instanceof HostRefusal || error instanceof HostDescriptionError)) throw error;
        t.expect(/memory|ENOMEM/.test(error.message), `words about memory: ${error.message}`);
        if (outcome === "no machine") t.equal(t.host().liveObjects, 0, "objects in the host");
      }
    }),
    { seed: 0, defaultHost: host, findHost: () => host },
  );
  expect([pages, result.message]).toEqual([pages, ""]);
  return outcome;
}

describe("a host with little memory", () => {
  for (const { name } of builtInHosts) {
    it(`${name}: says what does not fit, from no host at all to a machine that runs`, () => {
      const outcomes: string[] = [];
      for (let pages = 1; pages <= 400; pages += pages < 64 ? 1 : 7) outcomes.push(outcomeWith(name, pages));
      expect(new Set(outcomes)).toEqual(new Set(["no host", "no machine", "runs"]));
      // More memory is never less.
      const order = ["no host", "no machine", "runs"];
      const ranks = outcomes.map((outcome) => order.indexOf(outcome));
      expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
    });
  }
});
