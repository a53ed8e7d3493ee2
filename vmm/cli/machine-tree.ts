// A machine as a tree: for `nestbox inspect` and `boot --inspect`.

import { subtree, type Tree, vmTree } from "../view/machine-tree.ts";
import { UsageError } from "./exit-codes.ts";
import type { HostRun } from "./host-run.ts";

/** Host and VM, or the part of them at `path`. Throws UsageError where there is none. */
export function machineTree(run: HostRun, vm: Parameters<typeof vmTree>[0], path?: string): Tree[string] {
  const tree: Tree = { host: run.host.describe() as Tree, vm: vmTree(vm) };
  const part = path === undefined ? tree : subtree(tree, path);
  if (part === null) throw new UsageError(`inspect ${path}: there is no such part`);
  return part;
}
