/** Translation requests (§4.1): what is granted, and what is recorded of those that are refused. */
import { type Case, nothing, refused } from "./expected.ts";
import {
  ADDRESS,
  CONTEXT,
  CONTEXT_BITS,
  DIRECTORY,
  ENTRY,
  entryBits,
  FIRST,
  FPD,
  FS,
  FS_ALL,
  firstScene,
  GUEST_PAGE,
  LEAF_OF_DATA,
  LEGACY_CONTEXT,
  legacyScene,
  nestedScene,
  PAGE,
  PASID,
  passScene,
  Q2,
  ROOT,
  type Scene,
  SECOND,
  SS,
  SSADE,
  secondScene,
  withTT,
} from "./scene.ts";

const ask = { kind: "translation" } as const;
const askWrite = { kind: "translation", access: "write" } as const;

const of = (name: string, scene: () => Scene, expected: Case["expected"], request: Case["request"] = ask): Case => ({
  name: `ATS: ${name}`,
  scene,
  expected,
  request,
});
const grants = (address: bigint, w: boolean, stored: Case["expected"]["stored"] = []): Case["expected"] => ({
  result: { status: "success", r: true, w, address },
  record: null,
  stored,
});

export const ATS_CASES: readonly Case[] = [
  of("legacy with TT=1", withTT(1n), grants(PAGE | 0xabcn, true), askWrite),
  of("legacy with TT=0: LCT.5, UR", legacyScene, refused("unsupported-request", 0x0dn)),
  of("legacy, root absent: UR", () => withTT(1n)().clear(ROOT, 1n), refused("unsupported-request", 0x01n)),
  of("legacy, root unreadable: CA", () => withTT(1n)().fail(ROOT), refused("completer-abort", 0x08n)),
  of(
    "legacy, context reserved: CA",
    () => withTT(1n)().set(LEGACY_CONTEXT, 1n << 4n),
    refused("completer-abort", 0x0bn),
  ),
  of("legacy, not present: no rights, no record", () => withTT(1n)().put(SECOND[2], 0n), nothing),
  of("legacy, only R", () => withTT(1n)().clear(SECOND[3], SS.W), grants(PAGE | 0xabcn, false), askWrite),
  of("first stage", firstScene, grants(GUEST_PAGE | 0xabcn, true), askWrite),
  of("DTE=0: SCT.5, UR", () => firstScene().clear(CONTEXT, CONTEXT_BITS.DTE), refused("unsupported-request", 0x44n)),
  of("context absent: UR", () => firstScene().clear(CONTEXT, 1n), refused("unsupported-request", 0x41n)),
  of("context absent with FPD: UR, no record", () => firstScene().clear(CONTEXT, 1n).set(CONTEXT, FPD), {
    result: { status: "unsupported-request" },
    record: null,
  }),
  of("directory unreadable: CA", () => firstScene().fail(DIRECTORY), refused("completer-abort", 0x50n)),
  of("PASID entry absent: UR", () => entryBits(firstScene(), 0, 0n, 1n), refused("unsupported-request", 0x59n)),
  of("PASID entry reserved: CA", () => firstScene().put(ENTRY + 24n, 1n), refused("completer-abort", 0x5an)),
  of("first stage absent: no rights, no record", () => firstScene().clear(FIRST[1], 1n), nothing),
  of("first stage U/S=0: no rights, no record", () => firstScene().clear(FIRST[1], FS.US), nothing),
  of("first stage reserved: CA", () => firstScene().set(FIRST[4], FS.PS), refused("completer-abort", 0x72n)),
  of(
    "first stage R/W=0: R only",
    () => firstScene().clear(FIRST[1], FS.RW),
    grants(GUEST_PAGE | 0xabcn, false),
    askWrite,
  ),
  of(
    "a grant to write marks the leaf dirty",
    () => firstScene().clear(FIRST[1], FS.D),
    grants(GUEST_PAGE | 0xabcn, true, [[FIRST[1], GUEST_PAGE | FS_ALL | FS.A | FS.D]]),
    askWrite,
  ),
  of("a read request marks the leaf accessed", () => firstScene().put(FIRST[1], GUEST_PAGE | FS_ALL), {
    result: { status: "success", r: true, address: GUEST_PAGE | 0xabcn },
    record: null,
    stored: [[FIRST[1], GUEST_PAGE | FS_ALL | FS.A]],
  }),
  of(
    "a supervisor has Priv in the completion",
    () => entryBits(firstScene(), 2, Q2.SRE),
    { result: { status: "success", r: true, w: true, priv: true }, record: null },
    { ...askWrite, pasid: PASID, privileged: true },
  ),
  of("pass-through", passScene, grants(ADDRESS, true), askWrite),
  of(
    "nested: rights of both stages",
    () => nestedScene().clear(LEAF_OF_DATA, SS.W),
    grants(PAGE | 0xabcn, false),
    askWrite,
  ),
  of("nested: the data absent: no rights, no record", () => nestedScene().put(LEAF_OF_DATA, 0n), nothing),
  of(
    "second stage with SSADE: a page that may only be written, and is dirty: granting that marks it accessed",
    () => {
      const scene = entryBits(secondScene(), 0, SSADE);
      for (const at of SECOND.slice(2, 5)) scene.set(at, SS.A);
      return scene.put(SECOND[1], PAGE | SS.W | SS.D);
    },
    {
      result: { status: "success", r: false, w: true },
      record: null,
      stored: [[SECOND[1], PAGE | SS.W | SS.D | SS.A]],
    },
    askWrite,
  ),
  of(
    "second stage with SSADE: no D without the right to write",
    () => {
      const scene = entryBits(secondScene(), 0, SSADE).clear(SECOND[1], SS.W);
      for (const at of SECOND.slice(1, 5)) scene.set(at, SS.A);
      return scene;
    },
    grants(PAGE | 0xabcn, false),
    askWrite,
  ),
];
