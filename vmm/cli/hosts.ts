// Finds the host that `--host NAME|FILE` names: a built-in one, or a JSON document (host/README.md).

import { existsSync } from "node:fs";
import { BUILT_IN_NAMES, builtInHost, DEFAULT_HOST } from "../../host/built-in-host.ts";
import { type HostDescription, HostDescriptionError, parseHost } from "../../host/description.ts";
import { UsageError } from "./exit-codes.ts";
import { readInput } from "./input-file.ts";

/** Bytes of a host description: thousands of devices. */
const LONGEST = 16 * 2 ** 20;

export function findHost(name: string = DEFAULT_HOST): HostDescription {
  const builtIn = builtInHost(name);
  if (builtIn !== undefined) return builtIn;
  if (!existsSync(name)) {
    throw new UsageError(`--host ${name}: no such file, and no built-in host (${BUILT_IN_NAMES.join(", ")})`);
  }
  const text = readInput(name, LONGEST, `--host ${name}`).toString("utf8");
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--host ${name}: ${(error as Error).message}`);
  }
  try {
    return parseHost(document, name);
  } catch (error) {
    if (error instanceof HostDescriptionError) throw new UsageError(error.message);
    throw error;
  }
}
