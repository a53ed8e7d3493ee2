/** Fault recording registers (§11.4.7.6): what one holds of a request that was blocked. */
import { type Features, largestWidth } from "./capabilities.ts";
import type { FaultRecord, Request } from "./outcome.ts";

const ADDRESS_TYPE = { untranslated: 0n, translation: 1n, translated: 2n } as const;
/** T1 is bit 62, T2 bit 28: {T1,T2} is 0 for a write, 2 a read, 3 an AtomicOp. */
const TYPE = { write: 0n, read: 1n << 62n, atomic: (1n << 62n) | (1n << 28n) } as const;
const PRIV = 1n << 29n;
const EXE = 1n << 30n;
const PP = 1n << 31n;
const F = 1n << 63n;

export function faultRecord(f: Features, request: Request, code: number): FaultRecord {
  const { kind, sid, pasid, privileged, access, address } = request;
  let high = F | (ADDRESS_TYPE[kind] << 60n) | (BigInt(code) << 32n) | sid | TYPE[access];
  let unknown = 0n;
  if (pasid !== null) high |= PP | (pasid << 40n) | (privileged ? PRIV : 0n);
  // PRIV and EXE say something only with PP; a PASID that is not told reads 0 in every source.
  else unknown |= PRIV | EXE;
  // A translation request is neither a read nor a write of memory.
  if (kind === "translation") {
    high &= ~TYPE.atomic;
    unknown |= TYPE.atomic;
  }
  const width = largestWidth(f);
  const beyond = ((1n << 64n) - 1n) ^ ((1n << width) - 1n);
  return { quadwords: [address & ~0xfffn, high], unknown: [beyond, unknown] };
}

/** Of a blocked interrupt request: the index, where one was computed. */
export function interruptFaultRecord(sid: bigint, code: number, index: bigint | null): FaultRecord {
  return {
    quadwords: [index === null ? 0n : (index & 0xffffn) << 48n, F | (BigInt(code) << 32n) | sid],
    unknown: [index === null ? 0xffffn << 48n : 0n, PRIV | EXE],
  };
}
