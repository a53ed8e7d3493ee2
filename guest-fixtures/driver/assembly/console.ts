// The console: text and numbers, a line at a time or in pieces.

import { consoleWrite, exit } from "./machine";

/** Prints text as it stands. */
export function print(text: string): void {
  const bytes = String.UTF8.encode(text);
  consoleWrite(changetype<usize>(bytes), bytes.byteLength);
}

export function printLine(text: string): void {
  print(text + "\n");
}

/** 0x-prefixed hexadecimal. */
export function hex(value: u64): string {
  return "0x" + value.toString(16);
}

/** Says what went wrong and ends the run with status 1. */
export function fail(text: string): void {
  printLine("FAILED: " + text);
  exit(1);
}

/** Goes on if `condition` holds, else fails. */
export function check(condition: bool, text: string): void {
  if (!condition) fail(text);
}

/** Fails unless two numbers are equal, and says both. */
export function checkEqual(actual: u64, expected: u64, what: string): void {
  if (actual != expected) fail(what + " is " + hex(actual) + ", not " + hex(expected));
}
