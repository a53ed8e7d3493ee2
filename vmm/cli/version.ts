import { readFileSync } from "node:fs";
import { packageFile } from "../../host/adapters/package-root.ts";

/** Of this package. */
export function version(): string {
  return (JSON.parse(readFileSync(packageFile("package.json"), "utf8")) as { version: string }).version;
}
