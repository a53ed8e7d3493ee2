// The names that a core module shows to the outside: its imports and exports (core specification §5.5.5, §5.5.10). They become keys
// of the objects that link it, and text of the code that the transpiler generates. Function bodies, data and types hold no names.

import { type BinaryReader, Damaged } from "./binary-reader.ts";

/** Reads a core module up to the reader's end. `visit` gets each name and what it names: "imports the module", "exports". Throws Damaged. */
export function visitCoreNames(reader: BinaryReader, visit: (name: string, role: string) => void): void {
  const header = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
  for (const expected of header) {
    if (reader.byte() !== expected) throw new Damaged("a core module does not start as one");
  }
  reader.sections((id) => {
    if (id === 2) {
      reader.each(() => {
        visit(reader.name(), "imports the module");
        visit(reader.name(), "imports");
        skipExternType(reader);
      });
    } else if (id === 7) {
      reader.each(() => {
        visit(reader.name(), "exports");
        reader.byte();
        reader.u32();
      });
    } else {
      reader.at = reader.end;
    }
  });
}

function skipExternType(reader: BinaryReader): void {
  const kind = reader.byte();
  switch (kind) {
    case 0:
      reader.u32();
      break;
    case 1:
      skipValueType(reader);
      skipLimits(reader);
      break;
    case 2:
      skipLimits(reader);
      break;
    case 3:
      skipValueType(reader);
      reader.byte();
      break;
    case 4:
      reader.byte();
      reader.u32();
      break;
    default:
      throw new Damaged(`a core import of kind ${kind} is not one that component guests use`);
  }
}

/** One byte, but for typed references: 0x63 or 0x64 and a heap type. */
function skipValueType(reader: BinaryReader): void {
  const type = reader.byte();
  if (type === 0x63 || type === 0x64) skipNumber(reader);
}

function skipLimits(reader: BinaryReader): void {
  const flags = reader.byte();
  if (flags > 7) throw new Damaged(`limits of form ${flags} are not ones that component guests use`);
  skipNumber(reader);
  if ((flags & 1) !== 0) skipNumber(reader);
}

/** LEB128 of up to 64 bits, signed or not. */
function skipNumber(reader: BinaryReader): void {
  for (let bytes = 0; bytes < 10; bytes++) if (reader.byte() < 0x80) return;
  throw new Damaged("a number is longer than ten bytes");
}
