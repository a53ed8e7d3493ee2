// What the monitor answers, for a person: trees, tables and grids as the commands of the same names print them.

import { type Tree, treeText } from "../view/machine-tree.ts";
import { capabilityTable, identityTable } from "./tables.ts";
import { fitted } from "./terminal.ts";

/** The result of a command as text, without a line's end. */
export function answerText(command: string, result: unknown): string {
  switch (command) {
    case "help":
      return fitted((result as { readonly lines: readonly string[] }).lines.join("\n"), 17);
    case "ids":
      return identityTable(result as Parameters<typeof identityTable>[0]);
    case "caps":
      return (result as readonly Parameters<typeof capabilityTable>[0][])
        .map((sheet) => capabilityTable(sheet))
        .join("\n");
    case "walk": {
      const { text, why } = result as { readonly text: readonly string[]; readonly why?: string | null };
      return fitted([...text, ...(typeof why === "string" ? [why] : [])].join("\n"));
    }
    default:
      return fitted(treeText(asTree(result))) || "done";
  }
}

/** Lists become numbered names: CPUs. */
function asTree(value: unknown): Tree[string] {
  if (Array.isArray(value)) return asTree(Object.fromEntries(value.map((item, index) => [String(index), item])));
  if (typeof value !== "object" || value === null) return String(value);
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, asTree(item)]));
}
