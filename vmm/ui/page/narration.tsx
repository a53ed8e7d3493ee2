// The story: its chapters, three sentences for the one that is told, and the controls that step through it.

import { useEffect, useRef } from "preact/hooks";
import type { Recording } from "../run/recording.ts";
import { verbText } from "../story/verbs.ts";
import { showIn } from "./show-in.ts";
import { chapterAt, verbAt } from "./steps.ts";

interface Props {
  readonly recording: Recording;
  readonly row: number;
  readonly act: (action: Action) => void;
}

export type Action =
  | "event+"
  | "event-"
  | "verb+"
  | "verb-"
  | "chapter+"
  | "chapter-"
  | "fault+"
  | "fault-"
  | "cause"
  | "first"
  | "last"
  | { readonly chapter: number };

export function Narration({ recording, row, act }: Props) {
  const { chapters, columns, verbs } = recording;
  const chapter = chapterAt(recording, row);
  const told = chapters[chapter];
  const verb = verbs[verbAt(recording, row)];
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    const current = nav.current?.querySelector<HTMLElement>("[aria-current]");
    if (current !== null && current !== undefined) showIn(nav.current!, current);
  }, [chapter]);
  return (
    <section class="narration" aria-label="Story">
      {chapters.length === 0 ? null : (
        <nav class="chapters" aria-label="Chapters" ref={nav}>
          {chapters.map(({ title }, n) => (
            <button
              type="button"
              key={n}
              aria-current={n === chapter ? "step" : undefined}
              onClick={() => act({ chapter: n })}
            >
              <span class="n">{n + 1}</span> {title}
            </button>
          ))}
        </nav>
      )}
      {told === undefined || told.says.length === 0 ? null : (
        <p class="says" aria-live="polite">
          {told.says.map((sentence) => (
            <span key={sentence}>{sentence} </span>
          ))}
        </p>
      )}
      {recording.ended === null ? null : <p class="problem">It ended early. {recording.ended}</p>}
      <div class="controls" role="toolbar" aria-label="Steps">
        <button
          type="button"
          onClick={() => act("chapter-")}
          title="previous chapter (Page Up)"
          disabled={chapters.length === 0}
        >
          «<span class="hidden"> previous chapter</span>
        </button>
        <button type="button" onClick={() => act("event-")} title="one event back (←)">
          ◀ <span class="word">back</span>
        </button>
        <button type="button" onClick={() => act("event+")} title="one event on (→)">
          <span class="word">step</span> ▶
        </button>
        <button
          type="button"
          class="primary"
          onClick={() => act("chapter+")}
          title="next chapter (Page Down)"
          disabled={chapters.length === 0}
        >
          next chapter »
        </button>
        <button type="button" onClick={() => act("fault+")} title="next fault (F)">
          next fault
        </button>
        <button type="button" onClick={() => act("cause")} title="what caused this (C)">
          its cause
        </button>
        <span class="position">
          {columns.rows === 0
            ? "no event"
            : `event ${columns.seq[row]} of ${columns.seq[columns.rows - 1]} · ${columns.time[row]! / 1000} µs`}
          {verb === undefined ? "" : ` · ${verbText(verb.verb)}`}
        </span>
      </div>
    </section>
  );
}
