import { existsSync, readFileSync } from "node:fs";

/** Of this package. Its file is two folders up from here as written and from a fuzzer's bundle, three from dist/vmm/cli. */
export function version(): string {
  const places = ["../../package.json", "../../../package.json"].map((place) => new URL(place, import.meta.url));
  const file = places.find((place) => existsSync(place))!;
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
