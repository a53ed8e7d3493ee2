// The outside as a recording has it: each question is answered by the next record, which has to be the answer to it; each answer to a program has to be
// the one that was recorded. The first that is not ends the replay.

import type { BlockStore } from "../../devices/nvme/block-store.ts";
import type { ClientSocket } from "../hostshim-server.ts";
import type { Outside, OutsideDescriptor, OutsideFile, OutsideProcess } from "../outside.ts";
import { describeDifference } from "./answers.ts";
import { Answers } from "./expected-records.ts";
import * as records from "./host-records.ts";
import { HOST_RECORDS_VERSION } from "./host-records.ts";
import { RecordingError } from "./recording-format.ts";
import type { RecordingReader } from "./recording-reader.ts";
import { ReplayedDrives } from "./replayed-drives.ts";

export class ReplayedOutside implements Outside {
  onWake: () => void = () => {};
  readonly #answers: Answers;
  #now = 0;
  #processes = 0;
  readonly #drives: ReplayedDrives;
  readonly #files = { count: 0 };

  constructor(reader: RecordingReader) {
    const { kind, version } = reader.header;
    if (kind !== records.HOST_KIND || version !== HOST_RECORDS_VERSION) {
      throw new RecordingError(
        `${reader.name}: holds records of "${kind}" in version ${version}; this nestbox has version ${HOST_RECORDS_VERSION} of "${records.HOST_KIND}"`,
      );
    }
    this.#answers = new Answers(reader);
    this.#drives = new ReplayedDrives(this.#answers);
  }

  now(): number {
    const then = this.#now + this.#answers.expect(records.NOW).number();
    if (then > Number.MAX_SAFE_INTEGER) throw this.#answers.reader.malformed("time");
    this.#now = then;
    return then;
  }

  wake(): void {}

  process(pid: number): OutsideProcess | null {
    const there = this.#answers.expect(records.PROCESS, pid).flag();
    return there ? new ReplayedProcess(this.#processes++, this.#answers, this.#files) : null;
  }

  openBlockFile(_path: string, blockBytes: 512 | 4096): BlockStore & { close(): void } {
    return this.#drives.open(blockBytes);
  }

  putFile(_path: string, bytes: Uint8Array): boolean {
    return this.#answers.expect(records.PUT_FILE, bytes.length).flag();
  }

  removeFile(): void {}

  /** The message that is handled from now on; null: none is. */
  handle(request: Uint8Array | null): void {
    this.#answers.request = request;
  }

  /** A program's socket. */
  socket(): ReplayedSocket {
    return new ReplayedSocket(this.#answers);
  }
}

class ReplayedProcess implements OutsideProcess {
  readonly #number: number;
  readonly #answers: Answers;
  readonly #files: { count: number };
  #maps = Buffer.alloc(0);

  constructor(number: number, answers: Answers, files: { count: number }) {
    this.#number = number;
    this.#answers = answers;
    this.#files = files;
  }

  read(_address: number, into: Uint8Array): boolean {
    const done = this.#answers.expect(records.READ, this.#number).flag();
    if (done) this.#answers.fill(into);
    return done;
  }

  write(): boolean {
    return this.#answers.expect(records.WRITE, this.#number).flag();
  }

  maps(): Buffer {
    const reader = this.#answers.expect(records.MAPS, this.#number);
    if (reader.flag()) this.#maps = Buffer.from(reader.bytes());
    return this.#maps;
  }

  memlockLimit(): number {
    return this.#answers.expect(records.MEMLOCK, this.#number).double();
  }

  descriptor(fd: number): OutsideDescriptor | null {
    const reader = this.#of(records.DESCRIPTOR, fd);
    switch (reader.number()) {
      case 0:
        return null;
      case 1:
        return { kind: "socket", inode: reader.wide() };
      case 2:
        return { kind: "eventfd" };
      case 3:
        return { kind: "file", identity: reader.bytes().toString(), pinnable: reader.flag() };
      default:
        throw reader.malformed("descriptor");
    }
  }

  openFile(fd: number): OutsideFile | null {
    return this.#of(records.OPEN_FILE, fd).flag() ? new ReplayedFile(this.#files.count++, this.#answers) : null;
  }

  fileSize(fd: number): number {
    return this.#of(records.FILE_SIZE, fd).number() - 1;
  }

  close(): void {}

  #of(type: number, fd: number): RecordingReader {
    const reader = this.#answers.expect(type, this.#number);
    const recorded = reader.number();
    if (recorded !== fd >>> 0) {
      throw this.#answers.different(
        `the model asks for descriptor ${fd}, the recording has descriptor ${recorded | 0}`,
      );
    }
    return reader;
  }
}

class ReplayedFile implements OutsideFile {
  readonly #number: number;
  readonly #answers: Answers;

  constructor(number: number, answers: Answers) {
    this.#number = number;
    this.#answers = answers;
  }

  read(_position: number, into: Uint8Array): boolean {
    const done = this.#answers.expect(records.FILE_READ, this.#number).flag();
    if (done) this.#answers.fill(into);
    return done;
  }

  write(): boolean {
    return this.#answers.expect(records.FILE_WRITE, this.#number).flag();
  }

  size(): number {
    return this.#answers.expect(records.OPEN_FILE_SIZE, this.#number).number() - 1;
  }

  close(): void {}
}

export class ReplayedSocket implements ClientSocket {
  number = 0;
  readonly #answers: Answers;

  constructor(answers: Answers) {
    this.#answers = answers;
  }

  send(bytes: Uint8Array): boolean {
    const reader = this.#answers.expect(records.SENT, this.number);
    const room = reader.flag();
    const recorded = reader.bytes();
    if (!recorded.equals(bytes)) throw this.#answers.different(describeDifference(bytes, recorded));
    return room;
  }

  ring(): void {
    this.#answers.expect(records.RING, this.number);
  }

  hold(): void {}
  end(): void {}
  destroy(): void {}
}
