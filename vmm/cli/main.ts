// The command line: `nestbox VERB`. Errors of the user's are one line and exit status 2; a bug of ours prints the seed and exits 4.

import { Command, CommanderError, type Option } from "commander";
import { printable } from "../../host/base/printable.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { HostRefusal } from "../vfio/guest-address-space.ts";
import { endWithReader } from "./closed-output.ts";
import { boot } from "./commands/boot.ts";
import { caps } from "./commands/caps.ts";
import { fuzz } from "./commands/fuzz.ts";
import { host } from "./commands/host.ts";
import { hosts } from "./commands/hosts.ts";
import { ids } from "./commands/ids.ts";
import { inspect } from "./commands/inspect.ts";
import { makeImageCommand } from "./commands/make-image.ts";
import { monitor } from "./commands/monitor.ts";
import { replay } from "./commands/replay.ts";
import { report } from "./commands/report.ts";
import { scenarioCommand } from "./commands/scenario.ts";
import { trace } from "./commands/trace.ts";
import { ui } from "./commands/ui.ts";
import { walk } from "./commands/walk.ts";
import { EXIT_BUG, EXIT_PASS, EXIT_USAGE, UsageError } from "./exit-codes.ts";
import { fitted } from "./terminal.ts";
import { version } from "./version.ts";

/** Errors, help and exit statuses of a command and the commands below it are the program's. */
function likeProgram(command: Command, parent: Command): Command {
  command.exitOverride().copyInheritedSettings(parent);
  for (const below of command.commands) likeProgram(below as Command, command);
  return command;
}

/** What --help says of an option: choices and defaults as a person writes them, not as JSON. */
function optionDescription({ description, argChoices, defaultValue, defaultValueDescription, flags }: Option): string {
  const extra: string[] = [];
  if (argChoices !== undefined) extra.push(argChoices.join(", "));
  const shown = defaultValueDescription ?? (Array.isArray(defaultValue) ? defaultValue.join(", ") : defaultValue);
  const takesValue = /[<[]/.test(flags);
  if (takesValue && shown !== undefined && shown !== "") extra.push(`default: ${String(shown)}`);
  return extra.length === 0 ? description : `${description} (${extra.join("; ")})`;
}

const program = new Command("nestbox")
  .description("Boot guests that own an IOMMU, nested over the IOMMU of a modelled Linux host.")
  .version(version())
  .showHelpAfterError("(nestbox --help lists the commands)")
  // What follows `monitor SOCKET` is the monitor's.
  .enablePositionalOptions()
  .configureHelp({ optionDescription })
  .configureOutput({ writeErr: (text) => console.error(fitted(text.trimEnd(), 4, process.stderr)) })
  .exitOverride();
const commands = [
  boot(),
  monitor(),
  scenarioCommand(),
  walk(),
  ids(),
  inspect(),
  caps(),
  trace(),
  ui(),
  hosts(),
  host(),
  replay(),
  makeImageCommand(),
  fuzz(),
  report(),
];
for (const command of commands) program.addCommand(likeProgram(command, program));
endWithReader();

/** One line, whatever the message quotes. */
function complain(message: string): void {
  const line = printable(message.trim().replace(/\s*\n\s*/g, "; "));
  console.error(fitted(`nestbox: ${line}`, 4, process.stderr));
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT_PASS : EXIT_USAGE;
  } else if (error instanceof UsageError) {
    complain(error.message);
    process.exitCode = error.exitCode;
  } else if (error instanceof HostRefusal || error instanceof HostDescriptionError) {
    // A host that cannot carry the machine: too little memory, a failure asked for with --inject.
    complain(error.message);
    process.exitCode = EXIT_USAGE;
  } else {
    const seed = process.argv.includes("--seed") ? process.argv[process.argv.indexOf("--seed") + 1] : "0";
    console.error(`nestbox: this is a bug of nestbox's (seed ${seed}), please report it with the command line`);
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    process.exitCode = EXIT_BUG;
  }
}
