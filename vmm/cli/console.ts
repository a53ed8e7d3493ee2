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
  "\r\nCtrl-A x  end the machine\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A itself to the guest\r\nEverything else goes to the guest.\r\n";
const CTRL_A = 0x01;

export interface ConsoleInput {
  /** Bytes for the guest. */
  onBytes: (bytes: Uint8Array) => void;
  /** Ctrl-A x. */
  onQuit: () => void;
  /** Gives the terminal back as it was. */
  close(): void;
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
  const console: ConsoleInput = {
    onBytes: () => {},
    onQuit: () => {},
    close() {
      input.off("data", onData);
      restore();
      process.off("exit", restore);
      input.pause();
    },
  };
  const onData = (chunk: Buffer): void => {
    const forGuest: number[] = [];
    for (const byte of chunk) {
      if (!escaped) {
        if (byte === CTRL_A) escaped = true;
        else forGuest.push(byte);
        continue;
      }
      escaped = false;
      if (byte === 0x78) console.onQuit();
      else if (byte === 0x68) help(HELP);
      else if (byte === 0x61 || byte === CTRL_A) forGuest.push(CTRL_A);
    }
    if (forGuest.length > 0) console.onBytes(Uint8Array.from(forGuest));
  };
  input.on("data", onData);
  input.resume();
  return console;
}
