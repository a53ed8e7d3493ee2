// A machine's state as a document: what changes about each object, under names, as plain values. One interface for all of them: devices,
// IOMMUs, interrupt controllers, CPUs, kernel objects, the clock's queue.
//
//   saveTree(root) ─▶ { fields of root, parts: { name: { fields, parts } … } } ─▶ encodeState ─▶ text
//   text ─▶ decodeState ─▶ restoreTree(root, record): fields first, then parts by their names
//
// What is wiring (ports, callbacks, options) is no state: it stands because the machine was put together the same way. A reference to another
// object is that object's name. A document that does not fit is a StateError, which says where; the tree may then be half restored, and
// is to be disposed of.

import type { ClockEvent } from "./clock.ts";

export const STATE_VERSION = 2;

export type StateValue =
  | null
  | boolean
  | number
  | string
  | bigint
  | Uint8Array
  | KeptBytes
  | readonly StateValue[]
  | StateRecord;
export interface StateRecord {
  readonly [name: string]: StateValue;
}

/** Bytes of a large memory that whoever saves keeps in a way of their own, so that what two documents have in common is there once. */
export abstract class KeptBytes {
  abstract readonly length: number;
  /** Puts them into memory of that length. */
  abstract copyTo(into: Uint8Array): void;
}
/** How the bytes of large memories are taken: copied, if nothing is said. */
export type KeepBytes = (memory: Uint8Array) => Uint8Array | KeptBytes;

/** The document does not fit the machine. `message` says what, and where in the tree. */
export class StateError extends Error {}

export interface Stateful {
  /** Fields of the object's own that change, as plain values: copies, nothing that goes on changing; RAM by `keep`. */
  saveState(keep?: KeepBytes): StateRecord;
  /**
   * Takes fields back. An object that makes and drops parts as it runs makes and drops them here, so that `stateParts` has those of the
   * document; one that cannot throws StateError. Throws StateError for a field that is missing or of another kind.
   */
  restoreState(state: StateReader): void;
  /** Its parts, by names that stay the same from run to run. Absent: it has none. */
  stateParts?(): Iterable<readonly [name: string, part: Stateful]>;
  /** Events it may have on the clock's queue. */
  readonly clockEvents?: readonly ClockEvent[];
}

/** True for an object that has state: what may or may not have some (`Partial<Stateful>`) is asked so. */
export function isStateful(object: Partial<Stateful>): object is Stateful {
  return object.saveState !== undefined && object.restoreState !== undefined;
}

/** Fields of a record, each of the kind that is asked for. Throws StateError. */
export class StateReader {
  /** "machine/viommu0/commands": for messages. */
  readonly path: string;
  readonly #record: StateRecord;

  constructor(record: StateRecord, path: string) {
    this.#record = record;
    this.path = path;
  }

  get names(): readonly string[] {
    return Object.keys(this.#record);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#record, name);
  }

  number(name: string): number {
    return this.#of(name, "a number", (value) => typeof value === "number") as number;
  }

  /** A number of a list of the same length as `into`, put there. */
  numbers(name: string, into: { readonly length: number; [index: number]: number }): void {
    const values = this.list(name);
    if (values.length !== into.length || !values.every((value) => typeof value === "number")) {
      this.fail(name, `is no list of ${into.length} numbers`);
    }
    for (let i = 0; i < into.length; i++) into[i] = values[i] as number;
  }

  /** A list of numbers of any length. */
  numberList(name: string): readonly number[] {
    const values = this.list(name);
    if (!values.every((value) => typeof value === "number")) this.fail(name, "is no list of numbers");
    return values as readonly number[];
  }

  bigint(name: string): bigint {
    return this.#of(name, "a 64-bit number", (value) => typeof value === "bigint") as bigint;
  }

  boolean(name: string): boolean {
    return this.#of(name, "true or false", (value) => typeof value === "boolean") as boolean;
  }

  text(name: string): string {
    return this.#of(name, "text", (value) => typeof value === "string") as string;
  }

  bytes(name: string): Uint8Array {
    const value = this.#of(name, "bytes", isBytes) as Uint8Array | KeptBytes;
    if (value instanceof Uint8Array) return value;
    const bytes = new Uint8Array(value.length);
    value.copyTo(bytes);
    return bytes;
  }

  /** Bytes of exactly the memory's length, put into it. */
  memory(name: string, into: ArrayBufferView): void {
    const bytes = this.#of(name, "bytes", isBytes) as Uint8Array | KeptBytes;
    if (bytes.length !== into.byteLength) this.fail(name, `has ${bytes.length} bytes, not ${into.byteLength}`);
    const memory = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
    if (bytes instanceof KeptBytes) bytes.copyTo(memory);
    else memory.set(bytes);
  }

  list(name: string): readonly StateValue[] {
    return this.#of(name, "a list", (value) => Array.isArray(value)) as readonly StateValue[];
  }

  record(name: string): StateReader {
    return new StateReader(this.#of(name, "a record", isRecord) as StateRecord, `${this.path}/${name}`);
  }

  /** The records of a list. */
  records(name: string): StateReader[] {
    return this.list(name).map((value, index) => {
      if (!isRecord(value)) this.fail(name, `${index} is no record`);
      return new StateReader(value as StateRecord, `${this.path}/${name}/${index}`);
    });
  }

  /** The records of a list of places, null where one is empty. */
  places(name: string): (StateReader | null)[] {
    return this.list(name).map((value, index) => {
      if (value === null) return null;
      if (!isRecord(value)) this.fail(name, `${index} is no record`);
      return new StateReader(value as StateRecord, `${this.path}/${name}/${index}`);
    });
  }

  /** The value of a field that may be null, by `read`. */
  optional<T>(name: string, read: (reader: StateReader, name: string) => T): T | null {
    if (!this.has(name)) this.fail(name, "is missing");
    return this.#record[name] === null ? null : read(this, name);
  }

  /** A field that may be of several kinds. */
  value(name: string): StateValue {
    return this.#of(name, "anything", () => true);
  }

  fail(name: string, what: string): never {
    throw new StateError(`${this.path}: ${name} ${what}`);
  }

  #of(name: string, kind: string, is: (value: StateValue) => boolean): StateValue {
    if (!this.has(name)) this.fail(name, "is missing");
    const value = this.#record[name]!;
    if (!is(value)) this.fail(name, `is not ${kind}`);
    return value;
  }
}

function isBytes(value: StateValue): value is Uint8Array | KeptBytes {
  return value instanceof Uint8Array || value instanceof KeptBytes;
}

function isRecord(value: StateValue | undefined): value is StateRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isBytes(value);
}

/** Bytes of a typed array or view, copied. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
}

/** An object's state with that of all its parts; memories that are large by `keep`. */
export function saveTree(root: Stateful, keep?: KeepBytes): StateRecord {
  const parts: Record<string, StateValue> = {};
  for (const [name, part] of root.stateParts?.() ?? []) {
    if (Object.hasOwn(parts, name)) throw new Error(`two parts are named "${name}"`);
    parts[name] = saveTree(part, keep);
  }
  const state = root.saveState(keep);
  return Object.keys(parts).length === 0 ? { state } : { state, parts };
}

/** Takes `saveTree`'s record back, in place. Throws StateError. */
export function restoreTree(root: Stateful, record: StateRecord, path = "machine"): void {
  const { state, parts = {} } = record;
  if (!isRecord(state) || !isRecord(parts)) throw new StateError(`${path}: the document has no fields or parts of it`);
  root.restoreState(new StateReader(state, path));
  const names = new Set(Object.keys(parts));
  for (const [name, part] of root.stateParts?.() ?? []) {
    if (!names.delete(name)) throw new StateError(`${path}: the document has no part "${name}"`);
    const saved = parts[name];
    if (!isRecord(saved)) throw new StateError(`${path}: part "${name}" of the document is no record`);
    restoreTree(part, saved, `${path}/${name}`);
  }
  for (const name of names) throw new StateError(`${path}: there is no part "${name}" here`);
}

/** Every object of a tree with its path, parents before parts. */
export function* eachStateful(root: Stateful, path = "machine"): Generator<readonly [path: string, object: Stateful]> {
  yield [path, root];
  for (const [name, part] of root.stateParts?.() ?? []) yield* eachStateful(part, `${path}/${name}`);
}
