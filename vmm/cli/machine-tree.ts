// Prints a machine as a tree: for `nestbox inspect` and `boot --inspect`.

import { subtree, type Tree, treeText, vmTree } from "../view/machine-tree.ts";
import { UsageError } from "./exit-codes.ts";
import type { HostRun } from "./host-run.ts";

/** Host and VM. */
export function machineTree(run: HostRun, vm: Parameters<typeof vmTree>[0]): Tree {
  return { host: run.host.describe() as Tree, vm: vmTree(vm) };
}

/** Prints the part at `path`. */
export function printTree(tree: Tree, path: string | undefined, json: boolean): void {
  const part = path === undefined ? tree : subtree(tree, path);
  if (part === null) throw new UsageError(`inspect ${path}: there is no such part`);
  console.log(json ? JSON.stringify(part, null, 2) : treeText(part));
}
