// `npm run fuzz -- NAME [--seed N] [--seconds S]`: runs one fuzzer for a while. Exit status 1 on a finding.

import { readdirSync } from "node:fs";
import { Command } from "commander";

type Fuzz = (options: { seed: number; seconds: number; log: (line: string) => void }) => Promise<boolean>;

const here = new URL(".", import.meta.url);
const available = readdirSync(here)
  .filter((file) => file.endsWith(".js") && file !== "main.js" && !file.endsWith(".test.js"))
  .map((file) => file.slice(0, -3))
  .sort();

await new Command("fuzz")
  .argument("<name>", `which fuzzer: ${available.join(", ")}`)
  .option("--seed <n>", "first seed", "1")
  .option("--seconds <s>", "how long, in seconds of wall time", "10")
  .action(async (name: string, options: { seed: string; seconds: string }) => {
    if (!available.includes(name)) {
      console.error(`fuzz: no fuzzer "${name}"; there are ${available.join(", ")}`);
      process.exit(2);
    }
    const [seed, seconds] = [Number(options.seed), Number(options.seconds)];
    if (!Number.isInteger(seed) || seed < 0 || !(seconds > 0)) {
      console.error("fuzz: --seed takes a whole number, --seconds a number above 0");
      process.exit(2);
    }
    const { fuzz } = (await import(new URL(`${name}.js`, here).href)) as { fuzz: Fuzz };
    const clean = await fuzz({ seed, seconds, log: console.log });
    console.log(clean ? `fuzz ${name}: no finding` : `fuzz ${name}: FINDING (above)`);
    process.exitCode = clean ? 0 : 1;
  })
  .parseAsync();
