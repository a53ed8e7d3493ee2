// Is this file a guest of our world? One line that names what does not fit, or null. The caller puts the file's name before it.
//
// A component may import less than the world offers, never more; every function must have the world's signature, because imports
// are bound without conversion (component-vcpu.ts).

import { imageKind, readOutline } from "./component-format.ts";
import { printable } from "./printable.ts";
import { WORLD_EXPORTS, WORLD_IMPORTS, WORLD_NAME } from "./world.ts";

const LONGEST_LINE = 1500;

export function checkImage(bytes: Uint8Array): string | null {
  const misfit = misfitOf(bytes);
  return misfit === null ? null : printable(misfit, LONGEST_LINE);
}

function misfitOf(bytes: Uint8Array): string | null {
  const kind = imageKind(bytes);
  if (kind === "not-wasm") return "not a WebAssembly file; a guest image is a component of the world nestbox:guest";
  if (kind === "core-module") {
    return "a core WebAssembly module, not a component; make it one: npx nestbox make-image CORE.wasm IMAGE.wasm";
  }
  const outline = readOutline(bytes);
  if (typeof outline === "string") return `damaged, or not a component of ${WORLD_NAME}: ${outline}`;
  for (const item of outline.imports) {
    if (item.sort === "type") continue;
    const offered = own(WORLD_IMPORTS, item.name);
    if (offered === undefined || item.sort !== "instance") {
      return `a component of another world: imports "${item.name.slice(0, 100)}", which ${WORLD_NAME} does not offer`;
    }
    for (const [name, signature] of item.functions) {
      const expected = own(offered, name);
      if (expected === undefined) {
        return `a component of another world: imports "${name.slice(0, 100)}" of ${item.name}, which ${WORLD_NAME} does not offer`;
      }
      if (expected !== signature) {
        return `a component of another world: imports ${name} of ${item.name} as ${signature}, but it is ${expected}`;
      }
    }
  }
  for (const [name, expected] of Object.entries(WORLD_EXPORTS)) {
    const item = outline.exports.find((exported) => exported.name === name && exported.sort === "func");
    if (item === undefined) return `a component of another world: does not export ${name}: ${expected}`;
    const signature = item.functions.get("");
    if (signature !== expected) {
      return `a component of another world: exports ${name} as ${signature}, but it must be ${expected}`;
    }
  }
  return null;
}

function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
