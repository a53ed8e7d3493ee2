// Restoring what refers to objects that come and go by calls of the host's: a document finds those it names, in their order, or is refused.

import type { StateReader } from "../host/base/state.ts";

/**
 * The records of list `name` of a document, which have in each field what `here` has. Throws StateError for another value, and for records too
 * many or missing.
 */
export function sameRecords(
  state: StateReader,
  name: string,
  here: readonly Readonly<Record<string, string | number>>[],
): StateReader[] {
  const saved = state.records(name);
  if (saved.length > here.length) state.fail(name, `are more than the ${here.length} here`);
  for (const [index, fields] of here.entries()) {
    const record = saved[index];
    for (const [field, value] of Object.entries(fields)) {
      const has =
        record === undefined ? "nothing" : typeof value === "number" ? `${record.number(field)}` : record.text(field);
      if (has !== `${value}`) state.fail(name, `${index}: ${field} is ${has}, here it is ${value}`);
    }
  }
  return saved;
}
