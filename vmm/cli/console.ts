// The terminal: console output of a guest as it is printed, and for interactive guests raw input with Ctrl-A as the escape key.

import { writeSync } from "node:fs";
import { readerGone } from "./closed-output.ts";

const PAUSE = new Int32Array(new SharedArrayBuffer(4));

/** Writes to a descriptor at once, also when it is a pipe that is full for the moment. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE" && fd <= 2) {
        readerGone();
        return;
      }
      if (code !== "EAGAIN") throw error;
      Atomics.wait(PAUSE, 0, 0, 1);
    }
  }
}

const HELP =
  "\r\nCtrl-A x  end the machine\r\nCtrl-A c  the monitor, and back\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A itself to the guest\r\nEverything else goes to the guest.\r\n";
const CTRL_A = 0x01;

export interface ConsoleInput {
  /** Bytes for the guest. */
  onBytes: (bytes: Uint8Array) => void;
  /** Ctrl-A x. */
  onQuit: () => void;
  /** Ctrl-A c: what takes the keys from here on, until Ctrl-A c comes again; null: the guest still has them. */
  onMonitor: () => KeyTaker | null;
  /** Gives the terminal back as it was. */
  close(): void;
}

/** Who has the keys instead of the guest. */
export interface KeyTaker {
  keys(bytes: Uint8Array): void;
  /** The guest has them again. */
  leave(): void;
}

/**
 * Puts the terminal (if standard input is one) into raw mode until `close`, or until the process ends, however it does. `help` shows what
 * the keys do.
 */
export function openConsoleInput(help: (text: string) => void): ConsoleInput {
  const input = process.stdin;
  const raw = input.isTTY === true;
  const restore = (): void => {
    if (raw) input.setRawMode(false);
  };
  if (raw) input.setRawMode(true);
  process.on("exit", restore);
  let escaped = false;
  let taker: KeyTaker | null = null;
  const console: ConsoleInput = {
    onBytes: () => {},
    onQuit: () => {},
    onMonitor: () => null,
    close() {
      taker?.leave();
      taker = null;
      input.off("data", onData);
      restore();
      process.off("exit", restore);
      input.pause();
    },
  };
  const onData = (chunk: Buffer): void => {
    const typed: number[] = [];
    const deliver = (): void => {
      const bytes = Uint8Array.from(typed.splice(0));
      if (bytes.length === 0) return;
      if (taker === null) console.onBytes(bytes);
      else taker.keys(bytes);
    };
    for (const byte of chunk) {
      if (!escaped) {
        if (byte === CTRL_A) escaped = true;
        else typed.push(byte);
        continue;
      }
      escaped = false;
      if (byte === 0x78) console.onQuit();
      else if (byte === 0x68) help(HELP);
      else if (byte === 0x61 || byte === CTRL_A) typed.push(CTRL_A);
      else if (byte === 0x63) {
        deliver();
        const before = taker;
        taker = before === null ? console.onMonitor() : null;
        before?.leave();
      }
    }
    deliver();
  };
  input.on("data", onData);
  input.resume();
  return console;
}
