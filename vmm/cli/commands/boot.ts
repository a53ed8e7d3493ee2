// `nestbox boot [IMAGE]`: a component guest, or with --kernel a kernel, on a machine with assigned devices.

import { Command, Option } from "commander";
import { DEFAULT_KIND } from "../../viommu/kinds.ts";
import type { BootOptions, KernelOptions } from "../boot-run.ts";
import { verdictPending } from "../closed-output.ts";
import { UsageError } from "../exit-codes.ts";
import { DEFAULT_ASSIGNMENTS } from "../host-run.ts";
import { collect, duration, INJECTION_RULES, memorySize, portNumber, wholeNumber } from "../options.ts";
import type { RunShell } from "../run-shell.ts";
import { LiveSource, type RunSource } from "../run-source.ts";
import { type ViommuChoice, viommuOption } from "../viommu-choice.ts";

/** As given: what a kernel is asked for in its absence, a component is not. */
type GivenOptions = Omit<BootOptions, "viommu"> &
  KernelOptions & { readonly viommu?: ViommuChoice; readonly kernel?: string; readonly record?: string };

type MakesSource = (shell: RunShell, options: BootOptions & Partial<KernelOptions>) => RunSource;

async function sourceOf(record: string | undefined): Promise<MakesSource> {
  if (record === undefined) return () => new LiveSource();
  const { RecordedSource } = await import("../record-machine.ts");
  return (shell, options) => new RecordedSource(record, options, (line) => shell.message(line));
}

export function boot(): Command {
  return new Command("boot")
    .description("boot a guest image: a WebAssembly component, or with --kernel a riscv64 or arm64 kernel")
    .argument("[image]", "component file (default: the nested-dma guest that ships)")
    .option(
      "--assign <host@guest[/name]>",
      "assign host device HOST-BDF as guest device GUEST-BDF (a platform device: HOST-NAME@0xID, its id at the vIOMMU), behind the vIOMMU NAME (default: one a host IOMMU); repeatable",
      collect,
      [],
    )
    .option("--allow-shared-group", "assign devices that share an iommu group, as one stream with one context")
    .option("--memory <size>", "guest RAM, such as 64M (default: 64M; 512M for a kernel)", memorySize)
    .option("--host <name|file>", "host to run on: a built-in name or a JSON file (see: nestbox hosts)")
    .option("--trace <file>", "write the trace as JSON Lines")
    .option("--record <file>", "record the run: nestbox replay FILE runs it again, and gives its trace")
    .addOption(
      new Option("--report <format>", "summary at the end; json: nothing but that on standard output")
        .choices(["text", "json"])
        .default("text"),
    )
    .option("--console <file>", "what the guest prints goes there (with --report json: to standard error)")
    .option("--time-limit <time>", "end the run after this much virtual time, such as 250ms", duration)
    .option(
      "--wall-limit <time>",
      "end the run after this much wall time, such as 2m (60s; none for an interactive terminal)",
      duration,
    )
    .option("--seed <n>", "seed of everything random", wholeNumber, 0)
    .option(
      "--inject <rule>",
      "make the host fail, such as ioctl:IOMMU_HWPT_ALLOC@2=ENOMEM (rules: below); repeatable",
      collect,
      [],
    )
    .addOption(viommuOption(true))
    .option("--inspect [path]", "print the machine as a tree at the end (see: nestbox inspect)")
    .option("--monitor <socket>", "let others pause the machine, step it and look into it (see: nestbox monitor)")
    .option("--gdb <port>", "serve a debugger at this port of 127.0.0.1 (0: any); see vmm/gdb/README.md", portNumber)
    .option("--paused", "stand before the first instruction until the monitor or the debugger says continue")
    .option("--fail-on-fault", "exit status 3 if a fault reached the guest")
    .optionsGroup("Kernels:")
    .option("--kernel <file>", "Linux Image (may be gzipped) or bare-metal ELF, riscv64 or arm64")
    .option("--initrd <file>", "initial RAM disk")
    .option("--append <args>", "kernel command line", "console=ttyS0")
    .option("--dtb <file>", "flattened device tree to hand to the kernel in place of the machine's own")
    .option("--dump-dtb <file>", "write the device tree of this machine there, and do not boot")
    .option("--cpus <n>", "CPUs, 1 to 8", wholeNumber, 1)
    .option("--nvme <file>", "assign an NVMe drive backed by this host file; repeatable", collect, [])
    .option("--interactive", "console on this terminal; Ctrl-A x ends, Ctrl-A h helps")
    .option("--no-reboot", "end the run when the guest asks for a reboot")
    .addHelpText("after", `\n${INJECTION_RULES}`)
    .action(async (image: string | undefined, options: GivenOptions) => {
      verdictPending();
      if (
        options.paused === true &&
        options.monitor === undefined &&
        options.gdb === undefined &&
        options.interactive !== true
      )
        throw new UsageError("boot: --paused needs --monitor, --gdb or --interactive: nobody could let it go on");
      const { record } = options;
      if (record !== undefined && options.gdb !== undefined)
        throw new UsageError(
          "boot: --record and --gdb: what a debugger changes is in no recording; record, then debug the replay (replay --gdb)",
        );
      if (options.kernel !== undefined) {
        if (image !== undefined) throw new UsageError("boot: give either an image or --kernel, not both");
        const { bootKernel } = await import("../boot-kernel.ts");
        process.exitCode = await bootKernel(options.kernel, options, await sourceOf(record));
      } else {
        for (const name of ["initrd", "nvme", "interactive", "dtb", "dumpDtb", "gdb"] as const) {
          const given = options[name];
          if (given !== undefined && !(Array.isArray(given) && given.length === 0)) {
            throw new UsageError(`boot: --${name === "dumpDtb" ? "dump-dtb" : name} needs --kernel`);
          }
        }
        const assign = options.assign.length > 0 || options.host !== undefined ? options.assign : DEFAULT_ASSIGNMENTS;
        const made = { ...options, assign, viommu: options.viommu ?? DEFAULT_KIND };
        const { bootComponent } = await import("../boot-component.ts");
        process.exitCode = await bootComponent(image, made, await sourceOf(record));
      }
    });
}
