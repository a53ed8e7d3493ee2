/** Translation Requests and Translated transactions (§3.9.1, §13.6, §13.7). */
import type { AtsCompletion } from "../outcome.ts";
import { abort, type Case, event, passes, READ, S2_IN, WRITE } from "./expected.ts";
import {
  bothScene,
  bypassScene,
  CD,
  CD_BITS,
  D,
  EVERYTHING,
  FIRST,
  IPA_PAGE,
  LEAF1,
  LEAF2,
  PA_PAGE,
  type Scene,
  SECOND,
  STE,
  STE_BITS,
  stage1Scene,
  VA,
  withSubstreams,
} from "./scene.ts";

const HERE = IPA_PAGE | 0xabcn;
const ask = { kind: "ats" } as const;
const askWrite = { kind: "ats", write: true } as const;
const full = (scene: Scene) => scene.set(STE + 8n, STE_BITS.EATS(1n));
const split = (scene: Scene) => scene.set(STE + 8n, STE_BITS.EATS(2n));
const UNSUPPORTED: Partial<AtsCompletion> = { status: "unsupported-request" };
const ABORTED: Partial<AtsCompletion> = { status: "completer-abort" };
const NOTHING: Partial<AtsCompletion> = { status: "success", r: false, w: false };
const answer = (result: Partial<AtsCompletion>, record: ReturnType<typeof event> | null = null) => ({
  result,
  event: record,
});
const gives = (address: bigint, r: boolean, w: boolean) =>
  answer({ status: "success", r, w, exe: false, priv: false, address });

export const ATS_CASES: readonly Case[] = [
  {
    name: "TR: SMMUEN=0 is UR and F_BAD_ATS_TREQ (§3.9.1.2)",
    scene: () => full(stage1Scene()).program({ CR0: 0n }),
    request: ask,
    expected: answer(UNSUPPORTED, event(0x05n, 0n, VA)),
  },
  {
    name: "TR: EATS=0 is UR and F_BAD_ATS_TREQ (§3.9.1.2)",
    scene: stage1Scene,
    request: ask,
    expected: answer(UNSUPPORTED, event(0x05n, 0n, VA)),
  },
  {
    name: "TR: Config 100 is UR and F_BAD_ATS_TREQ (§3.9.1.2)",
    scene: () => full(bypassScene()),
    request: ask,
    expected: answer(UNSUPPORTED, event(0x05n, 0n, VA)),
  },
  {
    name: "TR: Config 0xx is UR, silent (§3.9.1.2)",
    scene: () => full(stage1Scene()).clear(STE, 7n << 1n),
    request: ask,
    expected: answer(UNSUPPORTED),
  },
  {
    name: "TR: split-stage ATS counts as off while ATSCHK=0 (§5.2)",
    scene: () => split(bothScene()).program({ CR0: 1n }),
    request: ask,
    expected: answer(UNSUPPORTED, event(0x05n, 0n, VA)),
  },
  {
    name: "TR: C_BAD_STE is CA, recorded with REC_CFG_ATS (§3.9.1.2)",
    scene: () => full(stage1Scene()).clear(STE, 1n),
    request: ask,
    expected: answer(ABORTED, event(0x04n)),
  },
  {
    name: "TR: C_BAD_STE is CA, silent without REC_CFG_ATS (§3.9.1.2)",
    scene: () => full(stage1Scene()).clear(STE, 1n).program({ CR2: 2n }),
    request: ask,
    expected: answer(ABORTED),
  },
  {
    name: "TR: C_BAD_STREAMID wants RECINVSID as well (§3.9.1.2)",
    scene: () => stage1Scene().program({ CR2: 8n, STRTAB_BASE_CFG: 2n }),
    request: ask,
    expected: answer(ABORTED),
  },
  {
    name: "TR: C_BAD_CD is CA (§3.9.1.2)",
    scene: () => full(stage1Scene()).clear(CD, CD_BITS.V),
    request: ask,
    expected: answer(ABORTED, event(0x0an)),
  },
  {
    name: "TR: read and write (§13.7)",
    scene: () => full(stage1Scene()),
    request: askWrite,
    expected: gives(HERE, true, true),
  },
  {
    name: "TR: a read-only page for NW=0 (§13.7)",
    scene: () => full(stage1Scene()).set(FIRST.leaf, D.READ_ONLY),
    request: askWrite,
    expected: gives(HERE, true, false),
  },
  {
    name: "TR: both stages give the PA (§13.6)",
    scene: () => full(bothScene()),
    request: askWrite,
    expected: gives(PA_PAGE | 0xabcn, true, true),
  },
  {
    name: "TR: permissions are those of both stages (§13.6)",
    scene: () => full(bothScene()).clear(SECOND.leaf, D.S2W),
    request: askWrite,
    expected: gives(PA_PAGE | 0xabcn, true, false),
  },
  {
    name: "TR: split-stage gives the IPA with the permissions of both stages (§13.6.3)",
    scene: () => split(bothScene()).clear(SECOND.leaf, D.S2W),
    request: askWrite,
    expected: gives(HERE, true, false),
  },
  {
    name: "TR: F_TRANSLATION is success without rights, no event (§3.9.1.2)",
    scene: () => full(stage1Scene()).put(FIRST.leaf, 0n),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: F_ACCESS at stage 2 of a table is success without rights (§3.9.1.2)",
    scene: () => full(bothScene()).clear(SECOND.stage1[1]!, D.AF),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: F_PERMISSION at stage 2 of the context is success without rights (§3.9.1.2)",
    scene: () => full(bothScene()).clear(SECOND.contexts, D.S2R),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: what stage 1 forbids wholly does not go to stage 2 (§3.9.1.2)",
    scene: () => full(bothScene()).clear(FIRST.leaf, D.EL0).abort(SECOND.leaf),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: nor does a page that is not executable where reads count as fetches (§3.9.1.2, §5.2 INSTCFG)",
    scene: () =>
      full(bothScene())
        .identify({ IDR1: EVERYTHING.IDR1 | (1n << 26n) })
        .set(STE + 8n, STE_BITS.INSTCFG(3n))
        .set(FIRST.leaf, D.UXN | D.READ_ONLY)
        .abort(SECOND.leaf),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: requests never stall (§5.5)",
    scene: () => full(stage1Scene()).put(FIRST.leaf, 0n).set(CD, CD_BITS.S),
    request: ask,
    expected: answer(NOTHING),
  },
  {
    name: "TR: F_WALK_EABT is CA (§3.9.1.2)",
    scene: () => full(stage1Scene()).abort(FIRST.leaf).program({ CR2: 0n }),
    request: ask,
    expected: answer(ABORTED),
  },
  {
    name: "TR: S1DSS=01 without stage 2 gives the address itself (§13.6.4)",
    scene: () => full(withSubstreams(stage1Scene(), 1n)),
    request: ask,
    expected: gives(VA, true, true),
  },
  {
    name: "TR: Exe is granted with R and X, where asked for; Priv is echoed (§13.7)",
    scene: () => full(withSubstreams(stage1Scene(), 0n)),
    request: { kind: "ats", ssid: 3n, instruction: true, write: true },
    expected: answer({ status: "success", r: true, w: true, exe: true, priv: false, address: HERE }),
  },
  {
    name: "TR: an execute-only page gives nothing (§13.7)",
    scene: () => full(withSubstreams(stage1Scene(), 0n)).clear(FIRST.leaf, D.EL0),
    request: { kind: "ats", ssid: 3n, instruction: true, write: true },
    expected: answer(NOTHING),
  },
  {
    name: "TR: NW=0 marks a writable-clean page dirty (§3.13.7)",
    scene: () =>
      full(stage1Scene())
        .set(CD, CD_BITS.HA | CD_BITS.HD)
        .set(FIRST.leaf, D.READ_ONLY | D.DBM),
    request: askWrite,
    expected: { ...gives(HERE, true, true), stored: [[FIRST.leaf, IPA_PAGE | LEAF1 | D.DBM]] },
  },
  {
    name: "TR: NW=1 leaves it clean and grants no write (§13.7)",
    scene: () =>
      full(stage1Scene())
        .set(CD, CD_BITS.HA | CD_BITS.HD)
        .set(FIRST.leaf, D.READ_ONLY | D.DBM),
    request: ask,
    expected: { ...gives(HERE, true, false), stored: [[FIRST.leaf, IPA_PAGE | LEAF1 | D.READ_ONLY | D.DBM]] },
  },
  {
    name: "TR: a read-only stage 1 leaves a writable-clean stage 2 clean (§3.13.7.1)",
    scene: () =>
      full(bothScene())
        .set(STE + 16n, STE_BITS.S2HA | STE_BITS.S2HD)
        .set(FIRST.leaf, D.READ_ONLY)
        .put(SECOND.leaf, PA_PAGE | (LEAF2 & ~D.S2W) | D.DBM),
    request: askWrite,
    expected: { ...gives(PA_PAGE | 0xabcn, true, false), stored: [[SECOND.leaf, PA_PAGE | (LEAF2 & ~D.S2W) | D.DBM]] },
  },
  // Translated transactions.
  {
    name: "Translated: SMMUEN=0 is F_TRANSL_FORBIDDEN (§3.9.1.3)",
    scene: () => full(stage1Scene()).program({ CR0: 0n }),
    request: { kind: "translated" },
    expected: abort(event(0x07n, READ, VA)),
  },
  {
    name: "Translated: ATSCHK=0 lets everything through (§3.9.1.3)",
    scene: () => stage1Scene().clear(STE, 1n).program({ CR0: 1n }),
    request: { kind: "translated" },
    expected: passes(VA),
  },
  {
    name: "Translated: EATS=1 passes (§3.9.1.3)",
    scene: () => full(stage1Scene()),
    request: { kind: "translated" },
    expected: passes(VA),
  },
  {
    name: "Translated: EATS=0 is F_TRANSL_FORBIDDEN (§3.9.1.3)",
    scene: stage1Scene,
    request: { kind: "translated", write: true },
    expected: abort(event(0x07n, WRITE, VA)),
  },
  {
    name: "Translated: Config 100 is F_TRANSL_FORBIDDEN (§3.9.1.3)",
    scene: () => full(bypassScene()),
    request: { kind: "translated" },
    expected: abort(event(0x07n, READ, VA)),
  },
  {
    name: "Translated: Config 0xx aborts silently (§3.9.1.3)",
    scene: () => full(stage1Scene()).clear(STE, 7n << 1n),
    request: { kind: "translated" },
    expected: abort(null),
  },
  {
    name: "Translated: C_BAD_STE is recorded with REC_CFG_ATS (§3.9.1.3)",
    scene: () => full(stage1Scene()).clear(STE, 1n),
    request: { kind: "translated" },
    expected: abort(event(0x04n)),
  },
  {
    name: "Translated: C_BAD_STE is silent without REC_CFG_ATS (§3.9.1.3)",
    scene: () => full(stage1Scene()).clear(STE, 1n).program({ CR2: 2n }),
    request: { kind: "translated" },
    expected: abort(null),
  },
  {
    name: "Translated: C_BAD_STREAMID is recorded with REC_CFG_ATS, whatever RECINVSID says (§3.9.1.3)",
    scene: () => stage1Scene().program({ CR2: 8n, STRTAB_BASE_CFG: 2n }),
    request: { kind: "translated" },
    expected: abort(event(0x02n)),
  },
  {
    name: "Translated: split-stage goes through stage 2 (§13.6.3)",
    scene: () => split(bothScene()),
    request: { kind: "translated", iova: HERE },
    expected: passes(PA_PAGE | 0xabcn),
  },
  {
    name: "Translated: split-stage faults at stage 2 are recorded as ordinary ones (§3.9.1.3)",
    scene: () => split(bothScene()).clear(SECOND.leaf, D.S2W),
    request: { kind: "translated", iova: HERE, write: true },
    expected: abort(event(0x13n, WRITE | S2_IN, HERE, IPA_PAGE)),
  },
];
