// `npm run bench [-- NAME…] [OPTIONS]`: prints one JSON object a line. Every figure is a median; ratios are within this run.

import { readdirSync } from "node:fs";
import { Argument, Command, type CommanderError } from "commander";
import type { Benchmark, Given } from "./beside/benchmark.ts";

const here = new URL(".", import.meta.url);
const benchmarks = new Map<string, Benchmark>();
for (const file of readdirSync(here).sort()) {
  if (!file.endsWith(".js") || file === "main.js") continue;
  benchmarks.set(file.slice(0, -3), (await import(new URL(file, here).href)) as Benchmark);
}

const names = new Argument("[name...]", "which; left out: all but those on request").choices([...benchmarks.keys()]);
const command = new Command("npm run bench --").addArgument(names).helpOption("--help", "print this");
for (const option of new Set([...benchmarks.values()].flatMap(({ options = [] }) => options))) {
  const owners = [...benchmarks].filter(([, { options }]) => options?.includes(option)).map(([name]) => name);
  option.description += ` (${owners.join(", ")})`;
  command.addOption(option);
}
const width = Math.max(...[...benchmarks.keys()].map((name) => name.length));
const lines = [...benchmarks].map(
  ([name, { about, onRequest }]) => `  ${name.padEnd(width)}  ${about}${onRequest === true ? " (on request)" : ""}`,
);
command.addHelpText("after", `\nBenchmarks:\n${lines.join("\n")}`);
command.exitOverride((error: CommanderError) => process.exit(error.exitCode === 0 ? 0 : 2));

command.action(async (asked: readonly string[], given: Given) => {
  const chosen = [...benchmarks].filter(([name, { onRequest }]) =>
    asked.length === 0 ? onRequest !== true : asked.includes(name),
  );
  for (const option of command.options) {
    if (command.getOptionValueSource(option.attributeName()) !== "cli") continue;
    if (chosen.some(([, { options }]) => options?.includes(option))) continue;
    command.error(`error: ${option.long} is no option of ${chosen.map(([name]) => name).join(", ")}`);
  }
  const works = chosen.flatMap(([, { works = [] }]) => works);
  const unknown = given.work?.find((work) => !works.includes(work));
  if (unknown !== undefined) command.error(`error: There is no work "${unknown}"; there are ${works.join(", ")}.`);
  for (const [, { bench }] of chosen) await bench((line) => console.log(JSON.stringify(line)), given);
});
await command.parseAsync();
