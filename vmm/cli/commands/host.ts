// `nestbox host run … -- PROGRAM` and `nestbox host serve --dir DIR`: the modelled host for unmodified Linux programs.

import { Command, Option } from "commander";
import { collect, INJECTION_RULES, wholeNumber } from "../options.ts";
import { type HostServeOptions, runProgram, serveHost } from "../served-host.ts";

export function host(): Command {
  const command = new Command("host").description(
    "a modelled host with an IOMMU for unmodified Linux programs: /dev/iommu, /dev/vfio and their sysfs",
  );
  command.addCommand(
    withHost(new Command("run"))
      .description("run a program, such as QEMU, on a modelled host; its exit status is the program's")
      .argument("<program...>", "the program and its arguments, after --; $NESTBOX_SYS in them is replaced")
      .addHelpText(
        "after",
        `
In the program's environment NESTBOX_SYS is the folder of the host's PCI devices:
  nestbox host run -- qemu-system-aarch64 -object iommufd,id=i0 \\
    -device 'vfio-pci,sysfsdev=$NESTBOX_SYS/0000:00:01.0,iommufd=i0' …
The same device is also found as host=0000:00:01.0.

${INJECTION_RULES}`,
      )
      .action(async (words: string[], options: HostServeOptions) => {
        process.exitCode = await runProgram(words, options);
      }),
  );
  command.addCommand(
    withHost(new Command("serve"))
      .description(
        "serve a modelled host to programs started elsewhere, until SIGINT or SIGTERM; prints what to put in their environment",
      )
      .requiredOption(
        "--dir <folder>",
        "folder to make for the socket, the sysfs and the preload library; removed at the end",
      )
      .action(async (options: HostServeOptions & { dir: string }) => {
        process.exitCode = await serveHost(options);
      }),
  );
  return command;
}

function withHost(command: Command): Command {
  return command
    .option("--host <name|file>", "the host: a built-in name or a JSON file (see: nestbox hosts)")
    .option("--trace <file>", "write the trace as JSON Lines")
    .option("--record <file>", "record the run: nestbox replay FILE gives its trace again, without the programs")
    .addOption(
      new Option("--time <mode>", "real: devices take their time; leap: a latency under 200 us is over at once")
        .choices(["real", "leap"])
        .default("leap"),
    )
    .option(
      "--inject <rule>",
      "make the host fail, such as ioctl:IOMMU_IOAS_MAP@2=ENOMEM (rules: below); repeatable",
      collect,
      [],
    )
    .addOption(
      new Option(
        "--check <what>",
        "stale: report DMA by cached translations that the tables no longer hold, and end with status 1 if there was any",
      ).choices(["stale"]),
    )
    .option("--seed <n>", "seed of injections with a chance", wholeNumber, 0)
    .option("--strict", "exit status 1 if objects or pins are left when the programs have ended")
    .option(
      "--own-privileges",
      "programs have the capabilities and the locked-memory limit they have (default: those of root)",
    )
    .option("--quiet", "no summary at the end")
    .option(
      "--json <file>",
      "write the summary as JSON: requests, ioctls, devices with their counters, what is left over",
    )
    .option(
      "--selftest",
      "in place of a host: /dev/iommu with the test driver of CONFIG_IOMMUFD_TEST, for Linux's selftests",
    );
}
