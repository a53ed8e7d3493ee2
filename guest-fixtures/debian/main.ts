// `npm run fixture:debian [-- --arch A] [-- --suite S] [-- --refresh] [-- --programs] [-- FILE.deb…]`

import { Command, Option } from "commander";
import { programsArchive } from "./programs-archive.ts";
import {
  BOOTED_ARCHITECTURES,
  debianFixture,
  FIXTURE_ARCHITECTURES,
  type FixtureArchitecture,
  MissingHere,
} from "./recipe.ts";

interface Given {
  readonly suite: string;
  readonly refresh?: true;
  readonly programs?: true;
  readonly arch: FixtureArchitecture;
}

new Command("fixture:debian")
  .description("build a Debian guest image from the system's Debian mirror, or from .deb files")
  .argument("[debs...]", ".deb files: kernel binary, modules, base, busybox-static")
  .option("--suite <name>", "Debian suite, forky or newer", "forky")
  .addOption(new Option("--arch <name>", "Debian port").choices(FIXTURE_ARCHITECTURES).default("riscv64"))
  .option("--refresh", "do not use the cache")
  .option("--programs", "the archive of programs that `npm run bench -- debian` measures, instead")
  .action((debs: string[], options: Given) => {
    try {
      const log = (line: string): void => console.error(line);
      if (options.programs === true) {
        const architecture = BOOTED_ARCHITECTURES.find((name) => name === options.arch);
        if (architecture === undefined) throw new MissingHere(`nestbox boots no ${options.arch}: nothing is measured`);
        console.log(programsArchive(architecture, log, options.refresh));
        return;
      }
      const fixture = debianFixture({
        suite: options.suite,
        architecture: options.arch,
        refresh: options.refresh ?? false,
        ...(debs.length > 0 ? { debs } : {}),
        log,
      });
      console.log(`${fixture.release}\n${fixture.kernel}\n${fixture.initrd}`);
    } catch (error) {
      if (!(error instanceof MissingHere)) throw error;
      console.error(`fixture:debian: ${error.message}`);
      process.exitCode = 77;
    }
  })
  .parse();
