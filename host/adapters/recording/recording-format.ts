// The container of recordings: what README.md beside this file describes. Writer and reader share the numbers here.

/** A recording cannot be written, or read: one line. */
export class RecordingError extends Error {}

/** The last byte is no text's, and the line ends change when a transfer takes the file for text. */
export const MAGIC = Buffer.from("NESTBOX\r\n\x1a", "latin1");
export const CONTAINER_VERSION = 1;
/** Magic, version, bytes of the header. */
export const FIXED_BYTES = MAGIC.length + 8;
export const HASH = "sha256";
export const HASH_BYTES = 32;
export const TRAILER_MARK = Buffer.from("\nEND OF RECORDING", "latin1");

/** A chunk: codec, bytes when inflated, bytes here; then these. */
export const CHUNK_HEADER = 12;
export const STORED = 0;
export const DEFLATED = 1;
/** No chunk is larger when inflated. */
export const LARGEST_CHUNK = 1 << 26;
/** Of header and trailer: twice the longest file that describes a host. */
export const LARGEST_DOCUMENT = 1 << 25;

/** The document at the beginning of a recording. */
export interface RecordingHeader {
  /** What was recorded: its records are of that kind. */
  readonly kind: string;
  /** Version of the kind's records. */
  readonly version: number;
  /** The package's version that wrote it. */
  readonly nestbox: string;
  /** All else that the run began from. */
  readonly run: unknown;
}

/** The document at the end. */
export interface RecordingTrailer {
  readonly chunks: number;
  readonly records: number;
  /** Bytes of all records. */
  readonly bytes: number;
  /** What came of the run. */
  readonly result: unknown;
}
