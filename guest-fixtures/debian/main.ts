// `npm run fixture:debian [-- --arch A] [-- --suite S] [-- --refresh] [-- FILE.deb…]`

import { Command, Option } from "commander";
import { debianFixture, FIXTURE_ARCHITECTURES, type FixtureArchitecture, MissingHere } from "./recipe.ts";

new Command("fixture:debian")
  .description("build a Debian guest image from the system's Debian mirror, or from .deb files")
  .argument("[debs...]", ".deb files: kernel binary, modules, base, busybox-static")
  .option("--suite <name>", "Debian suite, forky or newer", "forky")
  .addOption(new Option("--arch <name>", "Debian port").choices(FIXTURE_ARCHITECTURES).default("riscv64"))
  .option("--refresh", "do not use the cache")
  .action((debs: string[], options: { suite: string; refresh?: true; arch: FixtureArchitecture }) => {
    try {
      const fixture = debianFixture({
        suite: options.suite,
        architecture: options.arch,
        refresh: options.refresh ?? false,
        ...(debs.length > 0 ? { debs } : {}),
        log: (line) => console.error(line),
      });
      console.log(`${fixture.release}\n${fixture.kernel}\n${fixture.initrd}`);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`fixture:debian: ${error.message}`);
      process.exitCode = 77;
    }
  })
  .parse();
