// What somebody's code has thrown, as text. It may be anything: no Error, a proxy whose traps throw, an object whose `message` is a getter
// that throws, a string without an end. Looking at it never throws.

export interface Thrown {
  /** One line of at most `LONGEST` characters. */
  readonly message: string;
  /** As the engine wrote it; "" without one. */
  readonly stack: string;
}

const LONGEST = 500;

/** Message and stack of what was thrown. */
export function describeThrown(value: unknown): Thrown {
  return { message: oneLine(messageOf(value)) || "something without a message was thrown", stack: stackOf(value) };
}

/** `String(value)`, whatever the value makes of that. */
export function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    return `${typeof value} without a text`;
  }
}

/** Whether the value was made by this class (or one below it): false where looking throws. */
export function isInstance<T>(value: unknown, type: abstract new (...parameters: never[]) => T): value is T {
  try {
    return value instanceof type;
  } catch {
    return false;
  }
}

function messageOf(value: unknown): string {
  if (isInstance(value, Error)) {
    const message = property(value, "message");
    if (message !== null) return message;
    return "an error whose message is no text";
  }
  return `thrown, though no Error: ${textOf(value)}`;
}

function stackOf(value: unknown): string {
  const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
  return isObject ? (property(value, "stack") ?? "") : "";
}

/** A property that is a string; null for any other, or one that throws. */
function property(value: object, name: "message" | "stack"): string | null {
  try {
    const text = (value as Record<string, unknown>)[name];
    return typeof text === "string" ? text : null;
  } catch {
    return null;
  }
}

function oneLine(text: string): string {
  const line = text
    .slice(0, 2 * LONGEST)
    .trim()
    .replace(/\s*[\n\r\u2028\u2029]\s*/g, "; ");
  return line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line;
}
