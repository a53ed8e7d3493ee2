// `npm run bench [-- NAME…]`: prints one JSON object a line. Every figure is a median; ratios are within this run.

import { existsSync, readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";

const here = new URL(".", import.meta.url);
const available = readdirSync(here)
  .filter((file) => file.endsWith(".js") && file !== "main.js")
  .map((file) => file.slice(0, -3))
  .sort();
const asked = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const unknown = asked.filter((name) => !available.includes(name));
if (unknown.length > 0) {
  console.error(`bench: no benchmark "${unknown[0]}"; there are ${available.join(", ")}`);
  process.exit(2);
}
// Whoever wants the other emulator beside ours asks for it: minutes of both.
for (const name of asked.length > 0 ? asked : available.filter((one) => one !== "qemu" && one !== "debian")) {
  const file = new URL(`${name}.js`, here);
  if (!existsSync(file)) continue;
  const { bench } = (await import(pathToFileURL(file.pathname).href)) as {
    bench?: (emit: (line: Record<string, unknown>) => void) => Promise<void>;
  };
  if (bench === undefined) continue;
  await bench((line) => console.log(JSON.stringify(line)));
}
