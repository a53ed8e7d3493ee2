// An advisory lock on a file: a second file beside it, "<path>.lock", that names its owner: host, process id, start time of the
// process. Created exclusively, so of two openers one wins. A lock whose owner is dead (killed, crashed) is stale and taken over;
// the start time tells a dead owner from another process that was given the same id since.

import { closeSync, linkSync, openSync, readFileSync, renameSync, statSync, unlinkSync, writeSync } from "node:fs";
import { hostname } from "node:os";

export type LockResult = { readonly lock: FileLock } | { readonly owner: string } | { readonly error: string };

/** Locks held by this process. */
const held = new Set<string>();

export class FileLock implements Disposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Locks `file` (a resolved path): the lock, or who has it ("process 123"), or the errno code that says why it cannot be. */
  static acquire(file: string): LockResult {
    const path = `${file}.lock`;
    const mine = ownerText(process.pid, startTime(process.pid));
    for (let attempt = 0; attempt < 3; attempt++) {
      const created = createExclusively(path, mine);
      if (created === null) {
        held.add(path);
        return { lock: new FileLock(path) };
      }
      if (created !== "EEXIST") return { error: created };
      const text = readOwner(path);
      // Gone between the two: try again.
      if (text === null) continue;
      if (isAlive(text, path)) return { owner: describeOwner(text) };
      removeStale(path, text);
    }
    return { owner: "another process" };
  }

  [Symbol.dispose](): void {
    if (!held.delete(this.path)) return;
    try {
      unlinkSync(this.path);
    } catch {
      // Somebody removed it: then it locks nothing any more.
    }
  }
}

function ownerText(pid: number, start: string): string {
  return `${hostname()} ${pid} ${start}\n`;
}

/** Start time of a process in clock ticks since boot where the system tells (Linux), else "-". */
function startTime(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Fields after the command name, which stands in parentheses and may hold anything: the start time is the 22nd field.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "-";
  } catch {
    return "-";
  }
}

/** Null when created; else the errno code. */
function createExclusively(path: string, text: string): string | null {
  try {
    const fd = openSync(path, "wx");
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
    return null;
  } catch (error) {
    return errorCode(error);
  }
}

function readOwner(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function describeOwner(text: string): string {
  const [host, pid] = text.trim().split(" ");
  if (pid === undefined) return "another process";
  return host === hostname() ? `process ${pid}` : `process ${pid} on ${host}`;
}

function isAlive(text: string, path: string): boolean {
  const [host, pidText, start] = text.trim().split(" ");
  const pid = Number(pidText);
  // No owner in it: it is being written this moment, unless its writer died over it.
  if (start === undefined || !Number.isInteger(pid) || pid <= 0) return isFresh(path);
  // Of another machine: nobody here can tell.
  if (host !== hostname()) return true;
  if (pid === process.pid) return held.has(path);
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return false;
  }
  return start === "-" || startTime(pid) === "-" || startTime(pid) === start;
}

/** Far longer than writing a lock file takes. */
const FRESH_MS = 5_000;

function isFresh(path: string): boolean {
  try {
    return Date.now() - statSync(path).mtimeMs < FRESH_MS;
  } catch {
    return false;
  }
}

/** Removes a stale lock, unless somebody else replaced it in the meantime: then it is put back. */
function removeStale(path: string, text: string): void {
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
    if (readOwner(aside) !== text) linkSync(aside, path);
    unlinkSync(aside);
  } catch {
    // Another opener was faster; the next attempt sees whose lock it is.
  }
}

export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : String(error);
}
