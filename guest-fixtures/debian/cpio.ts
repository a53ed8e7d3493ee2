// Writes an initramfs: a cpio archive in the "newc" format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

export interface CpioEntry {
  /** Path without a leading slash. */
  readonly path: string;
  /** st_mode: type and permissions. */
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Major and minor number of a device node. */
  readonly device?: readonly [number, number];
}

export const DIRECTORY = 0o040755;
export const EXECUTABLE = 0o100755;
export const FILE = 0o100644;
export const SYMLINK = 0o120777;
export const CHARACTER_DEVICE = 0o020600;

export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  const add = (inode: number, entry: CpioEntry): void => {
    const name = Buffer.from(`${entry.path}\0`);
    const data = entry.data ?? new Uint8Array(0);
    const [major, minor] = entry.device ?? [0, 0];
    const links = entry.mode === DIRECTORY ? 2 : 1;
    const fields = [inode, entry.mode, 0, 0, links, 0, data.length, 0, 0, major, minor, name.length, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
    parts.push(padded(Buffer.concat([Buffer.from(header), name])), padded(Buffer.from(data)));
  };
  entries.forEach((entry, index) => {
    add(index + 1, entry);
  });
  add(0, { path: "TRAILER!!!", mode: 0 });
  return Buffer.concat(parts);
}

function padded(bytes: Buffer): Buffer {
  return bytes.length % 4 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))]);
}
