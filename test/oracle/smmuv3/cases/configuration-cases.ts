/** Stream tables, stream table entries, substreams and context descriptors (§5): each case spoils one thing. */
import { abort, type Case, CLASS_IN, event, eventOf, FETCH, passes, READ, S2_CD, stage2Fault } from "./expected.ts";
import {
  bothScene,
  bypassScene,
  CD,
  CD_BITS,
  FIRST,
  IPA_PAGE,
  LEAF1,
  PA_PAGE,
  type Scene,
  SECOND,
  SID,
  STE,
  STE_BITS,
  STREAM_TABLE,
  stage1Scene,
  stage2Scene,
  VA,
  withSubstreams,
} from "./scene.ts";

const HERE = IPA_PAGE | 0xabcn;
const THERE = PA_PAGE | 0xabcn;
const BAD_STE = abort(event(0x04n));
const BAD_CD = abort(event(0x0an));
const BAD_STREAMID = abort(event(0x02n));

/** SPLIT 6; the descriptor for SIDs 0 to 63 lies at STREAM_TABLE. */
function twoLevels(descriptor: bigint): Scene {
  const scene = stage1Scene().program({ STRTAB_BASE_CFG: 8n | (6n << 6n) | (1n << 16n) });
  for (let at = 0n; at < 64n; at += 8n) scene.put(0x12_0000n + SID * 64n + at, scene.memory.words.get(STE + at) ?? 0n);
  return scene.put(STREAM_TABLE, descriptor);
}

/** S1Fmt 1: level 1 at the page of the context descriptors, the leaf at 0x12_0000. */
function twoLevelContexts(descriptor: bigint): Scene {
  const scene = withSubstreams(stage1Scene(), 0n).set(STE, STE_BITS.S1FMT(1n));
  for (let at = 0n; at < 64n; at += 8n) scene.put(0x12_0000n + 3n * 64n + at, scene.memory.words.get(CD + at) ?? 0n);
  return scene.put(CD, descriptor);
}

function s2(scene: Scene, clear: bigint, set: bigint): Scene {
  return scene.clear(STE + 16n, clear << 32n).set(STE + 16n, set << 32n);
}

export const CONFIGURATION_CASES: readonly Case[] = [
  // Disabled, bypass, abort.
  {
    name: "SMMUEN=0: GBPA lets the address through (§6.3.9)",
    scene: () => stage1Scene().program({ CR0: 0n }),
    expected: passes(VA),
  },
  {
    name: "SMMUEN=0 and GBPA.ABORT: an abort without an event (§6.3.15)",
    scene: () => stage1Scene().program({ CR0: 0n, GBPA: 1n << 20n }),
    expected: abort(null),
  },
  {
    name: "SMMUEN=0, an address beyond the OAS: an abort without an event (§3.4)",
    scene: () => stage1Scene().program({ CR0: 0n }),
    request: { iova: 1n << 48n },
    expected: abort(null),
  },
  {
    name: "Config 0xx: an abort without an event (§5.2)",
    scene: () => stage1Scene().clear(STE, 7n << 1n),
    expected: abort(null),
  },
  { name: "Config 100: bypass (§5.2)", scene: bypassScene, expected: passes(VA) },
  {
    name: "Config 100, an address beyond the OAS: stage-1 F_ADDR_SIZE (§3.4)",
    scene: bypassScene,
    request: { iova: 1n << 48n },
    expected: abort(event(0x11n, READ | CLASS_IN, 1n << 48n)),
  },
  { name: "Config 101: stage 1 (§5.2)", scene: stage1Scene, expected: passes(HERE) },
  { name: "Config 110: stage 2 (§5.2)", scene: stage2Scene, request: { iova: HERE }, expected: passes(THERE) },
  { name: "Config 111: both stages (§5.2)", scene: bothScene, expected: passes(THERE) },
  // The stream table.
  {
    name: "a StreamID beyond the table (§7.3.3)",
    scene: () => stage1Scene().program({ STRTAB_BASE_CFG: 2n }),
    expected: BAD_STREAMID,
  },
  {
    name: "a StreamID beyond the table, RECINVSID=0: no event (§6.3.12)",
    scene: () => stage1Scene().program({ STRTAB_BASE_CFG: 2n, CR2: 0n }),
    expected: abort(null),
  },
  {
    name: "SIDSIZE limits the table (§6.3.25)",
    scene: () => stage1Scene().identify({ IDR1: 2n | (16n << 6n) }),
    expected: BAD_STREAMID,
  },
  {
    name: "the base of a linear table is aligned to its size (§6.3.24)",
    scene: () => stage1Scene().program({ STRTAB_BASE: STREAM_TABLE | 0xfc0n }),
    expected: passes(HERE),
  },
  {
    name: "no memory under the stream table (§7.3.4)",
    scene: () => stage1Scene().abort(STE),
    expected: abort(event(0x03n, 0n, 0n, STE)),
  },
  { name: "two levels (§5.1)", scene: () => twoLevels(0x12_0000n | 7n), expected: passes(HERE) },
  {
    name: "two levels: the level-2 array is aligned to its size (§5.1)",
    scene: () => twoLevels(0x12_0fc0n | 7n),
    expected: passes(HERE),
  },
  { name: "two levels: Span=0 (§7.3.3)", scene: () => twoLevels(0x12_0000n), expected: BAD_STREAMID },
  { name: "two levels: Span=12 is Reserved (§5.1)", scene: () => twoLevels(0x12_0000n | 12n), expected: BAD_STREAMID },
  { name: "two levels: Span > SPLIT + 1 (§7.3.3)", scene: () => twoLevels(0x12_0000n | 8n), expected: BAD_STREAMID },
  {
    name: "two levels: the StreamID is beyond the span: 4 entries (§7.3.3)",
    scene: () => twoLevels(0x12_0000n | 3n),
    expected: BAD_STREAMID,
  },
  {
    name: "two levels: the last entry of the span: 8 (§7.3.3)",
    scene: () => twoLevels(0x12_0000n | 4n),
    expected: passes(HERE),
  },
  {
    name: "two levels: no memory under the level-1 table (§7.3.4)",
    scene: () => twoLevels(0x12_0000n | 7n).abort(STREAM_TABLE),
    expected: abort(event(0x03n, 0n, 0n, STREAM_TABLE)),
  },
  {
    name: "FMT counts as linear where ST_LEVEL=0 (§6.3.25)",
    scene: () =>
      stage1Scene()
        .program({ STRTAB_BASE_CFG: 6n | (6n << 6n) | (1n << 16n) })
        .identify({ IDR0: stage1Scene().identification.IDR0 & ~(3n << 27n), IDR1: 6n | (16n << 6n) }),
    expected: passes(HERE),
  },
  // Validity of stream table entries.
  { name: "V=0 (§5.2.2)", scene: () => stage1Scene().clear(STE, 1n), expected: BAD_STE },
  {
    name: "stage 1 without S1P (§5.2.2)",
    scene: () => stage1Scene().identify({ IDR0: stage1Scene().identification.IDR0 & ~0x202n }),
    expected: BAD_STE,
  },
  {
    name: "stage 2 without S2P (§5.2.2)",
    scene: () => stage2Scene().identify({ IDR0: stage1Scene().identification.IDR0 & ~0x201n }),
    expected: BAD_STE,
  },
  {
    name: "split-stage ATS of a stream without stage 2 (§5.2.2)",
    scene: () => stage1Scene().set(STE + 8n, STE_BITS.EATS(2n)),
    expected: BAD_STE,
  },
  {
    name: "full ATS of a stream that stalls at stage 2 (§5.2.2)",
    scene: () =>
      bothScene()
        .set(STE + 8n, STE_BITS.EATS(1n))
        .set(STE + 16n, STE_BITS.S2S),
    expected: BAD_STE,
  },
  {
    name: "STRW=01 of a stage-1 stream (§5.2.2)",
    scene: () => stage1Scene().set(STE + 8n, STE_BITS.STRW(1n)),
    expected: BAD_STE,
  },
  {
    name: "STRW does not count with stage 2 (§5.2)",
    scene: () => bothScene().set(STE + 8n, STE_BITS.STRW(3n)),
    expected: passes(THERE),
  },
  {
    name: "S1STALLD where stalls are forced (§5.5)",
    scene: () =>
      stage1Scene()
        .set(STE + 8n, STE_BITS.S1STALLD)
        .set(CD, CD_BITS.S)
        .identify({ IDR0: stage1Scene().identification.IDR0 | (2n << 24n) }),
    expected: BAD_STE,
  },
  {
    name: "S1CDMax beyond SSIDSIZE (§5.2.2)",
    scene: () => stage1Scene().set(STE, STE_BITS.S1CDMAX(17n)),
    expected: BAD_STE,
  },
  {
    name: "S1CDMax is free where SSIDSIZE=0 (§5.2.2)",
    scene: () => stage1Scene().set(STE, STE_BITS.S1CDMAX(17n)).identify({ IDR1: 16n }),
    expected: passes(HERE),
  },
  {
    name: "two-level context tables without CD2L (§5.2.2)",
    scene: () => {
      const scene = withSubstreams(stage1Scene(), 2n).set(STE, STE_BITS.S1FMT(2n));
      return scene.identify({ IDR0: scene.identification.IDR0 & ~(1n << 19n) });
    },
    expected: BAD_STE,
  },
  {
    name: "S1ContextPtr beyond the OAS (§3.4.3)",
    scene: () => stage1Scene().set(STE, 1n << 50n),
    expected: BAD_STE,
  },
  {
    name: "S2S where nothing stalls (§5.5)",
    scene: () =>
      bothScene()
        .set(STE + 16n, STE_BITS.S2S)
        .identify({ IDR0: stage1Scene().identification.IDR0 | (1n << 24n) }),
    expected: BAD_STE,
  },
  {
    name: "S2S=0 where stalls are forced (§5.5)",
    scene: () =>
      bothScene()
        .set(CD, CD_BITS.S)
        .identify({ IDR0: stage1Scene().identification.IDR0 | (2n << 24n) }),
    expected: BAD_STE,
  },
  { name: "S2AA64=0 (§5.2.2)", scene: () => s2(bothScene(), 1n << 19n, 0n), expected: BAD_STE },
  {
    name: "S2HD where hardware updates the access flag only (§5.2.2)",
    scene: () =>
      bothScene()
        .set(STE + 16n, STE_BITS.S2HD | STE_BITS.S2HA)
        .identify({ IDR0: (stage1Scene().identification.IDR0 & ~(3n << 6n)) | (1n << 6n) }),
    expected: BAD_STE,
  },
  { name: "S2TG Reserved (§5.2.2)", scene: () => s2(bothScene(), 0n, 3n << 14n), expected: BAD_STE },
  {
    name: "S2TG of a granule that is not there (§5.2.2)",
    scene: () => s2(bothScene(), 0n, 1n << 14n).identify({ IDR5: 5n | (1n << 4n) | (16n << 16n) }),
    expected: BAD_STE,
  },
  {
    name: "S2TTB beyond S2PS (§5.2.2)",
    scene: () => s2(bothScene(), 7n << 16n, 0n).set(STE + 24n, 1n << 32n),
    expected: BAD_STE,
  },
  { name: "S2T0SZ below 64-IAS (§5.2.2)", scene: () => s2(bothScene(), 0x3fn, 15n), expected: BAD_STE },
  {
    name: "S2T0SZ above 39 without STT (§5.2.2)",
    scene: () => s2(bothScene(), 0x3fn, 40n).identify({ IDR3: stage1Scene().identification.IDR3 & ~(1n << 9n) }),
    expected: BAD_STE,
  },
  {
    name: "S2SL0: 32 tables side by side are too many (§5.2.2)",
    scene: () => s2(bothScene(), 0xffn, 20n | (1n << 6n)),
    expected: BAD_STE,
  },
  {
    name: "S2SL0: a start level below the input range (§5.2.2)",
    scene: () => s2(bothScene(), 0xffn, 34n | (1n << 6n)),
    expected: BAD_STE,
  },
  {
    name: "S2ENDI where tables are little-endian (§5.2.2)",
    scene: () => s2(bothScene(), 0n, 1n << 20n).identify({ IDR0: stage1Scene().identification.IDR0 | (2n << 21n) }),
    expected: BAD_STE,
  },
  {
    name: "S2VMID of 16 bits without VMID16, also without stage 2 (§5.2.2)",
    scene: () =>
      stage1Scene()
        .set(STE + 16n, 0x100n)
        .identify({ IDR0: stage1Scene().identification.IDR0 & ~(1n << 18n) }),
    expected: BAD_STE,
  },
  {
    name: "S2VMID does not count in the EL2 world (§5.2)",
    scene: () =>
      stage1Scene()
        .set(STE + 8n, STE_BITS.STRW(2n))
        .set(STE + 16n, 0x100n)
        .identify({ IDR0: stage1Scene().identification.IDR0 & ~(1n << 18n) }),
    expected: passes(HERE),
  },
  // Substreams.
  {
    name: "a SubstreamID without stage 1 (§7.3.9)",
    scene: stage2Scene,
    request: { ssid: 3n, iova: HERE },
    expected: abort(event(0x08n | (3n << 12n))),
  },
  {
    name: "a SubstreamID with S1CDMax=0 (§7.3.9)",
    scene: stage1Scene,
    request: { ssid: 3n },
    expected: abort(event(0x08n | (3n << 12n))),
  },
  {
    name: "a SubstreamID beyond S1CDMax (§7.3.9)",
    scene: () => withSubstreams(stage1Scene(), 0n),
    request: { ssid: 16n },
    expected: abort(event(0x08n | (16n << 12n))),
  },
  {
    name: "a SubstreamID chooses its context (§5.2)",
    scene: () => withSubstreams(stage1Scene(), 0n).put(CD, 0n),
    request: { ssid: 3n },
    expected: passes(HERE),
  },
  {
    name: "S1DSS=00: no SubstreamID, no access (§7.3.7)",
    scene: () => withSubstreams(stage1Scene(), 0n),
    expected: abort(event(0x06n)),
  },
  {
    name: "S1DSS=01: no SubstreamID bypasses stage 1, whatever the context says (§5.2)",
    scene: () => withSubstreams(stage1Scene(), 1n).put(CD, 0n),
    expected: passes(VA),
  },
  {
    name: "S1DSS=01 with stage 2: the address is an IPA (§5.2)",
    scene: () => withSubstreams(bothScene(), 1n).put(CD, 0n),
    request: { iova: HERE },
    expected: passes(THERE),
  },
  {
    name: "S1DSS=01, an address beyond the IAS: stage-1 F_ADDR_SIZE (§3.4)",
    scene: () => withSubstreams(bothScene(), 1n),
    request: { iova: 1n << 48n },
    expected: abort(event(0x11n, READ | CLASS_IN, 1n << 48n)),
  },
  {
    name: "S1DSS=10: context 0 serves requests without SubstreamID (§5.2)",
    scene: () => withSubstreams(stage1Scene(), 2n),
    expected: passes(HERE),
  },
  {
    name: "S1DSS=10: SubstreamID 0 is refused (§7.3.7)",
    scene: () => withSubstreams(stage1Scene(), 2n),
    request: { ssid: 0n },
    expected: abort(event(0x06n)),
  },
  {
    name: "two-level context table (§5.3)",
    scene: () => twoLevelContexts(0x12_0000n | 1n),
    request: { ssid: 3n },
    expected: passes(HERE),
  },
  {
    name: "two-level context table: V=0 at level 1 (§7.3.9)",
    scene: () => twoLevelContexts(0x12_0000n),
    request: { ssid: 3n },
    expected: abort(event(0x08n | (3n << 12n))),
  },
  {
    name: "two-level context table: L2Ptr beyond the OAS (§3.4.3)",
    scene: () => twoLevelContexts(0x12_0000n | 1n | (1n << 50n)),
    request: { ssid: 3n },
    expected: abort(event(0x08n | (3n << 12n))),
  },
  {
    name: "no memory under a level-1 context table (§7.3.10)",
    scene: () => twoLevelContexts(0x12_0000n | 1n).abort(CD),
    request: { ssid: 3n },
    expected: abort(eventOf(3n, 0x09n, 0n, 0n, CD)),
  },
  // Context descriptors.
  {
    name: "no memory under the context descriptor (§7.3.10)",
    scene: () => stage1Scene().abort(CD),
    expected: abort(event(0x09n, 0n, 0n, CD)),
  },
  { name: "CD.V=0 (§5.4.2)", scene: () => stage1Scene().clear(CD, CD_BITS.V), expected: BAD_CD },
  {
    name: "CD.V=0 of a SubstreamID: the event names it (§7.3.11)",
    scene: () => withSubstreams(stage1Scene(), 0n).put(CD + 192n, 0n),
    request: { ssid: 3n },
    expected: abort(eventOf(3n, 0x0an)),
  },
  {
    name: "S=1 where the stream forbids stalls (§5.4.2)",
    scene: () =>
      stage1Scene()
        .set(STE + 8n, STE_BITS.S1STALLD)
        .set(CD, CD_BITS.S),
    expected: BAD_CD,
  },
  {
    name: "A=0 where terminating is aborting (§5.4.2)",
    scene: () =>
      stage1Scene()
        .clear(CD, CD_BITS.A)
        .identify({ IDR0: stage1Scene().identification.IDR0 | (1n << 26n) }),
    expected: BAD_CD,
  },
  { name: "AA64=0 (§5.4.2)", scene: () => stage1Scene().clear(CD, CD_BITS.AA64), expected: BAD_CD },
  {
    name: "HD where hardware updates the access flag only (§5.4.2)",
    scene: () =>
      stage1Scene()
        .set(CD, CD_BITS.HD | CD_BITS.HA)
        .identify({ IDR0: (stage1Scene().identification.IDR0 & ~(3n << 6n)) | (1n << 6n) }),
    expected: BAD_CD,
  },
  {
    name: "an ASID of 16 bits without ASID16 (§5.4.2)",
    scene: () =>
      stage1Scene()
        .set(CD, 1n << 56n)
        .identify({ IDR0: stage1Scene().identification.IDR0 & ~(1n << 12n) }),
    expected: BAD_CD,
  },
  {
    name: "T0SZ below 16 (§5.4.2)",
    scene: () =>
      stage1Scene()
        .clear(CD, 1n << 4n)
        .set(CD, 0xfn),
    expected: BAD_CD,
  },
  {
    name: "T0SZ above 39 without STT (§5.4.2)",
    scene: () =>
      stage1Scene()
        .clear(CD, 0x3fn)
        .set(CD, 40n)
        .identify({ IDR3: stage1Scene().identification.IDR3 & ~(1n << 9n) }),
    expected: BAD_CD,
  },
  { name: "TG0=11 is Reserved (§5.4.2)", scene: () => stage1Scene().set(CD, 3n << 6n), expected: BAD_CD },
  {
    name: "TG1=00 is Reserved, also for an access through TTB0 (§5.4.2)",
    scene: () =>
      stage1Scene()
        .clear(CD, CD_BITS.EPD1)
        .set(CD, 16n << 16n),
    expected: BAD_CD,
  },
  {
    name: "TTB0 beyond IPS (§5.4.2)",
    scene: () =>
      stage1Scene()
        .clear(CD, 7n << 32n)
        .set(CD + 8n, 1n << 32n),
    expected: BAD_CD,
  },
  {
    name: "what EPD0 switches off is not checked: F_TRANSLATION (§5.4.1)",
    scene: () => stage1Scene().set(CD, CD_BITS.EPD0 | (3n << 6n)),
    expected: abort(event(0x10n, READ | CLASS_IN, VA)),
  },
  {
    name: "IPS beyond the OAS counts as the OAS (§5.4)",
    scene: () => stage1Scene().set(CD, 6n << 32n),
    expected: passes(HERE),
  },
  {
    name: "the context descriptor's IPA has no translation: stage 2, CLASS CD (§7.3.13)",
    scene: () => bothScene().put(SECOND.contexts, 0n),
    expected: stage2Fault(0x10n, S2_CD, CD),
  },
  {
    name: "the context descriptor's IPA may not be read; it is a read, whatever the request (§7.3.16)",
    scene: () => bothScene().clear(SECOND.contexts, 1n << 6n),
    request: { write: true },
    expected: abort(event(0x13n, S2_CD, VA, CD)),
  },
  {
    name: "no memory under stage 2 of a context descriptor: CLASS CD (§7.3.12)",
    scene: () => bothScene().abort(SECOND.contexts),
    expected: abort(event(0x0bn, READ | S2_CD, VA, SECOND.contexts)),
  },
  {
    name: "no memory where stage 2 puts the context descriptor: F_CD_FETCH with the physical address (§7.3.10)",
    scene: () =>
      bothScene().put(SECOND.contexts, 0x40_0000n | (bothScene().memory.words.get(SECOND.contexts)! & 0xfffn)),
    expected: abort(event(0x09n, 0n, 0n, 0x40_0000n)),
  },
  {
    name: "the record of a fetch by a privileged SubstreamID (§7.3.13)",
    scene: () => withSubstreams(stage1Scene(), 0n).put(FIRST.leaf, 0n),
    request: { ssid: 3n, privileged: true, instruction: true },
    expected: abort(eventOf(3n, 0x10n, FETCH | (1n << 33n) | CLASS_IN, VA)),
  },
  {
    name: "without SubstreamID a request is Data and unprivileged (§3.9)",
    scene: () => stage1Scene().put(FIRST.leaf, IPA_PAGE | (LEAF1 & ~(1n << 6n))),
    request: { privileged: true, instruction: true },
    expected: abort(event(0x13n, READ | CLASS_IN, VA)),
  },
];
