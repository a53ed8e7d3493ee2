// Moving through a recording: to the next event, the next verb or chapter, the next fault, the cause. Rows in, rows out.

import { EVENT_TYPES, FLAG_FAILED } from "../../view/trace-index.ts";
import type { Recording } from "../run/recording.ts";

const DMA = EVENT_TYPES.indexOf("dma");
const FAULT = EVENT_TYPES.indexOf("fault");
const WALK = EVENT_TYPES.indexOf("walk");

/** Row of the last event whose number is not above `seq`; 0 where there is none. */
export function rowUpTo({ columns }: Recording, seq: number): number {
  let found = 0;
  for (let low = 0, high = columns.rows; low < high; ) {
    const middle = (low + high) >>> 1;
    if (columns.seq[middle]! <= seq) {
      found = middle;
      low = middle + 1;
    } else high = middle;
  }
  return found;
}

/** Where a chapter is told: after its last verb; without verbs, at its first event. */
export function chapterRow(recording: Recording, chapter: number): number {
  const last = recording.verbs.findLast(({ beat }) => beat === chapter);
  if (last !== undefined) return rowUpTo(recording, last.last);
  return Math.min(rowUpTo(recording, recording.chapters[chapter]?.before ?? 0) + 1, recording.columns.rows - 1);
}

/** The chapter that a row is in; -1 before the first. */
export function chapterAt({ chapters, columns }: Recording, row: number): number {
  return chapters.findLastIndex(({ before }) => columns.seq[row]! > before);
}

/** Index of the verb that was the last to begin by a row; -1 before the first. */
export function verbAt({ verbs, columns }: Recording, row: number): number {
  return verbs.findLastIndex(({ before, last }) => columns.seq[row]! > before || columns.seq[row]! >= last);
}

/** The end of the verb after (before) the one a row is in; the last (first) row where there is none. */
export function verbStep(recording: Recording, row: number, by: 1 | -1): number {
  const ends = recording.verbs.map(({ last }) => rowUpTo(recording, last));
  if (by === 1) return ends.find((end) => end > row) ?? recording.columns.rows - 1;
  return ends.findLast((end) => end < row) ?? 0;
}

/** Where a recording is shown first. A story: where its first chapter is told. Another: at its first fault or aborted DMA, else its first refusal, else where it begins. */
export function openingRow(recording: Recording): number {
  const { columns, run } = recording;
  if (run?.what === "story") return chapterRow(recording, 0);
  for (let row = 0; row < columns.rows; row++) {
    const type = columns.type[row]!;
    if ((columns.flags[row]! & FLAG_FAILED) !== 0 && (type === DMA || type === FAULT)) return row;
  }
  return nextFault(recording, -1, 1) ?? chapterRow(recording, 0);
}

export function nextFault({ columns }: Recording, row: number, by: 1 | -1): number | null {
  for (let at = row + by; at >= 0 && at < columns.rows; at += by) {
    if ((columns.flags[at]! & FLAG_FAILED) !== 0 && columns.type[at] !== WALK) return at;
  }
  return null;
}
