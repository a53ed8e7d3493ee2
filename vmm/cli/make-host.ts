// Makes the host that `nestbox host` serves, or that a recording of one is replayed on.

import { ModelledHost } from "../../host/adapters/modelled-host.ts";
import type { Outside } from "../../host/adapters/outside.ts";
import { SelftestHost } from "../../host/adapters/selftest-host.ts";
import type { ServedHost } from "../../host/adapters/served-host.ts";
import type { Clock } from "../../host/base/clock.ts";
import type { Trace } from "../../host/base/trace.ts";
import type { HostDescription } from "../../host/description.ts";
import { Host } from "../../host/host.ts";
import { findHost } from "./hosts.ts";
import { StaleReport } from "./stale-report.ts";

export interface MakeHostOptions {
  /** A name, a file, or the description itself. */
  readonly host?: string | HostDescription;
  readonly time: "real" | "leap";
  readonly inject: readonly string[];
  readonly seed: number;
  readonly check?: "stale";
  readonly selftest?: true;
}

/** Throws UsageError, HostDescriptionError, BlockFileError and InjectionSyntaxError. `say`: gets lines for the user. */
export function makeHost(
  options: MakeHostOptions,
  clock: Clock,
  trace: Trace,
  outside: Outside,
  say: (line: string) => void,
): ServedHost {
  if (options.selftest === true) return new SelftestHost(say);
  const host = new Host(describedHost(options.host), {
    clock,
    trace,
    vfio: { mappableBars: false },
    openBlockFile: (path, blockBytes) => outside.openBlockFile(path, blockBytes),
  });
  for (const problem of host.problems) say(problem);
  const plan = options.inject.length === 0 ? null : host.inject(options.inject, options.seed);
  const served = new ModelledHost(host, clock, options.time, outside, say, plan);
  if (options.check === "stale") {
    const stale = new StaleReport(host, say, plan?.skipsCommands ?? false);
    served.findings = () => [`stale accesses: ${stale.count}`];
    served.failed = () => stale.count > 0;
  }
  return served;
}

/** Throws UsageError. */
export function describedHost(host: string | HostDescription | undefined): HostDescription {
  return typeof host === "object" ? host : findHost(host);
}
