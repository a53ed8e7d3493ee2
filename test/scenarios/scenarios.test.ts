// Every scenario that ships holds, by itself and with any seed.

import { readdirSync } from "node:fs";
import { builtInHosts, DEFAULT_HOST, isScenario, runScenario, type Scenario } from "nestbox";
import { describe, expect, it } from "vitest";

const here = new URL(".", import.meta.url);
const findHost = (name: string) => builtInHosts.find((host) => host.name === name)!;

for (const file of readdirSync(here)
  .filter((name) => name.endsWith(".scenario.ts"))
  .sort()) {
  const exported = Object.values((await import(new URL(file, here).href)) as Record<string, unknown>).flat();
  describe(file, () => {
    for (const scenario of exported.filter(isScenario) as Scenario[]) {
      for (const sweepValue of scenario.options.sweep ?? [undefined]) {
        it(`${scenario.name}${sweepValue === undefined ? "" : ` [${String(sweepValue)}]`}`, () => {
          const result = runScenario(scenario, { seed: 1, defaultHost: findHost(DEFAULT_HOST), findHost, sweepValue });
          expect(result.message + (result.passed ? "" : `\n${result.stack}`)).toBe("");
        });
      }
    }
  });
}
