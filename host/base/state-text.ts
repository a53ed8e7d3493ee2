// A state document as text: JSON in which 64-bit numbers are {"0x": "…"} and bytes {"base64": "…"}, long runs of zeroes left out
// ({"zeroes": n}). A document is from anywhere: reading it checks its version and every value.

import { KeptBytes, STATE_VERSION, StateError, type StateRecord, type StateValue } from "./state.ts";

const TEXT_VERSION = "nestbox-state";
/** Zeroes of at least a page are counted instead of written. */
const RUN = 4096;

export function encodeState(state: StateRecord): string {
  return JSON.stringify({ [TEXT_VERSION]: STATE_VERSION, state: encode(state) });
}

/** Throws StateError for text that is no state document of this version. */
export function decodeState(text: string): StateRecord {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new StateError(`no state document: ${(error as Error).message}`);
  }
  if (typeof document !== "object" || document === null || !Object.hasOwn(document, TEXT_VERSION)) {
    throw new StateError("no state document");
  }
  const { [TEXT_VERSION]: version, state } = document as Record<string, unknown>;
  if (version !== STATE_VERSION)
    throw new StateError(`a state document of version ${String(version)}, not ${STATE_VERSION}`);
  const decoded = decode(state, "state");
  if (!isPlainRecord(decoded)) throw new StateError("state: no record");
  return decoded;
}

function isPlainRecord(value: StateValue): value is StateRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

function encode(value: StateValue): unknown {
  if (typeof value === "bigint") return { "0x": value.toString(16) };
  if (typeof value === "number" && !Number.isFinite(value)) return { number: String(value) };
  if (value instanceof Uint8Array) return { bytes: encodeBytes(value) };
  if (value instanceof KeptBytes) throw new Error("bytes that are kept elsewhere are for this process alone");
  if (Array.isArray(value)) return value.map(encode);
  if (typeof value !== "object" || value === null) return value;
  // A record is a list of pairs: its names may be anything.
  return { record: Object.entries(value).map(([name, inner]) => [name, encode(inner)]) };
}

function encodeBytes(bytes: Uint8Array): unknown[] {
  const pieces: unknown[] = [];
  let written = 0;
  const write = (end: number): void => {
    if (end > written) pieces.push(base64(bytes.subarray(written, end)));
  };
  for (let at = 0; at < bytes.length; ) {
    let end = at;
    while (end < bytes.length && bytes[end] === 0) end++;
    if (end - at >= RUN) {
      write(at);
      pieces.push(end - at);
      written = end;
    }
    at = Math.max(end, at + 1);
  }
  write(bytes.length);
  return pieces;
}

function decode(value: unknown, path: string, depth = 0): StateValue {
  if (depth > MOST_DEPTH) throw new StateError(`${path}: too deep`);
  if (value === null || typeof value === "boolean" || typeof value === "number" || typeof value === "string")
    return value;
  if (Array.isArray(value)) return value.map((inner, index) => decode(inner, `${path}/${index}`, depth + 1));
  const entries = Object.entries(value as object);
  const [kind, inner] = entries[0] ?? ["", null];
  if (entries.length === 1) {
    if (kind === "0x" && typeof inner === "string" && /^-?[0-9a-f]{1,64}$/.test(inner)) {
      return inner.startsWith("-") ? -BigInt(`0x${inner.slice(1)}`) : BigInt(`0x${inner}`);
    }
    if (kind === "number" && (inner === "Infinity" || inner === "-Infinity" || inner === "NaN")) return Number(inner);
    if (kind === "bytes" && Array.isArray(inner)) return decodeBytes(inner, path);
    if (kind === "record" && Array.isArray(inner)) return decodeRecord(inner, path, depth);
  }
  throw new StateError(`${path}: no value of a state`);
}

function decodeRecord(pairs: readonly unknown[], path: string, depth: number): StateRecord {
  // Without a prototype: "__proto__" is a name like any other.
  const record: Record<string, StateValue> = Object.create(null);
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string")
      throw new StateError(`${path}: no record`);
    record[pair[0]] = decode(pair[1], `${path}/${pair[0]}`, depth + 1);
  }
  return record;
}

/** Most bytes of one value (the largest guest RAM), and how deep values lie in each other. */
const MOST_BYTES = 2 ** 31;
const MOST_DEPTH = 100;

function decodeBytes(pieces: readonly unknown[], path: string): Uint8Array {
  const parts: (Uint8Array | number)[] = pieces.map((piece) => {
    if (typeof piece === "number" && Number.isInteger(piece) && piece > 0) return piece;
    if (typeof piece !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(piece)) throw new StateError(`${path}: no bytes`);
    const text = atob(piece);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  });
  const total = parts.reduce<number>((sum, part) => sum + (typeof part === "number" ? part : part.length), 0);
  if (total > MOST_BYTES) throw new StateError(`${path}: ${total} bytes are too many`);
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    if (typeof part !== "number") bytes.set(part, at);
    at += typeof part === "number" ? part : part.length;
  }
  return bytes;
}

function base64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}
