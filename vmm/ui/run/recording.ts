// What a run or a trace file comes to, for the page: the trace as columns, and what is known about its course. Plain data: a worker makes it.

import type { TraceColumns } from "../../view/trace-index.ts";
import type { ViommuKindName } from "../../viommu/kinds.ts";
import type { PlayedVerb } from "../story/play.ts";
import type { Insert } from "../story/verbs.ts";

/** What can be run, as often as it takes: the same each time. */
export type Run =
  | {
      readonly what: "story";
      readonly story: string;
      readonly kind: ViommuKindName;
      readonly inserts: readonly Insert[];
      /** Verbs after which it ends; left out: all. */
      readonly verbs?: number;
    }
  /** A scenario of a module that is served beside the page; `index` among its scenarios. */
  | { readonly what: "scenario"; readonly module: string; readonly index: number; readonly seed: number }
  /** A guest image: one that was transpiled when the page was built, or a dropped file's bytes. */
  | { readonly what: "image"; readonly name: string; readonly bytes?: Uint8Array; readonly kind: ViommuKindName };

/** A part of a run with a name. */
export interface Chapter {
  readonly title: string;
  readonly says: readonly string[];
  /** Number of the last event before it. */
  readonly before: number;
}

export interface Recording {
  readonly title: string;
  readonly columns: TraceColumns;
  readonly chapters: readonly Chapter[];
  /** Of a story. */
  readonly verbs: readonly PlayedVerb[];
  /** What runs again to look at a moment; null for a trace that was made elsewhere. */
  readonly run: Run | null;
  /** The guest's name of each device of the host's that it was given, as far as the run says: a trace alone knows it by vDEVICEs only. */
  readonly guests: readonly (readonly [host: string, guest: string])[];
  /** How it ended, if not as it should have; and what the VMM reported on the way. */
  readonly ended: string | null;
  readonly messages: readonly string[];
}

/** An access somebody wants to know about. */
export interface Place {
  /** The host's name of the device. */
  readonly device: string;
  readonly iova: bigint;
}
