// The hosts that ship, all of them: the documents of host/examples.

import { BUILT_IN_NAMES, builtInHost } from "./built-in-host.ts";
import type { HostDescription } from "./description.ts";

export { DEFAULT_HOST } from "./built-in-host.ts";

export const builtInHosts: readonly HostDescription[] = BUILT_IN_NAMES.map((name) => builtInHost(name)!);
