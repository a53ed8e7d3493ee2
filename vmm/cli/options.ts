// Values of command-line options: durations and sizes, with errors that say what was expected.

import { InvalidArgumentError, Option } from "commander";
import { parseSize } from "../../host/base/byte-size.ts";
import { UsageError } from "./exit-codes.ts";

const UNITS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9 };

/** "250ms", "60s", "2m": nanoseconds. A bare number is seconds. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError("expected a duration such as 250ms, 60s or 2m");
  return Number(match[1]) * UNITS[match[2] ?? "s"]!;
}

/** Of what runs scenarios. */
export function wallLimitOption(what: string): Option {
  return new Option("--wall-limit <time>", `${what}, such as 90s`).argParser(duration).default(60e9, "60s");
}

/** "64M": bytes, whole pages. */
export function memorySize(text: string): number {
  const bytes = parseSize(text);
  if (!Number.isInteger(bytes) || bytes <= 0 || bytes % 65536 !== 0) {
    throw new InvalidArgumentError("expected a size such as 64M, a multiple of 64 KiB");
  }
  // Guest RAM ends before the 64-bit PCI window, and a 32-bit pointer must reach all of it.
  if (bytes > 2 ** 31) throw new InvalidArgumentError("a guest has at most 2G of RAM");
  return bytes;
}

export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("expected a whole number");
  return Number(text);
}

/** A TCP port; 0: any. */
export function portNumber(text: string): number {
  const port = wholeNumber(text);
  if (port > 65535) throw new InvalidArgumentError("expected a port, 0 to 65535");
  return port;
}

export function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

/** "0x1000" or "4096"; throws UsageError. */
export function parseAddress(text: string): bigint {
  if (!/^(0x[0-9a-fA-F]+|\d+)$/.test(text)) throw new UsageError(`--iova ${text}: expected an address such as 0x1000`);
  const address = BigInt(text);
  if (address >= 1n << 64n) throw new UsageError(`--iova ${text}: an address has at most 64 bits`);
  return address;
}

/** What --help says of --inject. */
export const INJECTION_RULES = `Rules of --inject:
  ioctl:NAME[@N|@N+|%P]=ERRNO   a call, by its name in Linux's headers: always, the
                                N-th, from the N-th on, or with P percent
  ioctl:NAME[…]=drop            it answers success and does nothing
  ioctl:NAME[…]=delay/NS        it takes NS ns more
  ioctl:NAME[…]=corrupt         one bit of its entries, data or structure is another
  command:NAME[…]=drop          a command in the queue of the host's IOMMU does nothing
  allocation[:KIND][@N|%P]      an allocation (ENOMEM)
  entry:DEVICE[@N|@N+|%P]=corrupt[/BIT]
                                one bit (BIT, or any) of an entry of the guest's stage 1,
                                the N-th that the device's DMA comes to use
  event:veventq|fault[@N|%P]    an event is lost
  erratum:NAME                  the hardware has this quirk
  device:NAME=dead|slow/NS      a device answers nothing, or NS ns later`;
