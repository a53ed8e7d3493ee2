// A cursor over the bytes of a WebAssembly binary, core or component. The file is hostile: every length is checked against the bytes
// that are there, every number against its width, every name must be UTF-8. Nothing is skipped that is not understood, so that what
// is read here is what the transpiler and the engine read.

/** The binary is cut off, or says something that its format does not; the message says where. Caught by the file's reader. */
export class Damaged extends Error {}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes from `start` to before `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Not state: made and dropped while an image is read. */
export class BinaryReader {
  at: number;
  end: number;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array, { start, end }: ByteRange = { start: 0, end: bytes.length }) {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
  }

  get done(): boolean {
    return this.at >= this.end;
  }

  byte(): number {
    if (this.at >= this.end) throw new Damaged("a section ends too early");
    return this.bytes[this.at++]!;
  }

  /** LEB128, at most five bytes and 32 bits (core specification §5.2.2). */
  u32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value > 0xffff_ffff) throw new Damaged("a number is wider than 32 bits");
        return value;
      }
    }
    throw new Damaged("a number is longer than five bytes");
  }

  /** Length, then that many bytes; `what` for the message. */
  sized(what: string): ByteRange {
    const length = this.u32();
    const start = this.at;
    if (start + length > this.end) throw new Damaged(`${what} runs past its end`);
    this.at = start + length;
    return { start, end: this.at };
  }

  name(): string {
    const { start, end } = this.sized("a name");
    try {
      return UTF8.decode(this.bytes.subarray(start, end));
    } catch {
      throw new Damaged("a name is not UTF-8");
    }
  }

  /** A count, then that many elements. An element that is no byte long would loop without end: there is none. */
  each(element: () => void): void {
    for (let left = this.u32(); left > 0; left--) element();
  }

  /** Reads each section in turn: `section` gets its id and a reader that ends with it, and must read all of it. */
  sections(section: (id: number, reader: BinaryReader) => void): void {
    const outer = this.end;
    while (this.at < outer) {
      const id = this.byte();
      const range = this.sized(`section ${id}`);
      this.at = range.start;
      this.end = range.end;
      section(id, this);
      if (this.at !== range.end) throw new Damaged(`section ${id} has bytes after its last element`);
      this.end = outer;
    }
  }
}
