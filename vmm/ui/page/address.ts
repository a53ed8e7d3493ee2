// What is on screen, as the part of an address behind "#": a link to a moment opens it elsewhere. Whatever an address says is checked: what does
// not fit is left out.

import { VIOMMU_KINDS, type ViommuKindName } from "../../viommu/kinds.ts";
import type { Insert, Verb } from "../story/verbs.ts";

export interface PaneAddress {
  readonly kind: ViommuKindName;
  /** Number of the event; -1: wherever a recording opens. */
  readonly at: number;
}

export interface PageAddress {
  /** What is told: a story, a built-in image, a scenario's module and number. */
  readonly show:
    | { readonly what: "story" | "image"; readonly name: string }
    | { readonly what: "scenario"; readonly name: string; readonly index: number };
  readonly seed: number;
  readonly panes: readonly PaneAddress[];
  readonly inserts: readonly Insert[];
}

const MOST_INSERTS = 32;
const kinds = Object.keys(VIOMMU_KINDS) as ViommuKindName[];

export function addressText({ show, seed, panes, inserts }: PageAddress): string {
  const parts = [
    `${show.what}=${encodeURIComponent(show.name)}`,
    ...(show.what === "scenario" ? [`index=${show.index}`] : []),
    `seed=${seed}`,
    `kind=${panes.map(({ kind }) => kind).join(",")}`,
    `at=${panes.map(({ at }) => at).join(",")}`,
    ...inserts.map((insert) => `put=${insertText(insert)}`),
  ];
  return `#${parts.join("&")}`;
}

export function parseAddress(hash: string): PageAddress | null {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const what = (["story", "image", "scenario"] as const).find((name) => parts.has(name));
  if (what === undefined) return null;
  const name = parts.get(what)!;
  if (!/^[\w.-]{1,100}$/.test(name)) return null;
  const ats = (parts.get("at") ?? "").split(",").map(wholeNumber);
  const named = (parts.get("kind") ?? "")
    .split(",")
    .filter((kind): kind is ViommuKindName => Object.hasOwn(VIOMMU_KINDS, kind));
  const panes = (named.length === 0 ? [kinds[0]!] : named.slice(0, 2)).map((kind, i) => ({ kind, at: ats[i] ?? -1 }));
  const index = wholeNumber(parts.get("index") ?? "0") ?? 0;
  return {
    show: what === "scenario" ? { what, name, index } : { what, name },
    seed: wholeNumber(parts.get("seed") ?? "0") ?? 0,
    panes,
    inserts: parts.getAll("put").slice(0, MOST_INSERTS).flatMap(parseInsert),
  };
}

function wholeNumber(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** "4:flip:0x8058a01020:0", "4:read:00:02.0:0x4000": behind which verb, what. */
function insertText({ after, verb }: Insert): string {
  if (verb.do === "flip") return `${after}:flip:0x${verb.spa.toString(16)}:${verb.bit}`;
  if (verb.do === "read" || verb.do === "write") {
    const at = typeof verb.at === "string" ? verb.at : `0x${verb.at.toString(16)}`;
    return `${after}:${verb.do}:${at}:${verb.device}`;
  }
  throw new Error(`nobody puts in a "${verb.do}"`);
}

function parseInsert(text: string): Insert[] {
  const flip = /^(\d{1,4}):flip:(0x[0-9a-f]{1,14}):(\d{1,2})$/.exec(text);
  if (flip !== null && Number(flip[3]) < 64) {
    return [{ after: Number(flip[1]), verb: { do: "flip", spa: BigInt(flip[2]!), bit: Number(flip[3]) } }];
  }
  const access = /^(\d{1,4}):(read|write):(0x[0-9a-f]{1,16}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$/.exec(text);
  if (access === null) return [];
  const verb: Verb = { do: access[2] as "read" | "write", at: BigInt(access[3]!), device: access[4]! };
  return [{ after: Number(access[1]), verb }];
}
