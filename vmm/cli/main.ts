// The command line: `nestbox VERB`. Errors of the user's are one line and exit status 2; a bug of ours prints the seed and exits 4.
// A verb's code is loaded when the command line names the verb, and all of it for help and for what is no verb.

import { Command, CommanderError, type Option } from "commander";
import { printable } from "../../host/base/printable.ts";
import { endWithReader } from "./closed-output.ts";
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

/** In the order of the help. */
const VERBS: ReadonlyMap<string, () => Promise<Command>> = new Map(
  Object.entries({
    boot: async () => (await import("./commands/boot.ts")).boot(),
    monitor: async () => (await import("./commands/monitor.ts")).monitor(),
    scenario: async () => (await import("./commands/scenario.ts")).scenarioCommand(),
    walk: async () => (await import("./commands/walk.ts")).walk(),
    ids: async () => (await import("./commands/ids.ts")).ids(),
    inspect: async () => (await import("./commands/inspect.ts")).inspect(),
    caps: async () => (await import("./commands/caps.ts")).caps(),
    trace: async () => (await import("./commands/trace.ts")).trace(),
    ui: async () => (await import("./commands/ui.ts")).ui(),
    hosts: async () => (await import("./commands/hosts.ts")).hosts(),
    host: async () => (await import("./commands/host.ts")).host(),
    replay: async () => (await import("./commands/replay.ts")).replay(),
    "make-image": async () => (await import("./commands/make-image.ts")).makeImageCommand(),
    fuzz: async () => (await import("./commands/fuzz.ts")).fuzz(),
    report: async () => (await import("./commands/report.ts")).report(),
  }),
);

/** The commands that a command line can come to: the one that it names, or all. */
async function addCommands(program: Command, [first, second]: readonly string[]): Promise<void> {
  if (first === "--version" || first === "-V") return;
  const named = VERBS.get((first === "help" ? second : first) ?? "");
  for (const load of named === undefined ? VERBS.values() : [named]) {
    program.addCommand(likeProgram(await load(), program));
  }
}

/** A host that cannot carry the machine: too little memory, a failure asked for with --inject. */
async function isRefusal(error: unknown): Promise<boolean> {
  const { HostRefusal } = await import("../vfio/guest-address-space.ts");
  const { HostDescriptionError } = await import("../../host/description.ts");
  return error instanceof HostRefusal || error instanceof HostDescriptionError;
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
endWithReader();

/** One line, whatever the message quotes. */
function complain(message: string): void {
  const line = printable(message.trim().replace(/\s*\n\s*/g, "; "));
  console.error(fitted(`nestbox: ${line}`, 4, process.stderr));
}

try {
  await addCommands(program, process.argv.slice(2));
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT_PASS : EXIT_USAGE;
  } else if (error instanceof UsageError) {
    complain(error.message);
    process.exitCode = error.exitCode;
  } else if (error instanceof Error && (await isRefusal(error))) {
    complain(error.message);
    process.exitCode = EXIT_USAGE;
  } else {
    const seed = process.argv.includes("--seed") ? process.argv[process.argv.indexOf("--seed") + 1] : "0";
    console.error(`nestbox: this is a bug of nestbox's (seed ${seed}), please report it with the command line`);
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    process.exitCode = EXIT_BUG;
  }
}
