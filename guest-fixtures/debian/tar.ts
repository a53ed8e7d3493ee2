// The tar format as far as Debian's packages use it (dpkg: "ustar" headers, GNU long names): entries read, headers written, archives put one behind the other.

const BLOCK = 512;
const LONG_NAME = "L";
const LONG_LINK = "K";

export interface TarEntry {
  /** As written: "./usr/bin/true", a folder's with a slash at its end. */
  readonly name: string;
  /** "0" a file, "5" a folder, "2" a symbolic link, … */
  readonly type: string;
  readonly data: Buffer;
}

const textAt = (header: Buffer, from: number, bytes: number): string =>
  header.toString("utf8", from, from + bytes).replace(/\0.*$/s, "");

/** Entries of an archive, and `end`: bytes before its end mark. Throws RangeError for one that is cut short. */
export function readTar(archive: Buffer): { readonly entries: readonly TarEntry[]; readonly end: number } {
  const entries: TarEntry[] = [];
  let longName: string | null = null;
  let at = 0;
  while (at + BLOCK <= archive.length && archive[at] !== 0) {
    const header = archive.subarray(at, at + BLOCK);
    const size = Number.parseInt(textAt(header, 124, 12).trim() || "0", 8);
    const type = String.fromCharCode(header[156]! || 0x30);
    const data = archive.subarray(at + BLOCK, at + BLOCK + size);
    if (!Number.isSafeInteger(size) || data.length !== size)
      throw new RangeError(`a tar archive is cut short at ${at}`);
    const prefix = textAt(header, 345, 155);
    const name = longName ?? (prefix === "" ? "" : `${prefix}/`) + textAt(header, 0, 100);
    if (type === LONG_NAME) longName = data.toString("utf8").replace(/\0.*$/s, "");
    else if (type !== LONG_LINK) {
      entries.push({ name, type, data });
      longName = null;
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return { entries, end: at };
}

/** A file of root's with its header; `name` at most 100 bytes. */
export function tarFile(name: string, mode: number, data: Buffer): Buffer {
  const header = Buffer.alloc(BLOCK);
  header.write(name, 0, 100);
  const octal = (value: number, at: number, digits: number): void => {
    header.write(`${value.toString(8).padStart(digits, "0")}\0`, at);
  };
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(data.length, 124, 11);
  octal(0, 136, 11);
  header.write("        0", 148); // the checksum is taken over blanks
  header.write("ustar\u000000", 257);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  header[155] = 0x20;
  return Buffer.concat([header, data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]);
}

/** What ends an archive; `multipleOf`: bytes that its length (before: `length`) is to be a multiple of. */
export function tarEnd(length: number, multipleOf: number): Buffer {
  const least = length + 2 * BLOCK;
  return Buffer.alloc(Math.ceil(least / multipleOf) * multipleOf - length);
}
