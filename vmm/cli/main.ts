// The command line: `nestbox VERB`. Errors of the user's are one line and exit status 2; a bug of ours prints the seed and exits 4.

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { HostDescriptionError } from "../../host/description.ts";
import { HostRefusal } from "../vfio/guest-address-space.ts";
import { boot } from "./commands/boot.ts";
import { caps } from "./commands/caps.ts";
import { fuzz } from "./commands/fuzz.ts";
import { hosts } from "./commands/hosts.ts";
import { ids } from "./commands/ids.ts";
import { inspect } from "./commands/inspect.ts";
import { scenarioCommand } from "./commands/scenario.ts";
import { serveIommufd } from "./commands/serve-iommufd.ts";
import { trace } from "./commands/trace.ts";
import { walk } from "./commands/walk.ts";
import { EXIT_BUG, EXIT_PASS, EXIT_USAGE, UsageError } from "./exit-codes.ts";

/** Of this package. */
function version(): string {
  const file = new URL("../../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

const program = new Command("nestbox")
  .description("Boot guests that own an IOMMU, nested over the IOMMU of a modelled Linux host.")
  .version(version())
  .showHelpAfterError("(nestbox --help lists the commands)")
  .exitOverride();
const commands = [
  boot(),
  scenarioCommand(),
  walk(),
  ids(),
  inspect(),
  caps(),
  trace(),
  hosts(),
  serveIommufd(),
  fuzz(),
];
for (const command of commands) program.addCommand(command.exitOverride().copyInheritedSettings(program));

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT_PASS : EXIT_USAGE;
  } else if (error instanceof UsageError) {
    console.error(`nestbox: ${error.message}`);
    process.exitCode = error.exitCode;
  } else if (error instanceof HostRefusal || error instanceof HostDescriptionError) {
    // A host that cannot carry the machine: too little memory, a failure asked for with --inject.
    console.error(`nestbox: ${error.message}`);
    process.exitCode = EXIT_USAGE;
  } else {
    const seed = process.argv.includes("--seed") ? process.argv[process.argv.indexOf("--seed") + 1] : "0";
    console.error(`nestbox: this is a bug of nestbox's (seed ${seed}), please report it with the command line`);
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    process.exitCode = EXIT_BUG;
  }
}
