// The SMMUv3's tables, events and registers in words (../explainer.ts).

import { commandStructure } from "../../../host/arch/smmuv3/commands.ts";
import {
  EVENT_RECORD,
  F_BAD_ATS_TREQ,
  F_TRANSL_FORBIDDEN,
  F_UUT,
  F_WALK_EABT,
} from "../../../host/arch/smmuv3/event-records.ts";
import { describeRegister, REGISTERS } from "../../../host/arch/smmuv3/registers.ts";
import { CONFIG_BOTH, STE } from "../../../host/arch/smmuv3/stream-table-entry.ts";
import { hex } from "../../../host/base/address.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { decoded } from "../decoded-structure.ts";
import type { Explainer, WalkFault, WalkStep } from "../explainer.ts";
import { explainFault } from "./fault-explanations.ts";
import { decodeEntry, describeEntry, leafOutput } from "./table-entries.ts";
import { beginsAnew } from "./walk-order.ts";

/** RnW as trace events carry it, with CLASS beside it: bits of the upper half of a record's second doubleword (§7.3). */
const READ = 1 << 3;
const CLASS_SHIFT = 8;
const CLASS_CD = 0;
/** Events below F_WALK_EABT whose RnW is valid. */
const WITH_ACCESS: ReadonlySet<number> = new Set([F_UUT, F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN]);

export const SMMUV3_EXPLAINER: Explainer = {
  specification: "IHI 0070",
  beginsAnew,
  describeEntry,
  decodeEntry,
  decodeCommand: (words) => {
    const shape = commandStructure(words[0] ?? 0n);
    return shape === null ? null : decoded(shape, "IHI 0070", words, ["opcode"]);
  },
  decodeFault: (words) => decoded(EVENT_RECORD, "IHI 0070", words),
  stage1Output: leafOutput,
  stage2Input: (loads, result) => {
    const input = loads.at(-1)?.input;
    return input === undefined ? null : result === null ? input : input | (result & 0xfffn);
  },
  servedTable: (before, fault, serves) => {
    if (serves !== undefined) return "stage1";
    if (fault !== null && fault.faultCause >= F_WALK_EABT)
      return ((fault.ttyp >> CLASS_SHIFT) & 3) === CLASS_CD ? contextTable(before) : "final";
    return before !== null && leadsToContexts(before) ? contextTable(before) : "final";
  },
  // IPA or FetchAddr (§7.3).
  faultAddress: ({ iotval2 }: WalkFault) => (iotval2 === 0n ? null : iotval2),
  faultWrites: ({ faultCause, ttyp }) =>
    (faultCause >= F_WALK_EABT || WITH_ACCESS.has(faultCause)) && (ttyp & READ) === 0,
  explainFault,
  registers,
};

const leadsToContexts = ({ table, entry }: WalkStep): boolean =>
  table === "L1CD" || (table === "STE" && STE.get([entry], "Config") === BigInt(CONFIG_BOTH));

/** Which of the two tables comes behind an entry: a stream whose format has two levels first goes through the upper one. */
function contextTable(before: WalkStep | null): string {
  if (before?.table !== "STE") return "CD";
  const [format, cdMax] = [STE.get([before.entry], "S1Fmt"), STE.get([before.entry], "S1CDMax")];
  return cdMax !== 0n && (format === 1n || format === 2n) ? "L1CD" : "CD";
}

function registers(port: MmioPort): Record<string, string> {
  const values: Record<string, string> = {};
  for (const register of REGISTERS) {
    const low = port.mmioRead(register.offset, register.bytes);
    const high = register.bytes === 8 ? port.high : 0;
    const value = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    const text = describeRegister(register, value).slice(register.name.length).trim();
    values[register.name] = text === "" ? hex(value) : `${hex(value)} (${text})`;
  }
  return values;
}
