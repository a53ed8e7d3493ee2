// Restoring what refers to objects that come and go (processes' mappings, attachments, HWPTs …): the objects of the document and those that
// are here must be the same by name. What may differ is their order, which a kernel's traces show.

import { StateError, type StateReader } from "../base/state.ts";

/** A list of texts. Throws StateError. */
export function textsOf(state: StateReader, name: string): string[] {
  return state.list(name).map((value) => (typeof value === "string" ? value : state.fail(name, "is no list of texts")));
}

/** A list of numbers. Throws StateError. */
export function numbersOf(state: StateReader, name: string): number[] {
  return state
    .list(name)
    .map((value) => (typeof value === "number" ? value : state.fail(name, "is no list of numbers")));
}

/** A list of 64-bit numbers. Throws StateError. */
export function bigintsOf(state: StateReader, name: string): bigint[] {
  return state
    .list(name)
    .map((value) => (typeof value === "bigint" ? value : state.fail(name, "is no list of 64-bit numbers")));
}

/** `here` in the order of `saved`. Throws StateError with the first name that is missing here, or too many. */
export function inSavedOrder<T>(
  state: StateReader,
  here: Iterable<T>,
  nameOf: (object: T) => string,
  saved: readonly string[],
): T[] {
  const left = new Map<string, T>();
  for (const object of here) left.set(nameOf(object), object);
  const ordered = saved.map((name) => {
    const object = left.get(name);
    if (object === undefined) throw new StateError(`${state.path}: there is no ${name} here`);
    left.delete(name);
    return object;
  });
  for (const name of left.keys()) throw new StateError(`${state.path}: the document has no ${name}`);
  return ordered;
}

/** Throws StateError with the first name that is missing here, or too many. */
export function requireSame(state: StateReader, here: Iterable<string>, saved: readonly string[]): void {
  inSavedOrder(state, here, (name) => name, saved);
}

/** Refills a list, a map or a set, whose identity others hold. */
export function refillList<T>(list: T[], items: readonly T[]): void {
  list.splice(0, list.length, ...items);
}

export function refillSet<T>(set: Set<T>, items: Iterable<T>): void {
  const copy = [...items];
  set.clear();
  for (const item of copy) set.add(item);
}

export function refillMap<K, V>(map: Map<K, V>, entries: Iterable<readonly [K, V]>): void {
  const copy = [...entries];
  map.clear();
  for (const [key, value] of copy) map.set(key, value);
}

/** A field that says what the document's object refers to must say what the one here does. Throws StateError. */
export function requireText(state: StateReader, name: string, here: string): void {
  const saved = state.text(name);
  if (saved !== here) state.fail(name, `is ${saved} in the document, ${here} here`);
}
