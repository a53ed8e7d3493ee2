// `nestbox inspect [PATH]`: a machine as a tree, as it is when it has been put together. `boot --inspect [PATH]` prints it at the end of
// a run.

import { Command } from "commander";
import { ComponentMachine } from "../../component-machine.ts";
import { treeText } from "../../view/machine-tree.ts";
import { assignmentsOf, DEFAULT_ASSIGNMENTS, HostRun } from "../host-run.ts";
import { machineTree } from "../machine-tree.ts";
import { collect } from "../options.ts";
import { RunShell } from "../run-shell.ts";
import { fitted } from "../terminal.ts";
import { type ViommuChoice, viommuOf, viommuOption } from "../viommu-choice.ts";

interface InspectOptions {
  readonly host?: string;
  readonly assign: readonly string[];
  readonly allowSharedGroup?: true;
  readonly viommu: ViommuChoice;
  readonly json?: true;
}

export function inspect(): Command {
  return new Command("inspect")
    .description("print a machine as a tree: host, devices, vIOMMUs with their registers, bus")
    .argument("[path]", "only this part, such as vm/viommus/viommu0")
    .option("--host <name|file>", "host to run on")
    .option("--assign <host@guest[/name]>", "devices to assign; repeatable", collect, [])
    .option("--allow-shared-group", "assign devices that share an iommu group, as one stream with one context")
    .addOption(viommuOption(false))
    .option("--json", "print JSON")
    .action((path: string | undefined, options: InspectOptions) => {
      const shell = new RunShell({ report: "text" });
      const run = new HostRun(shell, options);
      const machine = new ComponentMachine({
        clock: shell.clock,
        trace: shell.trace,
        calls: run.calls,
        memoryBytes: 2 ** 20,
        ...viommuOf(options.viommu),
        allowSharedGroup: options.allowSharedGroup === true,
        report: (message) => shell.message(message),
      });
      const requested = options.assign.length > 0 || options.host !== undefined ? options.assign : DEFAULT_ASSIGNMENTS;
      run.assignAll(machine.assignment, assignmentsOf(requested));
      const tree = machineTree(run, machine, path);
      run.close(machine);
      console.log(options.json === true ? JSON.stringify(tree, null, 2) : fitted(treeText(tree)));
    });
}
