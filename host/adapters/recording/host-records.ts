// The records of a served host's run, in the order in which things happened (README.md): what came in, what the outside answered while that was
// handled, and what was sent.

/** Of these records. */
export const HOST_RECORDS_VERSION = 1;
export const HOST_KIND = "host";

// What came in: a replay hands these over.
export const OPENED = 1; // connection
export const MESSAGE = 2; // connection, bytes
export const STRAY = 3; // connection
export const DRAINED = 4; // connection
export const RELEASED = 5; // connection
export const ENDED = 6; // connection
export const WOKEN = 7; // -
export const CLOSE = 8; // -

// What the outside answered: a replay gives these when the model asks.
export const NOW = 16; // ns since the last
export const PROCESS = 17; // pid, there
export const READ = 18; // process, there, bytes
export const WRITE = 19; // process, done
export const MAPS = 20; // process, changed, text
export const MEMLOCK = 21; // process, limit (double)
export const DESCRIPTOR = 22; // process, fd, kind (0 none, 1 socket, 2 eventfd, 3 file), inode or (identity, pinnable)
export const OPEN_FILE = 23; // process, fd, there
export const FILE_SIZE = 24; // process, fd, bytes + 1
export const FILE_READ = 25; // file, done, bytes
export const FILE_WRITE = 26; // file, done
export const OPEN_FILE_SIZE = 27; // file, bytes + 1
export const PUT_FILE = 28; // bytes, done
export const DRIVE = 29; // blocks, bytes of a block
export const DRIVE_READ = 30; // drive, status, bytes
export const DRIVE_DONE = 31; // drive, status: of write, flush, zero, discard

// What was sent: a replay compares these.
export const SENT = 48; // connection, room, bytes
export const RING = 49; // connection

/** What each is, in a message. */
export const RECORD_NAMES: Readonly<Record<number, string>> = {
  0: "the end",
  [OPENED]: "a new connection",
  [MESSAGE]: "a message",
  [STRAY]: "bytes outside of any message",
  [DRAINED]: "room in a socket",
  [RELEASED]: "the end of a delay",
  [ENDED]: "the end of a connection",
  [WOKEN]: "a timer",
  [CLOSE]: "the end of the run",
  [NOW]: "the time",
  [PROCESS]: "a process",
  [READ]: "a process's memory",
  [WRITE]: "a write to a process's memory",
  [MAPS]: "a process's mappings",
  [MEMLOCK]: "a process's limit of locked memory",
  [DESCRIPTOR]: "a descriptor",
  [OPEN_FILE]: "the opening of a file",
  [FILE_SIZE]: "a file's size",
  [FILE_READ]: "a file's content",
  [FILE_WRITE]: "a write to a file",
  [OPEN_FILE_SIZE]: "an open file's size",
  [PUT_FILE]: "a file to be mapped",
  [DRIVE]: "a drive",
  [DRIVE_READ]: "a drive's content",
  [DRIVE_DONE]: "a write to a drive",
  [SENT]: "an answer",
  [RING]: "a doorbell",
};
