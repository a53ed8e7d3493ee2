// `nestbox caps`: what the guest's IOMMU offers, bit by bit, beside the host's, with the rule that made it so.

import { Command, Option } from "commander";
import { hex } from "../../../host/base/address.ts";
import { ComponentMachine } from "../../component-machine.ts";
import { assignmentsOf, DEFAULT_ASSIGNMENTS, HostRun } from "../host-run.ts";
import { collect } from "../options.ts";
import { RunShell } from "../run-shell.ts";
import { capabilityTable } from "../tables.ts";
import { fitted } from "../terminal.ts";
import { type ViommuChoice, viommuOf, viommuOption } from "../viommu-choice.ts";

interface CapsOptions {
  readonly host?: string;
  readonly assign: readonly string[];
  readonly interrupts: "msi" | "wired" | "both";
  readonly viommu: ViommuChoice;
  readonly json?: true;
}

export function caps(): Command {
  return new Command("caps")
    .description("print the guest-visible IOMMU's capabilities: host bit, guest bit, and why")
    .option("--host <name|file>", "host to look at")
    .option("--assign <host@guest[/name]>", "devices behind the vIOMMU; repeatable", collect, [])
    .addOption(
      new Option("--interrupts <kind>", "how the vIOMMU signals").choices(["msi", "wired", "both"]).default("both"),
    )
    .addOption(viommuOption(false))
    .option("--json", "print JSON")
    .action((options: CapsOptions) => {
      const shell = new RunShell({ report: "text" });
      const run = new HostRun(shell, options);
      const machine = new ComponentMachine({
        clock: shell.clock,
        trace: shell.trace,
        calls: run.calls,
        memoryBytes: 2 ** 20,
        ...viommuOf(options.viommu),
        // Capabilities are the same for a device alone and one that shares its group.
        allowSharedGroup: true,
        configuration: { interrupts: options.interrupts },
        report: (message) => shell.message(message),
      });
      const requested = options.assign.length > 0 || options.host !== undefined ? options.assign : DEFAULT_ASSIGNMENTS;
      run.assignAll(machine.assignment, assignmentsOf(requested));
      for (const { name, iommu, viommu } of machine.assignment.viommus) {
        const { registers, rows } = viommu.capabilitySheet;
        const texts = (digits: number) =>
          Object.fromEntries(Object.entries(registers).map(([register, value]) => [register, hex(value, digits)]));
        if (options.json === true) console.log(JSON.stringify({ viommu: name, host: iommu, ...texts(1), rows }));
        else console.log(capabilityTable({ viommu: name, host: iommu, registers: texts(16), rows }));
      }
      if (machine.assignment.viommus.length === 0) {
        console.log(fitted("no device is assigned, so there is no vIOMMU; give --assign HOST-BDF@GUEST-BDF"));
      }
      run.close(machine);
    });
}
