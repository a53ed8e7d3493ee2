// Hosts with less memory than a machine takes, page by page: whatever does not fit is refused in words, never a broken invariant, and
// nothing of a refused machine stays behind.

import { describe, expect, it } from "vitest";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import { HostRefusal } from "../../vmm/vfio/host-refusal.ts";
import type { ViommuKindName } from "../../vmm/viommu/kinds.ts";

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
        const kind = host.iommus[0]!.kind as ViommuKindName;
        const vm = t.vm({ kind, memory: 16 * 65536, assign: ["0000:00:01.0@00:02.0"] });
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
      const order = ["no host", "no machine", "runs"];
      /** The least number of pages that comes so far. */
      const least = (rank: number): number => {
        let [less, enough] = [0, 2048];
        while (enough - less > 1) {
          const middle = (less + enough) >> 1;
          if (order.indexOf(outcomeWith(name, middle)) < rank) less = middle;
          else enough = middle;
        }
        return enough;
      };
      const [boots, runs] = [least(1), least(2)];
      // Where it boots a machine may run at once, in the gaps between its queues.
      const pages = new Set([1, 2, 3, 5, 8, 13, 21, 34]);
      for (const border of [boots, runs]) for (let page = border - 16; page < border + 24; page++) pages.add(page);
      for (let page = boots; page < runs; page += 5) pages.add(page);
      const outcomes = [...pages].sort((a, b) => a - b).map((count) => outcomeWith(name, count));
      expect(new Set(outcomes)).toEqual(new Set(boots === runs ? ["no host", "runs"] : order));
      // More memory is never less.
      const ranks = outcomes.map((outcome) => order.indexOf(outcome));
      expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
    });
  }
});
