// Custom sections of an image: names for debuggers, producers, DWARF, whatever a tool left there. No part of the program, and no
// business of the transpiler's: they are made harmless in a copy of the image, in place, so that nothing moves.
//
//   name (of a core module)   kept for the guest's stack (guest-stack.ts); characters that are not plain letters become "_"
//   all others                become a custom section without a name, full of zeros

import { BinaryReader, type ByteRange, Damaged } from "./binary-reader.ts";

const COMPONENT_CUSTOM = 0;
const CORE_MODULE = 1;
const CORE_CUSTOM = 0;
/** Bytes before the first section: magic number and version. */
const HEADER = 8;
const UNDERSCORE = 0x5f;

/** A copy of a component, one that image-check.ts has read to its end, with its custom sections made harmless. */
export function withPlainCustomSections(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  const reader = new BinaryReader(copy, { start: HEADER, end: copy.length });
  reader.sections((id) => {
    if (id === COMPONENT_CUSTOM) silence(copy, { start: reader.at, end: reader.end });
    if (id === CORE_MODULE) plainCoreModule(copy, { start: reader.at + HEADER, end: reader.end });
    reader.at = reader.end;
  });
  return copy;
}

function plainCoreModule(bytes: Uint8Array, range: ByteRange): void {
  const reader = new BinaryReader(bytes, range);
  reader.sections((id) => {
    const section = { start: reader.at, end: reader.end };
    reader.at = reader.end;
    if (id !== CORE_CUSTOM) return;
    const names = namesOf(bytes, section);
    if (names === null) silence(bytes, section);
    else for (const name of names) launder(bytes, name);
  });
}

/** A length of 0 is the empty name; the rest is payload. */
function silence(bytes: Uint8Array, { start, end }: ByteRange): void {
  bytes.fill(0, start, end);
}

/**
 * Where the strings of a name section stand (core specification, appendix "Name Section", and the extended-name-section proposal); null
 * if it is not one, or not well formed.
 */
function namesOf(bytes: Uint8Array, section: ByteRange): ByteRange[] | null {
  const reader = new BinaryReader(bytes, section);
  const names: ByteRange[] = [];
  const name = () => void names.push(reader.sized("a name"));
  const named = () => {
    reader.u32();
    name();
  };
  try {
    if (reader.name() !== "name") return null;
    reader.sections((id) => {
      if (id === 0) name();
      // Locals and labels: by function first.
      else if (id === 2 || id === 3) {
        reader.each(() => {
          reader.u32();
          reader.each(named);
        });
      } else if (id <= 11) reader.each(named);
      else throw new Damaged(`name subsection ${id}`);
    });
  } catch (error) {
    if (error instanceof Damaged) return null;
    throw error;
  }
  return names;
}

/** What compilers separate words with; never twice in a row, so that no comment opens. */
const SEPARATORS = new Set([..."-.:/#@|~<>,"].map((character) => character.charCodeAt(0)));

function launder(bytes: Uint8Array, { start, end }: ByteRange): void {
  let afterSeparator = false;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    const separator = SEPARATORS.has(byte);
    const plain =
      (byte >= 0x30 && byte <= 0x39) ||
      (byte >= 0x41 && byte <= 0x5a) ||
      (byte >= 0x61 && byte <= 0x7a) ||
      byte === UNDERSCORE ||
      byte === 0x24;
    if (!plain && (!separator || afterSeparator)) bytes[at] = UNDERSCORE;
    afterSeparator = separator && !afterSeparator;
  }
}
