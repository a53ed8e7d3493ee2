// Is this file a guest of our world? One line that names what does not fit, or null. The caller puts the file's name before it.
//
//   the world     a component may import less than the world offers, never more, and exports what it asks for and nothing else; every
//                 function must have the world's signature, because imports are bound without conversion (component-vcpu.ts)
//   the names     every name, wherever it stands, is one that cannot be taken for anything else (name-grammar.ts): the transpiler puts
//                 names of the image into the code that it generates. Custom sections are left out: custom-sections.ts cleans them.

import { printable } from "../../../host/base/printable.ts";
import { type ExternalItem, imageKind, readOutline } from "./component-format.ts";
import { quoted } from "./name-grammar.ts";
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
  const foreign = foreignInterface(outline.imports) ?? outline.fault;
  if (foreign !== null) return foreign;
  if (outline.damage !== null) return `damaged, or not a component of ${WORLD_NAME}: ${outline.damage}`;
  return foreignFunction(outline.imports) ?? foreignExport(outline.exports);
}

function foreignInterface(imports: readonly ExternalItem[]): string | null {
  const offered = (item: ExternalItem) => item.sort === "instance" && own(WORLD_IMPORTS, item.name) !== undefined;
  const foreign = imports.find((item) => item.sort !== "type" && !offered(item));
  if (foreign === undefined) return null;
  return `a component of another world: imports ${quoted(foreign.name)}, which ${WORLD_NAME} does not offer`;
}

function foreignFunction(imports: readonly ExternalItem[]): string | null {
  for (const item of imports) {
    const offered = own(WORLD_IMPORTS, item.name);
    if (offered === undefined) continue;
    for (const [name, signature] of item.functions) {
      const expected = own(offered, name);
      if (expected === undefined) {
        return `a component of another world: imports ${quoted(name)} of ${item.name}, which ${WORLD_NAME} does not offer`;
      }
      if (expected !== signature) {
        return `a component of another world: imports ${name} of ${item.name} as ${signature}, but it is ${expected}`;
      }
    }
  }
  return null;
}

function foreignExport(exports: readonly ExternalItem[]): string | null {
  for (const [name, expected] of Object.entries(WORLD_EXPORTS)) {
    const item = exports.find((exported) => exported.name === name && exported.sort === "func");
    if (item === undefined) return `a component of another world: does not export ${name}: ${expected}`;
    const signature = item.functions.get("");
    if (signature !== expected) {
      return `a component of another world: exports ${name} as ${signature}, but it must be ${expected}`;
    }
  }
  const other = exports.find((exported) => own(WORLD_EXPORTS, exported.name) === undefined);
  if (other === undefined) return null;
  return `a component of another world: exports ${quoted(other.name)}, which ${WORLD_NAME} does not ask for; remove it`;
}

function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
