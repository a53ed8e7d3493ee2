// Reads what a boot loader must know from a kernel file: Linux "Image" (Documentation/arch/riscv/boot-image-header,
// Documentation/arch/arm64/booting) or a statically linked ELF64. Files are hostile input: everything is checked, the error says what is wrong.

/** What goes into RAM as it is, out of memory or from elsewhere. */
export type ImageBytes = Uint8Array | BytesElsewhere;
export interface BytesElsewhere {
  readonly length: number;
  /** `target` has `length` bytes. */
  copyTo(target: Uint8Array): void;
}

export interface LoadSegment {
  /** Guest-physical address, or the offset from the load address when `relocatable`. */
  readonly address: number;
  readonly bytes: ImageBytes;
  /** Bytes to reserve, at least bytes.length; the rest is zero. */
  readonly memoryBytes: number;
}

/** Instruction sets there are machines for, by the names of Debian's ports. */
export type Architecture = "riscv64" | "arm64";

export interface KernelImage {
  readonly architecture: Architecture;
  readonly format: "Image" | "ELF";
  /** True: may be loaded at any 2 MiB aligned address, and `entry` is an offset from it. */
  readonly relocatable: boolean;
  readonly entry: number;
  readonly segments: readonly LoadSegment[];
}

export class KernelImageError extends Error {}

/** Bytes that say all about an Image. */
export const IMAGE_HEADER = 64;
/** At 56: "RSC\x05", "ARM\x64". */
const IMAGE_MAGICS: ReadonlyMap<number, Architecture> = new Map([
  [0x05435352, "riscv64"],
  [0x644d5241, "arm64"],
]);
const ELF_MACHINES: ReadonlyMap<number, Architecture> = new Map([
  [243, "riscv64"],
  [183, "arm64"],
]);
const PT_LOAD = 1;
const PT_INTERP = 3;

/** Parses `file`; throws KernelImageError with one line. Compressed images must be unpacked first (see `compressionOf`). */
export function parseKernelImage(file: Uint8Array): KernelImage {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length >= 64 && view.getUint32(0, false) === 0x7f454c46) return parseElf(file, view);
  const image = parseLinuxImage(file, file);
  if (image !== null) return image;
  if (compressionOf(file) !== null) throw new KernelImageError(`a ${compressionOf(file)} image: unpack it first`);
  throw new KernelImageError("neither a Linux Image of riscv64 or arm64 nor an ELF file");
}

/** A Linux Image of which the first IMAGE_HEADER bytes are read; null if it is none. */
export function parseLinuxImage(header: Uint8Array, file: ImageBytes): KernelImage | null {
  if (header.length < IMAGE_HEADER) return null;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const architecture = IMAGE_MAGICS.get(view.getUint32(56, true));
  if (architecture === undefined) return null;
  const flags = view.getBigUint64(24, true);
  if (flags & 1n) throw new KernelImageError("a big-endian kernel image cannot boot here");
  const reserved = Number(view.getBigUint64(16, true));
  // arm64: from a 2 MiB aligned base; riscv64: the base itself, whatever the field says
  const offset = architecture === "arm64" ? Number(view.getBigUint64(8, true)) : 0;
  if (!(offset < 2 ** 31)) throw new KernelImageError("a kernel image whose text_offset is beyond 2 GiB");
  return {
    architecture,
    format: "Image",
    relocatable: true,
    entry: offset,
    segments: [{ address: offset, bytes: file, memoryBytes: Math.max(reserved, file.length) }],
  };
}

/** How the file is compressed, null if it is not. */
export function compressionOf(file: Uint8Array): "gzip" | "EFI zboot" | null {
  if (file[0] === 0x1f && file[1] === 0x8b) return "gzip";
  if (file[0] === 0x4d && file[1] === 0x5a && file[4] === 0x7a && file[5] === 0x69) return "EFI zboot";
  return null;
}

function parseElf(file: Uint8Array, view: DataView): KernelImage {
  if (file[4] !== 2 || file[5] !== 1) throw new KernelImageError("not a 64-bit little-endian ELF file");
  const architecture = ELF_MACHINES.get(view.getUint16(18, true));
  if (architecture === undefined) throw new KernelImageError("an ELF file for another machine than riscv64 or arm64");
  const type = view.getUint16(16, true);
  if (type !== 2 && type !== 3) throw new KernelImageError("an ELF file that is no executable (a relocatable object?)");
  const tableAt = Number(view.getBigUint64(32, true));
  const entrySize = view.getUint16(54, true);
  const count = view.getUint16(56, true);
  if (entrySize < 56 || tableAt + entrySize * count > file.length) {
    throw new KernelImageError("an ELF file whose program headers lie outside the file");
  }
  const segments: LoadSegment[] = [];
  for (let i = 0; i < count; i++) {
    const at = tableAt + i * entrySize;
    const kind = view.getUint32(at, true);
    if (kind === PT_INTERP) throw new KernelImageError("a dynamically linked program, not a bare-metal image");
    if (kind !== PT_LOAD) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const address = Number(view.getBigUint64(at + 24, true));
    const fileBytes = Number(view.getBigUint64(at + 32, true));
    const memoryBytes = Number(view.getBigUint64(at + 40, true));
    if (offset + fileBytes > file.length || memoryBytes < fileBytes) {
      throw new KernelImageError("an ELF file with a segment outside the file");
    }
    if (memoryBytes > 0) segments.push({ address, bytes: file.subarray(offset, offset + fileBytes), memoryBytes });
  }
  if (segments.length === 0) throw new KernelImageError("an ELF file with nothing to load");
  // Segments apart from each other also bound what is copied: 65535 headers could each name the whole file.
  segments.sort((a, b) => a.address - b.address);
  const overlap = segments.some((segment, i) => i > 0 && segment.address < end(segments[i - 1]!));
  if (overlap) throw new KernelImageError("an ELF file with segments that overlap");
  return { architecture, format: "ELF", relocatable: false, entry: Number(view.getBigUint64(24, true)), segments };
}

const end = ({ address, memoryBytes }: LoadSegment): number => address + memoryBytes;
