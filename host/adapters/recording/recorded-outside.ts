// The outside of a served host, written down as it is asked; and what comes in and goes out, as it does.

import type { BlockStore } from "../../devices/nvme/block-store.ts";
import type { ClientEntry, ClientSocket } from "../hostshim-server.ts";
import type { Outside, OutsideDescriptor, OutsideFile, OutsideProcess } from "../outside.ts";
import * as records from "./host-records.ts";
import { RecordedDrives } from "./recorded-drives.ts";
import type { RecordingWriter } from "./recording-writer.ts";

export class RecordedOutside implements Outside {
  onWake: () => void = () => {};
  readonly #outside: Outside;
  readonly #writer: RecordingWriter;
  #last = 0;
  #processes = 0;
  readonly #drives: RecordedDrives;
  readonly #files = { count: 0 };

  constructor(outside: Outside, writer: RecordingWriter) {
    this.#outside = outside;
    this.#writer = writer;
    this.#drives = new RecordedDrives(writer);
    outside.onWake = () => {
      writer.begin(records.WOKEN);
      this.onWake();
    };
  }

  now(): number {
    const now = this.#outside.now();
    this.#writer.begin(records.NOW);
    this.#writer.number(now - this.#last);
    this.#last = now;
    return now;
  }

  wake(ms: number | null): void {
    this.#outside.wake(ms);
  }

  process(pid: number): OutsideProcess | null {
    const process = this.#outside.process(pid);
    this.#writer.begin(records.PROCESS);
    this.#writer.number(pid);
    this.#writer.flag(process !== null);
    return process === null ? null : new RecordedProcess(process, this.#processes++, this.#writer, this.#files);
  }

  openBlockFile(path: string, blockBytes: 512 | 4096): BlockStore & { close(): void } {
    return this.#drives.open(this.#outside.openBlockFile(path, blockBytes));
  }

  putFile(path: string, bytes: Uint8Array): boolean {
    const done = this.#outside.putFile(path, bytes);
    this.#writer.begin(records.PUT_FILE);
    this.#writer.number(bytes.length);
    this.#writer.flag(done);
    return done;
  }

  removeFile(path: string): void {
    this.#outside.removeFile(path);
  }
}

class RecordedProcess implements OutsideProcess {
  readonly #process: OutsideProcess;
  readonly #number: number;
  readonly #writer: RecordingWriter;
  readonly #files: { count: number };
  #maps = Buffer.alloc(0);

  constructor(process: OutsideProcess, number: number, writer: RecordingWriter, files: { count: number }) {
    this.#process = process;
    this.#number = number;
    this.#writer = writer;
    this.#files = files;
  }

  read(address: number, into: Uint8Array): boolean {
    const done = this.#process.read(address, into);
    this.#begin(records.READ, into.length);
    this.#writer.flag(done);
    // What a copy that fails leaves behind is nobody's.
    if (done) this.#writer.bytes(into);
    return done;
  }

  write(address: number, from: Uint8Array): boolean {
    const done = this.#process.write(address, from);
    this.#begin(records.WRITE);
    this.#writer.flag(done);
    return done;
  }

  maps(): Buffer {
    const text = this.#process.maps();
    const changed = !text.equals(this.#maps);
    this.#begin(records.MAPS, text.length);
    this.#writer.flag(changed);
    if (changed) {
      this.#writer.bytes(text);
      this.#maps = Buffer.from(text);
    }
    return text;
  }

  memlockLimit(): number {
    const limit = this.#process.memlockLimit();
    this.#begin(records.MEMLOCK);
    this.#writer.double(limit);
    return limit;
  }

  descriptor(fd: number): OutsideDescriptor | null {
    const found = this.#process.descriptor(fd);
    const identity = found?.kind === "file" ? Buffer.from(found.identity) : null;
    this.#begin(records.DESCRIPTOR, identity?.length ?? 0);
    this.#writer.number(fd >>> 0);
    this.#writer.number(found === null ? 0 : found.kind === "socket" ? 1 : found.kind === "eventfd" ? 2 : 3);
    if (found?.kind === "socket") this.#writer.wide(found.inode);
    if (found?.kind === "file") {
      this.#writer.bytes(identity!);
      this.#writer.flag(found.pinnable);
    }
    return found;
  }

  openFile(fd: number): OutsideFile | null {
    const file = this.#process.openFile(fd);
    this.#begin(records.OPEN_FILE);
    this.#writer.number(fd >>> 0);
    this.#writer.flag(file !== null);
    return file === null ? null : new RecordedFile(file, this.#files.count++, this.#writer);
  }

  fileSize(fd: number): number {
    const size = this.#process.fileSize(fd);
    this.#begin(records.FILE_SIZE);
    this.#writer.number(fd >>> 0);
    this.#writer.number(size + 1);
    return size;
  }

  close(): void {
    this.#process.close();
  }

  #begin(type: number, payload = 0): void {
    this.#writer.begin(type, payload);
    this.#writer.number(this.#number);
  }
}

class RecordedFile implements OutsideFile {
  readonly #file: OutsideFile;
  readonly #number: number;
  readonly #writer: RecordingWriter;

  constructor(file: OutsideFile, number: number, writer: RecordingWriter) {
    this.#file = file;
    this.#number = number;
    this.#writer = writer;
  }

  read(position: number, into: Uint8Array): boolean {
    const done = this.#file.read(position, into);
    this.#begin(records.FILE_READ, into.length);
    this.#writer.flag(done);
    if (done) this.#writer.bytes(into);
    return done;
  }

  write(position: number, from: Uint8Array): boolean {
    const done = this.#file.write(position, from);
    this.#begin(records.FILE_WRITE);
    this.#writer.flag(done);
    return done;
  }

  size(): number {
    const size = this.#file.size();
    this.#begin(records.OPEN_FILE_SIZE);
    this.#writer.number(size + 1);
    return size;
  }

  close(): void {
    this.#file.close();
  }

  #begin(type: number, payload = 0): void {
    this.#writer.begin(type, payload);
    this.#writer.number(this.#number);
  }
}

/** Stands between listener and server. */
export class RecordedEntry implements ClientEntry {
  readonly #entry: ClientEntry;
  readonly #writer: RecordingWriter;
  #closed = false;

  constructor(entry: ClientEntry, writer: RecordingWriter) {
    this.#entry = entry;
    this.#writer = writer;
  }

  opened(socket: ClientSocket): number {
    const recorded = new RecordedSocket(socket, this.#writer);
    recorded.number = this.#entry.opened(recorded);
    this.#begin(records.OPENED, recorded.number);
    return recorded.number;
  }

  message(connection: number, bytes: Uint8Array): void {
    this.#begin(records.MESSAGE, connection, bytes.length);
    this.#writer.bytes(bytes);
    this.#entry.message(connection, bytes);
  }

  takesMessages(connection: number): boolean {
    return this.#entry.takesMessages(connection);
  }

  stray(connection: number): void {
    this.#begin(records.STRAY, connection);
    this.#entry.stray(connection);
  }

  drained(connection: number): void {
    this.#begin(records.DRAINED, connection);
    this.#entry.drained(connection);
  }

  released(connection: number): void {
    this.#begin(records.RELEASED, connection);
    this.#entry.released(connection);
  }

  ended(connection: number): void {
    this.#begin(records.ENDED, connection);
    this.#entry.ended(connection);
  }

  close(): void {
    if (!this.#closed) this.#writer.begin(records.CLOSE);
    this.#closed = true;
    this.#entry.close();
  }

  #begin(type: number, connection: number, payload = 0): void {
    this.#writer.begin(type, payload);
    this.#writer.number(connection);
  }
}

class RecordedSocket implements ClientSocket {
  number = 0;
  readonly #socket: ClientSocket;
  readonly #writer: RecordingWriter;

  constructor(socket: ClientSocket, writer: RecordingWriter) {
    this.#socket = socket;
    this.#writer = writer;
  }

  send(bytes: Uint8Array): boolean {
    const room = this.#socket.send(bytes);
    this.#writer.begin(records.SENT, bytes.length);
    this.#writer.number(this.number);
    this.#writer.flag(room);
    this.#writer.bytes(bytes);
    return room;
  }

  ring(): void {
    this.#writer.begin(records.RING);
    this.#writer.number(this.number);
    this.#socket.ring();
  }

  hold(ms: number): void {
    this.#socket.hold(ms);
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
