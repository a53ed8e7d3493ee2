/**
 * What a hand-made case expects, and the words that cases are written in. Records are built here from §11.4.7.6 by hand, not by `fault-record.ts`.
 */
import type { AtsCompletion, Request } from "../outcome.ts";
import { ADDRESS, PASID, type Scene, SID } from "./scene.ts";

export interface Expected {
  /** An address, "blocked", or what a completion says. */
  readonly result: bigint | "blocked" | Partial<AtsCompletion>;
  /** Quadwords of FRCD. */
  readonly record: readonly [bigint, bigint] | null;
  /** Quadwords that memory holds afterwards, where hardware updates entries. */
  readonly stored?: readonly (readonly [bigint, bigint])[];
}

export interface Case {
  /** With the section that says so. */
  readonly name: string;
  readonly scene: () => Scene;
  readonly request?: Partial<Request>;
  readonly expected: Expected;
}

const F = 1n << 63n;
/** {T1,T2}. */
const READ = 1n << 62n;
const ATOMIC = READ | (1n << 28n);

export const passes = (address: bigint): Expected => ({ result: address, record: null });
export const silent: Expected = { result: "blocked", record: null };

/** A fault of a request without PASID. */
export function faults(code: bigint, access: "read" | "write" | "atomic" = "read", address = ADDRESS): Expected {
  const type = { read: READ, write: 0n, atomic: ATOMIC }[access];
  return { result: "blocked", record: [address & ~0xfffn, F | type | (code << 32n) | SID] };
}

/** The same of one with PASID. */
export function faultsOf(
  code: bigint,
  access: "read" | "write" | "atomic" = "read",
  { pasid = PASID, privileged = false, address = ADDRESS } = {},
): Expected {
  const { record } = faults(code, access, address);
  const [low, high] = record!;
  return { result: "blocked", record: [low, high | (1n << 31n) | (pasid << 40n) | (privileged ? 1n << 29n : 0n)] };
}

/** A translation request without PASID that is refused with a record; AT is 1. */
export function refused(status: AtsCompletion["status"], code: bigint, address = ADDRESS): Expected {
  return { result: { status }, record: [address & ~0xfffn, F | (1n << 60n) | (code << 32n) | SID] };
}

export const nothing: Expected = { result: { status: "success", r: false, w: false }, record: null };
