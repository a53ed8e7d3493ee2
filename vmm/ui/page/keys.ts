// Keys and what they do: everything that steps is a key.

import type { Action } from "./narration.tsx";

export const KEYS: readonly (readonly [keys: string, what: string])[] = [
  ["→  ←", "one event on, back"],
  ["Shift →  Shift ←", "one deed on, back (a mapping, a DMA, an invalidation)"],
  ["Page Down  Page Up", "next, previous chapter"],
  ["1 … 9", "that chapter"],
  ["F  Shift F", "next, previous fault or refusal"],
  ["C", "to what caused this event"],
  ["Home  End", "first, last event"],
  ["/", "filter events"],
  ["?", "this help"],
];

const ACTIONS: Readonly<Record<string, Action | "help" | "filter">> = {
  ArrowRight: "event+",
  ArrowLeft: "event-",
  "Shift ArrowRight": "verb+",
  "Shift ArrowLeft": "verb-",
  PageDown: "chapter+",
  PageUp: "chapter-",
  f: "fault+",
  "Shift F": "fault-",
  c: "cause",
  Home: "first",
  End: "last",
  "/": "filter",
  "?": "help",
  "Shift ?": "help",
};

/** What a key asks for; null for one that is somebody else's. */
export function keyAction(event: KeyboardEvent): Action | "help" | "filter" | null {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const target = event.target as HTMLElement | null;
  if (target?.closest("input, select, textarea, dialog") != null) return null;
  if (/^[1-9]$/.test(event.key)) return { chapter: Number(event.key) - 1 };
  return ACTIONS[event.shiftKey ? `Shift ${event.key}` : event.key] ?? null;
}
